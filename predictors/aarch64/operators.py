"""What each node of an ONNX graph consists of, as ONNX Runtime runs it on aarch64.

A kind of operator has one form, that is, the instructions that one of each counted thing takes:
`forms[kind][counted][thing]`. A node is of some kind, and has so many of each thing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from predictors.aarch64.kernels import Conv, Counts, Pair, Window, count_conv, count_product
from predictors.aarch64.node import (
    COMPUTED,
    LOOKED_UP,
    RANK,
    SMALL,
    Node,
    Shape,
    UnknownOperatorError,
    operator_of,
)

Counted = Literal["instructions", "fma_instructions"]
Forms = Mapping[str, Mapping[Counted, Mapping[str, float]]]

ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid")  # fused into a Conv
_FEW_ROWS = 16  # of a product; fewer were not counted, and of more a last single row hardly matters
_OTHER_TYPES = ("float16", "float64", "bfloat16")  # have kernels of their own


class Work(NamedTuple):
    """What a node runs: so many of the counted things of a kind of operator."""

    kind: str
    counts: Counts

    def instructions(self, forms: Forms) -> tuple[float, float]:
        """Return its instructions, and how many of them are vector multiply-adds."""
        form = forms[self.kind]
        total, fma = (
            sum(c * self.counts.get(name, 0) for name, c in form[counted].items())
            for counted in ("instructions", "fma_instructions")
        )
        return total, fma


def count_node(node: Node) -> Work:
    """Return what a node runs; those of `UNCOUNTED` are taken for something like them.

    Raises:
        UnknownOperatorError: if its operator, or what it is asked to do, is not known.
    """
    name, elements = operator_of(node), math.prod(node.output)
    if elements == 0 and name in OPERATORS:
        return _view(node)
    if elements > SMALL and node.dtype in _OTHER_TYPES:
        raise UnknownOperatorError(f"the operator {name} on numbers of {node.dtype}")
    if name in OPERATORS:
        return OPERATORS[name](node)
    if name in UNCOUNTED:
        elements = max(math.prod(shape) for shape in (node.output, *node.inputs[:1]))
        return Work(UNCOUNTED[name], {"one": 1, "elements": elements})
    raise UnknownOperatorError(f"the operator {name}")


def _conv(node: Node) -> Work:
    """A Conv; a batch of images repeats all but the start. One of one dimension is a flat map."""
    batch, c_in, *size = node.inputs[0]
    dims = len(size)
    before, after = _padding(node, size)
    window = Window(
        size=_pair(size, 1),
        out=_pair(node.output[2:], 1),
        kernel=_pair(node.inputs[1][2:], 1),
        stride=_pair(node.numbers("strides", (1,) * dims), 1),
        before=_pair(before, 0),
        after=_pair(after, 0),
        dilation=_pair(node.numbers("dilations", (1,) * dims), 1),
    )
    conv = Conv(
        c_in=c_in,
        c_out=node.inputs[1][0],
        window=window,
        groups=node.number("group", 1),
        bias=len(node.inputs) > 2 and bool(node.inputs[2]),
        activation=node.activation,
        summand=node.summand,
    )
    kind, counts = count_conv(conv)
    if batch == 1:
        return Work(kind, counts)
    return Work(kind, {name: n * (1 if name == "one" else batch) for name, n in counts.items()})


def _pair(values: Sequence[int], missing: int) -> Pair:
    if len(values) > len(Pair._fields):
        raise UnknownOperatorError(f"a convolution over {len(values)} dimensions")
    y, x = (missing, *values)[-2:]
    return Pair(y, x)


def _padding(node: Node, size: Sequence[int]) -> tuple[Shape, Shape]:
    """What is added before and after each side; SAME leaves the odd one to the end, or begin."""
    dims = len(size)
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        pads = node.numbers("pads", (0,) * 2 * dims)
        return pads[:dims], pads[dims:]
    strides, dilations = (node.numbers(name, (1,) * dims) for name in ("strides", "dilations"))
    sides = zip(size, node.output[2:], strides, node.inputs[1][2:], dilations, strict=True)
    whole = [max((out - 1) * s + (k - 1) * d + 1 - side, 0) for side, out, s, k, d in sides]
    halves = tuple(pad // 2 for pad in whole)
    rest = tuple(pad - pad // 2 for pad in whole)
    return (halves, rest) if auto == "SAME_UPPER" else (rest, halves)


def _conv_transpose(node: Node) -> Work:
    """A product whose columns are then added up in the output."""
    (batch, c_in, *size), weight = node.inputs[:2]
    rows = math.prod(weight[1:])
    counts = count_product(rows, math.prod(size), c_in)
    macs = sum(counts.get(f"macs_{i}", 0) for i in (1, 2, 4))
    columns = rows * math.prod(size)
    return Work("conv_transpose", {"macs": batch * macs, "columns": batch * columns})


def _gemm(node: Node) -> Work:
    """A product that is added to a bias, if there is one; a matrix that is known is packed."""
    m, k = node.inputs[0][::-1] if node.number("transA") else node.inputs[0]
    n = node.inputs[1][0 if node.number("transB") else 1]
    bias = len(node.inputs) > 2
    if not node.constant:
        return _product(node, (m, n, k), bias=bias)
    counts = count_product(m, n, k, accumulate=bias, packed=True)
    return Work("gemm", {**counts, "one": 1, "outputs": m * n * bias})


def _matmul(node: Node) -> Work:
    """A product; that of several matrices with the same one is a single one."""
    left, right = node.inputs[:2]
    if min(len(left), len(right)) < 2:
        raise UnknownOperatorError(f"the operator {node.op} with a vector")
    *rest, m, n = node.output
    across = node.number("transA")
    k, batch = left[-2] if across else left[-1], math.prod(rest)
    if node.constant and len(right) == 2:
        return Work("matmul_constant", {**count_product(batch * m, n, k, packed=True), "one": 1})
    if not across and len(left) >= len(right) and math.prod(right[:-2]) == 1:
        m, batch = batch * m, 1
    return _product(node, (m, n, k), batch=batch)


def _product(node: Node, sides: Shape, *, batch: int = 1, bias: bool = False) -> Work:
    """Products of m x k by k x n, of which neither side is known beforehand."""
    m, n, k = sides
    across, transposed = node.number("transA"), node.number("transB")
    counts = count_product(m, n, k, accumulate=bias, transposed=bool(across or transposed))
    found = {name: batch * count for name, count in counts.items()}
    found |= {"transposed_left": batch * m * k * across}
    found |= {"transposed_right": batch * k * n * transposed}
    found |= {"outputs": batch * m * n * bias}
    if m < _FEW_ROWS:
        found["macs_1_of_few"] = found.get("macs_1", 0)
    return Work("matmul", {**found, "one": 1, "batch": batch})


def _binary(node: Node) -> Work:
    """Add, Max and the like: of equal shapes, with a number, or with spans that are repeated."""
    if len(node.inputs) == 1:
        return _copied(node)
    how, counts = _broadcast(*node.inputs[:2])
    return Work(f"binary_{how}", {**counts, "one": 1, "elements": math.prod(node.output)})


def _power(node: Node) -> Work:
    _, counts = _broadcast(*node.inputs[:2])
    return Work(node.op.lower(), {**counts, "one": 1, "elements": math.prod(node.output)})


def _broadcast(left: Shape, right: Shape) -> tuple[Literal["same", "scalar", "spans"], Counts]:
    """How two shapes go together; a span is as many elements as go one way, from the last on."""
    rank = max(len(left), len(right))
    a, b = ((1,) * (rank - len(shape)) + shape for shape in (left, right))
    if a == b:
        return "same", {}
    if 1 in (math.prod(a), math.prod(b)):
        return "scalar", {}
    sides = [(x, y) for x, y in zip(a, b, strict=True) if (x, y) != (1, 1)]
    ways = [(x == y) - (x == 1) for x, y in sides]  # equal, the left repeated, the right
    same = next((i for i, way in enumerate(reversed(ways)) if way != ways[-1]), len(ways))
    length = math.prod(max(pair) for pair in sides[len(sides) - same :])
    elements = math.prod(max(pair) for pair in sides)
    spans = elements // length
    vectors = elements * (ways[-1] == 1)
    return "spans", {
        "spans": spans,
        "span_tails": spans * (length % 4),
        "vector_elements": vectors,
    }


def _concat(node: Node) -> Work:
    return _pieces("concat", node, node.output, len(node.inputs))


def _split(node: Node) -> Work:
    return _pieces("split", node, node.inputs[0], node.outputs)


def _pieces(kind: str, node: Node, whole: Shape, tensors: int) -> Work:
    """One copy a tensor, or, if the axis is not the outermost, one for each step of those."""
    outer = math.prod(whole[: node.number("axis") % len(whole)])
    copies = outer * tensors if outer > 1 else 0
    counts = {"one": 1, "elements": math.prod(whole), "tensors": tensors, "copies": copies}
    return Work(kind, counts)


def _slice(node: Node) -> Work:
    """Blocks that are copied whole; with steps, element by element."""
    given, kept = node.inputs[0], node.output
    elements = math.prod(kept)
    counts = {"one": 1, "elements": elements}
    if set(node.numbers("steps", (1,))) != {1}:
        counts |= {"strided_elements": elements, "copies": elements // max(kept[-1], 1)}
        return Work("slice", counts)
    cut = [i for i, (x, y) in enumerate(zip(given, kept, strict=True)) if x != y]
    block = math.prod(kept[cut[-1] :]) if cut else elements
    return Work("slice", {**counts, "copies": elements // max(block, 1)})


def _transpose(node: Node) -> Work:
    """By what moves: nothing, whole blocks, one axis, or more than one."""
    shape = node.inputs[0]
    order = node.numbers("perm", tuple(range(len(shape)))[::-1])
    moved = [axis for axis in order if shape[axis] != 1]
    elements = math.prod(shape)
    counts = {"one": 1, "elements": elements}
    if moved == sorted(moved):
        return Work("transpose_nothing", counts)
    one_axis = any(_sorted_without(order, axis) for axis in order)
    if moved[-1] != max(moved):
        return Work("transpose_axis" if one_axis else "transpose_axes", counts)
    kept = [a == b for a, b in zip(moved, sorted(moved), strict=True)][::-1].index(False)
    block = math.prod(shape[axis] for axis in moved[-kept:])
    if one_axis and block <= 2:
        return Work("transpose_pairs", counts)
    kind = "transpose_blocks_of_axis" if one_axis else "transpose_blocks"
    return Work(kind, {**counts, "copies": elements // block})


def _sorted_without(order: Sequence[int], axis: int) -> bool:
    rest = [a for a in order if a != axis]
    return rest == sorted(rest)


def _pool(node: Node) -> Work:
    """Windows over each channel, which have a slow loop of their own from opset 19 on."""
    if len(node.output) > RANK:
        raise UnknownOperatorError(f"the operator {node.op} over {len(node.output) - 2} dimensions")
    elements, (_, channels, *size) = math.prod(node.output), node.output
    height, width = _pair(size, 1)
    kernel = _pair(node.numbers("kernel_shape", (1,) * len(size)), 1)
    rows = channels * height
    if node.op == "AveragePool" and node.opset >= 19:
        window = elements * math.prod(kernel)
        counts = {"window_outputs": window, "rows": rows, "channels": channels}
        return Work("averagepool_19", {**counts, "one": 1})
    strided = max(node.numbers("strides", (1, 1))) > 1
    return Work(
        node.op.lower(),
        {
            "one": 1,
            "strided_outputs" if strided else "dense_outputs": elements,
            "kernel_outputs": elements * kernel[1],
            "tail_outputs": elements // width * (width % 4),
            "kernel_rows": rows * kernel[0],
            "input_rows": rows * kernel[0] * node.inputs[0][-1],
            "channels": channels,
        },
    )


def _reduce(node: Node) -> Work:
    """By whether the last axis is among those that go; without any it may copy."""
    shape = node.inputs[0]
    counts = {"one": 1, "elements": math.prod(shape), "outputs": math.prod(node.output)}
    if node.op == "GlobalAveragePool":
        return Work("globalaveragepool", counts)
    if not shape:
        return _view(node)
    if node.number("noop_with_empty_axes") and not node.numbers("axes", ()):
        return _copied(node)
    last = max(axis % len(shape) for axis in node.numbers("axes", (-1,)))
    kind = "reducel2" if node.op == "ReduceL2" else "reducemean"
    return Work(f"{kind}_{'inner' if math.prod(shape[last + 1 :]) == 1 else 'outer'}", counts)


def _along_rows(node: Node) -> Work:
    """What goes along the last axis, row by row, or only writes it so."""
    elements, width = math.prod(node.output), node.output[-1]
    rows = elements // width
    counts = {"one": 1, "elements": elements, "rows": rows, "tails": rows * (width % 4)}
    return Work(node.op.lower(), counts)


def _along_channels(node: Node) -> Work:
    channels, positions = math.prod(node.inputs[0][:2]), math.prod(node.inputs[0][2:])
    tails = channels * (positions % 4)
    counts = {"one": 1, "elements": math.prod(node.output), "channels": channels, "tails": tails}
    return Work(node.op.lower(), counts)


def _resize(node: Node) -> Work:
    mode = node.attributes.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise UnknownOperatorError(f"the mode {mode} of {node.op}")
    if node.number("antialias"):
        raise UnknownOperatorError("the antialias of Resize")
    if len(node.output) != RANK:
        raise UnknownOperatorError(f"the operator Resize over {len(node.output)} sides")
    if node.output == node.inputs[0]:
        return _copied(node)
    outputs = math.prod(node.output)
    rows = outputs // node.output[-1]
    if operator_of(node) == f"{node.op} {LOOKED_UP}":
        return Work("resize_nearest", {"one": 1, "looked_up": outputs, "looked_up_rows": rows})
    counts = {"outputs": outputs, "rows": rows, "channels": node.output[1]}
    return Work(f"resize_{mode}", {**counts, "one": 1})


def _elementwise(node: Node) -> Work:
    return Work(node.op.lower(), {"one": 1, "elements": math.prod(node.output)})


def _gelu(node: Node) -> Work:
    """Loops around an erf, or a tanh, of numbers to which a bias may be added."""
    kind = "tanh" if node.op == "FastGelu" or operator_of(node) == "Gelu by tanh" else "gelu"
    elements, bias = math.prod(node.output), node.op != "Gelu" and len(node.inputs) > 1
    counts = {"one": 1, "elements": elements, "gelu_elements": elements}
    return Work(kind, counts | {"biased": elements * bias})


def _view(_: Node) -> Work:
    return Work("reshape", {"one": 1})


def _copied(node: Node) -> Work:
    """A view of a shape or an index; of a map it is a copy, as `concat` makes."""
    elements = math.prod(node.output)
    if elements <= SMALL:
        return _view(node)
    return Work("concat", {"one": 1, "elements": elements})


def _gather(node: Node) -> Work:
    """A copy of each block that is taken, as `slice` makes."""
    given, elements = node.inputs[0], math.prod(node.output)
    if elements <= SMALL:
        return _view(node)
    block = math.prod(given[node.number("axis") % len(given) + 1 :])
    return Work("slice", {"one": 1, "elements": elements, "copies": elements // block})


def _negated(node: Node) -> Work:
    """A loop like that of Abs."""
    return Work("abs", {"one": 1, "elements": math.prod(node.output)})


def _each(operators: str, count: Callable[[Node], Work]) -> dict[str, Callable[[Node], Work]]:
    return dict.fromkeys(operators.split(), count)


OPERATORS: Mapping[str, Callable[[Node], Work]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("Gemm", COMPUTED), _gemm),
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Transpose": _transpose,
    **_each("Resize Upsample", _resize),
    **dict.fromkeys((f"Resize {LOOKED_UP}", f"Upsample {LOOKED_UP}"), _resize),
    **_each("MatMul FusedMatMul", _matmul),
    **_each("Add Mul Sub Div Sum Max Min", _binary),
    **_each("PRelu Pow", _power),
    **_each("MaxPool AveragePool", _pool),
    **_each("GlobalAveragePool ReduceMean ReduceSum ReduceL2", _reduce),
    **_each("Softmax LayerNormalization SkipLayerNormalization Pad", _along_rows),
    **_each("InstanceNormalization BatchNormalization", _along_channels),
    **_each("Abs Clip Erf Exp HardSigmoid LeakyRelu QuickGelu Relu", _elementwise),
    **_each("Sigmoid Sqrt Tanh", _elementwise),
    **_each("Reshape Flatten Squeeze Unsqueeze Shape Identity", _view),
    **_each("Cast Expand Tile", _copied),
    **dict.fromkeys(("Gelu", "Gelu by tanh", "BiasGelu", "FastGelu"), _gelu),
    "Gather": _gather,
    "Neg": _negated,
}

# What was not counted is taken for what was, of which it has the elements: a few instructions each,
# among which a sigmoid's eight are in between, a Gelu's 22, the 48 of a transpose of many axes, or
# the 1.5 of a loop over vectors.
_LIKE: Mapping[str, str] = {
    "sigmoid": "And, ArgMax, ArgMin, Ceil, Celu, ConstantOfShape, Elu, Equal, Floor, "
    "GatherND, GlobalMaxPool, Greater, GreaterOrEqual, Less, LessOrEqual, Log, LpNormalization, "
    "Mean, Not, OneHot, Or, Range, Reciprocal, ReduceL1, ReduceL2 over outer sides, "
    "ReduceMax, ReduceMean over sides in between, ReduceMin, ReduceProd, "
    "ReduceSum over sides in between, ReduceSumSquare, Round, ScatterND, Selu, Sign, Softsign, "
    "ThresholdedRelu, Trilu, Where, Xor",
    "gelu": "Cos, CumSum, GatherElements, Mish, Mod, Pad by edge, "
    "Pad by reflect, Pow by other than 2 and 3, "
    "ScatterElements, Sin, Softplus",
    "transpose_axes": "DepthToSpace, SpaceToDepth",
    "abs": "Cast of a map",
}
UNCOUNTED: Mapping[str, str] = {
    name: kind for kind, names in _LIKE.items() for name in names.split(", ")
}
