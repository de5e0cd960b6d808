"""Configs as rows of numbers: the work of their layers, or their choices."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.cost import layers_in_groups
from search_spaces.layers import Layer, Numbers, Op
from search_spaces.space import AnySpace, Genes

Array = NDArray[np.float64]

# Work of a network by kind of layer; time is close to a non-negative combination of these.
_KINDS = ("conv1x1", "conv", "grouped", "patchify", "linear", "attention")
_QUANTITIES = ("macs", "weights", "activations", "count")
_UNROLLED = ("conv", "grouped")  # kinds whose kernels may copy k x k inputs for each output
_BLOCKED = ("conv1x1", "conv", "grouped")  # kinds whose kernels compute whole blocks
_CHANNELS = 16  # of a block: a vector of AVX-512
_POSITIONS = 8  # of a block: what ARM's kernels take at once
_ELEMENTWISE = (
    *("relu", "gelu", "hardswish", "hard_sigmoid", "add", "multiply", "gate"),
    *("split_concat", "pool"),
)
LAYER_FEATURES = (
    *(f"{kind}.{quantity}" for kind in _KINDS for quantity in _QUANTITIES),
    *(f"{kind}.columns" for kind in _UNROLLED),
    *(f"{kind}.{quantity}" for kind in _BLOCKED for quantity in ("channels", "positions")),
    "grouped.uneven",
    *(f"{op}.{quantity}" for op in _ELEMENTWISE for quantity in ("activations", "count")),
)


_COLUMNS = {name: i for i, name in enumerate(LAYER_FEATURES)}
_ASKED = 8  # configs of which each choice is changed
# The numbers of a layer.
_NUMBERS = ("c_in", "c_out", "height", "width", "kernel", "stride", "groups", "repeat")


def layer_features(configs: Sequence[object]) -> Array:
    """Return sums over the layers of each kind, of shape [n, len(LAYER_FEATURES)]."""
    table = np.zeros((len(configs), len(LAYER_FEATURES)))
    for indices, layers in layers_in_groups(configs):
        for alike in _stacked(layers, len(indices)):
            for name, value in _quantities(alike):
                table[indices, _COLUMNS[name]] += np.sum(value, axis=0)
    return table


def _stacked(layers: Sequence[Layer], n: int) -> Iterator[Layer]:
    """Yield one record for all layers that are alike, with numbers of shape [layers, n]."""
    groups: dict[tuple[Op, bool, bool, bool], list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[layer.op, layer.padded, layer.norm, layer.bias].append(layer)
    for (op, padded, norm, bias), alike in groups.items():
        numbers: dict[str, Any] = {}
        for name in _NUMBERS:
            found = [getattr(layer, name) for layer in alike]
            numbers[name] = np.empty((len(alike), n), dtype=np.result_type(*found))
            for i, number in enumerate(found):
                numbers[name][i] = number
        yield Layer(name=op, op=op, padded=padded, norm=norm, bias=bias, **numbers)


def layers_tell_all(space: AnySpace) -> bool:
    """Whether each choice changes the work in the layers of a config, as far as a few tell.

    A precision, or how a layer is computed, does not, though latency depends on it.
    """
    rng = Random(0)
    few = [space.random_genes(rng) for _ in range(_ASKED)]
    free = [(i, n - 1) for i, n in enumerate(space.cardinalities) if n > 1]
    asked = [(*g[:i], end, *g[i + 1 :]) for i, n in free for g in few for end in (0, n)]
    work = layer_features(list(map(space.decode, asked)))
    work = work.reshape(len(free), _ASKED, 2, len(LAYER_FEATURES))
    return bool((work[:, :, 0] != work[:, :, 1]).any(axis=(1, 2)).all())


def gene_features(space: AnySpace, configs: Sequence[object]) -> Array:
    """Return the configs' genes as `scaled_genes` does."""
    return scaled_genes(space, [space.encode(config) for config in configs])


def scaled_genes(space: AnySpace, genes: Sequence[Genes]) -> Array:
    """Return genes scaled to [0, 1] where their choices are ordered, one-hot where not."""
    table = gene_table(space, genes)
    columns = [
        table[:, [i]] / max(len(gene.choices) - 1, 1)
        if gene.ordered
        else table[:, [i]] == np.arange(len(gene.choices))
        for i, gene in enumerate(space.genes)
    ]
    return np.hstack(columns).astype(float)


