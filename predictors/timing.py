"""From raw timings to a latency with an interval. Statistics only: this module knows no device.

The machine's speed drifts by tens of percent within minutes, so a bare time means little. Every
round times a block of each candidate and of two reference models, a small and a larger one; what
slows a machine down slows them unequally, so a candidate between them is divided by a mean of both,
weighted by where it lies. Its latency is that ratio times the same mean of their own latencies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev
from typing import Any, Literal

Source = Literal["measured", "predicted"]

CONFIDENCE = 0.95
STEADY = 0.02  # a measurement is unstable while the half-width of its sampling interval is above
# Between processes memory lies differently, and between times of day so does the machine's load:
# the ratio of two networks moves by this much (relative standard deviation). What slows a machine
# down slows unlike networks unequally, so the latter counts once more for each factor e between
# the two: of networks timed six times within minutes on a shared host against T0 alone, those near
# it moved by 0.9 %, those at 1/3 of its latency by 2.1 %, those at 1/7 by 3.5 %. Against two
# references all moved by 1 to 2 %, but by up to 4 % in a restless quarter of an hour.
PROCESS_DEVIATION = 0.02
WINDOW_DEVIATION = 0.016


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The latency of one network at batch 1: a median with its 95 % interval, in milliseconds.

    `source` says whether a clock or a model of the device gave it. `unstable` is True where the
    sampling interval stayed wider than +-2 % until the time ran out. `samples_ms` are the raw
    block medians, one tuple a process; `context` holds what is needed to repeat them.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    source: Source
    device: str
    runtime: str
    threads: int
    unstable: bool = False
    samples_ms: tuple[tuple[float, ...], ...] = ()
    context: dict[str, Any] = field(default_factory=dict)

    def meets(self, budget_ms: float) -> bool:
        """Whether the upper end of the interval is within the budget."""
        return self.high_ms <= budget_ms


@dataclass(frozen=True)
class Estimate:
    """A ratio to the reference, with its 95 % interval; `half_width` is of the sampling alone."""

    median: float
    low: float
    high: float
    half_width: float

    @property
    def unstable(self) -> bool:
        """Whether the sampling interval is wider than +-2 %."""
        return not self.half_width <= STEADY


def ratios(candidate_ms: Sequence[float], reference_ms: Sequence[float]) -> list[float]:
    """Divide the drift out, round by round.

    Raises:
        ValueError: if the two have different lengths or are empty.
    """
    if len(candidate_ms) != len(reference_ms) or not candidate_ms:
        raise ValueError(f"`candidate_ms` must have a block for each block of the reference, but "
                         f"got {len(candidate_ms)} and {len(reference_ms)}.")  # fmt: skip
    return [c / r for c, r in zip(candidate_ms, reference_ms, strict=True)]


def nearness(candidate_ms: float, small_ms: float, large_ms: float) -> float:
    """Where a latency lies between those of two references, on a logarithmic scale: 0 to 1."""
    if not small_ms < large_ms:
        return 1.0
    position = math.log(candidate_ms / small_ms) / math.log(large_ms / small_ms)
    return min(max(position, 0.0), 1.0)


def blend(small_ms: float, large_ms: float, nearness: float) -> float:
    """The reference of a network between two: their geometric mean, weighted by nearness."""
    return float(small_ms ** (1 - nearness) * large_ms**nearness)


def estimate(processes: Sequence[Sequence[float]]) -> Estimate:
    """Combine the ratios of all rounds in all processes into one ratio with its interval.

    The median resists preempted and throttled blocks. Its sampling error comes from the rounds'
    median absolute deviation; the interval adds, in quadrature, what differs from process to
    process (as seen, but never below `PROCESS_DEVIATION`) and from hour to hour.

    Raises:
        ValueError: if a process has no rounds.
    """
    if not processes or not all(processes):
        raise ValueError("`processes` must hold at least one round each, but got none.")
    medians = [math.log(median(rounds)) for rounds in processes]
    centre = median(medians)
    sampling = _sampling_error(processes)
    seen = pstdev(medians) * _small_sample(len(medians))
    between = max(PROCESS_DEVIATION, seen) / math.sqrt(len(medians))
    window = WINDOW_DEVIATION * (1 + abs(centre))
    error = 1.96 * math.hypot(sampling, between, window)
    return Estimate(
        math.exp(centre), math.exp(centre - error), math.exp(centre + error), 1.96 * sampling
    )


def settled(block_ms: Sequence[float], *, window: int = 3) -> bool:
    """Whether warming up may end: the last blocks' medians have stopped falling.

    Compares the mean of the last `window` blocks with that of the `window` before them.
    """
    if len(block_ms) < 2 * window:
        return False
    before, after = fmean(block_ms[-2 * window : -window]), fmean(block_ms[-window:])
    return after > before * (1 - STEADY)


def _sampling_error(processes: Sequence[Sequence[float]]) -> float:
    """Relative standard error of the median over all rounds, from the deviation within each."""
    deviations = [abs(ratio / median(rounds) - 1) for rounds in processes for ratio in rounds]
    sigma = 1.4826 * median(deviations)  # of a normal distribution with this deviation
    return 1.2533 * sigma / math.sqrt(len(deviations))  # the median's error, sqrt(pi/2) a mean's


def _small_sample(n: int) -> float:
    """Turn the deviation of n values about their mean into one of the population."""
    return math.sqrt(n / (n - 1)) if n > 1 else 0.0
