"""What a report shows of a run, before anything is drawn of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from nas.candidate import Candidate
from nas.cluster import Outcome
from nas.gauge import Unit, predicted_words, quantity, share_words, within
from nas.search.pareto import area
from predictors.accuracy import AccuracyKind

MARGIN = 0.09  # of the width or height of the plot, for labels
_PAST = 1.1  # of the slowest that is shown, or of the budget: where the axis ends


@dataclass(frozen=True, kw_only=True)
class View:
    """What the plot shows; the fastest comes first. Beyond its right edge are more."""

    front: list[Candidate]
    others: list[Candidate]
    named: list[Candidate]
    named_beyond: list[Candidate]
    named_unscored: list[Candidate]  # within the edges, if they had a score or an accuracy
    others_beyond: list[Candidate]
    kind: AccuracyKind
    budget_ms: float | None  # or per cent of the budgets, as `unit` says
    edges: tuple[float, float]  # of the latency axis
    logarithmic: bool
    unit: Unit = "ms"

    @property
    def shown(self) -> list[Candidate]:
        """Everything within the edges."""
        return [*self.others, *self.named, *self.front]


def view_of(
    candidates: Sequence[Candidate], named: Sequence[Candidate], budget_ms: float | None,
    unit: Unit = "ms",
) -> View:  # fmt: skip
    """Choose what to show: of networks without a finite score or accuracy, the sizes' latencies.

    Raises:
        ValueError: if scores and accuracies are mixed.
    """
    kinds = {c.accuracy_kind for c in (*candidates, *named)} or {"proxy"}
    if len(kinds) > 1:
        raise ValueError("`candidates` and `named` must all have a score or all an accuracy, but "
                         "got both. Plot them apart.")  # fmt: skip
    networks, sizes = _drawable(candidates), _drawable(named)
    every_size = sorted(named, key=lambda c: c.latency.median_ms)
    left, right = _extent(networks, sizes, budget_ms)
    edges = _with_margin(left, right)
    others = [c for c in networks if not c.on_front]
    return View(
        front=[c for c in networks if c.on_front],
        others=[c for c in others if c.latency.median_ms <= edges[1]],
        others_beyond=[c for c in others if c.latency.median_ms > edges[1]],
        named=[c for c in sizes if c.latency.median_ms <= edges[1]],
        named_beyond=[c for c in every_size if c.latency.median_ms > edges[1]],
        named_unscored=[c for c in every_size
                        if c not in sizes and c.latency.median_ms <= edges[1]],
        kind=kinds.pop(), budget_ms=budget_ms, edges=edges, unit=unit,
        logarithmic=_logarithmic(left, right),
    )  # fmt: skip


def front_title(view: View) -> str:
    """The finding in one line."""
    found = [c.latency.source for c in view.front if c.feasible]
    networks = _count(len(found), "network")
    if view.budget_ms is None:
        return f"{networks} on the Pareto front" if found else "No network on the front yet"
    budget = within(view.budget_ms, view.unit)
    if found:
        return f"{networks} {budget if 'measured' in found else f'predicted to stay {budget}'}"
    fastest = min((c.latency for c in (*view.others, *view.others_beyond)),
                  key=lambda latency: latency.median_ms, default=None)  # fmt: skip
    so_far = f"; the fastest so far takes {share_words(fastest)}" if fastest else " yet"
    return f"No network {budget}{so_far}"


def sources(view: View) -> tuple[str, bool]:
    """Where the latencies are from, and whether that must be said aloud: some are predicted."""
    networks = view.front or view.shown
    said = predicted_words([c.latency for c in networks])
    if not said:
        return ("Every latency on the front is measured" if view.front else ""), False
    return said, True


def off_scale_words(view: View) -> list[str]:
    """Say in a line each what is known and not drawn: sizes and networks, and why they are not."""
    beyond, told = _sizes_words(view.named_beyond)
    if view.others_beyond:
        beyond.append(_count(len(view.others_beyond), "other network"))
    lines = [f"{', '.join(beyond)}: off the scale{told}"] if beyond else []
    unscored, told = _sizes_words(view.named_unscored)
    lacking = "score" if view.kind == "proxy" else "accuracy"
    return [*lines, f"{', '.join(unscored)}: no {lacking} known{told}"] if unscored else lines


def _sizes_words(sizes: Sequence[Candidate]) -> tuple[list[str], str]:
    """Each with its latency; that these are predicted is said once if all are."""
    predicted = [c.latency.source == "predicted" for c in sizes]
    mark = "" if all(predicted) else " (predicted)"
    words = [
        f"{c.name.upper()} {quantity(c.latency)}{mark if guessed else ''}"
        for c, guessed in zip(sizes, predicted, strict=True)
    ]
    return words, " (latencies predicted)" if sizes and all(predicted) else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _drawable(candidates: Sequence[Candidate]) -> list[Candidate]:
    finite = [c for c in candidates if math.isfinite(c.accuracy + c.latency.high_ms)]
    return sorted(finite, key=lambda c: c.latency.median_ms)


def _extent(
    networks: Sequence[Candidate], sizes: Sequence[Candidate], budget_ms: float | None
) -> tuple[float, float]:
    """From the fastest to the budget, the front and what else lies within 1.6 budgets.

    So a size fifty times slower squashes nothing. Without a front there is room for half of the
    networks; without any, for the sizes.
    """
    front = [c.latency.high_ms for c in networks if c.on_front]
    half = [median(c.latency.high_ms for c in networks)] if networks else []
    furthest = [max(front)] if front else half or [c.latency.high_ms for c in sizes]
    limit_ms = budget_ms or 0.0
    near = [c.latency.high_ms for c in (*networks, *sizes) if c.latency.high_ms <= 1.6 * limit_ms]
    right = max([limit_ms, *near, *furthest]) or 1.0
    lows = [c.latency.low_ms for c in (*networks, *sizes)]
    return min([(budget_ms or right) * 0.8, *(ms for ms in lows if ms > 0)]), right


def _logarithmic(left: float, right: float) -> bool:
    return right > 10 * left


def _with_margin(left: float, right: float) -> tuple[float, float]:
    """Room at the sides for labels: at the right a tenth more, so little is empty."""
    if _logarithmic(left, right):
        at_right = max((right / left) ** (MARGIN / 1.5), _PAST)
        return left * (left / right) ** MARGIN, right * at_right
    return max(left - MARGIN * (right - left), 0.0), _PAST * right


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
