"""Dominance, fronts and hypervolume in the plane of accuracy (up) and latency (down)."""

from collections.abc import Iterable, Sequence
from typing import Any

from nas.searching.trial import Scores, Trial


def pareto_front(trials: Iterable[Trial[Any]]) -> list[Trial[Any]]:
    """Return the feasible trials that no other feasible one beats, the fastest first.

    Of trials with equal scores the earliest stays.
    """
    scored = [(trial.scores, trial) for trial in trials if trial.feasible and trial.scores]
    scored.sort(key=lambda pair: (pair[0].latency_ms, -pair[0].accuracy, pair[1].number))
    front: list[Trial[Any]] = []
    best = float("-inf")
    for scores, trial in scored:
        if scores.accuracy > best:
            front.append(trial)
            best = scores.accuracy
    return front


def hypervolume(trials: Iterable[Trial[Any]], reference: tuple[float, float]) -> float:
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
