"""The figure of the front: accuracy against latency, with the budget and the published sizes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.candidate import Candidate
from nas.gauge import AXIS, PREDICTED_AXIS, limit_words, over_words, quantity
from nas.report.model import MARGIN, View
from predictors.measurement import CONFIDENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.transforms import Bbox

# Okabe and Ito's colours, which colour-blind readers tell apart; shape and fill say it again.
_FRONT, _NAMED, _NAMED_TEXT, _UNSTABLE = "#0072B2", "#E69F00", "#7A5200", "#B83A00"
_INK, _OTHER, _FAINT = "#222222", "#666666", "#929292"
Y_LABELS = {
    "proxy": "training-free score (T0 = 100, T2 = 200)", "trained": "top-1 accuracy in %",
    "supernet": "likelihood of the labels in %, shared weights",
}  # fmt: skip


Floats = NDArray[np.float64]

# Shift from the point, in font points, and which edge of the text is there; the first is best.
_SIDES = (
    (-7, 7, "right", "bottom"), (7, -7, "left", "top"), (10, 0, "left", "center"),
    (0, 10, "center", "bottom"), (7, 7, "left", "bottom"), (0, -10, "center", "top"),
    (-10, 0, "right", "center"), (-7, -7, "right", "top"),
)  # fmt: skip
_PLACES = [(dx * far, dy * far, ha, va) for far in (1.0, 1.8, 2.8) for dx, dy, ha, va in _SIDES]
_SHARE = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
_FONT: dict[str, Any] = {"fontsize": 10.5, "linespacing": 1.1}
_FORBIDDEN = 1000.0  # the cost of covering another label or leaving the axes
_RADIUS = 0.07  # of a marker, inches


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text beside the point (x, y); one that is not required is left out where it is crowded."""

    x: float
    y: float
    text: str
    colour: str
    required: bool = True


class Obstacle(NamedTuple):
    """A point that labels should not cover, and what it costs if one does."""

    x: float
    y: float
    cost: float


def draw_front(axes: "Axes", view: View) -> None:
    """Draw everything but the labels of networks."""
    _set_axes(axes, view)
    _draw_budget(axes, view)
    _draw_networks(axes, view)


def label_front(axes: "Axes", view: View) -> None:
    """Write the labels of networks; the axes are drawn and stand where they are to stay."""
    place_labels(axes, _labels(axes, view), _obstacles(axes, view))


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"


def _set_axes(axes: "Axes", view: View) -> None:
    from matplotlib.ticker import MaxNLocator

    if view.logarithmic:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis, view.edges)
    axes.set_xlim(view.edges)
    heights = [c.accuracy for c in view.shown] or [0.0]
    margin = MARGIN * (max(heights) - min(heights)) or max(abs(max(heights)) * 0.02, 0.1)
    axes.set_ylim(min(heights) - margin, max(heights) + 2 * margin)
    predicted = view.shown and all(c.latency.source == "predicted" for c in view.shown)
    axes.set_xlabel((PREDICTED_AXIS if predicted else AXIS)[view.unit])
    axes.set_ylabel(Y_LABELS[view.kind].replace(" (", "\n(").replace("%, ", "%,\n"), fontsize=11)
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


def plain_ticks(axis: "Axis", edges: tuple[float, float]) -> None:
    """Mark a logarithmic axis between two numbers with numbers such as 0.5, 2 and 30."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    tens = math.log10(edges[1] / edges[0])
    if tens < 0.7:
        axis.set_major_locator(MaxNLocator(6))
    else:
        marks = (1, 1.5, 2, 3, 5, 7) if tens < 1.5 else (1, 2, 5) if tens < 3 else (1,)
        axis.set_major_locator(LogLocator(subs=marks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:.6g}"))


def place_labels(axes: "Axes", labels: Sequence[Label], obstacles: Sequence[Obstacle]) -> None:
    """Write the labels in turn, each where it covers least; the axes' limits must be final."""
    taken: list[Bbox] = []
    pixels = axes.transData.transform([(o.x, o.y) for o in obstacles] or np.empty((0, 2)))
    weights = np.array([o.cost for o in obstacles])
    for label in labels:
        boxes, costs = _boxes(axes, label), []
        for place, box in enumerate(boxes):
            forbidden = _outside(axes, box) + sum(box.overlaps(other) for other in taken)
            covered = weights[_inside(box, pixels, _RADIUS * axes.figure.dpi)].sum()
            costs.append(_FORBIDDEN * forbidden + covered + 0.3 * place)
        best = int(np.argmin(costs))
        if costs[best] < _FORBIDDEN or label.required:
            taken.append(boxes[best])
            _write(axes, label, best)


def _boxes(axes: "Axes", label: Label) -> list["Bbox"]:
    """The pixels that the text would cover at each of its places, and a little more."""
    from matplotlib.transforms import Bbox

    text = axes.text(0, 0, label.text, **_FONT)
    width, height = text.get_window_extent().size
    text.remove()
    x, y = axes.transData.transform((label.x, label.y))
    point = axes.figure.dpi / 72
    return [
        Bbox.from_bounds(x + dx * point - _SHARE[ha] * width,
                         y + dy * point - _SHARE[va] * height, width, height).padded(3)
        for dx, dy, ha, va in _PLACES
    ]  # fmt: skip


def _write(axes: "Axes", label: Label, place: int) -> None:
    """Write the text at one of its places, with a line to its point where that is not near."""
    from matplotlib.patheffects import withStroke

    dx, dy, ha, va = _PLACES[place]
    line = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.8, "shrinkB": 4}
    axes.annotate(
        label.text, (label.x, label.y), (dx, dy), textcoords="offset points", ha=ha, va=va,
        color=label.colour, arrowprops=line if place >= len(_SIDES) else None, zorder=6,
        path_effects=[withStroke(linewidth=3, foreground="white")], **_FONT,
    )  # fmt: skip


def _outside(axes: "Axes", box: "Bbox") -> bool:
    return not (axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max))


def _inside(box: "Bbox", pixels: Floats, margin: float) -> NDArray[np.bool_]:
    """Which of the points [n, 2] lie in the box, or that close to it: shape [n]."""
    low, high = np.asarray(box.min) - margin, np.asarray(box.max) + margin
    return np.asarray(((pixels > low) & (pixels < high)).all(axis=1))
