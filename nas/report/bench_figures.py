"""The plots of benchmarks: operators by map size, and networks by their MACs."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.benching.bench_row import Row
from nas.benching.operators import LAYERS
from nas.report.labels import Label, Obstacle, place_labels
from nas.report.sheet import (
    ALARM,
    GREY,
    PALETTE,
    SLIDE,
    TALL,
    Box,
    explain_above,
    new_figure,
    plain_ticks,
    style,
)
from predictors.measurement import CONFIDENCE, Latency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; the markers say it again.
_OPERATORS = {
    "Conv3x3": ("#555555", "s"),
    "GConv3x3": ("#009E73", "^"),
    "DWConv3x3": ("#0072B2", "v"),
    "PConv3x3": ("#E69F00", "D"),
}
_FASTERNET, _FASTERNET_TEXT = PALETTE["named"], PALETTE["named-text"]
_FAMILIES = ("#0072B2", "#00795A", "#A5447A", "#555555", "#2C6E91", "#8A3B00")  # others' families
_MARKERS = "osv^P"
_CROSS: dict[str, Any] = {
    "linestyle": "none",
    "marker": "x",
    "markersize": 9.5,
    "color": ALARM,
    "markeredgewidth": 1.6,
    "zorder": 5,
}
_STEP = 0.13  # between the operators at one size, of the distance between sizes
_ROOM = 0.1  # of the axes at each side, for labels
_COVERED = 1000.0  # the cost of a marker under a label: too much for one that is not required
_HALVES: tuple[Box, Box] = ((0.075, 0.15, 0.41, 0.6), (0.575, 0.15, 0.41, 0.6))
_FLOORS: tuple[Box, Box] = ((0.075, 0.505, 0.905, 0.36), (0.075, 0.065, 0.905, 0.38))
Panels = tuple["Axes", "Axes"]
Quantity = Callable[[Row, float], float]  # of a row, at a latency in ms


def operators_title(rows: Sequence[Row]) -> str:
    """The finding in one line: how PConv's and DWConv's speed compares with a convolution's."""
    speed = {(row.subject.kind, row.subject.model.shape): row.gflops or 0.0 for row in rows}
    found = []
    for kind in ("PConv3x3", "DWConv3x3"):
        ratios = [
            speed[kind, shape] / gflops
            for (other, shape), gflops in speed.items()
            if other == "Conv3x3" and (kind, shape) in speed
        ]
        if ratios:
            found.append(f"{kind.removesuffix('3x3')} at {100 * median(ratios):.0f} %")
    return f"{', '.join(found)} of Conv's GFLOPS" if found else "GFLOPS of operators"


def models_title(rows: Sequence[Row]) -> str:
    """The finding in one line: the range of speeds of FasterNet and of the others."""
    ours = [row.gflops for row in rows if row.gflops and row.subject.kind == "FasterNet"]
    others = [row.gflops for row in rows if row.gflops and row.subject.kind != "FasterNet"]
    found = [
        f"{who} at {_span(speeds)}"
        for who, speeds in (("FasterNet", ours), ("the others", others))
        if speeds
    ]
    return f"{', '.join(found)} GFLOPS" if found else "No network whose MACs are known"


def operators_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of the operators: latency of a layer and GFLOPS at each map size."""
    with style():
        figure = new_figure(SLIDE, operators_title(rows), [device])
        left, right = (figure.add_axes(box) for box in _HALVES)
        _draw_operators((left, right), rows)
        explain_above(left, SLIDE)
    return figure


def models_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of many networks: GFLOPS and latency against MACs (the paper's figure 2)."""
    with style():
        figure = new_figure(TALL, models_title(rows), [device])
        upper, lower = (figure.add_axes(box) for box in _FLOORS)
        _draw_models((upper, lower), rows)
        explain_above(upper, TALL)
    return figure


def _draw_operators(panels: Panels, rows: Sequence[Row]) -> None:
    """Draw the latency of a layer and GFLOPS, side by side, over the map sizes."""
    shapes = list(dict.fromkeys(row.subject.model.shape for row in rows))
    shift = _STEP * (len(_OPERATORS) - 1) / 2
    size = _batch_size(rows)
    layer = f"one layer, batch of {size}," if size > 1 else "one layer"
    quantities = ((_layer_ms, f"latency of {layer} in ms"), (_gflops, "GFLOPS"))
    for axes, (quantity, title) in zip(panels, quantities, strict=True):
        for i, (kind, (colour, marker)) in enumerate(_OPERATORS.items()):
            own = [row for row in rows if row.subject.kind == kind]
            x = [shapes.index(row.subject.model.shape) + _STEP * i - shift for row in own]
            _draw(axes, x, own, quantity, {"color": colour, "marker": marker, "label": kind})
        axes.set_xticks(range(len(shapes)), [_map(shape) for shape in shapes])
        axes.set_xlim(-0.5, len(shapes) - 0.5)
        axes.set_xlabel("channels, and height x width of the map")
        axes.set_title(title, loc="left", fontsize=13)
        axes.grid(visible=False, axis="x")
    panels[0].set_yscale("log")
    plain_ticks(panels[0].yaxis, panels[0].get_ylim())
    panels[1].set_ylim(bottom=0)
    _explain_marks(panels[0], rows)


