"""The sheet that figures are drawn on: size, style, title, legend, labels, and how it is saved."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from search_spaces.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

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
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.formatter.useoffset"), False),
    **dict.fromkeys(("text.parse_math", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "axes.labelsize": 13,
    "grid.color": PALETTE["line"],
    "legend.fontsize": 10.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "fasternas",  # else its ids are random
}
_UNPRINTABLE = dict.fromkeys(
    (*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}"
)
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
        return left / self.width, foot / self.height, width / self.width, height / self.height


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
    heading = printable(title)
    figure.text(0.025, sheet.from_top(0.16), heading, va="top", fontsize=19, fontweight="bold")
    for i, line in enumerate(below):
        words = shorten(printable(line), 108, placeholder=" ...")
        height = sheet.from_top(0.594 + 0.243 * i)
        text = figure.text(0.025, height, words, va="center", fontsize=11.5)
        if alarm and i == 0:
            text.set(color=ALARM, fontweight="bold")
    return figure


def explain_above(axes: "Axes", sheet: Sheet, *, at: float = 0.945) -> float:
    """Put the legend between the words and the axes; return where it ends, from the sheet's foot.

    It is centred at so many inches from the top, and what does not fit one line goes below.
    """
    handles, labels = axes.get_legend_handles_labels()
    upper = sheet.from_top(0.06 if sheet.page else at - 0.15)
    place: Look = {"loc": "upper left", "bbox_to_anchor": (0.015, upper), "borderaxespad": 0}
    for rows in range(1, len(labels) + 1):
        columns: Look = {"ncols": -(-len(labels) // rows), "columnspacing": 1.6}
        legend = axes.figure.legend(handles, labels, **place, **columns, handletextpad=0.5)
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


def printable(words: str) -> str:
    """Return words without control characters and without what is no Unicode."""
    return words.encode("utf-8", "backslashreplace").decode().translate(_UNPRINTABLE)


def point_url(words: str, *, stop: bool = False) -> str:
    """Return the URL by which a mark says these words on a page; the keyboard stops at a `stop`."""
    return f"{'stop' if stop else 'point'}:{quote(printable(words))}"


def save(figure: "Figure", path: Path) -> None:
    """Write a figure into a file."""
    image = BytesIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font has not every alphabet
        figure.savefig(image, format=path.suffix.removeprefix(".") or "png")
    atomic_write(path, image.getvalue())


# Shift from the point, in font points, and which edge of the text is there; the first is best.
_SIDES = (
    (-7, 7, "right", "bottom"),
    (7, -7, "left", "top"),
    (10, 0, "left", "center"),
    (0, 10, "center", "bottom"),
    (7, 7, "left", "bottom"),
    (0, -10, "center", "top"),
    (-10, 0, "right", "center"),
    (-7, -7, "right", "top"),
)
_PLACES = [(dx * far, dy * far, ha, va) for far in (1.0, 1.8, 2.8) for dx, dy, ha, va in _SIDES]
_SHARE = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
_FONT: Look = {"fontsize": 10.5, "linespacing": 1.1}
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


def place_labels(axes: "Axes", labels: Sequence[Label], obstacles: Sequence[Obstacle]) -> None:
    """Write the labels in turn, each where it covers least; the axes' limits must be final."""
    taken: list[Bbox] = []
    pixels = axes.transData.transform([(o.x, o.y) for o in obstacles] or np.empty((0, 2)))
    weights = np.array([o.cost for o in obstacles])
    for label in labels:
        boxes, costs = _boxes(axes, label), []
        for place, box in enumerate(boxes):
            outside = not (axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max))
            forbidden = outside + sum(box.overlaps(other) for other in taken)
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
    point, boxes = axes.figure.dpi / 72, []
    for dx, dy, ha, va in _PLACES:
        corner = x + dx * point - _SHARE[ha] * width, y + dy * point - _SHARE[va] * height
        boxes.append(Bbox.from_bounds(*corner, width, height).padded(3))
    return boxes


def _write(axes: "Axes", label: Label, place: int) -> None:
    """Write the text at one of its places, with a line to its point where that is not near."""
    from matplotlib.patheffects import withStroke

    dx, dy, ha, va = _PLACES[place]
    line = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.8, "shrinkB": 4}
    look: Look = {"ha": ha, "va": va, "color": label.colour, "zorder": 6, **_FONT}
    look["arrowprops"] = line if place >= len(_SIDES) else None
    look["path_effects"] = [withStroke(linewidth=3, foreground="white")]
    axes.annotate(label.text, (label.x, label.y), (dx, dy), textcoords="offset points", **look)


def _inside(box: "Bbox", pixels: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Which of the points [n, 2] lie in the box, or that close to it: shape [n]."""
    low, high = np.asarray(box.min) - margin, np.asarray(box.max) + margin
    return np.asarray(((pixels > low) & (pixels < high)).all(axis=1))
