"""The nodes of an ONNX graph as ONNX Runtime runs them on aarch64.

Its own optimiser, up to the level that is the same on all processors, folds what it can; then comes
what only follows where convolutions keep their layout: a convolution with a bias takes in the Add
after it, and an activation after that.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from predictors.aarch64.node import Node, Shape, UnknownOperatorError, Value
from predictors.aarch64.operators import ACTIVATIONS, OPERATORS, UNCOUNTED
from predictors.aarch64.optimized import constants_of, opset_of, optimized, tensors_of

if TYPE_CHECKING:
    import onnx


@dataclass(kw_only=True)
class _Operator:
    """A node on the way: its tensors by name, and what was folded into it."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Value]
    activation: str = ""
    summand: Literal["", "computed", "given"] = ""
    folded: bool = field(default=False)


def graph_nodes(content: bytes, *, folder: Path | None = None, shape: Shape = ()) -> list[Node]:
    """Return the nodes that a run of the model at batch 1 consists of, in order.

    `folder` is where weights lie that are not in the content, `shape` that of the one input without
    the batch, where the model leaves sides open.

    Raises:
        UnknownOperatorError: if an operator is not known.
        ValueError: if ONNX Runtime cannot run the model.
    """
    model = optimized(content, folder=folder, shape=shape)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    operators = [_operator(node, weights) for node in model.graph.node]
    shapes, dtypes = tensors_of(model)
    _refuse_open(operators, shapes)
    _fold_sums(operators, shapes, [value.name for value in model.graph.output])
    constants, opset = constants_of(model), opset_of(model)
    nodes = [_node(o, shapes, dtypes, constants, opset) for o in operators if not o.folded]
    for node in nodes:
        _check(node)
    return [part for node in nodes for part in _unfolded(node)]


def _refuse_open(operators: Iterable[_Operator], shapes: Mapping[str, Shape]) -> None:
    """Of what follows on a shape that depends on the numbers of an image, nothing is known."""
    for operator in operators:
        if not all(name in shapes for name in operator.outputs if name):
            known = operator.op in OPERATORS or operator.op in UNCOUNTED
            what = "the shape of what the operator {} makes" if known else "the operator {}"
            raise UnknownOperatorError(f"{what.format(operator.op)} ({operator.name})")


def _check(node: Node) -> None:
    """Refuse what ONNX Runtime does not see before it runs."""
    given, other = (*node.inputs, (), ())[:2]
    match node.op:
        case "Conv":
            pair = (
                "C: {}, kernel channels * group: {}",
                given[1],
                other[1] * node.number("group", 1),
            )
        case "ConvTranspose":
            pair = ("C: {}, kernel channels: {}", given[1], other[0])
        case "BatchNormalization" | "InstanceNormalization":
            pair = ("C: {}, scales: {}", given[1], math.prod(other))
        case "Reshape":
            pair = ("elements: {}, after it: {}", math.prod(given), math.prod(node.output))
        case _:
            return
    words, *sides = pair
    if sides[0] != sides[1]:
        raise ValueError(f"{node.op} ({node.name}) does not fit its input. {words.format(*sides)}")


def _operator(node: "onnx.NodeProto", weights: Mapping[str, "onnx.TensorProto"]) -> _Operator:
    import onnx

    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = {name: value for name, v in found.items() if (value := _value(v)) is not None}
    inputs = list(node.input)
    name = node.name or next(name for name in node.output if name)
    for attribute, place in _AS_INPUTS.get(node.op_type, {}).items():
        if place >= len(inputs) or not inputs[place]:
            continue
        if inputs[place] not in weights:
            raise UnknownOperatorError(
                f"the operator {node.op_type} of computed {attribute} ({name})"
            )
        attributes[attribute] = _numbers(weights[inputs[place]])
    if node.op_type == "Resize" and len(inputs) > _INPUTS_OF_RESIZE_10:
        attributes = _RESIZE | attributes
    if node.op_type == "Pow":
        attributes["exponent"] = _exponent(weights.get(inputs[1]))
    operator = _Operator(
        name=name,
        op=node.op_type,
        inputs=inputs,
        outputs=list(node.output),
        attributes=attributes,
    )
    if node.op_type in _FUSED:
        operator.op = _FUSED[node.op_type]
        operator.activation = str(attributes.pop("activation", ""))
        operator.summand = "given" if len(inputs) > 3 and inputs[3] else ""
    return operator


