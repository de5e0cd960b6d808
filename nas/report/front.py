"""The networks of a run as they are shown, and what the figure of the front shows of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from nas.candidate import Candidate
from nas.quantities import format_count
from nas.report.words import (
    NUMBER,
    Readings,
    Unit,
    accuracy_number,
    architecture_words,
    count_words,
    format_accuracy,
    latency_words,
    predicted_words,
    readings_of,
    within_words,
)
from predictors.accuracy import AccuracyKind
from predictors.cost import cost
from search_spaces.fasternet import FasterNetConfig

MARGIN = 0.09  # of the width or height of the plot, for labels
_PAST = 1.1  # of the slowest that is shown, or of the budget: where the axis ends


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as it is shown; `x` is its latency or, of several devices, its largest share."""

    name: str
    config: FasterNetConfig
    accuracy: float
    accuracy_kind: AccuracyKind
    fp32_accuracy: float
    readings: Readings
    macs: int
    params: int
    feasible: bool
    on_front: bool = False

    @property
    def x(self) -> float:
        """Where it lies on the latency axis."""
        return self.readings[0].median

    @property
    def measured(self) -> bool:
        """Whether a clock gave all of its latencies."""
        return self.readings[0].source == "measured"

    @property
    def unstable(self) -> bool:
        """Whether a timing stayed unstable."""
        return self.readings[0].unstable

    @property
    def accuracy_words(self) -> str:
        """The accuracy or score without its unit; the named sizes may have none."""
        known = not math.isnan(self.accuracy)
        return accuracy_number(self.accuracy, self.accuracy_kind) if known else "\u2013"

    @property
    def bytes_moved(self) -> int:
        """The memory traffic."""
        return cost(self.config).memory_bytes

    @property
    def costs(self) -> str:
        """MACs and parameters."""
        return f"{format_count(self.macs)} MACs, {format_count(self.params)} parameters"

    @property
    def summary(self) -> str:
        """Its accuracy, latency and costs in a line."""
        accuracy = format_accuracy(self.accuracy, self.accuracy_kind)
        number = NUMBER[self.accuracy_kind]
        return f"{number} {accuracy}; {latency_words(self.readings)}; {self.costs}"

    def lines(self, name: str) -> str:
        """Everything, one thing a line."""
        accuracy = format_accuracy(self.accuracy, self.accuracy_kind)
        known = [] if math.isnan(self.accuracy) else [f"{NUMBER[self.accuracy_kind]} {accuracy}"]
        costs = f"{self.costs}, {format_count(self.bytes_moved)} bytes moved"
        words = architecture_words(self.config)
        return "\n".join([name, *known, latency_words(self.readings), costs, *words])


def network_of(candidate: Candidate) -> Network:
    """Return a network of a run as it is shown."""
    fp32 = candidate.fp32_accuracy
    return Network(
        name=candidate.name,
        config=candidate.config,
        accuracy=candidate.accuracy,
        accuracy_kind=candidate.accuracy_kind,
        fp32_accuracy=candidate.accuracy if fp32 is None else fp32,
        readings=readings_of(candidate.latency),
        macs=candidate.macs,
        params=candidate.params,
        feasible=candidate.feasible,
        on_front=candidate.on_front,
    )


@dataclass(frozen=True, kw_only=True)
class FrontView:
    """What the figure of the front shows; the fastest comes first. Beyond its edge are more."""

    front: list[Network]
    others: list[Network]
    named: list[Network]
    named_beyond: list[Network]
    named_unscored: list[Network]  # within the edges, if they had a score or an accuracy
    others_beyond: list[Network]
    kind: AccuracyKind
    budget: float | None  # in `unit`
    edges: tuple[float, float]  # of the latency axis
    logarithmic: bool
    unit: Unit = "ms"

    @property
    def shown(self) -> list[Network]:
        """Everything within the edges."""
        return [*self.others, *self.named, *self.front]

    @property
    def title(self) -> str:
        """The finding in one line."""
        found = [c for c in self.front if c.feasible]
        networks = count_words(len(found), "network")
        if self.budget is None:
            return f"{networks} on the Pareto front" if found else "No network on the front yet"
        budget = within_words(self.budget, self.unit)
        if found:
            timed = any(c.measured for c in found)
            return f"{networks} {budget if timed else f'predicted to stay {budget}'}"
        slow = [*self.others, *self.others_beyond]
        if not slow:
            return f"No network {budget} yet"
        fastest = min(slow, key=lambda c: c.x).readings[0]
        of = " of a budget" if self.unit == "%" else ""
        return f"No network {budget}; the fastest so far takes {fastest.quantity}{of}"

    @property
    def sources(self) -> tuple[str, bool]:
        """Where the latencies are from, and whether that is an alarm: some are predicted."""
        words = predicted_words([c.readings for c in self.front or self.shown])
        if not words:
            return ("Every latency on the front is measured" if self.front else ""), False
        return words, True

    @property
    def notes(self) -> list[str]:
        """A line for what is known and not drawn: sizes and networks, and why they are not."""
        beyond, mark = _sizes_words(self.named_beyond)
        if self.others_beyond:
            beyond.append(count_words(len(self.others_beyond), "other network"))
        lines = [f"{', '.join(beyond)}: off the scale{mark}"] if beyond else []
        unscored, mark = _sizes_words(self.named_unscored)
        lacking = "score" if self.kind == "proxy" else "accuracy"
        lines += [f"{', '.join(unscored)}: no {lacking} known{mark}"] * bool(unscored)
        return lines


