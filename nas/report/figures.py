"""A run's predictor, its progress, and a training: what is shown of each, and its figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from nas.quantities import format_ms
from nas.report import sheet as sheets
from nas.report.sheet import ALARM, FRONT, INK, NARROW, PALETTE, PAPER, SLIDE, Box, Look, Sheet
from nas.report.tables import INTERVAL, Reading, accuracy_number, reading_of
from nas.search.pareto import area
from nas.search.trial import Objectives
from predictors.accuracy import AccuracyKind
from predictors.latency import COVERAGE, Prediction
from predictors.measurement import Latency
from predictors.training.recipe import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAND = 0.1  # about the identity
_CHANGE = "#8F8F8F"
_ENOUGH = 0.99  # of the last hypervolume
_SQUARE: Box = (0.095, 0.125, 0.7 * SLIDE.height / SLIDE.width, 0.7)
_CURVES: tuple[Box, Box] = ((0.095, 0.47, 0.88, 0.33), (0.095, 0.11, 0.88, 0.3))
PREDICTED_INTERVAL = f"{100 * COVERAGE:.0f} % interval"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A network's measured latency and what was predicted, in ms."""

    measured: Reading
    mean: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """How far the prediction is from the measured median, as a share of it."""
        return self.mean / self.measured.median - 1

    @property
    def words(self) -> str:
        """Both."""
        interval = f"[{format_ms(self.low)} to {format_ms(self.high)}]"
        return f"measured {self.measured.words}\npredicted {format_ms(self.mean)} ms {interval}"


@dataclass(frozen=True, kw_only=True)
class CalibrationView:
    """The networks that the predictor had not seen and a clock has timed, the fastest first."""

    device: str
    description: str
    rows: list[Compared]

    @property
    def error(self) -> float:
        """The median absolute error in per cent."""
        return 100 * median(abs(row.error) for row in self.rows)

    @property
    def covered(self) -> float:
        """How many per cent of the measured medians the predicted intervals hold."""
        return 100 * fmean(row.low <= row.measured.median <= row.high for row in self.rows)

    @property
    def title(self) -> str:
        if not self.rows:
            return "No prediction has met a measurement yet"
        return f"Half of the predicted latencies are within {self.error:.1f} %"

    @property
    def words(self) -> str:
        """The finding with what it rests on."""
        return (
            f"{self.title}: {len(self.rows)} networks that the predictor had not seen; its "
            f"{PREDICTED_INTERVAL} holds {self.covered:.0f} % of the measured medians."
        )


def compared(prediction: Prediction, measured: Sequence[Latency]) -> list[Compared]:
    """Return what was predicted beside what was measured, the fastest network first."""
    ends = (prediction.mean_ms, prediction.low_ms, prediction.high_ms)
    rows = [
        Compared(measured=reading_of(m), mean=float(mean), low=float(low), high=float(high))
        for m, mean, low, high in zip(measured, *ends, strict=True)
    ]
    return sorted(rows, key=lambda row: row.measured.median)


def calibration_figure(view: CalibrationView, *, sheet: Sheet = SLIDE) -> "Figure":
    """Return predicted over measured latencies with their intervals, in logarithmic axes."""
    with sheets.style(sheet):
        figure = sheets.new_figure(sheet, view.title, [view.description])
        axes = figure.add_axes(_SQUARE)
        _set_calibration_axes(axes, view)
        if view.rows:
            _draw_calibration(axes, view, sheet)
        if sheet.page:
            top = sheet.height * (1 - sheets.explain_above(axes, sheet)) + 0.1
            axes.set_position(sheet.box(left=0.75, right=0.25, top=top, foot=0.65))
            return figure
        corner = (_SQUARE[0] + _SQUARE[2] + 0.01, _SQUARE[1] + _SQUARE[3] + 0.02)
        entries = axes.get_legend_handles_labels()
        figure.legend(*entries, loc="upper left", bbox_to_anchor=corner)
    return figure


def _set_calibration_axes(axes: "Axes", view: CalibrationView) -> None:
    """Room for every interval, the same on both axes; the identity and a band about it."""
    lows = [low for row in view.rows for low in (row.low, row.measured.low)] or [1.0]
    highs = [high for row in view.rows for high in (row.high, row.measured.high)] or [10.0]
    edges = min(lows) / 1.1, max(highs) * 1.1
    axes.set(xscale="log", yscale="log", xlim=edges, ylim=edges, aspect="equal")
    axes.set(xlabel="measured latency in ms", ylabel="predicted latency in ms")
    sheets.plain_ticks(axes.xaxis, edges)
    sheets.plain_ticks(axes.yaxis, edges)
    line, label = np.array(edges), f"within \u00b1{100 * _BAND:.0f} %"
    band = line * (1 - _BAND), line * (1 + _BAND)
    axes.fill_between(line, *band, color=INK, alpha=0.08, linewidth=0, label=label)
    axes.plot(line, line, color=INK, linewidth=1.2, label="predicted = measured")


