"""The front of a run: what its figure shows, and the figure, accuracy against latency."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from nas.quantities import format_ms, limit_words
from nas.report import sheet as sheets
from nas.report.sheet import ALARM, FRONT, INK, PALETTE, PAPER, SLIDE, Label, Look, Obstacle, Sheet
from nas.report.tables import (
    INTERVAL,
    Network,
    Unit,
    are_published,
    count_words,
    predicted_words,
)
from predictors.accuracy import AccuracyKind
from predictors.cost import NO_LIMITS, Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Urls = Mapping[int, str]  # by the id of a network

_AXIS: dict[Unit, str] = {"ms": "latency in ms", "ratio": "worst latency/budget ratio"}
_Y_AXIS = {
    "estimated": "ImageNet-1k top-1 in %,\nestimated, not trained",
    "score": "training-free score",
    "trained": "top-1 accuracy in %",
}
_MARGIN = 0.09  # of the width or height of the plot, for labels
_PAST = 1.1  # of the slowest that is shown, or of the budget: where the axis ends
_LEFT, _RIGHT = 1.008, 0.288  # inches beside the axes
_BUDGET = 0.27  # inches above them, for the budget's name
_LONGEST = 24  # characters of a name


@dataclass(frozen=True, kw_only=True)
class FrontView:
    """What the figure of the front shows; the fastest comes first. Beyond its edge are more."""

    front: list[Network]
    others: list[Network]
    named: list[Network]
    named_beyond: list[Network]
    named_unscored: list[Network]  # within the edges, if they had a score or an accuracy
    others_beyond: list[Network]
    kind: AccuracyKind
    budget: float | None  # in `unit`
    edges: tuple[float, float]  # of the latency axis
    logarithmic: bool
    unit: Unit = "ms"
    limits: Limits = NO_LIMITS

    @property
    def shown(self) -> list[Network]:
        return [*self.others, *self.named, *self.front]

    @property
    def title(self) -> str:
        feasible = [c for c in self.front if c.feasible]
        networks = count_words(len(feasible), "network")
        if self.budget is None:
            return f"{networks} on the Pareto front" if feasible else "No network on the front yet"
        every = self.unit == "ratio"
        within = "within every budget" if every else f"within {format_ms(self.budget)} ms"
        if feasible:
            timed = any(c.measured for c in feasible)
            return f"{networks} {within if timed else f'predicted to stay {within}'}"
        slow = [*self.others, *self.others_beyond]
        if not slow:
            return f"No network {within} yet"
        fastest = min(slow, key=lambda c: c.x).readings[0]
        return f"No network {within}; the fastest so far takes {fastest.quantity}"

    @property
    def sources(self) -> tuple[str, bool]:
        """Where the latencies are from, and whether that is an alarm: some are predicted."""
        predicted = predicted_words([c.readings for c in self.front or self.shown])
        if predicted:
            return predicted, True
        return ("Every latency on the front is measured" if self.front else ""), False

    @property
    def notes(self) -> list[str]:
        """A line for what is known and not in the plane, and why not; and one for limits."""
        beyond, mark = _sizes_words(self.named_beyond)
        if self.others_beyond:
            beyond.append(count_words(len(self.others_beyond), "other network"))
        lines = [f"{', '.join(beyond)}: off the scale{mark}"] if beyond else []
        unscored, mark = _sizes_words(self.named_unscored)
        lines += [f"{', '.join(unscored)}: no accuracy known{mark}"] * bool(unscored)
        kept = f"Networks shown keep the limits, which T0 to L need not: {limit_words(self.limits)}"
        return lines + [kept] * bool(self.limits.given)


def view_of(
    networks: Sequence[Network], named: Sequence[Network], budget: float | None, unit: Unit = "ms"
) -> FrontView:
    """Choose what to show: of networks without a finite score or accuracy, the sizes' latencies."""
    kinds = {c.accuracy_kind for c in (*networks, *named)} or {"estimated"}
    if len(kinds) > 1:
        raise ValueError(
            "`networks` and `named` must all have the same kind of accuracy, but got several. "
            "Plot them apart."
        )
    finite, sizes = _finite(networks), _finite(named)
    every_size = sorted(named, key=lambda c: c.x)
    left, right = _extent(finite, sizes, budget)
    start, end = _with_margin(left, right)
    others = [c for c in finite if not c.on_front]
    return FrontView(
        front=[c for c in finite if c.on_front],
        others=[c for c in others if c.x <= end],
        others_beyond=[c for c in others if c.x > end],
        named=[c for c in sizes if c.x <= end],
        named_beyond=[c for c in every_size if c.x > end],
        named_unscored=[c for c in every_size if c not in sizes and c.x <= end],
        kind=kinds.pop(),
        budget=budget,
        edges=(start, end),
        unit=unit,
        logarithmic=_logarithmic(left, right),
    )


