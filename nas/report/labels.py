"""Labels of points, of which none covers another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

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
_FONT: dict[str, Any] = {"fontsize": 10.5, "linespacing": 1.1}
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
            forbidden = _outside(axes, box) + sum(box.overlaps(other) for other in taken)
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
    point = axes.figure.dpi / 72
    return [
        Bbox.from_bounds(
            x + dx * point - _SHARE[ha] * width, y + dy * point - _SHARE[va] * height, width, height
        ).padded(3)
        for dx, dy, ha, va in _PLACES
    ]


def _write(axes: "Axes", label: Label, place: int) -> None:
    """Write the text at one of its places, with a line to its point where that is not near."""
    from matplotlib.patheffects import withStroke

    dx, dy, ha, va = _PLACES[place]
    line = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.8, "shrinkB": 4}
    axes.annotate(
        label.text,
        (label.x, label.y),
        (dx, dy),
        textcoords="offset points",
        ha=ha,
        va=va,
        color=label.colour,
        arrowprops=line if place >= len(_SIDES) else None,
        zorder=6,
        path_effects=[withStroke(linewidth=3, foreground="white")],
        **_FONT,
    )


def _outside(axes: "Axes", box: "Bbox") -> bool:
    return not (axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max))


def _inside(box: "Bbox", pixels: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Which of the points [n, 2] lie in the box, or that close to it: shape [n]."""
    low, high = np.asarray(box.min) - margin, np.asarray(box.max) + margin
    return np.asarray(((pixels > low) & (pixels < high)).all(axis=1))
