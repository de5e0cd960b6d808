"""The plots of a study: the sheet that they are drawn on, and how they get to disk."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from nas.candidate import Candidate
from nas.plot_calibration import calibration_title, draw_calibration
from nas.plot_front import draw_front, front_title, sources, view_of
from predictors.latency import Prediction
from predictors.timing import Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _GREY, _ALARM = "#222222", "#8A8A8A", "#B83A00"
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
_WIDE: Box = (0.095, 0.125, 0.62, 0.64)
_SQUARE: Box = (0.095, 0.125, 0.7 * _SIZE[1] / _SIZE[0], 0.7)


def plot_front(
    path: Path,
    candidates: Sequence[Candidate],
    *,
    named: Sequence[Candidate],
    budget_ms: float | None,
    device: str,
) -> None:
    """Write the Pareto plot: accuracy against latency with intervals, the front and the budget.

    `named` are the published sizes on the same device, for orientation; `device` describes it.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
        ValueError: if scores and accuracies are mixed.
    """
    _save(path, front_figure(candidates, named=named, budget_ms=budget_ms, device=device))


def plot_calibration(
    path: Path, prediction: Prediction, measured: Sequence[Measurement], *, device: str
) -> None:
    """Write the plot of predicted against measured latencies of the same networks.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
        ValueError: if the two differ in length or a latency was not measured.
    """
    _save(path, calibration_figure(prediction, measured, device=device))


def front_figure(
    candidates: Sequence[Candidate],
    *,
    named: Sequence[Candidate],
    budget_ms: float | None,
    device: str,
) -> "Figure":
    """Return the Pareto plot."""
    view = view_of(candidates, named, budget_ms)
    with _style():
        source, predicted = sources(view)
        below = [source, device] if source else [device]
        figure, axes = _sheet(front_title(view), below, box=_WIDE, aloud=predicted)
        note = draw_front(axes, view)
        _explain(axes, _WIDE)
        figure.text(0.74, _WIDE[1], note, va="bottom", fontsize=10.5, linespacing=1.4)
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


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user's own configuration says."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def _sheet(title: str, below: Sequence[str], *, box: Box, aloud: bool) -> tuple["Figure", "Axes"]:
    """A slide with a title, lines below it, the first of them aloud or not, and axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE)
    FigureCanvasAgg(figure)
    figure.text(0.025, 0.97, title, va="top", fontsize=19, fontweight="bold")
    for i, line in enumerate(below):
        loud: dict[str, Any] = {"color": _ALARM, "fontweight": "bold"} if aloud and i == 0 else {}
        figure.text(0.025, 0.89 - 0.045 * i, shorten(line, 108, placeholder=" ..."), va="center",
                    fontsize=11.5, **loud)  # fmt: skip
    return figure, figure.add_axes(box)


def _explain(axes: "Axes", box: Box) -> None:
    """Put the legend, if there is anything to explain, on the sheet to the right of the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        corner = (box[0] + box[2] + 0.01, box[1] + box[3] + 0.02)
        axes.figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner)


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
