"""What a config's layer records stand for in its exported graph, and their instructions.

One formula serves one network and, on records whose numbers are arrays, a million at once: each
distinct shape is counted once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictors.aarch64.node import Node, Value
from predictors.aarch64.operators import Forms, Work, count_node
from search_spaces.layers import QUERY_WIDTH, Layer, Op

Numbers = float | NDArray[np.float64]  # of one network, or of n of them with shape [n]

_FUSED = {"relu": "Relu", "hard_sigmoid": "HardSigmoid"}  # into the convolution before
_NUMBERS = ("c_in", "c_out", "height", "width", "kernel", "stride", "groups", "padded")


class LayerShape(NamedTuple):
    """What the instructions of one repeat of a layer depend on."""

    op: Op
    c_in: int
    c_out: int
    height: int
    width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    padded: bool = False
    bias: bool = False


Count = Callable[[LayerShape], tuple[float, float]]  # instructions, and multiply-adds among them


def shape_of(layer: Layer) -> LayerShape:
    """Return the shape of a layer; where its numbers are arrays, the shape's are."""
    numbers = [getattr(layer, name) for name in _NUMBERS]
    return LayerShape._make((layer.op, *numbers, layer.norm or layer.bias))


def count_instructions(
    layers: Iterable[Layer], forms: Forms, *, count: Count | None = None
) -> tuple[Numbers, Numbers]:
    """Return the instructions of one run, and how many of them are vector multiply-adds.

    `count` is `count_shape` with these forms, by who remembers what it returned.
    """
    total: Any = forms["run"]["instructions"]["one"]
    fma: Any = 0.0
    for layer in layers:
        counted = _count_each(layer, count or partial(count_shape, forms=forms))
        total = total + layer.repeat * counted[0]
        fma = fma + layer.repeat * counted[1]
    return total, fma


def _count_each(layer: Layer, count: Count) -> tuple[Any, Any]:
    """One repeat of a layer, or of that layer in each of n networks; 0 where it does not stand."""
    numbers = shape_of(layer)[1:]
    if not any(isinstance(number, np.ndarray) for number in (*numbers, layer.repeat)):
        return count(LayerShape(layer.op, *numbers))
    there = np.asarray(layer.repeat) > 0
    columns = np.broadcast_arrays(there, *numbers)
    found = np.zeros((2, len(columns[0])))
    stands = np.flatnonzero(columns[0])
    if len(stands):
        rows, which = _distinct([column[stands].astype(np.int64) for column in columns[1:]])
        counts = [count(LayerShape(layer.op, *row)) for row in rows.tolist()]
        found[:, stands] = np.array(counts).T[:, which]
    return found[0], found[1]


