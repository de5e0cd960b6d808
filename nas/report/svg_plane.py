"""A plane to draw in, as SVG: it fits any width, and its text and markers keep their size.

Positions across are percentages of the width; those upwards are pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nas.report.markup import Html, joined, tag, text

Point = tuple[float, float]

_STEPS = (1, 2, 5, 10)
_TICKS = 6  # or 7, or fewer: more run into one another on a phone


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The values of one direction, from `low` to `high`; a logarithmic one's are positive."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; what lies outside is at the nearer end."""
        if self.high <= self.low:
            return 0.5
        if self.logarithmic:
            low, high, at = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high, at = self.low, self.high, value
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values with what to write beside them."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [s * 10.0**p for p in powers for s in _STEPS[:3]]
            within = [v for v in found if self.low <= v <= self.high]
            if len(within) > 1:
                return [(v, f"{v:g}") for v in within]
        return self._even_ticks()

    def _even_ticks(self) -> list[tuple[float, str]]:
        width = self.high - self.low
        if not width > 0:
            return [(self.low, f"{self.low:.5g}")]
        power = 10.0 ** math.floor(math.log10(width / _TICKS))
        step = next(s * power for s in _STEPS if width / (s * power) <= _TICKS + 0.5)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, f"{i * step + 0.0:.{decimals}f}") for i in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Two axes; `height` is in pixels, the width is that of the page."""

    across: Axis
    up: Axis
    height: int = 340

    def x(self, value: float) -> str:
        """Return where a value lies across."""
        return f"{100 * self.across.share(value):.2f}%"

    def y(self, value: float) -> str:
        """Return where a value lies from the top, in pixels."""
        return f"{self.height * (1 - self.up.share(value)):.1f}"

    def line(self, start: Point, end: Point, class_: str) -> Html:
        """Draw a straight line."""
        return tag("line", x1=self.x(start[0]), y1=self.y(start[1]), x2=self.x(end[0]),
                   y2=self.y(end[1]), class_=class_)  # fmt: skip

    def stairs(self, points: Sequence[Point], class_: str) -> Html:
        """Draw lines that go across before they go up."""
        lines: list[Html] = []
        for a, b in pairwise(points):
            lines += [self.line(a, (b[0], a[1]), class_), self.line((b[0], a[1]), b, class_)]
        return joined(lines)

    def at(self, point: Point, *shapes: Html) -> Html:
        """Put shapes, drawn about (0, 0) in pixels, at a point."""
        return tag("svg", *shapes, x=self.x(point[0]), y=self.y(point[1]))

    def words(self, point: Point, words: str, *, dx: int = 0, dy: int = 0, class_: str) -> Html:
        """Write words beside a point, so many pixels away from it."""
        return self.at(point, tag("text", text(words), x=dx, y=dy, class_=class_))

    def drawn(self, *marks: Html, label: str, across: str, up: str, role: str = "img") -> Html:
        """Return the plot: the frame, the marks, and what the axes say in words.

        `role` is group where the marks can be chosen one by one.
        """
        drawing = tag("svg", self._frame(), *marks, role=role, aria_label=label,
                      width="100%", height=self.height)  # fmt: skip
        words = (tag("p", text(f"\u2191 {up}"), class_="axis"),
                 tag("p", text(f"{across} \u2192"), class_="axis across"))  # fmt: skip
        return tag("div", words[0], tag("div", drawing, class_="plane"), words[1], class_="plot")

    def _frame(self) -> Html:
        """The grid with its numbers."""
        lines: list[Html] = []
        for value, words in self.up.ticks():
            ends = (self.across.low, value), (self.across.high, value)
            lines.append(self.line(*ends, "grid"))
            lines.append(self.words(ends[0], words, dx=-8, dy=4, class_="tick up"))
        for value, words in self.across.ticks():
            ends = (value, self.up.low), (value, self.up.high)
            lines.append(self.line(*ends, "grid"))
            lines.append(self.words(ends[0], words, dy=18, class_="tick"))
        return tag("g", *lines, aria_hidden="true")


def with_margin(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Return ends between which values have room."""
    low, high = min(values), max(values)
    room = share * (high - low) or max(abs(high) * 0.02, 0.1)
    return low - room, high + room


def legend(entries: Sequence[tuple[Html, str]]) -> Html:
    """Return what each mark means; marks are drawn about (0, 0)."""
    items = [
        tag("li", tag("svg", mark, width=22, height=16, viewBox="-11 -8 22 16", aria_hidden="true"),
            text(words))
        for mark, words in entries
    ]  # fmt: skip
    return tag("ul", *items, class_="legend")
