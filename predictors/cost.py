"""What a network costs before it runs anywhere: work, parameters, memory, file; and limits of that.

Analytic, from the config's layers. These figures describe; they never rank (latency = FLOPs /
FLOPS, arXiv 2303.03667, equation 1).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search_spaces.layers import FUSED, QUERY_WIDTH, BulkLayered, Layer, Layered, is_layered

BYTES = 4  # of a float32
FilePrecision = Literal["fp32", "int8"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one network at batch 1 in float32, or of n networks as arrays of shape [n].

    `macs` are multiply-accumulates as deployed, batch norm folded; `macs_with_batch_norm` counts
    two a normalised element besides, as fvcore does for a network in evaluation. `params` are
    those that are trained. `memory_bytes` are the inputs, outputs and weights of every layer,
    `peak_memory_bytes` the most that activations take at once: what an operator reads and writes,
    and what is read later, as a residual is. `file_bytes` and `int8_file_bytes` estimate the ONNX
    files, from above where names of classes have up to 28 characters.
    """

    macs: int
    macs_with_batch_norm: int
    params: int
    memory_bytes: int
    peak_memory_bytes: int
    file_bytes: int
    int8_file_bytes: int


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
            if isinstance(first, BulkLayered) and len(indices) > 1  # one alone is quicker by itself
            else first.layers()
        )
        yield np.array(indices), layers


# The field of a cost that each limit is compared with.
_LIMITED = {
    "params": "params",
    "macs": "macs",
    "file_bytes": "file_bytes",
    "memory_bytes": "peak_memory_bytes",
}
_FILES = {"fp32": "file_bytes", "int8": "int8_file_bytes"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a network may cost beside its latency; None: no limit.

    `memory_bytes` limits `Cost.peak_memory_bytes`, `file_bytes` the file that is deployed, which is
    estimated (`Cost.file_bytes`) until there is one; its weights are in `precision`.

    Raises:
        ValueError: if a limit is not a positive whole number.
    """

    params: int | None = None
    macs: int | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None
    precision: FilePrecision = "fp32"

    def __post_init__(self) -> None:
        for name, limit in self.given.items():
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                raise ValueError(
                    f"`{name}` must be a positive whole number, but got {limit!r}. Leave it out "
                    "for no limit."
                )

    @property
    def given(self) -> dict[str, int]:
        """The limits that there are, by name."""
        found = {name: getattr(self, name) for name in _LIMITED}
        return {name: limit for name, limit in found.items() if limit is not None}

    @classmethod
    def by_name(cls, given: Mapping[str, int], precision: FilePrecision = "fp32") -> "Limits":
        """Return the limits that `given` spells."""
        return cls(
            params=given.get("params"),
            macs=given.get("macs"),
            file_bytes=given.get("file_bytes"),
            memory_bytes=given.get("memory_bytes"),
            precision=precision,
        )

    def alone(self, name: str) -> "Limits":
        """Return one of the limits, without the others."""
        return Limits.by_name({name: self.given[name]}, self.precision)

    def limited(self, cost: Cost) -> dict[str, int]:
        """Return of a cost what the limits are compared with, by name."""
        fields = {**_LIMITED, "file_bytes": _FILES[self.precision]}
        return {name: getattr(cost, fields[name]) for name in self.given}

    def exceeded(self, found: Mapping[str, int]) -> dict[str, int]:
        """Return what is above its limit, by name, of what is compared with them."""
        return {name: found[name] for name, limit in self.given.items() if found[name] > limit}

    def ratios(self, configs: Sequence[object]) -> NDArray[np.float64]:
        """Return the worst ratio of cost to limit of each config; 1.0 is the limit."""
        worst = np.zeros(len(configs))
        if self.given:
            for name, values in self.limited(costs(configs)).items():
                worst = np.maximum(worst, np.asarray(values) / self.given[name])
        return worst

    def keeps(self, config: object) -> bool:
        """Whether a config's network is within every limit."""
        return bool(self.ratios([config])[0] <= 1)


NO_LIMITS = Limits()

# Bytes of an ONNX file for a weight, a channel that a layer puts out, and an operator: the most
# that files of random networks of the spaces have (at int8 scales, biases and operators that
# quantise).
_FILE_BYTES = {"fp32": (BYTES, 0, 400), "int8": (1, 12, 2300)}
_CONFIG_BYTES, _NAME_BYTES = 1000, 32  # of the config and a class's name, which a file holds too


def params(layer: Layer) -> int:
    """Parameters of all repeats; a batch norm has two for each channel, the deployed bias one."""
    return layer.weights + layer.repeat * layer.norm * layer.c_out


def memory_bytes(layer: Layer) -> int:
    """Bytes of input, output and weights of all repeats; a split moves all its channels."""
    return BYTES * (layer.repeat * _activations(layer) + layer.weights)


def live_bytes(layer: Layer) -> int:
    """Bytes of activations while a layer runs; one that is fused into another adds nothing."""
    there = (layer.repeat > 0) * (layer.op not in FUSED)
    return BYTES * there * (_activations(layer) + layer.alive)


def _activations(layer: Layer) -> int:
    """Numbers that a layer reads and writes; a split moves all its channels."""
    positions = layer.height * layer.width
    c_out = layer.c_in if layer.op == "split_concat" else layer.c_out
    operands = 2 if layer.op in ("add", "multiply") else 1
    activations = operands * layer.c_in * positions + c_out * layer.out_positions
    if layer.op == "gate":
        activations = activations + layer.c_in
    if layer.op == "attention":  # queries and keys too, and the weights between the positions
        activations = activations + 2 * QUERY_WIDTH * positions + 2 * positions**2
    return activations


def _total(layers: Sequence[Layer]) -> Cost:
    macs = sum(layer.macs for layer in layers)
    normalised = sum(n.repeat * n.c_out * n.out_positions for n in layers if n.norm)
    return Cost(
        macs=macs,
        macs_with_batch_norm=macs + 2 * normalised,
        params=sum(params(layer) for layer in layers),
        memory_bytes=sum(memory_bytes(layer) for layer in layers),
        peak_memory_bytes=_largest(map(live_bytes, layers)),
        file_bytes=_file_bytes(layers, "fp32"),
        int8_file_bytes=_file_bytes(layers, "int8"),
    )


def _largest(values: Iterable[int]) -> int:
    """The largest of numbers, or of arrays element by element."""
    found = reduce(np.maximum, values, 0)
    return found if np.ndim(found) else int(found)


def _file_bytes(layers: Sequence[Layer], precision: str) -> int:
    weight, channel, operator = _FILE_BYTES[precision]
    weighted = (layer for layer in layers if layer.op in ("conv", "linear"))
    channels = sum(layer.repeat * layer.c_out for layer in weighted)
    weights = sum(layer.weights for layer in layers)
    operators = sum(layer.repeat * (12 if layer.op == "attention" else 1) for layer in layers)
    classes = layers[-1].c_out if layers else 0
    metadata = _CONFIG_BYTES + _NAME_BYTES * classes
    return weight * weights + channel * channels + operator * operators + metadata


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
    if not is_layered(config):
        raise TypeError(
            f"`config` must have a layers() method to be costed, but got {config!r}. Give its "
            "class one that returns `Layer` records."
        )
    return config
