"""The figures of benchmarks: operators by map size, and networks by their MACs."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nas.networks import LAYERS, Row
from nas.report import sheet as sheets
from nas.report.sheet import ALARM, GREY, PALETTE, SLIDE, TALL, Box, Label, Look, Obstacle
from nas.report.tables import INTERVAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; the markers say it again.
_OPERATORS: dict[str, Look] = {
    "Conv3x3": {"color": "#555555", "marker": "s"},
    "GConv3x3": {"color": "#009E73", "marker": "^"},
    "DWConv3x3": {"color": "#0072B2", "marker": "v"},
    "PConv3x3": {"color": PALETTE["named"], "marker": "D"},
}
_FAMILIES = ("#0072B2", "#00795A", "#A5447A", "#555555", "#2C6E91", "#8A3B00")  # others' families
_OURS = "FasterNet"
_CROSS: Look = {"linestyle": "none", "marker": "x", "markersize": 9.5, "color": ALARM}
_CROSS["markeredgewidth"] = 1.6
_STEP = 0.13  # between the operators at one size, of the distance between sizes
_ROOM = 0.1  # of the axes at each side, for labels
_COVERED = 1000.0  # the cost of a marker under a label: too much for one that is not required
_HALVES: tuple[Box, Box] = ((0.075, 0.15, 0.41, 0.6), (0.575, 0.15, 0.41, 0.6))
_FLOORS: tuple[Box, Box] = ((0.075, 0.505, 0.905, 0.36), (0.075, 0.065, 0.905, 0.38))


class _Point(NamedTuple):
    """A row in a panel, with the ends of its interval."""

    row: Row
    x: float
    low: float
    y: float
    high: float


def operators_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of the operators: latency of a layer and GFLOPS at each map size."""
    shapes = list(dict.fromkeys(row.subject.model.shape for row in rows))
    known, size = [row for row in rows if row.subject.kind in _OPERATORS], _batch_size(rows)
    layer = f"one layer, batch of {size}," if size > 1 else "one layer"
    with sheets.style():
        figure = sheets.new_figure(SLIDE, operators_title(rows), [device])
        left, right = (figure.add_axes(box) for box in _HALVES)
        _draw_operators(left, [_point(row, _place(row, shapes), _layer_ms) for row in known])
        _draw_operators(right, [_point(row, _place(row, shapes), _gflops) for row in known])
        left.set_title(f"latency of {layer} in ms", loc="left", fontsize=13)
        right.set_title("GFLOPS", loc="left", fontsize=13)
        for axes in (left, right):
            axes.set_xticks(range(len(shapes)), [_map(shape) for shape in shapes])
            axes.set_xlim(-0.5, len(shapes) - 0.5)
            axes.set_xlabel("channels, and height x width of the map")
            axes.grid(visible=False, axis="x")
        left.set_yscale("log")
        sheets.plain_ticks(left.yaxis, left.get_ylim())
        right.set_ylim(bottom=0)
        _explain_marks(left, rows)
        sheets.explain_above(left, SLIDE)
    return figure


def _place(row: Row, shapes: Sequence[Sequence[int]]) -> float:
    """Where an operator lies: about the place of its map size, beside the other operators."""
    aside = list(_OPERATORS).index(row.subject.kind) - (len(_OPERATORS) - 1) / 2
    return shapes.index(row.subject.model.shape) + _STEP * aside


def _draw_operators(axes: "Axes", points: Sequence[_Point]) -> None:
    for kind, look in _OPERATORS.items():
        _draw(axes, points, kind, {**look, "label": kind})


