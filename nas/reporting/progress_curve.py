"""How the hypervolume grew, trial by trial."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.cluster import Outcome
from nas.searching.pareto import area


@dataclass(frozen=True, kw_only=True)
class ProgressCurve:
    """The area dominated after each trial, failed ones included, up to `reference`.

    `reference` is (accuracy, latency_ms): the lowest accuracy of any trial, and the budget.
    """

    numbers: tuple[int, ...]  # of the trials
    areas: tuple[float, ...]
    reference: tuple[float, float]

    def reached(self, share: float) -> int | None:
        """Return the number of trials after which this share of the last area was there."""
        if not self.areas or self.areas[-1] <= 0:
            return None
        enough = share * self.areas[-1] * (1 - 1e-12)
        return next(i for i, found in enumerate(self.areas, start=1) if found >= enough)


def progress_curve(outcomes: Sequence[Outcome], budget_ms: float) -> ProgressCurve:
    """Return the curve by the scores that the search saw; who misses the budget adds nothing."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.number)
    scored = [o.scores for o in ordered if o.scores]
    reference = (min((s.accuracy for s in scored), default=0.0), budget_ms)
    front: list[tuple[float, float]] = []
    areas: list[float] = []
    for outcome in ordered:
        scores = outcome.scores
        if scores and scores.upper_ms <= budget_ms:
            front = _kept(front, (scores.accuracy, scores.latency_ms))
        areas.append(area(front, reference))
    return ProgressCurve(numbers=tuple(o.number for o in ordered), areas=tuple(areas),
                         reference=reference)  # fmt: skip


def _kept(front: list[tuple[float, float]], new: tuple[float, float]) -> list[tuple[float, float]]:
    """The points that no other one of them beats."""
    if any(accuracy >= new[0] and ms <= new[1] for accuracy, ms in front):
        return front
    return [new, *((accuracy, ms) for accuracy, ms in front
                   if accuracy > new[0] or ms < new[1])]  # fmt: skip
