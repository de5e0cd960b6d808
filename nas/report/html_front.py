"""The front as inline SVG, in the manner of `pareto.png`: every network can be pointed at."""

from collections.abc import Sequence

from nas.candidate import Candidate
from nas.gauge import AXIS, limit_words, over_words
from nas.report.front_figure import Y_LABELS
from nas.report.markup import Html, joined, tag, text
from nas.report.model import View, off_scale_words
from nas.report.svg_plane import Axis, Plane, legend, with_margin
from nas.report.words import network_words

_FRONT, _OTHER = 6, 4  # radii in pixels
_CROSS = "M-7 -7L7 7M7 -7L-7 7"
_DIAMOND = "M0 -7L7 0L0 7L-7 0Z"


def draw_front(view: View) -> Html:
    """Return the plot of accuracy against latency with its legend."""
    accuracies = [c.accuracy for c in view.shown] or [0.0, 1.0]
    low, high = with_margin(accuracies, 0.09)
    plane = Plane(across=Axis(low=view.edges[0], high=view.edges[1], logarithmic=view.logarithmic),
                  up=Axis(low=low, high=high), height=380)  # fmt: skip
    marks = [
        _budget(plane, view),
        *(_dot(plane, c, _OTHER, "other" if c.feasible else "over") for c in view.others),
        plane.stairs([(c.latency.median_ms, c.accuracy) for c in view.front], "front stairs"),
        *(_interval(plane, c, "named") for c in view.named),
        *(_interval(plane, c, "front") for c in view.front),
        *(_size(plane, c) for c in view.named),
        *(_member(plane, c, i) for i, c in enumerate(view.front, start=1)),
    ]
    drawing = plane.drawn(
        *marks, role="group", across=AXIS[view.unit], up=Y_LABELS[view.kind],
        label="Networks by latency and accuracy; the table below lists the front",
    )  # fmt: skip
    return joined([drawing, _legend(view), _note(view)])


def mark(shape: str, look: str) -> Html:
    """Return the mark of a front's network (dot), a published size (diamond) or another (small)."""
    if shape == "diamond":
        return tag("path", d=_DIAMOND, class_=look)
    return tag("circle", r=_FRONT if shape == "dot" else _OTHER, class_=look)


def _budget(plane: Plane, view: View) -> Html:
    budget_ms = view.budget_ms
    if budget_ms is None:
        return Html("")
    beyond = 100 * (1 - plane.across.share(budget_ms))
    return joined([
        tag("rect", x=plane.x(budget_ms), y=0, width=f"{beyond:.2f}%", height=plane.height,
            class_="beyond"),
        plane.line((budget_ms, plane.up.low), (budget_ms, plane.up.high), "budget"),
        plane.words((budget_ms, plane.up.high), limit_words(budget_ms, view.unit), dy=-8,
                    class_="budget-words"),
    ])  # fmt: skip


def _dot(plane: Plane, candidate: Candidate, radius: int, look: str) -> Html:
    return _point(plane, candidate,
                  tag("circle", r=radius, class_=f"{look} {candidate.latency.source}"))  # fmt: skip


def _member(plane: Plane, candidate: Candidate, number: int) -> Html:
    """A network of the front with its number, by which the page calls it."""
    look = f"front {candidate.latency.source}"
    shapes = [tag("circle", r=_FRONT, class_=look)]
    if candidate.latency.unstable:
        shapes.append(tag("path", d=_CROSS, class_="unstable"))
    shapes.append(tag("text", text(number), y=-11, class_="number", aria_hidden="true"))
    return _point(plane, candidate, *shapes, name=f"{number}. {candidate.name}", reached=True)


def _size(plane: Plane, candidate: Candidate) -> Html:
    name = candidate.name.upper()
    return _point(plane, candidate, mark("diamond", f"named {candidate.latency.source}"),
                  tag("text", text(name), y=-12, class_="named-words", aria_hidden="true"),
                  name=f"FasterNet {name}", reached=True)  # fmt: skip


def _point(
    plane: Plane, candidate: Candidate, *shapes: Html, name: str | None = None,
    reached: bool = False,
) -> Html:  # fmt: skip
    """Shapes that say what they are when pointed at and, if `reached`, by the keyboard."""
    title = tag("title", text(network_words(candidate, name)))
    mark = tag("g", title, *shapes, class_="point", role="img", tabindex=0 if reached else None)
    return plane.at((candidate.latency.median_ms, candidate.accuracy), mark)


def _interval(plane: Plane, candidate: Candidate, look: str) -> Html:
    latency, accuracy = candidate.latency, candidate.accuracy
    return plane.line((latency.low_ms, accuracy), (latency.high_ms, accuracy), f"{look} interval")


def _legend(view: View) -> Html:
    over = over_words(view.budget_ms, view.unit)
    entries = [
        *_entry("front", "dot", view.front, "Pareto front"),
        *_entry("named", "diamond", view.named, "FasterNet T0 to L"),
        *_entry("other", "small", [c for c in view.others if c.feasible], "other networks"),
        *_entry("over", "small", [c for c in view.others if not c.feasible], over),
    ]
    if any(c.latency.source == "predicted" for c in view.shown):
        entries.append((tag("circle", r=5, class_="hollow"), "hollow: latency predicted"))
    if any(c.latency.unstable for c in view.front):
        entries.append((tag("path", d=_CROSS, class_="unstable"), "unstable"))
    return legend(entries)


def _entry(look: str, shape: str, group: Sequence[Candidate], words: str) -> list[tuple[Html, str]]:
    sources = sorted({c.latency.source for c in group})
    return [(mark(shape, f"{look} {sources[0]}"), words)] if sources else []


def _note(view: View) -> Html:
    """What is not drawn."""
    return joined(tag("p", text(f"{line}."), class_="note") for line in off_scale_words(view))
