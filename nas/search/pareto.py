"""Dominance, fronts, hypervolume, and which trainings go on.

They go on by successive halving (arXiv 1502.07943) by Pareto rank: the best are those that no other
dominates in accuracy and ratio, then those that only these dominate, and so on; within a layer
the most isolated come first (crowding distance, NSGA-II).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from nas.search.trial import Objectives, Trial

T = TypeVar("T")


def pareto_front(trials: Iterable[Trial[T]]) -> list[Trial[T]]:
    """Return the feasible trials that no other feasible one beats, the fastest first.

    Of trials with equal scores the earliest stays.
    """
    scored = [(trial.scores, trial) for trial in trials if trial.feasible and trial.scores]
    scored.sort(key=lambda pair: pair[1].number)
    front = non_dominated([(scores.accuracy, scores.latency_ms) for scores, _ in scored])
    return [scored[i][1] for i in front]


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (accuracy, latency or ratio) that no other one beats.

    The lowest latency comes first; of equal points the first stays.
    """
    front: list[int] = []
    best = -math.inf
    for i in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if points[i][0] > best:
            front.append(i)
            best = points[i][0]
    return front


def hypervolume(trials: Iterable[Trial[T]], reference: tuple[float, float]) -> float:
    """Return the area that the front dominates, up to `reference` = (accuracy, latency_ms).

    Trials that do not beat the reference in both count nothing.
    """
    points = [t.scores for t in pareto_front(trials) if t.scores]
    return area([(s.accuracy, s.latency_ms) for s in points], reference)


def area(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that points (accuracy, latency or ratio) dominate, up to the reference."""
    floor, limit = reference
    total = 0.0
    for accuracy, latency in sorted(points, key=lambda p: p[1]):
        if accuracy > floor and latency < limit:
            total += (accuracy - floor) * (limit - latency)
            floor = accuracy
    return total


def dominates(a: Objectives, b: Objectives) -> bool:
    """Whether a is at least as good as b in both objectives and better in one."""
    at_least = a.accuracy >= b.accuracy and a.ratio <= b.ratio
    return at_least and (a.accuracy > b.accuracy or a.ratio < b.ratio)


REDUCTION = 3  # of so many one goes on


def promoted(found: Mapping[T, Objectives]) -> list[T]:
    """Return those that are to be trained further, the best first: a third, rounded up."""
    names = list(found)
    ranked = by_pareto_rank(list(found.values()))
    return [names[i] for i in ranked[: going_on(len(names))]]


def going_on(count: int) -> int:
    """Return how many of so many trainings go on."""
    return math.ceil(count / REDUCTION)


def by_pareto_rank(points: Sequence[Objectives]) -> list[int]:
    """Return the indices in order: layer by layer, in each the most isolated first."""
    left = list(range(len(points)))
    ranked: list[int] = []
    while left:
        layer = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        distances = zip(_crowding([points[i] for i in layer]), layer, strict=True)
        ranked += [i for _, i in sorted(distances, key=lambda pair: -pair[0])]
        left = [i for i in left if i not in layer]
    return ranked


def _crowding(layer: Sequence[Objectives]) -> list[float]:
    """How far the neighbours of each are apart, in both axes, in units of the layer's extent."""
    total = [0.0] * len(layer)
    for values in ([p.accuracy for p in layer], [math.log(p.ratio) for p in layer]):
        order = sorted(range(len(layer)), key=lambda i: values[i])
        extent = values[order[-1]] - values[order[0]] or 1.0
        total[order[0]] = total[order[-1]] = math.inf
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            total[i] += (values[after] - values[before]) / extent
    return total