def _sizes_words(sizes: Sequence[Network]) -> tuple[list[str], str]:
    """Each with its latency; that these are predicted is said once if all are."""
    every = all(not c.measured for c in sizes)
    words = [
        f"{c.name.upper()} {c.readings[0].quantity}{'' if every or c.measured else ' (predicted)'}"
        for c in sizes
    ]
    return words, " (latencies predicted)" if sizes and every else ""


def _finite(networks: Sequence[Network]) -> list[Network]:
    finite = [c for c in networks if math.isfinite(c.accuracy + c.readings[0].high)]
    return sorted(finite, key=lambda c: c.x)


def _extent(
    networks: Sequence[Network], sizes: Sequence[Network], budget: float | None
) -> tuple[float, float]:
    """From the fastest to the budget, the front and what else lies within 1.6 budgets.

    So a size fifty times slower squashes nothing. Without a front there is room for half of the
    networks; without any, for the sizes.
    """
    highs = [c.readings[0].high for c in (*networks, *sizes)]
    front = [c.readings[0].high for c in networks if c.on_front]
    half = [median(highs[: len(networks)])] if networks else []
    furthest = [max(front)] if front else half or highs
    limit = budget or 0.0
    right = max([limit, *(high for high in highs if high <= 1.6 * limit), *furthest]) or 1.0
    lows = [c.readings[0].low for c in (*networks, *sizes)]
    return min([(budget or right) * 0.8, *(low for low in lows if low > 0)]), right


def _logarithmic(left: float, right: float) -> bool:
    return right > 10 * left


def _with_margin(left: float, right: float) -> tuple[float, float]:
    """Room at the sides for labels: at the right a tenth more, so little is empty."""
    if _logarithmic(left, right):
        at_right = max((right / left) ** (_MARGIN / 1.5), _PAST)
        return left * (left / right) ** _MARGIN, right * at_right
    return max(left - _MARGIN * (right - left), 0.0), _PAST * right


def front_figure(view: FrontView, *, device: str = "", sheet: Sheet = SLIDE) -> "Figure":
    """Return the Pareto plot; `device` describes the device, in a line or two."""
    with sheets.style(sheet):
        source, alarm = view.sources
        below = [line for line in (source, *device.splitlines()) if line]
        figure = sheets.new_figure(sheet, view.title, below, alarm=alarm)
        foot = 0.65 if sheet.page else sheets.note(figure, view.notes) * sheet.height
        axes = figure.add_axes(sheet.box(left=_LEFT, right=_RIGHT, top=2, foot=foot))
        _set_axes(axes, view)
        _draw_budget(axes, view, "right" if sheet.page else "center")
        _draw_networks(axes, view, _urls(view) if sheet.page else {})
        legend = sheets.explain_above(axes, sheet, at=0.702 + 0.243 * len(below))
        top, left = sheet.height * (1 - legend) + _BUDGET, _LEFT - 0.1 * sheet.page
        axes.set_position(sheet.box(left=left, right=_RIGHT, top=top, foot=foot))
        sheets.place_labels(axes, _labels(axes, view, sheet), _obstacles(axes, view))
    return figure


