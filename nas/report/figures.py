"""The figures of a run's predictor, of its progress, and of a training."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nas.report.model import CalibrationView, ProgressCurve
from nas.report.sheet import (
    ALARM,
    FRONT,
    INK,
    NARROW,
    PALETTE,
    PAPER,
    SLIDE,
    Box,
    Look,
    Sheet,
    explain_above,
    new_figure,
    plain_ticks,
    style,
)
from nas.report.svg import point_url
from nas.report.words import INTERVAL
from predictors.latency import COVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAND = 0.1  # about the identity
_CHANGE = "#8F8F8F"
_SQUARE: Box = (0.095, 0.125, 0.7 * SLIDE.height / SLIDE.width, 0.7)
_CURVES: tuple[Box, Box] = ((0.095, 0.47, 0.88, 0.33), (0.095, 0.11, 0.88, 0.3))


def calibration_figure(view: CalibrationView, *, sheet: Sheet = SLIDE) -> "Figure":
    """Return predicted over measured latencies with their intervals, in logarithmic axes."""
    with style(sheet):
        figure = new_figure(sheet, view.title, [view.description])
        axes = figure.add_axes(_SQUARE)
        _set_calibration_axes(axes, view)
        if view.rows:
            _draw_calibration(axes, view, sheet)
        if sheet.page:
            top = sheet.height * (1 - explain_above(axes, sheet)) + 0.1
            axes.set_position(sheet.box(left=0.75, right=0.25, top=top, foot=0.65))
            return figure
        handles, labels = axes.get_legend_handles_labels()
        corner = (_SQUARE[0] + _SQUARE[2] + 0.01, _SQUARE[1] + _SQUARE[3] + 0.02)
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner)
    return figure


def _set_calibration_axes(axes: "Axes", view: CalibrationView) -> None:
    """Room for every interval, the same on both axes; the identity and a band about it."""
    lows = [low for row in view.rows for low in (row.low, row.measured.low)] or [1.0]
    highs = [high for row in view.rows for high in (row.high, row.measured.high)] or [10.0]
    edges = min(lows) / 1.1, max(highs) * 1.1
    axes.set(xscale="log", yscale="log", xlim=edges, ylim=edges, aspect="equal")
    axes.set(xlabel="measured latency in ms", ylabel="predicted latency in ms")
    plain_ticks(axes.xaxis, edges)
    plain_ticks(axes.yaxis, edges)
    line, label = np.array(edges), f"within \u00b1{100 * _BAND:.0f} %"
    band = line * (1 - _BAND), line * (1 + _BAND)
    axes.fill_between(line, *band, color=INK, alpha=0.08, linewidth=0, label=label)
    axes.plot(line, line, color=INK, linewidth=1.2, label="predicted = measured")


def _draw_calibration(axes: "Axes", view: CalibrationView, sheet: Sheet) -> None:
    rows = view.rows
    x, y = np.array([row.measured.median for row in rows]), np.array([row.mean for row in rows])
    lows, highs = [row.measured.low for row in rows], [row.measured.high for row in rows]
    thin: Look = {"linewidth": 1.4, "alpha": 0.45}
    predicted, measured = f"predicted, {100 * COVERAGE:.0f} % interval", f"measured, {INTERVAL}"
    ends = [row.low for row in rows], [row.high for row in rows]
    axes.vlines(x, *ends, colors=FRONT, label=predicted, **thin)
    axes.hlines(y, lows, highs, colors=INK, label=measured, **thin)
    dots = axes.scatter(x, y, s=15, color=FRONT, zorder=3, label="network")
    unstable = np.array([row.measured.unstable for row in rows])
    if unstable.any():
        cross: Look = {"marker": "x", "color": ALARM, "linewidths": 1.8, "label": "unstable timing"}
        axes.scatter(x[unstable], y[unstable], s=110, zorder=4, **cross)
    if sheet.page:
        dots.set_urls([point_url(row.words) for row in rows])
        return
    words = (
        f"median absolute error {view.error:.1f} %\n{100 * COVERAGE:.0f} % interval covers "
        f"{view.covered:.0f} %\nnetworks: {len(view.rows)}"
    )
    ground = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8}
    corner = axes.text(0.04, 0.96, words, transform=axes.transAxes, va="top", bbox=ground)
    corner.set(fontsize=11, linespacing=1.4, zorder=5)


def progress_figure(curve: ProgressCurve, *, trials: int, sheet: Sheet) -> "Figure":
    """Return the growth of the hypervolume as a share of its last value, of so many trials."""
    with style(sheet):
        figure = new_figure(sheet)
        axes = figure.add_axes(sheet.box(left=0.75, right=0.3, top=0.2, foot=0.65))
        axes.step(range(len(curve.areas) + 1), [0.0, *curve.shares], where="post", color=FRONT)
        axes.set(xlim=(0, max(trials, len(curve.areas))), ylim=(0, 102))
        axes.set(xlabel="trials", ylabel="hypervolume, % of the last")
        if sheet.width <= NARROW.width:
            axes.locator_params(axis="x", nbins=5)
    return figure


class Epoch(Protocol):
    """What the learning curve shows of an epoch."""

    @property
    def epoch(self) -> int: ...  # from 1

    @property
    def loss(self) -> float: ...

    @property
    def accuracy(self) -> float: ...  # validation, in per cent

    @property
    def resolution(self) -> int: ...  # of the images


def training_figure(rows: Sequence[Epoch], *, name: str, data: str) -> "Figure":
    """Return the learning curve: accuracy above and loss below, and where the images grew."""
    with style():
        figure = new_figure(SLIDE, training_title(rows, name), [data])
        upper, lower = (figure.add_axes(box) for box in _CURVES)
        _draw_training((upper, lower), rows)
        if rows:
            best = best_epoch(rows)
            ring: Look = {"facecolors": PAPER, "edgecolors": FRONT, "linewidths": 1.8, "zorder": 3}
            upper.scatter([best.epoch], [best.accuracy], s=55, **ring)
    return figure


def training_title(rows: Sequence[Epoch], name: str) -> str:
    """The finding in one line."""
    if not rows:
        return f"{name}: no epoch yet"
    best = best_epoch(rows)
    return f"{name}: {best.accuracy:.2f} % after epoch {best.epoch}"


def best_epoch(rows: Sequence[Epoch]) -> Epoch:
    """The most accurate; of equal ones the first."""
    return max(rows, key=lambda row: row.accuracy)


def _draw_training(panels: "tuple[Axes, Axes]", rows: Sequence[Epoch]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs, marker = [row.epoch for row in rows], "o" if len(rows) < 15 else ""
    upper, lower = panels
    upper.plot(epochs, [row.accuracy for row in rows], color=FRONT, marker=marker)
    lower.plot(epochs, [row.loss for row in rows], color=PALETTE["named-text"], marker=marker)
    upper.set_ylabel("accuracy in %")
    lower.set(xlabel="epoch", ylabel="training loss")
    grown = [new for old, new in pairwise(rows) if old.resolution != new.resolution]
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
        axes.set_xlim(0.5, max(len(rows), 1) + 0.5)
        for row in grown:
            axes.axvline(row.epoch - 0.5, color=_CHANGE, linestyle=(0, (5, 3)), linewidth=1)
    for row in [*rows[:1], *grown]:
        text = upper.annotate(
            f"{row.resolution} px",
            (row.epoch - 0.5, 1),
            (2, 4),
            xycoords=upper.get_xaxis_transform(),
            textcoords="offset points",
        )
        text.set(va="bottom", fontsize=10.5, color=_CHANGE)
