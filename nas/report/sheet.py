"""The sheet that a figure is drawn on: title, words, legend, axes, and how it gets to disk."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

from search_spaces.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Look = dict[str, Any]  # matplotlib's keyword arguments

# Okabe and Ito's colours, which colour-blind readers tell apart; shape and fill say it again. The
# page has a variable of its style for each, so that they suit a dark one too.
PALETTE = {
    "ink": "#222222",
    "muted": "#555555",
    "axis": "#8A8A8A",
    "line": "#EBEBEB",
    "paper": "#FFFFFF",
    "alarm": "#B83A00",
    "front": "#0072B2",
    "named": "#E69F00",
    "named-text": "#7A5200",
    "other": "#666666",
    "over": "#929292",
}
INK, MUTED, GREY, PAPER = (PALETTE[name] for name in ("ink", "muted", "axis", "paper"))
ALARM, FRONT = PALETTE["alarm"], PALETTE["front"]
_STYLE: Look = {
    "figure.dpi": 200,
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 13,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": PALETTE["line"],
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fasternas",  # else its ids are random
}
_PAGE_STYLE: Look = {"axes.facecolor": "none", "axes.labelsize": 12, "axes.titlesize": 12}
Box = tuple[float, float, float, float]  # left, bottom, width, height; fractions of the sheet


@dataclass(frozen=True)
class Sheet:
    """The size in inches. On a page the text about a figure says what a slide has above it."""

    width: float
    height: float
    page: bool = False

    def from_top(self, inches: float) -> float:
        """Where so many inches from the top are, as a fraction of the height from the foot."""
        return 1 - inches / self.height

    def box(self, *, left: float, right: float, top: float, foot: float) -> Box:
        """The axes within margins in inches."""
        width, height = self.width - left - right, self.height - top - foot
        return (
            left / self.width,
            foot / self.height,
            width / self.width,
            height / self.height,
        )


SLIDE = Sheet(9.6, 5.4)  # 1920 x 1080 pixels
TALL = Sheet(9.6, 10.2)  # for panels below one another
WIDE, NARROW = Sheet(10.4, 5.4, page=True), Sheet(5.1, 5.6, page=True)  # 72 pixels an inch


@contextmanager
def style(sheet: Sheet = SLIDE) -> Iterator[None]:
    """Whatever a user has configured for matplotlib: these figures look the same."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in (_STYLE | (_PAGE_STYLE if sheet.page else {})).items():
            mpl.rcParams[name] = value  # type: ignore[index]
        yield


def new_figure(
    sheet: Sheet, title: str = "", below: Sequence[str] = (), *, alarm: bool = False
) -> "Figure":
    """Return a sheet with its title and the lines below it; with `alarm` the first stands out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(sheet.width, sheet.height))
    FigureCanvasAgg(figure)
    if sheet.page:
        return figure
    figure.text(0.025, sheet.from_top(0.16), title, va="top", fontsize=19, fontweight="bold")
    for i, line in enumerate(below):
        words = shorten(line, 108, placeholder=" ...")
        text = figure.text(
            0.025, sheet.from_top(0.594 + 0.243 * i), words, va="center", fontsize=11.5
        )
        if alarm and i == 0:
            text.set(color=ALARM, fontweight="bold")
    return figure


def explain_above(axes: "Axes", sheet: Sheet, *, at: float = 0.945) -> float:
    """Put the legend between the words and the axes; return where it ends, from the sheet's foot.

    It is centred at so many inches from the top, and what does not fit one line goes below.
    """
    handles, labels = axes.get_legend_handles_labels()
    upper = sheet.from_top(0.06 if sheet.page else at - 0.15)
    for rows in range(1, len(labels) + 1):
        legend = axes.figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.015, upper),
            borderaxespad=0,
            ncols=-(-len(labels) // rows),
            columnspacing=1.6,
            handletextpad=0.5,
        )
        box, whole = legend.get_window_extent(), axes.figure.bbox
        if box.x1 <= 0.99 * whole.width:
            return float(box.y0 / whole.height)
        legend.remove()
    return upper


def note(figure: "Figure", lines: Sequence[str]) -> float:
    """Write lines at the foot of the sheet; return where axes with their words begin above."""
    fitting = [part for line in lines for part in wrap(line, 125)]
    for i, line in enumerate(reversed(fitting)):
        figure.text(0.025, 0.035 + 0.04 * i, line, va="center", fontsize=10.5, color=MUTED)
    return 0.13 + 0.04 * len(fitting)


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


def save(figure: "Figure", path: Path) -> None:
    """Write a figure into a file.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
    """
    image = BytesIO()
    with style():
        figure.savefig(image, format=path.suffix.removeprefix(".") or "png")
    atomic_write(path, image.getvalue())
