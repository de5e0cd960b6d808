"""The plots of a study: the sheet that they are drawn on, and how they get to disk."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

from nas.benching.bench_row import Row
from nas.candidate import Candidate
from nas.gauge import Unit
from nas.reporting.front_view import front_title, off_scale_words, sources, view_of
from nas.reporting.plot_bench import draw_models, draw_operators, models_title, operators_title
from nas.reporting.plot_calibration import calibration_title, draw_calibration
from nas.reporting.plot_front import draw_front, label_front
from nas.reporting.plot_training import draw_training, training_title
from nas.training.full_progress import Row as Epoch
from predictors.latency import Prediction
from predictors.timing import Measurement

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
    path: Path, prediction: Prediction, measured: Sequence[Measurement], *, device: str
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
    prediction: Prediction, measured: Sequence[Measurement], *, device: str
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
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        unfinished.write_bytes(image.getvalue())
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
