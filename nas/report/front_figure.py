"""The figure of the front: accuracy against latency, with the budget and the published sizes."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.report.front import MARGIN, FrontView, Network
from nas.report.labels import Label, Obstacle, place_labels
from nas.report.sheet import (
    ALARM,
    FRONT,
    INK,
    PALETTE,
    PAPER,
    SLIDE,
    Look,
    Sheet,
    explain_above,
    new_figure,
    note,
    plain_ticks,
    style,
)
from nas.report.svg import point_url
from nas.report.words import AXIS, INTERVAL, budget_words, over_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Urls = Mapping[int, str]  # by the id of a network

_NAMED = PALETTE["named"]
Y_LABELS = {
    "proxy": "training-free score\n(T0 = 100, T2 = 200)",
    "trained": "top-1 accuracy in %",
    "supernet": "likelihood of the labels in %,\nshared weights",
}
_LEFT, _RIGHT = 1.008, 0.288  # inches beside the axes
_BUDGET = 0.27  # inches above them, for the budget's name


def front_figure(view: FrontView, *, device: str = "", sheet: Sheet = SLIDE) -> "Figure":
    """Return the Pareto plot; `device` describes the device, in a line or two."""
    with style(sheet):
        source, alarm = view.sources
        below = [line for line in (source, *device.splitlines()) if line]
        figure = new_figure(sheet, view.title, below, alarm=alarm)
        foot = 0.65 if sheet.page else note(figure, view.notes) * sheet.height
        axes = figure.add_axes(sheet.box(left=_LEFT, right=_RIGHT, top=2, foot=foot))
        _draw_front(axes, view, sheet)
        legend = sheet.height * (1 - explain_above(axes, sheet, at=0.702 + 0.243 * len(below)))
        top = legend + _BUDGET
        left = _LEFT - 0.1 * sheet.page
        axes.set_position(sheet.box(left=left, right=_RIGHT, top=top, foot=foot))
        place_labels(axes, _labels(axes, view, sheet), _obstacles(axes, view))
    return figure


def _draw_front(axes: "Axes", view: FrontView, sheet: Sheet) -> None:
    _set_axes(axes, view)
    if view.budget is not None:
        axes.axvspan(view.budget, view.edges[1], color=INK, alpha=0.05, linewidth=0)
        axes.axvline(view.budget, color=INK, linestyle=(0, (5, 3)), linewidth=1.4)
        axes.annotate(
            budget_words(view.budget, view.unit),
            (view.budget, 1),
            (0, 4),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="right" if sheet.page else "center",
            va="bottom",
            fontweight="bold",
        )
    _draw_networks(axes, view, titles=sheet.page)


def _set_axes(axes: "Axes", view: FrontView) -> None:
    from matplotlib.ticker import MaxNLocator

    if view.logarithmic:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis, view.edges)
    axes.set_xlim(view.edges)
    heights = [c.accuracy for c in view.shown] or [0.0]
    margin = MARGIN * (max(heights) - min(heights)) or max(abs(max(heights)) * 0.02, 0.1)
    axes.set_ylim(min(heights) - margin, max(heights) + 2 * margin)
    predicted = bool(view.shown) and not any(c.measured for c in view.shown)
    axis = AXIS[view.unit]
    if predicted:
        axis = f"predicted {axis}" if view.unit == "ms" else f"{axis}, predicted"
    axes.set_xlabel(axis)
    axes.set_ylabel(Y_LABELS[view.kind], fontsize=11)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    if not view.shown:  # then no number on the axes would mean anything
        axes.set(xticks=[], yticks=[])


def _draw_networks(axes: "Axes", view: FrontView, *, titles: bool) -> None:
    """Draw every network; those of the front last, so that they lie on top."""
    urls = _urls(view) if titles else None
    _draw_dots(axes, view.front, "Pareto front", FRONT, urls, s=38, zorder=5)
    _draw_intervals(axes, view.named, _NAMED, None)
    every = INTERVAL if all(c.measured for c in view.front) else "interval"
    _draw_intervals(axes, view.front, FRONT, every)
    steps = [c.x for c in view.front], [c.accuracy for c in view.front]
    axes.step(*steps, where="post", color=FRONT, linewidth=1.6, alpha=0.5, zorder=3)
    _draw_dots(axes, view.named, "FasterNet T0 to L", _NAMED, urls, s=55, marker="D", zorder=4)
    small: Look = {"s": 18, "linewidths": 1.0}
    kept = [c for c in view.others if c.feasible]
    _draw_dots(axes, kept, "other networks", PALETTE["other"], urls, zorder=2.6, **small)
    missed = [c for c in view.others if not c.feasible]
    over = over_words(view.budget, view.unit)
    _draw_dots(axes, missed, over, PALETTE["over"], urls, zorder=2.5, **small)
    if not all(c.measured for c in view.shown):
        hollow: Look = {"facecolors": PAPER, "edgecolors": INK, "linewidths": 1.5}
        axes.scatter([], [], s=38, label="predicted, not measured", **hollow)
    unstable = [c for c in (*view.front, *view.named) if c.unstable]
    if unstable:
        crosses = [c.x for c in unstable], [c.accuracy for c in unstable]
        look: Look = {"color": ALARM, "linewidths": 1.2, "zorder": 5.5}
        axes.scatter(*crosses, s=60, marker="x", label="unstable timing", **look)


def _draw_dots(
    axes: "Axes",
    group: Sequence[Network],
    label: str | None,
    colour: str,
    urls: Urls | None,
    **look: Any,
) -> None:
    """Filled where a clock gave the latency, hollow where a model did."""
    for measured in (True, False):
        dots = [c for c in group if c.measured == measured]
        if not dots:
            continue
        faces = colour if measured else PAPER
        at = [c.x for c in dots], [c.accuracy for c in dots]
        look = {"linewidths": 1.5, **look, "label": label, "facecolors": faces}
        scatter = axes.scatter(*at, edgecolors=colour, **look)
        label = None  # once in the legend
        if urls:
            scatter.set_urls([urls[id(c)] for c in dots])


def _urls(view: FrontView) -> Urls:
    """What each point says; the keyboard stops at those that have a name on the page."""
    names = {id(c): f"{i}. {c.name}" for i, c in enumerate(view.front, start=1)}
    names |= {id(c): f"FasterNet {c.name.upper()}" for c in view.named}
    return {
        id(c): point_url(c.lines(names.get(id(c), c.name)), stop=id(c) in names) for c in view.shown
    }


def _draw_intervals(axes: "Axes", group: Sequence[Network], colour: str, label: str | None) -> None:
    """A bar for each interval."""
    if not group:
        return
    x = np.array([c.x for c in group])
    ends = [c.readings[0].low for c in group] - x, [c.readings[0].high for c in group] - x
    look: Look = {"elinewidth": 1.8, "capsize": 2.5, "capthick": 1.5, "zorder": 3.5, "label": label}
    accuracies = [c.accuracy for c in group]
    axes.errorbar(x, accuracies, xerr=np.abs(ends), fmt="none", ecolor=colour, **look)


def _labels(axes: "Axes", view: FrontView, sheet: Sheet) -> list[Label]:
    """The sizes; of the front the fastest, the best and the knee or, on a page, the numbers."""
    if sheet.page:
        words = [(c, str(i)) for i, c in enumerate(view.front, start=1)]
    else:
        chosen = {id(c): c for c in (*view.front[:1], *view.front[-1:], *_knee(axes, view.front))}
        words = [(c, f"{_short(c.name)}\n{c.readings[0].quantity}") for c in chosen.values()]
    named_text = PALETTE["named-text"]
    return [
        *(Label(x=c.x, y=c.accuracy, text=c.name.upper(), colour=named_text) for c in view.named),
        *(
            Label(x=c.x, y=c.accuracy, text=text, colour=FRONT, required=sheet.page)
            for c, text in words
        ),
    ]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"


def _knee(axes: "Axes", front: Sequence[Network]) -> list[Network]:
    """The network of the front that lies farthest above the line from its first to its last."""
    if len(front) < 3:
        return []
    at = axes.transData.transform([(c.x, c.accuracy) for c in front])
    along, up = at[-1] - at[0]
    above = (at[:, 1] - at[0, 1]) * along - (at[:, 0] - at[0, 0]) * up
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
    ]


def _step(a: Network, b: Network, heights: Iterable[float]) -> list[tuple[float, float]]:
    """Points along the front's line from a to b: across, then up."""
    up = [y for y in heights if a.accuracy < y < b.accuracy]
    return [*((x, a.accuracy) for x in np.geomspace(a.x, b.x, 24)), *((b.x, y) for y in up)]