_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
_INPUTS_OF_RESIZE_10 = 2  # which rounds down, and has no attribute for that
_RESIZE = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"}
_REDUCE = {"axes": 1}
# What newer versions of an operator take as an input instead of an attribute.
_AS_INPUTS: Mapping[str, Mapping[str, int]] = {
    "Slice": {"steps": 4},
    "ReduceMean": _REDUCE,
    "ReduceSum": _REDUCE,
    "ReduceL2": _REDUCE,
}


def _exponent(tensor: "onnx.TensorProto | None") -> Value:
    """A whole number that all numbers are raised to, or a word where there is none."""
    import onnx

    if tensor is None or math.prod(tensor.dims) != 1:
        return "other"
    value = onnx.numpy_helper.to_array(tensor).item()
    return int(value) if value == value // 1 else "other"


def _numbers(tensor: "onnx.TensorProto") -> tuple[int, ...]:
    import onnx

    return tuple(int(value) for value in onnx.numpy_helper.to_array(tensor).reshape(-1))


def _value(value: object) -> Value | None:
    """An attribute as it is kept; numbers that are not whole change no count."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int):
        return value
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return tuple(value)
    return None


def _fold_sums(
    operators: Sequence[_Operator], shapes: Mapping[str, Shape], outputs: Iterable[str]
) -> None:
    """Conv with a bias, Add of an equal map, activation: into the Conv if nothing else reads it."""
    makers = {name: operator for operator in operators for name in operator.outputs}
    readers: dict[str, list[_Operator]] = {}
    for operator in operators:
        for name in operator.inputs:
            readers.setdefault(name, []).append(operator)
    uses = Counter({name: len(those) for name, those in readers.items()})
    uses.update(outputs)

    def next_of(conv: _Operator) -> _Operator | None:
        (made,) = conv.outputs
        return readers[made][0] if uses[made] == 1 and made in readers else None

    def absorb(conv: _Operator, after: _Operator) -> None:
        after.folded = True
        conv.outputs = after.outputs
        makers[after.outputs[0]] = conv

    for add in operators:
        conv = _summing_conv(add, makers, shapes, uses)
        if conv is None:
            continue
        other = next(name for name in add.inputs if name != conv.outputs[0])
        conv.summand = "computed" if other in makers else "given"
        absorb(conv, add)
        after = next_of(conv)
        if after is not None and after.op in ACTIVATIONS:
            conv.activation = after.op
            absorb(conv, after)


def _summing_conv(
    add: _Operator,
    makers: Mapping[str, _Operator],
    shapes: Mapping[str, Shape],
    uses: Mapping[str, int],
) -> _Operator | None:
    """The convolution that takes in an Add of maps: the first of its inputs that may."""
    if add.op != "Add" or len(set(add.inputs)) != 2:
        return None
    if len(shapes[add.outputs[0]]) != 4 or len({shapes[name] for name in add.inputs}) != 1:
        return None
    for name in add.inputs:
        maker = makers.get(name)
        if maker is None or maker.op != "Conv" or maker.activation or maker.summand:
            continue
        if len(maker.inputs) > 2 and maker.inputs[2] and uses[name] == 1:
            return maker
    return None


def _node(
    operator: _Operator,
    shapes: Mapping[str, Shape],
    dtypes: Mapping[str, str],
    constants: Collection[str],
    opset: int,
) -> Node:
    inputs, made = operator.inputs, next(name for name in operator.outputs if name)
    return Node(
        name=operator.name,
        op=operator.op,
        inputs=tuple(shapes.get(name, ()) for name in inputs),
        output=shapes[made],
        outputs=len(operator.outputs),
        attributes=operator.attributes,
        constant=len(inputs) > 1 and inputs[1] in constants,
        activation=operator.activation,
        summand=operator.summand,
        opset=opset,
        dtype=dtypes.get(made, "float32"),
    )


def _unfolded(node: Node) -> list[Node]:
    """The nodes that a node is made of: itself, but for a few operators."""
    maps, more = node.inputs[:3], node.inputs[3:]
    if node.op == "MultiHeadAttention" and {len(m) for m in maps} == {3} and not any(more):
        return _attention(node)
    if node.op == "Attention" and node.constant and _is_plain(node):
        return _attention_of_one(node)
    if node.op in ("Sum", "Max", "Min") and len(node.inputs) > 2:
        return _pairwise(node)
    if node.op == "Gemm" and node.activation:
        after = Node(op=node.activation, name=node.name, inputs=(node.output,), output=node.output)
        return [replace(node, activation=""), after]
    if node.op in ("Softmax", "LayerNormalization") and node.output:
        return _rows(node)
    return [node]


def _pairwise(node: Node) -> list[Node]:
    """Of several inputs, the first with the second, what comes of it with the third, and so on."""
    made, nodes = node.inputs[0], []
    for given in node.inputs[1:]:
        both = made, given
        made = np.broadcast_shapes(*both)
        nodes.append(replace(node, inputs=both, output=made))
    return nodes


def _rows(node: Node) -> list[Node]:
    """What goes along an axis, as rows of that; Softmax moves its axis to the end and back."""
    shape, older = node.output, node.op == "Softmax" and node.opset < 13
    axis = node.number("axis", 1 if older else -1) % len(shape)
    if axis == len(shape) - 1:
        return [node]
    if older or node.op == "LayerNormalization":
        flat = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        return [replace(node, inputs=(flat,), output=flat)]
    order = list(range(len(shape)))
    order[axis], order[-1] = order[-1], order[axis]
    swapped, perm = tuple(shape[i] for i in order), {"perm": tuple(order)}
    there, back = (
        Node(op="Transpose", name=node.name, inputs=(given,), output=made, attributes=perm)
        for given, made in ((shape, swapped), (swapped, shape))
    )
    return [there, replace(node, inputs=(swapped,), output=swapped), back]


def _is_plain(node: Node) -> bool:
    """Whether an Attention has a map, weights and a bias, and is neither masked nor cached."""
    ranks = [len(shape) for shape in node.inputs if shape]
    more = any(node.inputs[3:]) or node.outputs > 1 or "qkv_hidden_sizes" in node.attributes
    return ranks == [3, 2, 1] and not more and not node.number("unidirectional")


def _attention_of_one(node: Node) -> list[Node]:
    """An attention among the rows of one map: a product makes the heads, as they are needed."""
    (batch, n, width), (_, c), bias = node.inputs[:3]
    rows, head = batch * n, (batch, n, c // 3)
    shapes: dict[str, Any] = {"inputs": ((rows, width), (width, c), bias), "output": (rows, c)}
    product = Node(op="Gemm", name=node.name, constant=True, **shapes)
    *_, back, scores, softmax, mixed = _attention(replace(node, inputs=(head,) * 3))
    return [product, scores, softmax, mixed, back]


def _attention(node: Node) -> list[Node]:
    """An attention of several heads as the products and transposes that it is made of."""
    (batch, n, c), (_, others, _), (_, _, c_v) = node.inputs[:3]
    heads = node.number("num_heads", 1)
    query, key = ((batch, heads, rows, c // heads) for rows in (n, others))
    weights, mixed = (batch, heads, n, others), (batch, heads, n, c_v // heads)
    value = (batch, heads, others, c_v // heads)
    return [
        *(_heads(shape, node.name) for shape in (query, key, value, mixed)),
        Node(
            op="FusedMatMul",
            name=node.name,
            inputs=(query, key),
            output=weights,
            attributes={"transB": 1},
        ),
        Node(op="Softmax", name=node.name, inputs=(weights,), output=weights),
        Node(op="MatMul", name=node.name, inputs=(weights, value), output=mixed),
    ]


def _heads(shape: Shape, name: str) -> Node:
    """The transpose that brings the heads of a map before its positions, or back."""
    batch, heads, n, c = shape
    perm = {"perm": (0, 2, 1, 3)}
    return Node(
        op="Transpose", name=name, inputs=((batch, n, heads, c),), output=shape, attributes=perm
    )
