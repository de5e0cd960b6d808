"""Which trainings go on: successive halving (arXiv 1502.07943) by Pareto rank.

The best are those that no other beats in both accuracy and latency, then those that only these
beat, and so on; within a layer the most isolated come first (crowding distance, NSGA-II).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from nas.searching.pareto import dominates
from nas.searching.trial import Scores

T = TypeVar("T")

REDUCTION = 3  # of so many one goes on


def promoted(scores: Mapping[T, Scores]) -> list[T]:
    """Return those that are to be trained further, the best first: a third, rounded up."""
    names = list(scores)
    ranked = by_pareto_rank(list(scores.values()))
    return [names[i] for i in ranked[: going_on(len(names))]]


def going_on(count: int) -> int:
    """Return how many of so many trainings go on."""
    return math.ceil(count / REDUCTION)


def by_pareto_rank(scores: Sequence[Scores]) -> list[int]:
    """Return the indices in order: layer by layer, in each the most isolated first."""
    left = list(range(len(scores)))
    ranked: list[int] = []
    while left:
        layer = [i for i in left if not any(dominates(scores[j], scores[i]) for j in left)]
        distances = _crowding([scores[i] for i in layer])
        ranked += [i for _, i in sorted(zip(distances, layer, strict=True),
                                        key=lambda pair: -pair[0])]  # fmt: skip
        left = [i for i in left if i not in layer]
    return ranked


def _crowding(layer: Sequence[Scores]) -> list[float]:
    """How far the neighbours of each are apart, in both scores, in units of the layer's extent."""
    total = [0.0] * len(layer)
    for values in ([s.accuracy for s in layer], [math.log(s.latency_ms) for s in layer]):
        order = sorted(range(len(layer)), key=lambda i: values[i])
        extent = values[order[-1]] - values[order[0]] or 1.0
        total[order[0]] = total[order[-1]] = math.inf
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            total[i] += (values[after] - values[before]) / extent
    return total
