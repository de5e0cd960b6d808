"""Which knob buys what, as a sentence and a table with bars."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nas.gauge import Unit
from nas.quantities import format_ms
from nas.report.html_tables import kept, table, value
from nas.report.importance import FEWEST, Knob, undecided
from nas.report.markup import Html, joined, tag, text
from nas.report.svg_plane import Axis
from predictors.accuracy import AccuracyKind

_UNITS = {"proxy": "score", "trained": "points of accuracy", "supernet": "points of likelihood"}
_MODELLED = {"proxy": "score", "trained": "accuracy after the trials' own short training",
             "supernet": "likelihood with shared weights"}  # fmt: skip
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class KnobView:
    """The knobs with what their numbers mean."""

    knobs: Sequence[Knob]
    kind: AccuracyKind
    unit_ms: float  # for how much time the gains are said
    trials: int  # that the model was fitted to
    unit: Unit = "ms"

    @property
    def time(self) -> str:
        """That much time, in words."""
        share = " of a budget" if self.unit == "%" else ""
        return f"{format_ms(self.unit_ms)} {self.unit}{share}"


def unit_of(budget_ms: float) -> float:
    """Return the time for which gains are said: the power of ten below a fifth of the budget."""
    return float(10.0 ** math.floor(math.log10(budget_ms / 5)))


def gene_words(gene: str) -> str:
    """Return a choice as people call it: stage 3 depth for depths[2]."""
    match = re.fullmatch(r"(\w+?)s?\[(\d+)\]", gene)
    name = match[1] if match else gene
    stage = f"stage {int(match[2]) + 1} " if match else ""
    return stage + name.replace("_", " ")


def knob_section(view: KnobView) -> Html:
    """Return the finding, how it was found, and the table."""
    if not view.knobs:
        return tag("p", text(f"Too little is known yet: it takes {FEWEST} trials with scores, a "
                             "front, and a model of the latency."))  # fmt: skip
    return joined([tag("p", tag("strong", text(knob_finding(view)))), _method(view), _table(view)])


def knob_finding(view: KnobView) -> str:
    """Say where time is best spent, as far as that can be told."""
    first, (rivals, unknown) = view.knobs[0], undecided(view.knobs)
    more = f"{view.time} more"
    if first.free:
        return "No knob takes time to speak of."
    if first.least <= 0:
        return f"By {view.trials} trials no knob is known to gain anything by {more}."
    gain, error = first.gain * view.unit_ms, first.gain_error * view.unit_ms
    sure = "is best spent" if not rivals and not unknown else "is probably best spent"
    lines = [f"{more} {sure} on {_knob_words(first)}: {signed(gain)} \u00b1 {error:.2g} "
             f"{_UNITS[view.kind]}, modelled."]  # fmt: skip
    if rivals:
        lines.append(f"As good, perhaps: {_named(rivals)}.")
    if unknown:
        lines.append(f"Too uncertain to compare: {_named(unknown)}.")
    return " ".join(lines)


def signed(number: float) -> str:
    """Return a number with three figures and its sign."""
    return f"{number:+.3g}".replace("-", "\u2212")


def _named(knobs: Sequence[Knob]) -> str:
    others = len(knobs) - _MOST_NAMED
    rest = f" and {others} other{'' if others == 1 else 's'}" if others > 0 else ""
    return ", ".join(_knob_words(knob) for knob in knobs[:_MOST_NAMED]) + rest


def _knob_words(knob: Knob) -> str:
    """Name a knob and, unless it goes up, which way."""
    if knob.before is not None:
        return f"{gene_words(knob.gene)} {knob.after} for {knob.before}"
    return f"{'a smaller ' if knob.down else ''}{gene_words(knob.gene)}"


def _method(view: KnobView) -> Html:
    led = "" if view.kind == "proxy" else "led by the training-free score and "
    return tag("p", text(
        "Modelled, not measured: means over one-step changes of the front's networks. A model of "
        f"the {_MODELLED[view.kind]}, {led}fitted to {view.trials} trials, says what a step gains, "
        "the latency predictor what it takes. The interval (95 %) is how far the gain moves when "
        "tenths of the trials are left out; the error of the predicted latencies is not in it."
    ), class_="note")  # fmt: skip


def _table(view: KnobView) -> Html:
    axis = _axis(view)
    header = ["one step of", f"gains for {view.time} [95 % interval]", "the same, drawn",
              "gains", "takes"]  # fmt: skip
    rows = [
        [text(_knob_words(k)), _gain(k, view.unit_ms), _bar(k, axis, view.unit_ms),
         text(signed(k.accuracy)), text(_taken(k, view.unit))]
        for k in view.knobs
    ]  # fmt: skip
    caption = f"What one step of each knob buys ({_UNITS[view.kind]}), modelled"
    return table(header, rows, caption=caption, class_="knobs")


def _taken(knob: Knob, unit: Unit) -> str:
    return "about no time" if knob.free else f"{format_ms(knob.ms)} {unit}"


def _gain(knob: Knob, unit_ms: float) -> Html:
    if knob.free:
        return text("\u2013")
    gain, error = knob.gain * unit_ms, knob.gain_error * unit_ms
    ends = f"[{signed(gain - error)} to {signed(gain + error)}]"
    return joined([value(gain, signed(gain)), text(" "), kept(text(ends))])


def _axis(view: KnobView) -> Axis:
    ends = [(k.gain + sign * k.gain_error) * view.unit_ms
            for k in view.knobs if not k.free for sign in (-1, 1)]  # fmt: skip
    return Axis(low=min([0.0, *ends]), high=max([0.0, *ends]))


def _bar(knob: Knob, axis: Axis, unit_ms: float) -> Html:
    """The gain as a dot in its interval, beside a line at no gain."""
    if knob.free:
        return Html("")
    ends = [(knob.gain + sign * knob.gain_error) * unit_ms for sign in (-1, 0, 1)]
    low, at, high = (f"{100 * axis.share(end):.1f}%" for end in ends)
    zero = f"{100 * axis.share(0.0):.1f}%"
    return tag("svg", tag("line", x1=zero, x2=zero, y1=0, y2=18, class_="grid"),
               tag("line", x1=low, x2=high, y1=9, y2=9, class_="front interval"),
               tag("circle", cx=at, cy=9, r=4, class_="front measured"),
               class_="bar", aria_hidden="true")  # fmt: skip
