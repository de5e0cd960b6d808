"""Where the instructions of a network go: node by node, and by what the nodes do."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from predictors.aarch64.layers import LayerShape, count_shape, layer_nodes, shape_of
from predictors.aarch64.node import COMPUTED, Node, UnknownOperatorError, operator_of
from predictors.aarch64.operators import UNCOUNTED, Forms, count_node
from search_spaces.layers import Layer

_NEGLIGIBLE = 0.003  # of all instructions: as many may be of operators that were not counted
_ROUGH = ("ConvTranspose", COMPUTED)  # a form that is up to 16 % off; loops counted of others
_MOST_ROUGH = 0.12  # of all instructions
_NAMELESS = "a node without a name"
_NOTABLE = 0.01  # of all instructions: less is not called costly


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A node, or all repeats of one; or several that do the same."""

    name: str
    operator: str  # what it does, in words
    repeat: int
    instructions: float
    fma_instructions: float
    macs: int

    @property
    def per_mac(self) -> float | None:
        """Instructions for a multiply-accumulate; None where there are none."""
        return self.instructions / self.macs if self.macs else None


def graph_parts(nodes: Sequence[Node], forms: Forms) -> list[Part]:
    """Return the parts of a graph, the start of a run first.

    Raises:
        UnknownOperatorError: if an operator is not known, or those not counted take too much.
    """
    parts = [_start(forms), *(_node_part(node, forms) for node in nodes)]
    whole = sum(part.instructions for part in parts)
    for rough, most in ((UNCOUNTED, _NEGLIGIBLE), (_ROUGH, _MOST_ROUGH)):
        those = [part for part in parts if part.operator in rough]
        if sum(part.instructions for part in those) > most * whole:
            named = max(those, key=lambda part: part.instructions)
            raise UnknownOperatorError(
                f"the operator {named.operator} ({named.name or _NAMELESS}) well enough for the "
                "part that it takes"
            )
    return parts


def _start(forms: Forms) -> Part:
    instructions = forms["run"]["instructions"]["one"]
    return Part(
        name="run",
        operator="start",
        repeat=1,
        instructions=instructions,
        fma_instructions=0,
        macs=0,
    )


def _node_part(node: Node, forms: Forms) -> Part:
    try:
        total, fma = count_node(node).instructions(forms)
    except UnknownOperatorError as error:
        raise UnknownOperatorError(f"{error} ({node.name or _NAMELESS})") from None
    return Part(
        name=node.name,
        operator=words(node),
        repeat=1,
        instructions=total + forms["run"]["instructions"]["node"],
        fma_instructions=fma,
        macs=macs(node),
    )


def layer_parts(layers: Iterable[Layer], forms: Forms) -> list[Part]:
    """Return the parts of a config's network, the start of a run first."""
    return [_start(forms), *(part for layer in layers for part in _of_layer(layer, forms))]


def _of_layer(layer: Layer, forms: Forms) -> Iterator[Part]:
    shape: LayerShape = shape_of(layer)
    nodes = layer_nodes(shape)
    if not nodes:  # fused into the convolution before
        total, fma = count_shape(shape, forms)
        yield _repeated(layer, f"{layer.op}, fused", total, fma, 0)
    for node in nodes:
        part = _node_part(node, forms)
        yield _repeated(layer, part.operator, part.instructions, part.fma_instructions, part.macs)


def _repeated(layer: Layer, operator: str, instructions: float, fma: float, macs: int) -> Part:
    return Part(
        name=layer.name,
        operator=operator,
        repeat=layer.repeat,
        instructions=layer.repeat * instructions,
        fma_instructions=layer.repeat * fma,
        macs=layer.repeat * macs,
    )


def by_operator(parts: Iterable[Part]) -> list[Part]:
    """Return one part for all that do the same, the one that takes most first.

    It bears the name of the one among them that takes most.
    """
    ordered = sorted(parts, key=lambda part: (part.operator, -part.instructions))
    found = []
    for operator, group in groupby(ordered, key=lambda part: part.operator):
        same = list(group)
        found.append(
            Part(
                name=same[0].name,
                operator=operator,
                repeat=sum(part.repeat for part in same),
                instructions=sum(part.instructions for part in same),
                fma_instructions=sum(part.fma_instructions for part in same),
                macs=sum(part.macs for part in same),
            )
        )
    return sorted(found, key=lambda part: -part.instructions)


def costliest(parts: Sequence[Part]) -> Part | None:
    """Return what takes most instructions for a multiply-accumulate, and not next to none."""
    merged = by_operator(parts)
    least = _NOTABLE * sum(part.instructions for part in merged)
    notable = [part for part in merged if part.macs and part.instructions >= least]
    return max(notable, key=lambda part: part.per_mac or 0.0, default=None)


def words(node: Node) -> str:
    """Say what a node does: of convolutions the kernel, the groups and the stride."""
    if node.op != "Conv":
        return operator_of(node)
    c_in, kernel = node.inputs[0][1], node.inputs[1][2:]
    groups, stride = node.number("group", 1), max(node.numbers("strides", (1,)))
    kind = "" if groups == 1 else "depthwise " if groups == c_in else "grouped "
    sides = "x".join(map(str, kernel))
    steps = f" stride {stride}" if stride > 1 else ""
    vector = " of a vector" if math.prod(node.inputs[0][2:]) == 1 else ""
    return f"{kind}Conv {sides}{steps}{vector}"


def macs(node: Node) -> int:
    """Return the multiply-accumulates of a convolution or a matrix product."""
    if node.op == "Conv":
        return math.prod(node.output) * math.prod(node.inputs[1][1:])
    if node.op == "ConvTranspose":
        return math.prod(node.inputs[0]) * math.prod(node.inputs[1][1:])
    if node.op in ("Gemm", "MatMul", "FusedMatMul"):
        left = node.inputs[0]
        return math.prod(node.output) * left[-2 if node.number("transA") else -1]
    return 0
