"""What a network costs before it runs anywhere: multiply-accumulates, parameters, bytes moved.

Analytic, from the config's layers. These figures describe; they never rank (latency = FLOPs /
FLOPS, arXiv 2303.03667, equation 1).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from numpy.typing import NDArray

from search_spaces.layers import QUERY_WIDTH, BulkLayered, Layer, Layered

BYTES = 4  # of a float32


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one network at batch 1 in float32, or of n networks as arrays of shape [n].

    `macs` are multiply-accumulates as deployed, batch norm folded; `macs_with_batch_norm` counts
    two a normalised element besides, as fvcore does for a network in evaluation. `params` are
    those that are trained. `memory_bytes` are the inputs, outputs and weights of every layer.
    """

    macs: int
    macs_with_batch_norm: int
    params: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """The cost of one kind of layer in all its repeats."""

    name: str
    repeat: int
    macs: int
    params: int
    memory_bytes: int


def cost(config: Layered) -> Cost:
    """Return the cost of the config's network.

    Raises:
        TypeError: if the config has no `layers()` method.
    """
    return _total(_layered(config).layers())


def cost_by_layer(config: Layered) -> list[LayerCost]:
    """Return the cost of each layer, in order; the blocks of a stage share one entry."""
    return [
        LayerCost(
            name=layer.name,
            repeat=layer.repeat,
            macs=layer.macs,
            params=params(layer),
            memory_bytes=memory_bytes(layer),
        )
        for layer in _layered(config).layers()
    ]


def costs(configs: Sequence[object]) -> Cost:
    """Return the costs of many configs at once, each an array of shape [n].

    A million configs of one class that has `bulk_layers` take seconds.
    """
    totals = {f.name: np.zeros(len(configs), dtype=np.int64) for f in fields(Cost)}
    for indices, layers in layers_in_groups(configs):
        total = _total(layers)
        for name, column in totals.items():
            column[indices] = getattr(total, name)
    return Cost(**totals)  # type: ignore[arg-type]


def layers_in_groups(
    configs: Sequence[object],
) -> Iterator[tuple[NDArray[np.intp], Sequence[Layer]]]:
    """Yield indices into `configs` and the layers of those networks, as arrays where possible."""
    groups: dict[object, list[int]] = defaultdict(list)
    for i, config in enumerate(configs):
        config_class: type = type(config)
        groups[_shape(config) if _in_bulk(config_class) else i].append(i)
    for indices in groups.values():
        first = _layered(configs[indices[0]])
        layers = (
            first.bulk_layers(_columns([configs[i] for i in indices]))
            if isinstance(first, BulkLayered)
            else first.layers()
        )
        yield np.array(indices), layers


def params(layer: Layer) -> int:
    """Parameters of all repeats; a batch norm has two for each channel, the deployed bias one."""
    return layer.weights + layer.repeat * layer.norm * layer.c_out


def memory_bytes(layer: Layer) -> int:
    """Bytes of input, output and weights of all repeats; a split moves all its channels."""
    positions = layer.height * layer.width
    c_out = layer.c_in if layer.op == "split_concat" else layer.c_out
    operands = 2 if layer.op in ("add", "multiply") else 1
    activations = operands * layer.c_in * positions + c_out * layer.out_positions
    if layer.op == "gate":
        activations = activations + layer.c_in
    if layer.op == "attention":  # queries and keys too, and the weights between the positions
        activations = activations + 2 * QUERY_WIDTH * positions + 2 * positions**2
    return BYTES * (layer.repeat * activations + layer.weights)


def _total(layers: Sequence[Layer]) -> Cost:
    macs = sum(layer.macs for layer in layers)
    normalised = sum(n.repeat * n.c_out * n.out_positions for n in layers if n.norm)
    return Cost(
        macs=macs,
        macs_with_batch_norm=macs + 2 * normalised,
        params=sum(params(layer) for layer in layers),
        memory_bytes=sum(memory_bytes(layer) for layer in layers),
    )


def _shape(config: object) -> object:
    """What configs must have in common to share one array: class and lengths of tuples."""
    values = vars(config).values()
    return type(config), tuple(len(v) for v in values if isinstance(v, tuple))


@cache
def _in_bulk(config_class: type) -> bool:
    return issubclass(config_class, BulkLayered)


def _columns(configs: Sequence[object]) -> dict[str, NDArray[np.generic]]:
    """Each field of configs of one shape as an array."""
    return {name: np.array([getattr(c, name) for c in configs]) for name in vars(configs[0])}


def _layered(config: object) -> Layered:
    if not isinstance(config, Layered):
        raise TypeError(
            f"`config` must have a layers() method to be costed, but got {config!r}. Give its "
            "class one that returns `Layer` records."
        )
    return config