def _distinct(columns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The distinct rows of columns of whole numbers, and which of them each row is.

    Without sorting, which a million rows would wait for: the numbers are small.
    """
    code = np.zeros(len(columns[0]), np.intp)
    for column in columns:
        if (column != column[0]).any():
            own = _ranks(column)
            code = _ranks(code * (own.max() + 1) + own)
    last = np.empty(code.max() + 1, np.intp)
    last[code] = np.arange(len(code))
    return np.stack(columns, axis=1)[last], code


def _ranks(values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Of each value, how many lesser ones there are among them."""
    seen = np.zeros(values.max() + 1, np.intp)
    seen[values] = 1
    return (np.cumsum(seen) - 1)[values]


def count_shape(shape: LayerShape, forms: Forms) -> tuple[float, float]:
    """Return the instructions of one repeat of a layer, and the multiply-adds among them."""
    works, nodes = _layer_works(shape)
    counts = [work.instructions(forms) for work in works]
    total, fma = (sum(column) for column in zip(*counts, strict=True))
    return total + nodes * forms["run"]["instructions"]["node"], fma


@lru_cache(maxsize=1 << 16)
def _layer_works(shape: LayerShape) -> tuple[tuple[Work, ...], int]:
    """What a layer runs, and how many nodes it is."""
    if shape.op in _FUSED:
        outputs = shape.c_in * shape.height * shape.width
        counts = {_FUSED[shape.op]: outputs, "finished": outputs * (not shape.bias)}
        return (Work("conv", counts),), 0
    nodes = layer_nodes(shape)
    return tuple(count_node(node) for node in nodes), len(nodes)


def layer_nodes(shape: LayerShape) -> tuple[Node, ...]:
    """Return the nodes of a layer in the graph that ONNX Runtime runs.

    An activation that is fused into the convolution before has none.
    """
    return _NODES[shape.op](shape) if shape.op in _NODES else ()


def _map(shape: LayerShape) -> tuple[int, ...]:
    return 1, shape.c_in, shape.height, shape.width


def _elementwise(op: str, inputs: int = 1) -> Callable[[LayerShape], tuple[Node, ...]]:
    def nodes(shape: LayerShape) -> tuple[Node, ...]:
        return (Node(op=op, inputs=(_map(shape),) * inputs, output=_map(shape)),)

    return nodes


def _conv(shape: LayerShape) -> tuple[Node, ...]:
    """A convolution with the padding of its record."""
    k, stride, c_out = shape.kernel, shape.stride, shape.c_out
    padded = shape.padded or stride == 1
    before, after = ((k - 1) // 2, k // 2) if padded else (0, 0)
    sides = (shape.height, shape.width)
    out = tuple((side + before + after - k) // stride + 1 for side in sides)
    weight = (c_out, shape.c_in // shape.groups, k, k)
    bias = ((c_out,),) if shape.bias else ()
    settings: dict[str, Value] = {
        "pads": (before, before, after, after),
        "strides": (stride, stride),
        "group": shape.groups,
    }
    inputs, outputs = (_map(shape), weight, *bias), (1, c_out, *out)
    return (Node(op="Conv", inputs=inputs, output=outputs, attributes=settings),)


def _linear(shape: LayerShape) -> tuple[Node, ...]:
    vector, given = (1, shape.c_in), (1, shape.c_out)
    weights = ((shape.c_in, shape.c_out), (shape.c_out,))
    return (
        Node(op="Flatten", inputs=(_map(shape),), output=vector),
        Node(op="Gemm", inputs=(vector, *weights), output=given, constant=True),
    )


def _split_concat(shape: LayerShape) -> tuple[Node, ...]:
    whole = _map(shape)
    parts = tuple((1, c, *whole[2:]) for c in (shape.c_out, shape.c_in - shape.c_out))
    axis = {"axis": 1}
    return (
        Node(op="Split", inputs=(whole,), output=parts[0], outputs=2, attributes=axis),
        Node(op="Concat", inputs=parts, output=whole, attributes=axis),
    )


def _pool(shape: LayerShape) -> tuple[Node, ...]:
    return (Node(op="GlobalAveragePool", inputs=(_map(shape),), output=(1, shape.c_in, 1, 1)),)


def _hardswish(shape: LayerShape) -> tuple[Node, ...]:
    return _elementwise("HardSigmoid")(shape) + _elementwise("Mul", 2)(shape)


def _gate(shape: LayerShape) -> tuple[Node, ...]:
    inputs = (_map(shape), (1, shape.c_in, 1, 1))
    return (Node(op="Mul", inputs=inputs, output=_map(shape)),)


def _attention(shape: LayerShape) -> tuple[Node, ...]:
    """v softmax(q k / sqrt(d)) over n positions, of the map that holds q, k and v."""
    d, c, n = QUERY_WIDTH, shape.c_in, shape.height * shape.width
    whole, query, value, weights = (1, 2 * d + c, n), (1, d, n), (1, c, n), (1, n, n)
    axis, left, right = {"axis": 1}, {"transA": 1}, {"transB": 1}
    return (
        Node(op="Reshape", inputs=(whole,), output=whole),
        Node(op="Split", inputs=(whole,), output=query, outputs=3, attributes=axis),
        Node(op="FusedMatMul", inputs=(query, query), output=weights, attributes=left),
        Node(op="Softmax", inputs=(weights,), output=weights),
        Node(op="FusedMatMul", inputs=(value, weights), output=value, attributes=right),
        Node(op="Reshape", inputs=(value,), output=value),
    )


_NODES: Mapping[Op, Callable[[LayerShape], tuple[Node, ...]]] = {
    "conv": _conv,
    "linear": _linear,
    "split_concat": _split_concat,
    "pool": _pool,
    "gelu": _elementwise("Gelu"),
    "hardswish": _hardswish,
    "add": _elementwise("Add", 2),
    "multiply": _elementwise("Mul", 2),
    "gate": _gate,
    "attention": _attention,
}
