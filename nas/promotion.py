"""Which trainings go on: asynchronous successive halving (arXiv 1810.05934) by Pareto rank.

Trainings pause at rungs, each some times as long as the one before. A training goes on if it is
among the best of all that have come to its rung; the best are those that no other beats in both
accuracy and latency, then those that only these beat, and so on, within a layer the most isolated
first (crowding distance, NSGA-II). No training waits until a rung is full.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nas.pareto import dominates
from nas.trial import Scores

T = TypeVar("T", bound=Hashable)

REDUCTION = 3  # of so many that come to a rung, one goes on


@dataclass
class Promotion(Generic[T]):
    """What has come to each of the rungs, and what went on from there."""

    rungs: int
    reduction: int = REDUCTION
    _scores: list[dict[T, Scores]] = field(init=False)
    _promoted: list[set[T]] = field(init=False)

    def __post_init__(self) -> None:
        if self.rungs < 1 or self.reduction < 2:
            raise ValueError(f"`rungs` must be 1 or more and `reduction` 2 or more, but got "
                             f"{self.rungs} and {self.reduction}.")  # fmt: skip
        self._scores = [{} for _ in range(self.rungs)]
        self._promoted = [set() for _ in range(self.rungs)]

    def report(self, trial: T, rung: int, scores: Scores) -> None:
        """Say that a training has come to a rung, the lowest being 0."""
        self._scores[rung][trial] = scores

    def next(self) -> tuple[T, int] | None:
        """Return a training that is to go on, and the rung to go to; the highest rungs first.

        It counts as promoted from then on. None where nothing has earned it yet.
        """
        for rung in reversed(range(self.rungs - 1)):
            for trial in self._best(rung):
                if trial not in self._promoted[rung]:
                    self._promoted[rung].add(trial)
                    return trial, rung + 1
        return None

    def _best(self, rung: int) -> list[T]:
        trials = list(self._scores[rung])
        ranked = by_pareto_rank(list(self._scores[rung].values()))
        return [trials[i] for i in ranked[: len(trials) // self.reduction]]


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
