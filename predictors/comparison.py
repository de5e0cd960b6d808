"""Which of two networks is faster, by how much, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from predictors.rounds import ratios
from predictors.timing import Measurement, Source, estimate


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times the latency of a first network a second one takes, with a 95 % interval."""

    ratio: float
    low: float
    high: float
    source: Source  # predicted, if either latency is

    @property
    def sure(self) -> bool:
        """Whether the interval leaves no doubt about which is faster."""
        return not self.low <= 1 <= self.high

    def words(self, first: str, second: str) -> str:
        """Say it in one sentence."""
        how_sure = "95 % sure" if self.source == "measured" else "predicted"
        if not self.sure:
            return (f"{first} and {second} cannot be told apart: {second} takes {self.ratio:.2f} "
                    f"times as long ({self.low:.2f} to {self.high:.2f}, {how_sure}).")  # fmt: skip
        if self.ratio > 1:
            faster, slower, times = first, second, (self.ratio, self.low, self.high)
        else:
            faster, slower, times = second, first, (1 / self.ratio, 1 / self.high, 1 / self.low)
        return (f"{faster} is {times[0]:.2f}x faster than {slower} "
                f"({times[1]:.2f} to {times[2]:.2f}, {how_sure}).")  # fmt: skip


def compare(first: Measurement, second: Measurement) -> Comparison:
    """Compare two latencies: round by round where they were timed side by side, else as they are.

    In the latter case their errors count as independent, which is never too narrow: what both
    share with their references would cancel out.
    """
    source: Source = "measured" if first.source == second.source == "measured" else "predicted"
    if _side_by_side(first, second):
        found = estimate([_paired(a, b) for a, b in
                          zip(first.samples_ms, second.samples_ms, strict=True)])  # fmt: skip
        return Comparison(ratio=found.median, low=found.low, high=found.high, source=source)
    ratio = second.median_ms / first.median_ms
    slower = math.hypot(*(math.log(m.high_ms / m.median_ms) for m in (first, second)))
    faster = math.hypot(*(math.log(m.median_ms / m.low_ms) for m in (first, second)))
    return Comparison(ratio=ratio, low=ratio * math.exp(-faster), high=ratio * math.exp(slower),
                      source=source)  # fmt: skip


def compare_in_turn(first: Sequence[Measurement], second: Sequence[Measurement]) -> Comparison:
    """Compare what was timed in turn, by a process each time, in whatever runtimes.

    What the machine's speed is at the time is in both of a turn, so it is the blocks' own
    milliseconds that are divided, not those by the references, which differ from runtime to
    runtime.

    Raises:
        ValueError: if the turns are not as many, or none, or one was not timed.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"`first` and `second` must be timed in as many turns, but got "
                         f"{len(first)} and {len(second)}.")  # fmt: skip
    turns = [(a, b) for m, n in zip(first, second, strict=True)
             for a, b in zip(m.samples_ms, n.samples_ms, strict=True)]  # fmt: skip
    if not turns:
        raise ValueError("`first` and `second` must be timed, but have no samples.")
    found = estimate([_paired(a, b) for a, b in turns])
    return Comparison(ratio=found.median, low=found.low, high=found.high, source="measured")


def _side_by_side(first: Measurement, second: Measurement) -> bool:
    """Whether both were timed in the same processes, as their contexts and their samples say."""
    session = first.context.get("session")
    both = first.samples_ms, second.samples_ms
    return (session is not None and session == second.context.get("session")
            and len(both[0]) == len(both[1]) > 0 and all(map(all, both)))  # fmt: skip


def _paired(first_ms: Sequence[float], second_ms: Sequence[float]) -> list[float]:
    """Ratios in the rounds that both were timed in: a network is timed from the first on."""
    both = min(len(first_ms), len(second_ms))
    return ratios(second_ms[:both], first_ms[:both])