def _draw_models(panels: Panels, rows: Sequence[Row]) -> None:
    """Draw GFLOPS and, below, latency over MACs; rows without MACs are left out."""
    shown = sorted((row for row in rows if row.gflops), key=_macs)
    looks = _looks(shown)
    size = _batch_size(shown)
    taken = f"latency of a batch of {size}" if size > 1 else "latency"
    quantities = ((_gflops, "GFLOPS"), (_ms, f"{taken} in ms"))
    for axes, (quantity, title) in zip(panels, quantities, strict=True):
        axes.set_title(title, loc="left", fontsize=13)
        for kind, look in looks.items():
            own = [row for row in shown if row.subject.kind == kind]
            _draw(axes, [_macs(row) for row in own], own, quantity, look)
        if shown:
            _set_scales(axes, shown, quantity)
            _write_labels(axes, shown, quantity, looks)
        else:
            axes.set(xticks=[], yticks=[])
    panels[1].set_xlabel("MACs in G" + (" for one image" if size > 1 else ""))
    _explain_marks(panels[0], shown)


def _looks(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How each family looks; FasterNet comes last, so that it lies on top."""
    others = dict.fromkeys(row.subject.kind for row in rows if row.subject.kind != "FasterNet")
    looks: dict[str, dict[str, Any]] = {
        kind: {
            "color": _FAMILIES[i % len(_FAMILIES)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linewidth": 0.8,
            "markersize": 6,
        }
        for i, kind in enumerate(others)
    }
    ours = {
        "color": _FASTERNET,
        "marker": "D",
        "linewidth": 2.6,
        "markersize": 8,
        "label": "FasterNet",
    }
    present = any(row.subject.kind == "FasterNet" for row in rows)
    return {**looks, "FasterNet": ours} if present else looks


def _draw(
    axes: "Axes",
    x: Sequence[float],
    rows: Sequence[Row],
    quantity: Quantity,
    look: Mapping[str, Any],
) -> None:
    """Connected points with a bar for each interval, and a cross on what was unstable."""
    if not rows:
        return
    y = [quantity(row, _latency(row).median_ms) for row in rows]
    axes.plot(x, y, **{"linewidth": 1.2, "markersize": 7, **look})
    lows = [quantity(row, _latency(row).low_ms) for row in rows]
    highs = [quantity(row, _latency(row).high_ms) for row in rows]
    axes.vlines(x, lows, highs, colors=look["color"], linewidth=2.2, alpha=0.6)
    crosses = [
        at for at, row in zip(zip(x, y, strict=True), rows, strict=True) if _latency(row).unstable
    ]
    axes.plot([a for a, _ in crosses], [b for _, b in crosses], **_CROSS)


def _explain_marks(axes: "Axes", rows: Sequence[Row]) -> None:
    """Entries of the legend for what all have in common."""
    axes.plot([], [], color=GREY, linewidth=2.2, label=f"{100 * CONFIDENCE:.0f} % interval")
    if any(_latency(row).unstable for row in rows):
        axes.plot([], [], label="unstable timing", **_CROSS)


def _set_scales(axes: "Axes", rows: Sequence[Row], quantity: Quantity) -> None:
    """Logarithmic axes with room for labels at the sides; GFLOPS are not logarithmic."""
    axes.set_xscale("log")
    x = _with_room([_macs(row) for row in rows])
    axes.set_xlim(x)
    plain_ticks(axes.xaxis, x)
    ends = [
        quantity(row, ms) for row in rows for ms in (_latency(row).low_ms, _latency(row).high_ms)
    ]
    if quantity is _gflops:
        room = 0.12 * max(ends)
        axes.set_ylim(max(min(ends) - room, 0), max(ends) + room)
        return
    axes.set_yscale("log")
    y = _with_room(ends)
    axes.set_ylim(y)
    plain_ticks(axes.yaxis, y)


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max((high / low) ** _ROOM, 1.2)
    return low / room, high * room


def _write_labels(
    axes: "Axes", rows: Sequence[Row], quantity: Quantity, looks: Mapping[str, Mapping[str, Any]]
) -> None:
    """Name the networks, FasterNet's sizes first; others only where no marker is in the way."""
    points = {id(row): (_macs(row), quantity(row, _latency(row).median_ms)) for row in rows}
    ours_first = sorted(rows, key=lambda row: row.subject.kind != "FasterNet")
    labels = [
        Label(
            x=points[id(row)][0],
            y=points[id(row)][1],
            text=row.subject.label,
            colour=_FASTERNET_TEXT if ours else looks[row.subject.kind]["color"],
            required=ours,
        )
        for row in ours_first
        for ours in [row.subject.kind == "FasterNet"]
    ]
    lines = [
        point
        for kind in looks
        for point in _along([points[id(row)] for row in rows if row.subject.kind == kind])
    ]
    place_labels(
        axes,
        labels,
        [
            *(Obstacle(x, y, _COVERED) for x, y in points.values()),
            *(Obstacle(x, y, 4) for x, y in lines),
        ],
    )


def _along(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along the lines between those given."""
    return [
        (float(x), float(y))
        for (x0, y0), (x1, y1) in pairwise(points)
        for x, y in zip(np.geomspace(x0, x1, 16), np.geomspace(y0, y1, 16), strict=True)
    ]


def _latency(row: Row) -> Latency:
    if row.latency is None:
        raise ValueError(
            f"`rows` must have latencies, but {row.subject.model.name} has none. Leave it out."
        )
    return row.latency


def _macs(row: Row) -> float:
    """In 10^9."""
    return (row.subject.model.macs or 0) / 1e9


def _ms(row: Row, ms: float) -> float:
    return ms


def _layer_ms(row: Row, ms: float) -> float:
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
