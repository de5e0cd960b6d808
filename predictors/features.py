"""Configs as rows of numbers for regression: from their layers if they have them, else genes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.cost import layers_in_groups
from search_spaces.layers import Layer, Layered
from search_spaces.space import Genes, Space

Array = NDArray[np.float64]

# Work of a network by kind of layer; time is close to a non-negative combination of these.
_KINDS = ("conv1x1", "conv", "patchify", "linear")
_QUANTITIES = ("macs", "weights", "activations", "count")
_ELEMENTWISE = ("gelu", "relu", "add", "split_concat", "pool")
LAYER_FEATURES = (
    *(f"{kind}.{quantity}" for kind in _KINDS for quantity in _QUANTITIES),
    *(f"{op}.{quantity}" for op in _ELEMENTWISE for quantity in ("activations", "count")),
)


def layer_features(configs: Sequence[Layered]) -> Array:
    """Return sums over the layers of each kind, of shape [n, len(LAYER_FEATURES)]."""
    table = np.zeros((len(configs), len(LAYER_FEATURES)))
    for indices, layers in layers_in_groups(configs):
        for layer in layers:
            for name, value in _quantities(layer):
                table[indices, LAYER_FEATURES.index(name)] += value
    return table


def gene_features(space: Space[Any], configs: Sequence[Any]) -> Array:
    """Return the configs' genes as `scaled_genes` does."""
    return scaled_genes(space, [space.encode(config) for config in configs])


def scaled_genes(space: Space[Any], genes: Sequence[Genes]) -> Array:
    """Return genes scaled to [0, 1] where their choices are ordered, one-hot where not."""
    table = _gene_table(space, genes)
    columns: list[Array] = []
    for i, gene in enumerate(space.genes):
        if gene.ordered:
            columns.append(table[:, i] / max(len(gene.choices) - 1, 1))
        else:
            columns.extend(_one_hot_columns(table[:, i], len(gene.choices)))
    return np.stack(columns, axis=1)


def one_hot(space: Space[Any], configs: Sequence[Any]) -> Array:
    """Return one column for each choice of each gene, 1 where it was taken."""
    genes = _gene_table(space, [space.encode(config) for config in configs])
    columns = [column for i, n in enumerate(space.cardinalities)
               for column in _one_hot_columns(genes[:, i], n)]  # fmt: skip
    return np.stack(columns, axis=1)


def _gene_table(space: Space[Any], genes: Sequence[Genes]) -> Array:
    """Genes as rows, of shape [n, genes] even where n is 0."""
    return np.array(genes, dtype=float).reshape(len(genes), len(space.genes))


def _one_hot_columns(genes: Array, choices: int) -> list[Array]:
    return [(genes == choice).astype(float) for choice in range(choices)]


def _quantities(layer: Layer) -> Iterator[tuple[str, Any]]:
    kind = _kind(layer)
    activations = layer.c_in * layer.height * layer.width
    if kind in _KINDS:
        activations = activations + layer.c_out * layer.out_positions
        yield f"{kind}.macs", layer.macs
        yield f"{kind}.weights", layer.weights
    yield f"{kind}.activations", layer.repeat * activations
    yield f"{kind}.count", layer.repeat


def _kind(layer: Layer) -> str:
    if layer.op != "conv":
        return layer.op
    if np.all(np.equal(layer.height, 1)):
        return "linear"  # a convolution of the pooled vector
    if np.all(np.equal(layer.kernel, layer.stride)):
        return "conv1x1" if np.max(layer.kernel) == 1 else "patchify"
    return "conv"
