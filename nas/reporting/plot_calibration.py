"""Predicted against measured latency: how far a predictor and its intervals can be trusted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.reporting.plot_labels import plain_ticks
from predictors.latency import COVERAGE, Prediction
from predictors.timing import CONFIDENCE, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND = 0.1  # about the identity
_DOTS, _UNSTABLE, _INK = "#0072B2", "#B83A00", "#222222"
Floats = NDArray[np.float64]


def calibration_title(prediction: Prediction, measured: Sequence[Measurement]) -> str:
    """The finding in one line.

    Raises:
        ValueError: if the two differ in length or a latency was not measured.
    """
    if len(prediction.mean_ms) != len(measured):
        raise ValueError("`measured` must have one latency for each prediction, but got "
                         f"{len(measured)} for {len(prediction.mean_ms)}.")  # fmt: skip
    if any(m.source == "predicted" for m in measured):
        raise ValueError("`measured` must come from a clock, but got a predicted latency. A "
                         "profile has nothing to compare with.")  # fmt: skip
    if not measured:
        return "No prediction has met a measurement yet"
    error = 100 * np.median(_errors(prediction, _medians(measured)))
    return f"Half of the predicted latencies are within {error:.1f} %"


def draw_calibration(axes: "Axes", prediction: Prediction, measured: Sequence[Measurement]) -> None:
    """Draw predicted over measured latencies with their intervals, in logarithmic axes."""
    edges = _edges(prediction, measured)
    _set_axes(axes, edges)
    line = np.array(edges)
    axes.fill_between(line, line * (1 - _BAND), line * (1 + _BAND), color="black", alpha=0.07,
                      linewidth=0, label=f"within \u00b1{100 * _BAND:.0f} %")  # fmt: skip
    axes.plot(line, line, color=_INK, linewidth=1.2, label="predicted = measured")
    if not measured:
        return
    x = _medians(measured)
    _draw_networks(axes, prediction, measured, x)
    covered = np.mean((prediction.low_ms <= x) & (x <= prediction.high_ms))
    error = np.median(_errors(prediction, x))
    axes.text(0.04, 0.96, f"median absolute error {100 * error:.1f} %\n{100 * COVERAGE:.0f} % "
              f"interval covers {100 * covered:.0f} %\nnetworks: {len(measured)}",
              transform=axes.transAxes, va="top", fontsize=11, linespacing=1.4, zorder=5,
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip


def _draw_networks(
    axes: "Axes", prediction: Prediction, measured: Sequence[Measurement], x: Floats
) -> None:
    y, unstable = prediction.mean_ms, [m.unstable for m in measured]
    axes.vlines(x, prediction.low_ms, prediction.high_ms, colors=_DOTS, linewidth=1.4, alpha=0.45,
                label=f"predicted, {100 * COVERAGE:.0f} % interval")  # fmt: skip
    lows, highs = [m.low_ms for m in measured], [m.high_ms for m in measured]
    axes.hlines(y, lows, highs, colors=_INK, linewidth=1.4, alpha=0.45,
                label=f"measured, {100 * CONFIDENCE:.0f} % interval")  # fmt: skip
    axes.scatter(x, y, s=15, color=_DOTS, zorder=3, label="network")
    if any(unstable):
        axes.scatter(x[unstable], y[unstable], s=110, marker="x", color=_UNSTABLE, linewidths=1.8,
                     zorder=4, label="unstable timing")  # fmt: skip


def _set_axes(axes: "Axes", edges: tuple[float, float]) -> None:
    axes.set(xscale="log", yscale="log", xlim=edges, ylim=edges, aspect="equal",
             xlabel="measured latency in ms", ylabel="predicted latency in ms")  # fmt: skip
    plain_ticks(axes.xaxis, edges)
    plain_ticks(axes.yaxis, edges)


def _edges(prediction: Prediction, measured: Sequence[Measurement]) -> tuple[float, float]:
    """Room for every interval, the same on both axes."""
    lows = [*prediction.low_ms, *(m.low_ms for m in measured)] or [1.0]
    highs = [*prediction.high_ms, *(m.high_ms for m in measured)] or [10.0]
    return float(min(lows)) / 1.1, float(max(highs)) * 1.1


def _medians(measured: Sequence[Measurement]) -> Floats:
    return np.array([m.median_ms for m in measured])


def _errors(prediction: Prediction, measured_ms: Floats) -> Floats:
    return np.abs(prediction.mean_ms / measured_ms - 1)