def models_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of many networks: GFLOPS and latency against MACs (the paper's figure 2).

    Rows without MACs are left out.
    """
    shown = sorted((row for row in rows if row.gflops), key=_macs)
    size = _batch_size(shown)
    latency = f"latency of a batch of {size}" if size > 1 else "latency"
    with sheets.style():
        figure = sheets.new_figure(TALL, models_title(rows), [device])
        upper, lower = (figure.add_axes(box) for box in _FLOORS)
        _draw_models(upper, [_point(row, _macs(row), _gflops) for row in shown])
        _draw_models(lower, [_point(row, _macs(row), _ms) for row in shown], logarithmic=True)
        upper.set_title("GFLOPS", loc="left", fontsize=13)
        lower.set_title(f"{latency} in ms", loc="left", fontsize=13)
        lower.set_xlabel("MACs in G" + (" for one image" if size > 1 else ""))
        _explain_marks(upper, shown)
        sheets.explain_above(upper, TALL)
    return figure


def _draw_models(axes: "Axes", points: Sequence[_Point], *, logarithmic: bool = False) -> None:
    looks = _looks([point.row for point in points])
    for kind, look in looks.items():
        _draw(axes, points, kind, look)
    if points:
        _set_scales(axes, points, logarithmic=logarithmic)
        _write_labels(axes, points, looks)
    else:
        axes.set(xticks=[], yticks=[])


def operators_title(rows: Sequence[Row]) -> str:
    """The finding in one line: how PConv's and DWConv's speed compares with a convolution's."""
    speed = {(row.subject.kind, row.subject.model.shape): row.gflops or 0.0 for row in rows}
    plain = {shape: gflops for (kind, shape), gflops in speed.items() if kind == "Conv3x3"}
    findings = []
    for kind in ("PConv", "DWConv"):
        keys = {shape: (f"{kind}3x3", shape) for shape in plain}
        ratios = [speed[key] / plain[shape] for shape, key in keys.items() if key in speed]
        findings += [f"{kind} at {100 * median(ratios):.0f} %"] if ratios else []
    return f"{', '.join(findings)} of Conv's GFLOPS" if findings else "GFLOPS of operators"


def models_title(rows: Sequence[Row]) -> str:
    """The finding in one line: the range of speeds of FasterNet and of the others."""
    findings = []
    for who, ours in ((_OURS, True), ("the others", False)):
        speeds = [row.gflops for row in rows if row.gflops and (row.subject.kind == _OURS) == ours]
        findings += [f"{who} at {_span(speeds)}"] if speeds else []
    return f"{', '.join(findings)} GFLOPS" if findings else "No network whose MACs are known"


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    """How each family looks; FasterNet comes last, so that it lies on top."""
    kinds = dict.fromkeys(row.subject.kind for row in rows)
    thin: Look = {"linewidth": 0.8, "markersize": 6}
    looks = {
        kind: {"color": _FAMILIES[i % len(_FAMILIES)], "marker": "osv^P"[i % 5], **thin}
        for i, kind in enumerate(kind for kind in kinds if kind != _OURS)
    }
    ours: Look = {"marker": "D", "linewidth": 2.6, "markersize": 8, "label": _OURS}
    return looks | {_OURS: {**ours, "color": PALETTE["named"]}} if _OURS in kinds else looks


def _draw(axes: "Axes", points: Sequence[_Point], kind: str, look: Look) -> None:
    """Connected points with a bar for each interval, and a cross on what was unstable."""
    own = [point for point in points if point.row.subject.kind == kind]
    if not own:
        return
    x = [point.x for point in own]
    axes.plot(x, [point.y for point in own], **{"linewidth": 1.2, "markersize": 7, **look})
    ends = [point.low for point in own], [point.high for point in own]
    axes.vlines(x, *ends, colors=look["color"], linewidth=2.2, alpha=0.6)
    crosses = [point for point in own if point.row.latency and point.row.latency.unstable]
    axes.plot([p.x for p in crosses], [p.y for p in crosses], zorder=5, **_CROSS)


def _explain_marks(axes: "Axes", rows: Sequence[Row]) -> None:
    """Entries of the legend for what all have in common."""
    axes.plot([], [], color=GREY, linewidth=2.2, label=INTERVAL)
    if any(row.latency and row.latency.unstable for row in rows):
        axes.plot([], [], label="unstable timing", **_CROSS)


def _set_scales(axes: "Axes", points: Sequence[_Point], *, logarithmic: bool) -> None:
    """Room for labels at the sides."""
    x = _with_room([point.x for point in points])
    axes.set(xscale="log", xlim=x)
    sheets.plain_ticks(axes.xaxis, x)
    ends = [end for point in points for end in (point.low, point.high)]
    if logarithmic:
        y = _with_room(ends)
        axes.set(yscale="log", ylim=y)
        sheets.plain_ticks(axes.yaxis, y)
    else:
        room = 0.12 * max(ends)
        axes.set_ylim(max(min(ends) - room, 0), max(ends) + room)


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max((high / low) ** _ROOM, 1.2)
    return low / room, high * room


def _write_labels(axes: "Axes", points: Sequence[_Point], looks: Mapping[str, Look]) -> None:
    """Name the networks, FasterNet's sizes first; others only where no marker is in the way."""
    ours, others, obstacles = [], [], [Obstacle(p.x, p.y, _COVERED) for p in points]
    for kind in looks:
        own = [p for p in points if p.row.subject.kind == kind]
        obstacles += [Obstacle(x, y, 4) for x, y in _along(own)]
    for p in points:
        subject = p.row.subject
        if subject.kind == _OURS:
            ours.append(Label(x=p.x, y=p.y, text=subject.label, colour=PALETTE["named-text"]))
        else:
            colour = looks[subject.kind]["color"]
            others.append(Label(x=p.x, y=p.y, text=subject.label, colour=colour, required=False))
    sheets.place_labels(axes, [*ours, *others], obstacles)


def _along(points: Sequence[_Point]) -> list[tuple[float, float]]:
    """Points along the lines between those given."""
    return [
        (float(x), float(y))
        for a, b in pairwise(points)
        for x, y in zip(np.geomspace(a.x, b.x, 16), np.geomspace(a.y, b.y, 16), strict=True)
    ]


def _point(row: Row, x: float, quantity: Callable[[Row, float], float]) -> _Point:
    """A row at x and, at its latency in ms, the height that the quantity says."""
    name, latency = row.subject.model.name, row.latency
    if latency is None:
        raise ValueError(f"`rows` must have latencies, but {name} has none. Leave it out.")
    ends_ms = (latency.low_ms, latency.median_ms, latency.high_ms)
    return _Point(row, x, *(quantity(row, ms) for ms in ends_ms))


def _macs(row: Row) -> float:
    """In 10^9."""
    return (row.subject.model.macs or 0) / 1e9


def _ms(_: Row, ms: float) -> float:
    return ms


def _layer_ms(_: Row, ms: float) -> float:
    return ms / LAYERS


def _gflops(row: Row, ms: float) -> float:
    return row.subject.model.gflops(ms) or 0.0


def _batch_size(rows: Sequence[Row]) -> int:
    """How many images all of them take at once."""
    return max((row.subject.model.batch_size for row in rows), default=1)


def _map(shape: Sequence[int]) -> str:
    channels, *sides = shape
    return f"{channels}\n{'x'.join(map(str, sides))}"


def _span(numbers: Sequence[float]) -> str:
    low, high = f"{min(numbers):.0f}", f"{max(numbers):.0f}"
    return low if low == high else f"{low} to {high}"
