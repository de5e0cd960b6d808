"""The figures of runs and trainings: the sheet that they are drawn on, and how they get to disk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.benching.bench_row import Row
from nas.candidate import Candidate
from nas.gauge import Unit
from nas.report.bench_figures import draw_models, draw_operators, models_title, operators_title
from nas.report.front_figure import draw_front, label_front, plain_ticks
from nas.report.model import front_title, off_scale_words, sources, view_of
from nas.training.full_progress import Row as Epoch
from predictors.latency import COVERAGE, Prediction
from predictors.measurement import CONFIDENCE, Latency
from search_spaces.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GREY, _ALARM = "#222222", "#555555", "#8A8A8A", "#B83A00"
_STYLE = {
    "figure.dpi": 200, "font.size": 12, "text.color": _INK, "axes.labelcolor": _INK,
    "axes.labelsize": 13, "axes.edgecolor": _GREY, "axes.spines.top": False,
    "axes.spines.right": False, "xtick.color": _GREY, "ytick.color": _GREY,
    "xtick.labelcolor": _INK, "ytick.labelcolor": _INK, "axes.grid": True,
    "grid.color": "#EBEBEB", "axes.axisbelow": True, "axes.formatter.useoffset": False,
    "text.parse_math": False, "legend.fontsize": 10.5, "legend.frameon": False,
}  # fmt: skip
_SIZE = (9.6, 5.4)  # inches: 1920 x 1080 pixels
Box = tuple[float, float, float, float]  # left, bottom, width, height; fractions of the sheet
_LEFT, _WIDTH = 0.105, 0.865  # of the front's plane, fractions of the sheet
_HALVES: tuple[Box, Box] = ((0.075, 0.15, 0.41, 0.6), (0.575, 0.15, 0.41, 0.6))
_TALL = (9.6, 10.2)  # for panels below one another
_FLOORS: tuple[Box, Box] = ((0.075, 0.505, 0.905, 0.36), (0.075, 0.065, 0.905, 0.38))
_CURVES: tuple[Box, Box] = ((0.095, 0.47, 0.88, 0.33), (0.095, 0.11, 0.88, 0.3))
_SQUARE: Box = (0.095, 0.125, 0.7 * _SIZE[1] / _SIZE[0], 0.7)


def plot_front(
    path: Path,
    candidates: Sequence[Candidate],
    *,
    named: Sequence[Candidate],
    budget_ms: float | None,
    device: str,
    unit: Unit = "ms",
) -> None:
    """Write the Pareto plot: accuracy against latency with intervals, the front and the budget.

    `named` are the published sizes on the same device, for orientation; `device` describes it, in
    a line or two. Of several devices, latencies and budget are in per cent, as `unit` says.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
        ValueError: if scores and accuracies are mixed.
    """
    figure = front_figure(candidates, named=named, budget_ms=budget_ms, device=device, unit=unit)
    _save(path, figure)


def plot_calibration(
    path: Path, prediction: Prediction, measured: Sequence[Latency], *, device: str
) -> None:
    """Write the plot of predicted against measured latencies of the same networks.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
        ValueError: if the two differ in length or a latency was not measured.
    """
    _save(path, calibration_figure(prediction, measured, device=device))


def plot_operators(path: Path, rows: Sequence[Row], *, device: str) -> None:
    """Write the plot of the operators: latency of a layer and GFLOPS at each map size.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
    """
    _save(path, operators_figure(rows, device=device))


def plot_models(path: Path, rows: Sequence[Row], *, device: str) -> None:
    """Write the plot of many networks: GFLOPS and latency against MACs (as the paper's figure 2).

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
    """
    _save(path, models_figure(rows, device=device))


def plot_training(path: Path, rows: Sequence[Epoch], *, name: str, data: str) -> None:
    """Write the learning curve of a full training: accuracy and loss, epoch by epoch.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
    """
    _save(path, training_figure(rows, name=name, data=data))


def front_figure(
    candidates: Sequence[Candidate],
    *,
    named: Sequence[Candidate],
    budget_ms: float | None,
    device: str,
    unit: Unit = "ms",
) -> "Figure":
    """Return the Pareto plot."""
    view = view_of(candidates, named, budget_ms, unit)
    with _style():
        source, predicted = sources(view)
        below = [line for line in (source, *device.splitlines()) if line]
        figure = _slide(front_title(view), below, aloud=predicted)
        foot = _note(figure, off_scale_words(view))
        axes = figure.add_axes((_LEFT, 0.1, _WIDTH, 0.6))
        draw_front(axes, view)
        top = _explain_above(axes, at=0.702 + 0.243 * len(below)) - 0.05  # the budget's words
        axes.set_position((_LEFT, foot, _WIDTH, top - foot))
        label_front(axes, view)
    return figure


def calibration_figure(
    prediction: Prediction, measured: Sequence[Latency], *, device: str
) -> "Figure":
    """Return the plot of predicted against measured latencies."""
    with _style():
        title = calibration_title(prediction, measured)
        figure, axes = _sheet(title, [device], box=_SQUARE, aloud=False)
        draw_calibration(axes, prediction, measured)
        _explain(axes, _SQUARE)
    return figure


def operators_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of the operators; `rows` have latencies."""
    with _style():
        figure = _slide(operators_title(rows), [device])
        left, right = (figure.add_axes(box) for box in _HALVES)
        draw_operators((left, right), rows)
        _explain_above(left)
    return figure


def models_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of many networks; `rows` have latencies."""
    with _style():
        figure = _slide(models_title(rows), [device], size=_TALL)
        upper, lower = (figure.add_axes(box) for box in _FLOORS)
        draw_models((upper, lower), rows)
        _explain_above(upper)
    return figure


def training_figure(rows: Sequence[Epoch], *, name: str, data: str) -> "Figure":
    """Return the learning curve; the accuracy is that of the validation split of `data`."""
    with _style():
        figure = _slide(training_title(rows, name), [f"Validation split of {data}"])
        upper, lower = (figure.add_axes(box) for box in _CURVES)
        draw_training((upper, lower), rows)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user's own configuration says."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def _sheet(title: str, below: Sequence[str], *, box: Box, aloud: bool) -> tuple["Figure", "Axes"]:
    """A slide with axes."""
    figure = _slide(title, below, aloud=aloud)
    return figure, figure.add_axes(box)


def _slide(
    title: str, below: Sequence[str], *, aloud: bool = False, size: tuple[float, float] = _SIZE
) -> "Figure":
    """A slide with a title and lines below it, the first of them aloud or not."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    figure.text(0.025, _from_top(0.16, size[1]), title, va="top", fontsize=19, fontweight="bold")
    for i, line in enumerate(below):
        loud: dict[str, Any] = {"color": _ALARM, "fontweight": "bold"} if aloud and i == 0 else {}
        figure.text(0.025, _from_top(0.594 + 0.243 * i, size[1]),
                    shorten(line, 108, placeholder=" ..."), va="center", fontsize=11.5,
                    **loud)  # fmt: skip
    return figure


def _from_top(inches: float, height: float) -> float:
    """Where on a sheet of that height, in inches, as a fraction from its foot."""
    return 1 - inches / height


def _explain(axes: "Axes", box: Box) -> None:
    """Put the legend, if there is anything to explain, on the sheet to the right of the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        corner = (box[0] + box[2] + 0.01, box[1] + box[3] + 0.02)
        axes.figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner)


def _explain_above(axes: "Axes", *, at: float = 0.945) -> float:
    """Put the legend between the words and the axes; return where it ends, from the sheet's foot.

    It is centred at so many inches from the top, and what does not fit one line goes below.
    """
    handles, labels = axes.get_legend_handles_labels()
    sheet = axes.figure.bbox
    upper = _from_top(at - 0.15, sheet.height / axes.figure.dpi)
    for rows in range(1, len(labels) + 1):
        legend = axes.figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.015, upper), borderaxespad=0,
            ncols=-(-len(labels) // rows), columnspacing=1.6, handletextpad=0.5,
        )  # fmt: skip
        box = legend.get_window_extent()
        if box.x1 <= 0.99 * sheet.width:
            return float(box.y0 / sheet.height)
        legend.remove()
    return upper


def _note(figure: "Figure", lines: Sequence[str]) -> float:
    """Write lines at the foot of the sheet; return where axes with their words begin above."""
    fitting = [part for line in lines for part in wrap(line, 125)]
    for i, line in enumerate(reversed(fitting)):
        figure.text(0.025, 0.035 + 0.04 * i, line, va="center", fontsize=10.5, color=_MUTED)
    return 0.13 + 0.04 * len(fitting)


def _save(path: Path, figure: "Figure") -> None:
    """Write beside `path` and rename, so that a reader finds the old file or the whole new one."""
    image = BytesIO()
    with _style():
        figure.savefig(image, format=path.suffix.removeprefix(".") or "png")
    atomic_write(path, image.getvalue())


_BAND = 0.1  # about the identity
_DOTS, _UNSTABLE, _INK = "#0072B2", "#B83A00", "#222222"
Floats = NDArray[np.float64]


def calibration_title(prediction: Prediction, measured: Sequence[Latency]) -> str:
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


def draw_calibration(axes: "Axes", prediction: Prediction, measured: Sequence[Latency]) -> None:
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
    axes: "Axes", prediction: Prediction, measured: Sequence[Latency], x: Floats
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


def _edges(prediction: Prediction, measured: Sequence[Latency]) -> tuple[float, float]:
    """Room for every interval, the same on both axes."""
    lows = [*prediction.low_ms, *(m.low_ms for m in measured)] or [1.0]
    highs = [*prediction.high_ms, *(m.high_ms for m in measured)] or [10.0]
    return float(min(lows)) / 1.1, float(max(highs)) * 1.1


def _medians(measured: Sequence[Latency]) -> Floats:
    return np.array([m.median_ms for m in measured])


def _errors(prediction: Prediction, measured_ms: Floats) -> Floats:
    return np.abs(prediction.mean_ms / measured_ms - 1)


# Okabe and Ito's colours, as in the plot of the front.
_ACCURACY, _LOSS, _CHANGE = "#0072B2", "#7A5200", "#8F8F8F"


def training_title(rows: Sequence[Epoch], name: str) -> str:
    """The finding in one line."""
    if not rows:
        return f"{name}: no epoch yet"
    best = best_row(rows)
    return f"{name}: {best.accuracy:.2f} % after epoch {best.epoch}"


def best_row(rows: Sequence[Epoch]) -> Epoch:
    """The most accurate; of equal ones the first."""
    return max(rows, key=lambda row: row.accuracy)


def draw_training(panels: "tuple[Axes, Axes]", rows: Sequence[Epoch]) -> None:
    """Draw the accuracy above and the loss below, and where the images grew."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in rows]
    upper, lower = panels
    upper.plot(epochs, [row.accuracy for row in rows], color=_ACCURACY, marker=_marker(rows))
    lower.plot(epochs, [row.loss for row in rows], color=_LOSS, marker=_marker(rows))
    upper.set_ylabel("accuracy in %")
    lower.set_ylabel("training loss")
    lower.set_xlabel("epoch")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
        axes.set_xlim(0.5, max(len(rows), 1) + 0.5)
        for before, after in pairwise(rows):
            if before.resolution != after.resolution:
                axes.axvline(after.epoch - 0.5, color=_CHANGE, linestyle=(0, (5, 3)), linewidth=1)
    _name_sizes(upper, rows)
    if rows:
        best = best_row(rows)
        upper.scatter([best.epoch], [best.accuracy], s=55, facecolors="white",
                      edgecolors=_ACCURACY, linewidths=1.8, zorder=3)  # fmt: skip


def _marker(rows: Sequence[Epoch]) -> str:
    return "o" if len(rows) < 15 else ""


def _name_sizes(axes: "Axes", rows: Sequence[Epoch]) -> None:
    """Say above the plot from which epoch on images have which size."""
    last = None
    for row in rows:
        if row.resolution != last:
            axes.annotate(f"{row.resolution} px", (row.epoch - 0.5, 1), (2, 4), va="bottom",
                          xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                          fontsize=10.5, color=_CHANGE)  # fmt: skip
        last = row.resolution