def _draw_calibration(axes: "Axes", view: CalibrationView, sheet: Sheet) -> None:
    rows = view.rows
    x, y = np.array([row.measured.median for row in rows]), np.array([row.mean for row in rows])
    lows, highs = [row.measured.low for row in rows], [row.measured.high for row in rows]
    thin: Look = {"linewidth": 1.4, "alpha": 0.45}
    predicted, measured = f"predicted, {PREDICTED_INTERVAL}", f"measured, {INTERVAL}"
    ends = [row.low for row in rows], [row.high for row in rows]
    axes.vlines(x, *ends, colors=FRONT, label=predicted, **thin)
    axes.hlines(y, lows, highs, colors=INK, label=measured, **thin)
    dots = axes.scatter(x, y, s=15, color=FRONT, zorder=3, label="network")
    unstable = np.array([row.measured.unstable for row in rows])
    if unstable.any():
        cross: Look = {"marker": "x", "color": ALARM, "linewidths": 1.8, "label": "unstable timing"}
        axes.scatter(x[unstable], y[unstable], s=110, zorder=4, **cross)
    if sheet.page:
        dots.set_urls([sheets.point_url(row.words) for row in rows])
        return
    words = (
        f"median absolute error {view.error:.1f} %\n{PREDICTED_INTERVAL} covers "
        f"{view.covered:.0f} %\nnetworks: {len(view.rows)}"
    )
    ground = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8}
    corner = axes.text(0.04, 0.96, words, transform=axes.transAxes, va="top", bbox=ground)
    corner.set(fontsize=11, linespacing=1.4, zorder=5)


@dataclass(frozen=True, kw_only=True)
class ProgressCurve:
    """The area dominated after each trial, failed ones included, up to `reference`.

    `reference` is (accuracy, ratio): the lowest accuracy of any trial, and 1.0, the budget.
    """

    numbers: tuple[int, ...]  # of the trials
    areas: tuple[float, ...]
    reference: tuple[float, float]

    def reached(self, share: float) -> int | None:
        """Return the number of trials after which this share of the last area was there."""
        if not self.areas or self.areas[-1] <= 0:
            return None
        enough = share * self.areas[-1] * (1 - 1e-12)
        return next(i for i, reached in enumerate(self.areas, start=1) if reached >= enough)

    @property
    def shares(self) -> list[float]:
        """The areas in per cent of the last one."""
        return [100 * value / self.areas[-1] for value in self.areas]

    @property
    def milestones(self) -> list[int]:
        """Numbers of trials by which to tell how it went: an eighth, a quarter, half and so on."""
        return sorted({max(len(self.areas) * k // 8, 1) for k in (1, 2, 4, 6, 8)})

    def words(self, kind: AccuracyKind, budget: str) -> str:
        """Say when most of it was reached, and what it is; nothing if nothing was reached."""
        enough = self.reached(_ENOUGH)
        if enough is None:
            return ""
        accuracy, _ = self.reference
        return (
            f"{100 * _ENOUGH:.0f} % were reached after {enough} of {len(self.areas)} trials. The "
            f"area is that above {accuracy_number(accuracy, kind)} (the lowest of any trial) and "
            f"below {budget}, by the latencies and accuracies that the search "
            "saw."
        )


def progress_curve(trials: Mapping[int, Objectives | None]) -> ProgressCurve:
    """Return the curve by what the search saw of each trial; who misses a budget adds nothing."""
    numbers = tuple(sorted(trials))
    ordered = [trials[number] for number in numbers]
    reference = (min((o.accuracy for o in ordered if o), default=0.0), 1.0)
    front: list[tuple[float, float]] = []
    areas: list[float] = []
    for objectives in ordered:
        if objectives and objectives.feasible:
            front = _kept(front, (objectives.accuracy, objectives.ratio))
        areas.append(area(front, reference))
    return ProgressCurve(numbers=numbers, areas=tuple(areas), reference=reference)


def _kept(front: list[tuple[float, float]], new: tuple[float, float]) -> list[tuple[float, float]]:
    """The points that no other one of them beats."""
    if any(accuracy >= new[0] and latency <= new[1] for accuracy, latency in front):
        return front
    return [new, *(point for point in front if point[0] > new[0] or point[1] < new[1])]


def progress_figure(curve: ProgressCurve, *, trials: int, sheet: Sheet) -> "Figure":
    """Return the growth of the hypervolume as a share of its last value, of so many trials."""
    with sheets.style(sheet):
        figure = sheets.new_figure(sheet)
        axes = figure.add_axes(sheet.box(left=0.75, right=0.3, top=0.2, foot=0.65))
        axes.step(range(len(curve.areas) + 1), [0.0, *curve.shares], where="post", color=FRONT)
        axes.set(xlim=(0, max(trials, len(curve.areas))), ylim=(0, 102))
        axes.set(xlabel="trials", ylabel="hypervolume, % of the last")
        if sheet.width <= NARROW.width:
            axes.locator_params(axis="x", nbins=5)
    return figure


def training_figure(rows: Sequence[EpochRow], *, name: str, data: str) -> "Figure":
    """Return the learning curve: accuracy above and loss below, and where the images grew."""
    with sheets.style():
        figure = sheets.new_figure(SLIDE, training_title(rows, name), [data])
        upper, lower = (figure.add_axes(box) for box in _CURVES)
        _draw_training((upper, lower), rows)
        if rows:
            best = best_epoch(rows)
            ring: Look = {"facecolors": PAPER, "edgecolors": FRONT, "linewidths": 1.8, "zorder": 3}
            upper.scatter([best.epoch], [best.accuracy], s=55, **ring)
    return figure


def training_title(rows: Sequence[EpochRow], name: str) -> str:
    """The finding in one line."""
    if not rows:
        return f"{name}: no epoch yet"
    best = best_epoch(rows)
    return f"{name}: {best.accuracy:.2f} % after epoch {best.epoch}"


def best_epoch(rows: Sequence[EpochRow]) -> EpochRow:
    """The most accurate; of equal ones the first."""
    return max(rows, key=lambda row: row.accuracy)


def _draw_training(panels: "tuple[Axes, Axes]", rows: Sequence[EpochRow]) -> None:
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
        words, where = f"{row.resolution} px", (row.epoch - 0.5, 1)
        look: Look = {"va": "bottom", "fontsize": 10.5, "color": _CHANGE}
        look |= {"xycoords": upper.get_xaxis_transform(), "textcoords": "offset points"}
        upper.annotate(words, where, (2, 4), **look)
