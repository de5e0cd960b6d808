"""Dominance, fronts, hypervolume, and which trainings go on.

They go on by successive halving (arXiv 1502.07943) by Pareto rank: the best are those that no other
dominates in accuracy and latency, then those that only these dominate, and so on; within a layer
the most isolated come first (crowding distance, NSGA-II).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from nas.search.trial import Scores, Trial

T = TypeVar("T")


def pareto_front(trials: Iterable[Trial[T]]) -> list[Trial[T]]:
    """Return the feasible trials that no other feasible one beats, the fastest first.

    Of trials with equal scores the earliest stays.
    """
    scored = [(trial.scores, trial) for trial in trials if trial.feasible and trial.scores]
    scored.sort(key=lambda pair: (pair[0].latency_ms, -pair[0].accuracy, pair[1].number))
    front: list[Trial[T]] = []
    best = float("-inf")
    for scores, trial in scored:
        if scores.accuracy > best:
            front.append(trial)
            best = scores.accuracy
    return front


def hypervolume(trials: Iterable[Trial[T]], reference: tuple[float, float]) -> float:
    """Return the area that the front dominates, up to `reference` = (accuracy, latency_ms).

    Trials that do not beat the reference in both count nothing.
    """
    points = [t.scores for t in pareto_front(trials) if t.scores]
    return area([(s.accuracy, s.latency_ms) for s in points], reference)


def area(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area dominated by points (accuracy, latency_ms), dominated ones among them too."""
    floor, limit = reference
    total = 0.0
    for accuracy, latency_ms in sorted(points, key=lambda p: p[1]):
        if accuracy > floor and latency_ms < limit:
            total += (accuracy - floor) * (limit - latency_ms)
            floor = accuracy
    return total


def dominates(a: Scores, b: Scores) -> bool:
    """Whether a is at least as good as b in both scores and better in one."""
    at_least = a.accuracy >= b.accuracy and a.latency_ms <= b.latency_ms
    return at_least and (a.accuracy > b.accuracy or a.latency_ms < b.latency_ms)


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
        ranked += [
            i for _, i in sorted(zip(distances, layer, strict=True), key=lambda pair: -pair[0])
        ]
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
