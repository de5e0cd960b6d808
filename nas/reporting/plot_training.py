"""The learning curve: accuracy and loss against the epoch."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from nas.training.full_progress import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, as in the plot of the front.
_ACCURACY, _LOSS, _CHANGE = "#0072B2", "#7A5200", "#8F8F8F"


def training_title(rows: Sequence[Row], name: str) -> str:
    """The finding in one line."""
    if not rows:
        return f"{name}: no epoch yet"
    best = best_row(rows)
    return f"{name}: {best.accuracy:.2f} % after epoch {best.epoch}"


def best_row(rows: Sequence[Row]) -> Row:
    """The most accurate; of equal ones the first."""
    return max(rows, key=lambda row: row.accuracy)


def draw_training(panels: "tuple[Axes, Axes]", rows: Sequence[Row]) -> None:
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


def _marker(rows: Sequence[Row]) -> str:
    return "o" if len(rows) < 15 else ""


def _name_sizes(axes: "Axes", rows: Sequence[Row]) -> None:
    """Say above the plot from which epoch on images have which size."""
    last = None
    for row in rows:
        if row.resolution != last:
            axes.annotate(f"{row.resolution} px", (row.epoch - 0.5, 1), (2, 4), va="bottom",
                          xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                          fontsize=10.5, color=_CHANGE)  # fmt: skip
        last = row.resolution