def view_of(
    networks: Sequence[Network],
    named: Sequence[Network],
    budget: float | None,
    unit: Unit = "ms",
) -> FrontView:
    """Choose what to show: of networks without a finite score or accuracy, the sizes' latencies.

    Raises:
        ValueError: if scores and accuracies are mixed.
    """
    kinds = {c.accuracy_kind for c in (*networks, *named)} or {"proxy"}
    if len(kinds) > 1:
        raise ValueError(
            "`networks` and `named` must all have a score or all an accuracy, but got both. "
            "Plot them apart."
        )
    drawable, sizes = _drawable(networks), _drawable(named)
    every_size = sorted(named, key=lambda c: c.x)
    left, right = _extent(drawable, sizes, budget)
    edges = _with_margin(left, right)
    others = [c for c in drawable if not c.on_front]
    return FrontView(
        front=[c for c in drawable if c.on_front],
        others=[c for c in others if c.x <= edges[1]],
        others_beyond=[c for c in others if c.x > edges[1]],
        named=[c for c in sizes if c.x <= edges[1]],
        named_beyond=[c for c in every_size if c.x > edges[1]],
        named_unscored=[c for c in every_size if c not in sizes and c.x <= edges[1]],
        kind=kinds.pop(),
        budget=budget,
        edges=edges,
        unit=unit,
        logarithmic=_logarithmic(left, right),
    )


def _sizes_words(sizes: Sequence[Network]) -> tuple[list[str], str]:
    """Each with its latency; that these are predicted is said once if all are."""
    every = all(not c.measured for c in sizes)
    words = [
        f"{c.name.upper()} {c.readings[0].quantity}{'' if every or c.measured else ' (predicted)'}"
        for c in sizes
    ]
    return words, " (latencies predicted)" if sizes and every else ""


def _drawable(networks: Sequence[Network]) -> list[Network]:
    finite = [c for c in networks if math.isfinite(c.accuracy + c.readings[0].high)]
    return sorted(finite, key=lambda c: c.x)


def _extent(
    networks: Sequence[Network], sizes: Sequence[Network], budget: float | None
) -> tuple[float, float]:
    """From the fastest to the budget, the front and what else lies within 1.6 budgets.

    So a size fifty times slower squashes nothing. Without a front there is room for half of the
    networks; without any, for the sizes.
    """
    highs = [c.readings[0].high for c in (*networks, *sizes)]
    front = [c.readings[0].high for c in networks if c.on_front]
    half = [median(highs[: len(networks)])] if networks else []
    furthest = [max(front)] if front else half or highs
    limit = budget or 0.0
    right = max([limit, *(high for high in highs if high <= 1.6 * limit), *furthest]) or 1.0
    lows = [c.readings[0].low for c in (*networks, *sizes)]
    return min([(budget or right) * 0.8, *(low for low in lows if low > 0)]), right


def _logarithmic(left: float, right: float) -> bool:
    return right > 10 * left


def _with_margin(left: float, right: float) -> tuple[float, float]:
    """Room at the sides for labels: at the right a tenth more, so little is empty."""
    if _logarithmic(left, right):
        at_right = max((right / left) ** (MARGIN / 1.5), _PAST)
        return left * (left / right) ** MARGIN, right * at_right
    return max(left - MARGIN * (right - left), 0.0), _PAST * right