def _set_axes(axes: "Axes", view: FrontView) -> None:
    from matplotlib.ticker import MaxNLocator

    if view.logarithmic:
        axes.set_xscale("log")
        sheets.plain_ticks(axes.xaxis, view.edges)
    axes.set_xlim(view.edges)
    heights = [c.accuracy for c in view.shown] or [0.0]
    heights += [end for c in view.front for end in c.accuracy_ends or ()]
    margin = _MARGIN * (max(heights) - min(heights)) or max(abs(max(heights)) * 0.02, 0.1)
    axes.set_ylim(min(heights) - margin, max(heights) + 2 * margin)
    predicted = bool(view.shown) and not any(c.measured for c in view.shown)
    axis = _AXIS[view.unit]
    if predicted:
        axis = f"predicted {axis}" if view.unit == "ms" else f"{axis}, predicted"
    axes.set_xlabel(axis)
    axes.set_ylabel(_Y_AXIS[view.kind], fontsize=11)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    if not view.shown:  # then no number on the axes would mean anything
        axes.set(xticks=[], yticks=[])


def _draw_budget(axes: "Axes", view: FrontView, side: str) -> None:
    if view.budget is None:
        return
    axes.axvspan(view.budget, view.edges[1], color=INK, alpha=0.05, linewidth=0)
    axes.axvline(view.budget, color=INK, linestyle=(0, (5, 3)), linewidth=1.4)
    words = "every budget" if view.unit == "ratio" else f"budget {format_ms(view.budget)} ms"
    look: Look = {"ha": side, "va": "bottom", "fontweight": "bold", "textcoords": "offset points"}
    axes.annotate(words, (view.budget, 1), (0, 4), xycoords=axes.get_xaxis_transform(), **look)


def _draw_networks(axes: "Axes", view: FrontView, urls: Urls) -> None:
    """Draw every network; those of the front last, so that they lie on top."""
    front: Look = {"label": "Pareto front", "s": 38, "zorder": 5}
    sizes = f"FasterNet T0 to L{', published' if are_published(view.named) else ''}"
    named: Look = {"label": sizes, "s": 55, "marker": "D", "zorder": 4}
    others: Look = {"label": "other networks", "s": 18, "linewidths": 1.0, "zorder": 2.6}
    over = "over a budget" if view.unit == "ratio" else "over the budget"
    missed = others | {"label": "infeasible" if view.budget is None else over, "zorder": 2.5}
    _draw_dots(axes, view.front, FRONT, urls, front)
    _draw_intervals(axes, view.named, PALETTE["named"], None)
    every = INTERVAL if all(c.measured for c in view.front) else "interval"
    _draw_intervals(axes, view.front, FRONT, every)
    _draw_accuracy_intervals(axes, view.front)
    axes.step(*_points(view.front), where="post", color=FRONT, linewidth=1.6, alpha=0.5, zorder=3)
    _draw_dots(axes, view.named, PALETTE["named"], urls, named)
    _draw_dots(axes, [c for c in view.others if c.feasible], PALETTE["other"], urls, others)
    _draw_dots(axes, [c for c in view.others if not c.feasible], PALETTE["over"], urls, missed)
    if not all(c.measured for c in view.shown):
        hollow: Look = {"facecolors": PAPER, "edgecolors": INK, "linewidths": 1.5}
        axes.scatter([], [], s=38, label="predicted, not measured", **hollow)
    if unstable := [c for c in (*view.front, *view.named) if c.unstable]:
        look: Look = {"color": ALARM, "linewidths": 1.2, "zorder": 5.5, "s": 60, "marker": "x"}
        axes.scatter(*_points(unstable), label="unstable timing", **look)


def _points(networks: Sequence[Network]) -> tuple[list[float], list[float]]:
    return [c.x for c in networks], [c.accuracy for c in networks]


def _draw_dots(axes: "Axes", group: Sequence[Network], colour: str, urls: Urls, look: Look) -> None:
    """Filled where a clock gave the latency, hollow where a model did."""
    look = {"linewidths": 1.5, "edgecolors": colour, **look}
    for measured in (True, False):
        dots = [c for c in group if c.measured == measured]
        if dots:
            scatter = axes.scatter(*_points(dots), facecolors=colour if measured else PAPER, **look)
            if urls:
                scatter.set_urls([urls[id(c)] for c in dots])
            look.pop("label", None)  # once in the legend


def _urls(view: FrontView) -> Urls:
    """What each point says; the keyboard stops at those that have a name on the page."""
    names = {id(c): f"{i}. {c.name}" for i, c in enumerate(view.front, start=1)}
    names |= {id(c): f"FasterNet {c.name.upper()}" for c in view.named}
    return {
        id(c): sheets.point_url(c.lines(names.get(id(c), c.name)), stop=id(c) in names)
        for c in view.shown
    }


