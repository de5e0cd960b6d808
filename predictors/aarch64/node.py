"""A node of an ONNX graph, and what its operator is called where it takes another loop."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Shape = tuple[int, ...]
Value = int | str | Shape
LOOKED_UP = "to the nearest but not twice the side"
COMPUTED = "Gemm by a computed matrix"
RANK = 4  # of maps
SMALL = 4096  # elements; of fewer a copy is no more than a view
_DEFAULT_OPSET = 20


class UnknownOperatorError(ValueError):
    """What a profile does not know, in words that go on after "it does not know"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """An operator with the shapes of its tensors, and what is fused into it.

    Of inputs, those that may be left out and are have no shape. `constant` is what is multiplied
    by, if it is known beforehand.
    """

    op: str
    inputs: tuple[Shape, ...]
    output: Shape
    name: str = ""
    outputs: int = 1
    attributes: Mapping[str, Value] = field(default_factory=dict)
    constant: bool = False
    activation: str = ""
    summand: Literal["", "computed", "given"] = ""
    opset: int = _DEFAULT_OPSET
    dtype: str = "float32"  # of what it makes, as numpy calls it

    def number(self, name: str, default: int = 0) -> int:
        """Return an attribute that is a whole number."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def numbers(self, name: str, default: Shape) -> Shape:
        """Return an attribute that is a list of whole numbers."""
        value = self.attributes.get(name)
        return value if isinstance(value, tuple) and value else default


def operator_of(node: Node) -> str:
    """Return the operator as ONNX calls it, with more words where it takes another loop."""
    more = _VARIANTS[node.op](node) if node.op in _VARIANTS else ""
    return f"{node.op} {more}".rstrip()


def _of_power(node: Node) -> str:
    return "" if node.attributes.get("exponent", 2) in (2, 3) else "by other than 2 and 3"


def _of_max_pool(node: Node) -> str:
    if set(node.numbers("dilations", (1,))) != {1}:
        return "with dilation"
    return "with indices" if node.outputs > 1 or node.number("storage_order") else ""


def _of_conv_transpose(node: Node) -> str:
    if len(node.output) != RANK:
        return f"over {len(node.output) - 2} dimensions"
    if node.number("group", 1) > 1:
        return "in groups"
    return "" if set(node.numbers("dilations", (1,))) == {1} else "with dilation"


def _of_gemm(node: Node) -> str:
    return "" if node.constant else COMPUTED.removeprefix("Gemm ")


def _of_fused_matmul(node: Node) -> str:
    across = node.number("transBatchA") or node.number("transBatchB")
    return "across batches" if across else ""


def _of_cast(node: Node) -> str:
    return "of a map" if math.prod(node.output) > SMALL else ""


def _of_gelu(node: Node) -> str:
    return "by tanh" if node.attributes.get("approximate", "none") != "none" else ""


def _of_pad(node: Node) -> str:
    mode = node.attributes.get("mode", "constant")
    return "" if mode == "constant" else f"by {mode}"


def _of_reduction(node: Node) -> str:
    """A mean goes over the outermost sides of more than 1, or the innermost; a norm, over these."""
    shape = node.inputs[0]
    if not shape:
        return ""
    axes = {axis % len(shape) for axis in node.numbers("axes", tuple(range(len(shape))))}
    gone = [i in axes for i, side in enumerate(shape) if side > 1]
    turns = sum(one != other for one, other in pairwise(gone))
    if turns > 1:
        return "over sides in between"
    outer = turns == 1 and gone[0]
    return "over outer sides" if outer and node.op == "ReduceL2" else ""


def _of_resize(node: Node) -> str:
    """Nearest to twice the side, rounded down, has a loop of its own; any other looks up each."""
    given, made = node.inputs[0], node.output
    if len(made) != RANK or given == made:
        return ""
    if given[:2] != made[:2]:
        return "of other than the last two sides"
    how = [node.attributes.get(name) for name in ("coordinate_transformation_mode", "nearest_mode")]
    twice = made[2:] == tuple(2 * side for side in given[2:])
    plain = twice and how in ([None, None], ["asymmetric", "floor"])
    mode = node.attributes.get("mode", "nearest")
    return "" if plain or mode != "nearest" else LOOKED_UP


_VARIANTS: Mapping[str, Callable[[Node], str]] = {
    "Pow": _of_power,
    "MaxPool": _of_max_pool,
    "ConvTranspose": _of_conv_transpose,
    "Gemm": _of_gemm,
    "FusedMatMul": _of_fused_matmul,
    "Cast": _of_cast,
    "Gelu": _of_gelu,
    "Pad": _of_pad,
    **dict.fromkeys(("Resize", "Upsample"), _of_resize),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceL2"), _of_reduction),
}