def linear_terms(space: AnySpace, genes: Sequence[Genes]) -> tuple[Array, Array]:
    """Return columns of which latency may be a sum: of ordered choices, and of all.

    An ordered choice is its number and, if all are positive, its logarithm, standardised; any
    choice besides is one-hot.
    """
    table = gene_table(space, genes).astype(int)
    columns = list(zip(table.T, space.genes, strict=True))
    numbers = [_standardised(gene.choices)[at] for at, gene in columns if gene.ordered]
    hot = [
        (at[:, None] == np.arange(n)) - 1 / n
        for at, n in zip(table.T, space.cardinalities, strict=True)
    ]
    none = np.empty((len(genes), 0))
    return np.hstack([none, *numbers]), np.hstack([none, *hot])


@cache
def _standardised(choices: tuple[float, ...]) -> Array:
    values: Array = np.array(choices, dtype=float)[:, None]
    columns: Array = np.hstack([values, np.log(values)]) if (values > 0).all() else values
    spread = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def one_hot(space: AnySpace, configs: Sequence[object]) -> Array:
    """Return one column for each choice of each gene, 1 where it was taken."""
    table = gene_table(space, [space.encode(config) for config in configs])
    columns = [table[:, [i]] == np.arange(n) for i, n in enumerate(space.cardinalities)]
    return np.hstack(columns).astype(float)


def gene_table(space: AnySpace, genes: Sequence[Genes]) -> Array:
    """Genes as rows, of shape [n, genes] even where n is 0."""
    return np.array(genes, dtype=float).reshape(len(genes), len(space.genes))


def _quantities(layer: Layer) -> Iterator[tuple[str, Numbers]]:
    """The work of a layer, each with the feature that it adds to; 0 where it is of another kind."""
    for kind, share in _kinds(layer):
        repeat = layer.repeat * share
        activations = layer.c_in * layer.height * layer.width
        if kind in _KINDS:
            activations = activations + layer.c_out * layer.out_positions
            yield f"{kind}.macs", layer.macs * share
            yield f"{kind}.weights", layer.weights * share
        if kind in _BLOCKED:
            taps, outputs = repeat * layer.c_in * layer.kernel**2, layer.c_out // layer.groups
            channels = _whole_blocks(outputs, _CHANNELS)
            yield f"{kind}.channels", taps * layer.out_positions * channels
            positions = _whole_blocks(layer.out_positions, _POSITIONS)
            yield f"{kind}.positions", taps * positions * outputs
        if kind in _UNROLLED:
            yield f"{kind}.columns", repeat * layer.c_in * layer.kernel**2 * layer.out_positions
        if kind == "grouped":
            yield "grouped.uneven", layer.macs * share * _uneven(layer)
        yield f"{kind}.activations", repeat * activations
        yield f"{kind}.count", repeat


def _whole_blocks(count: Numbers, block: int) -> Numbers:
    """So many, rounded up to whole blocks."""
    return -(-count // block) * block


def _uneven(layer: Layer) -> Numbers:
    """1 where a group has other than whole blocks of channels, which some kernels do not take."""
    inputs, outputs = layer.c_in // layer.groups, layer.c_out // layer.groups
    return ((inputs % _CHANNELS > 0) | (outputs % _CHANNELS > 0)) * 1


def _kinds(layer: Layer) -> Iterator[tuple[str, Numbers]]:
    """The kinds that a layer may be of, each with 1 where it is, as a number or an array."""
    if layer.op != "conv":
        yield layer.op, 1
        return
    vector = (layer.height == 1) * 1  # a convolution of the pooled vector
    grouped = (1 - vector) * (layer.groups > 1)
    whole = 1 - vector - grouped
    patchify = whole * (layer.kernel == layer.stride) * (layer.kernel > 1)
    point = whole * (layer.kernel == 1) * (layer.stride == 1)
    yield "linear", vector
    yield "grouped", grouped
    yield "patchify", patchify
    yield "conv1x1", point
    yield "conv", whole - patchify - point