def _draw_intervals(axes: "Axes", group: Sequence[Network], colour: str, label: str | None) -> None:
    if not group:
        return
    x, accuracies = map(np.array, _points(group))
    ends = [c.readings[0].low for c in group] - x, [c.readings[0].high for c in group] - x
    look: Look = {"elinewidth": 1.8, "capsize": 2.5, "capthick": 1.5, "zorder": 3.5, "label": label}
    axes.errorbar(x, accuracies, xerr=np.abs(ends), fmt="none", ecolor=colour, **look)


def _draw_accuracy_intervals(axes: "Axes", group: Sequence[Network]) -> None:
    """Draw them fainter than those of latencies, which are a hundredth as wide."""
    known = [c for c in group if c.accuracy_ends is not None]
    if not known:
        return
    x, accuracies = _points(known)
    level = 90 if known[0].accuracy_kind == "estimated" else 95
    label = f"{level} % interval, accuracy"
    ends = np.array([c.accuracy_ends for c in known]).T
    look: Look = {"elinewidth": 1.2, "alpha": 0.45, "zorder": 2.8, "label": label}
    errors = np.abs(ends - np.array(accuracies))
    axes.errorbar(x, accuracies, yerr=errors, fmt="none", ecolor=FRONT, **look)


def _labels(axes: "Axes", view: FrontView, sheet: Sheet) -> list[Label]:
    """The sizes; of the front the fastest, the best and the knee or, on a page, the numbers."""
    if sheet.page:
        words = [(c, str(i)) for i, c in enumerate(view.front, start=1)]
    else:
        chosen = {id(c): c for c in (*view.front[:1], *view.front[-1:], *_knee(axes, view.front))}
        words = [(c, f"{_short(c.name)}\n{c.readings[0].quantity}") for c in chosen.values()]
    sizes = [
        Label(x=c.x, y=c.accuracy, text=c.name.upper(), colour=PALETTE["named-text"])
        for c in view.named
    ]
    return sizes + [
        Label(x=c.x, y=c.accuracy, text=text, colour=FRONT, required=sheet.page)
        for c, text in words
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _knee(axes: "Axes", front: Sequence[Network]) -> list[Network]:
    """The network of the front that lies farthest above the line from its first to its last."""
    if len(front) < 3:
        return []
    pixels = axes.transData.transform([(c.x, c.accuracy) for c in front])
    along, up = pixels[-1] - pixels[0]
    above = (pixels[:, 1] - pixels[0, 1]) * along - (pixels[:, 0] - pixels[0, 0]) * up
    return [front[int(above.argmax())]]


def _obstacles(axes: "Axes", view: FrontView) -> list[Obstacle]:
    """What labels should stay clear of: markers most of all, then lines, then the others."""
    marked = [*view.front, *view.named]
    ends = [(x, c.accuracy) for c in marked for x in (c.readings[0].low, c.readings[0].high)]
    heights = np.linspace(*axes.get_ylim(), 60)
    budget = [(view.budget, y) for y in heights] if view.budget else []
    steps = [point for a, b in pairwise(view.front) for point in _step(a, b, heights)]
    return [
        *(Obstacle(c.x, c.accuracy, 30) for c in marked),
        *(Obstacle(c.x, c.accuracy, 1) for c in view.others),
        *(Obstacle(x, y, 4) for x, y in (*ends, *steps, *budget)),
        *(Obstacle(c.x, y, 4) for c in view.front for y in _within(c.accuracy_ends, heights)),
    ]


def _within(ends: tuple[float, float] | None, heights: Iterable[float]) -> list[float]:
    return [y for y in heights if ends and ends[0] <= y <= ends[1]]


def _step(a: Network, b: Network, heights: Iterable[float]) -> list[tuple[float, float]]:
    """Points along the front's line from a to b: across, then up."""
    up = [y for y in heights if a.accuracy < y < b.accuracy]
    return [*((x, a.accuracy) for x in np.geomspace(a.x, b.x, 24)), *((b.x, y) for y in up)]
