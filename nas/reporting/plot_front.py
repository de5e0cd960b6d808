"""The Pareto plot: accuracy against latency, with the budget and the published sizes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.candidate import Candidate
from nas.gauge import (
    AXIS,
    PREDICTED_AXIS,
    Unit,
    limit_words,
    over_words,
    predicted_words,
    quantity,
    share_words,
    within,
)
from nas.reporting.plot_labels import Label, Obstacle, place_labels, plain_ticks
from predictors.accuracy import AccuracyKind
from predictors.timing import CONFIDENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart; shape and fill say it again.
_FRONT, _NAMED, _NAMED_TEXT, _UNSTABLE = "#0072B2", "#E69F00", "#7A5200", "#B83A00"
_INK, _OTHER, _FAINT = "#222222", "#8F8F8F", "#C8C8C8"
_MARGIN = 0.09  # of the width or height of the plot, for labels
Y_LABELS = {
    "proxy": "training-free score (T0 = 100, T2 = 200)", "trained": "top-1 accuracy in %",
    "supernet": "likelihood of the labels in %, shared weights",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class View:
    """What the plot shows; the fastest comes first. Beyond its right edge are more."""

    front: list[Candidate]
    others: list[Candidate]
    named: list[Candidate]
    named_beyond: list[Candidate]
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
    """Choose what to show; networks without a finite score or accuracy are left out.

    Raises:
        ValueError: if scores and accuracies are mixed.
    """
    kinds = {c.accuracy_kind for c in (*candidates, *named)} or {"proxy"}
    if len(kinds) > 1:
        raise ValueError("`candidates` and `named` must all have a score or all an accuracy, but "
                         "got both. Plot them apart.")  # fmt: skip
    networks, sizes = _drawable(candidates), _drawable(named)
    left, right = _extent(networks, sizes, budget_ms)
    edges = _with_margin(left, right, budget_ms)
    others = [c for c in networks if not c.on_front]
    return View(
        front=[c for c in networks if c.on_front],
        others=[c for c in others if c.latency.median_ms <= edges[1]],
        others_beyond=[c for c in others if c.latency.median_ms > edges[1]],
        named=[c for c in sizes if c.latency.median_ms <= edges[1]],
        named_beyond=[c for c in sizes if c.latency.median_ms > edges[1]],
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


def draw_front(axes: "Axes", view: View) -> str:
    """Draw everything; return the note on what lies beyond the right edge."""
    _set_axes(axes, view)
    _draw_budget(axes, view)
    _draw_networks(axes, view)
    place_labels(axes, _labels(axes, view), _obstacles(axes, view))
    return _note(view)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"


def _drawable(candidates: Sequence[Candidate]) -> list[Candidate]:
    finite = [c for c in candidates if math.isfinite(c.accuracy + c.latency.high_ms)]
    return sorted(finite, key=lambda c: c.latency.median_ms)


def _extent(
    networks: Sequence[Candidate], sizes: Sequence[Candidate], budget_ms: float | None
) -> tuple[float, float]:
    """Room for the front and 1.6 budgets, so that a size fifty times slower squashes nothing.

    Without a front there is room for half of the networks; without any, for the sizes.
    """
    front = [c.latency.high_ms for c in networks if c.on_front]
    half = [median(c.latency.high_ms for c in networks)] if networks else []
    furthest = [max(front)] if front else half or [c.latency.high_ms for c in sizes]
    right = max([1.6 * (budget_ms or 0), *(1.06 * ms for ms in furthest)]) or 1.0
    lows = [c.latency.low_ms for c in (*networks, *sizes)]
    return min([(budget_ms or right) * 0.8, *(ms for ms in lows if ms > 0)]), right


def _logarithmic(left: float, right: float) -> bool:
    return right > 10 * left


def _with_margin(left: float, right: float, budget_ms: float | None) -> tuple[float, float]:
    """Room at the sides for labels; at the right the room beyond the budget is enough."""
    at_right = _MARGIN if budget_ms is None else 0.0
    if _logarithmic(left, right):
        return left * (left / right) ** _MARGIN, right * (right / left) ** at_right
    width = right - left
    return max(left - _MARGIN * width, 0.0), right + at_right * width


def _set_axes(axes: "Axes", view: View) -> None:
    from matplotlib.ticker import MaxNLocator

    if view.logarithmic:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis, view.edges)
    axes.set_xlim(view.edges)
    heights = [c.accuracy for c in view.shown] or [0.0]
    margin = _MARGIN * (max(heights) - min(heights)) or max(abs(max(heights)) * 0.02, 0.1)
    axes.set_ylim(min(heights) - margin, max(heights) + 2 * margin)
    predicted = view.shown and all(c.latency.source == "predicted" for c in view.shown)
    axes.set_xlabel((PREDICTED_AXIS if predicted else AXIS)[view.unit])
    axes.set_ylabel(Y_LABELS[view.kind])
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    if not view.shown:  # then no number on the axes would mean anything
        axes.set(xticks=[], yticks=[])


def _draw_budget(axes: "Axes", view: View) -> None:
    if view.budget_ms is None:
        return
    axes.axvspan(view.budget_ms, view.edges[1], color="black", alpha=0.045, linewidth=0)
    axes.axvline(view.budget_ms, color=_INK, linestyle=(0, (5, 3)), linewidth=1.4)
    axes.annotate(limit_words(view.budget_ms, view.unit), (view.budget_ms, 1), (0, 4),
                  xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                  ha="center", va="bottom", fontweight="bold")  # fmt: skip


def _draw_networks(axes: "Axes", view: View) -> None:
    """Draw every network; those of the front last, so that they lie on top."""
    over = over_words(view.budget_ms, view.unit)
    _draw_dots(axes, view.front, "Pareto front", color=_FRONT, s=38, linewidths=1.5, zorder=5)
    _draw_intervals(axes, view)
    axes.step([c.latency.median_ms for c in view.front], [c.accuracy for c in view.front],
              where="post", color=_FRONT, linewidth=1.6, alpha=0.5, zorder=3)  # fmt: skip
    _draw_dots(axes, view.named, "FasterNet T0 to L", color=_NAMED, s=55, linewidths=1.5,
               marker="D", zorder=4)  # fmt: skip
    feasible = [c for c in view.others if c.feasible]
    _draw_dots(axes, feasible, "other networks", color=_OTHER, s=18, linewidths=1.0, zorder=2.6)
    infeasible = [c for c in view.others if not c.feasible]
    _draw_dots(axes, infeasible, over, color=_FAINT, s=18, linewidths=1.0, zorder=2.5)
    if any(c.latency.source == "predicted" for c in view.shown):
        axes.scatter([], [], s=38, facecolors="white", edgecolors=_INK, linewidths=1.5,
                     label="predicted, not measured")  # fmt: skip
    unstable = [c for c in (*view.front, *view.named) if c.latency.unstable]
    if unstable:
        axes.scatter([c.latency.median_ms for c in unstable], [c.accuracy for c in unstable],
                     s=60, marker="x", color=_UNSTABLE, linewidths=1.2, zorder=5.5,
                     label="unstable timing")  # fmt: skip


def _draw_dots(
    axes: "Axes", group: Sequence[Candidate], label: str, *, color: str, **look: Any
) -> None:
    """Filled where a clock gave the latency, hollow where a model did."""
    first = min((c.latency.source for c in group), default=None)
    for source in sorted({c.latency.source for c in group}):
        dots = [c for c in group if c.latency.source == source]
        axes.scatter(
            [c.latency.median_ms for c in dots], [c.accuracy for c in dots], edgecolors=color,
            facecolors=color if source == "measured" else "white", **look,
            label=label if source == first else None,
        )  # fmt: skip


def _draw_intervals(axes: "Axes", view: View) -> None:
    """A bar for each interval of the front and the sizes."""
    for group, colour, label in ((view.named, _NAMED, None), (view.front, _FRONT, _interval(view))):
        if group:
            ms = np.array([c.latency.median_ms for c in group])
            low, high = [c.latency.low_ms for c in group], [c.latency.high_ms for c in group]
            axes.errorbar(ms, [c.accuracy for c in group], xerr=np.abs([low - ms, high - ms]),
                          fmt="none", ecolor=colour, elinewidth=1.8, capsize=2.5, capthick=1.5,
                          zorder=3.5, label=label)  # fmt: skip


def _interval(view: View) -> str:
    measured = {c.latency.source for c in view.front} == {"measured"}
    return f"{100 * CONFIDENCE:.0f} % interval" if measured else "interval"


def _labels(axes: "Axes", view: View) -> list[Label]:
    """The sizes that are shown; of the front the fastest, the best and the knee."""
    chosen = {id(c): c for c in (*view.front[:1], *view.front[-1:], *_knee(axes, view.front))}
    return [
        Label(x=c.latency.median_ms, y=c.accuracy, text=c.name.upper(), colour=_NAMED_TEXT)
        for c in view.named
    ] + [
        Label(x=c.latency.median_ms, y=c.accuracy, colour=_FRONT, required=False,
              text=f"{_short(c.name)}\n{quantity(c.latency)}")
        for c in chosen.values()
    ]  # fmt: skip


def _knee(axes: "Axes", front: Sequence[Candidate]) -> list[Candidate]:
    """The network of the front that lies farthest above the line from its first to its last."""
    if len(front) < 3:
        return []
    at = axes.transData.transform([(c.latency.median_ms, c.accuracy) for c in front])
    along, up = at[-1] - at[0]
    above = (at[:, 1] - at[0, 1]) * along - (at[:, 0] - at[0, 0]) * up
    return [front[int(above.argmax())]]


def _obstacles(axes: "Axes", view: View) -> list[Obstacle]:
    """What labels should stay clear of: markers most of all, then lines, then the others."""
    marked = [*view.front, *view.named]
    ends = [(ms, c.accuracy) for c in marked for ms in (c.latency.low_ms, c.latency.high_ms)]
    heights = np.linspace(*axes.get_ylim(), 60)
    budget = [(view.budget_ms, y) for y in heights] if view.budget_ms else []
    steps = [point for a, b in pairwise(view.front) for point in _step(a, b, heights)]
    return [
        *(Obstacle(c.latency.median_ms, c.accuracy, 30) for c in marked),
        *(Obstacle(c.latency.median_ms, c.accuracy, 1) for c in view.others),
        *(Obstacle(x, y, 4) for x, y in (*ends, *steps, *budget)),
    ]


def _step(a: Candidate, b: Candidate, heights: Iterable[float]) -> list[tuple[float, float]]:
    """Points along the front's line from a to b: across, then up."""
    across = np.geomspace(a.latency.median_ms, b.latency.median_ms, 24)
    up = [y for y in heights if a.accuracy < y < b.accuracy]
    return [*((x, a.accuracy) for x in across), *((b.latency.median_ms, y) for y in up)]


def _note(view: View) -> str:
    """What lies beyond the right edge, one a line."""
    lines = [
        f"{c.name.upper()} {quantity(c.latency)}"
        + (" (predicted)" if c.latency.source == "predicted" else "")
        for c in view.named_beyond
    ]
    if view.others_beyond:
        lines.append(_count(len(view.others_beyond), "other network"))
    return "\n".join(["beyond the right edge:", *lines]) if lines else ""
