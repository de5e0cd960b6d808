"""From ratios of timings to a latency with an interval. Statistics only: knows no device.

A latency is the median ratio of a network to its reference (see `rounds.py`) times the reference's
own latency. Its interval is as wide as what could have come out otherwise: in other rounds, in
another process, at another time of day.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median, pstdev
from typing import Any, Literal

Source = Literal["measured", "predicted"]

CONFIDENCE = 0.95
STEADY = 0.02  # a measurement is unstable while the half-width of its sampling interval is above
# Between processes memory lies differently, and between times of day so does the machine's load:
# the ratio of two networks moves by this much (relative standard deviation), as far as
# benchmarks/repeatability.py finds on a shared host. What slows a machine down slows unlike
# networks unequally, so the latter counts once more for each factor e between the two.
PROCESS_DEVIATION = 0.02
WINDOW_DEVIATION = 0.016
CONTRADICTION = 2.5 * PROCESS_DEVIATION  # between processes


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The latency of one network at batch 1: a median with its 95 % interval, in milliseconds.

    `source` says whether a clock or a model of the device gave it. `unstable` is True where the
    sampling interval stayed wider than +-2 % until the time ran out. `samples_ms` are the raw
    block medians, one tuple a process; `context` holds what is needed to repeat them.

    On several devices at once the numbers are per cent of a budget (see `shares.py`), and `parts`
    are the latencies on each, by its name. Where it was timed in several forms, that is, runtimes
    and precisions, it is that of the fastest, and `slower` are the others.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    source: Source
    device: str
    runtime: str
    threads: int
    precision: str = "fp32"
    unstable: bool = False
    samples_ms: tuple[tuple[float, ...], ...] = ()
    context: dict[str, Any] = field(default_factory=dict)
    parts: tuple[tuple[str, "Measurement"], ...] = ()
    slower: tuple["Measurement", ...] = ()

    @property
    def on_each(self) -> tuple[tuple[str, "Measurement"], ...]:
        """The latency in milliseconds on each device, by its name."""
        return self.parts or ((self.device, self),)

    @property
    def timed(self) -> bool:
        """Whether a clock was read, on one device at least."""
        return any(part.source == "measured" for _, part in self.on_each)

    def meets(self, budget_ms: float) -> bool:
        """Whether the upper end of the interval is within the budget."""
        return self.high_ms <= budget_ms

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = asdict(replace(self, parts=(), slower=()))
        nested = {"parts": [[name, part.as_json()] for name, part in self.parts],
                  "slower": [other.as_json() for other in self.slower]}  # fmt: skip
        values = {name: value for name, value in values.items() if name not in nested}
        return values | {name: value for name, value in nested.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Measurement":
        """Return the measurement that `as_json` spelled.

        Raises:
            KeyError, TypeError, AttributeError, ValueError: if the values are others.
        """
        samples = tuple(map(tuple, values.get("samples_ms", ())))
        parts = tuple((name, cls.from_json(part)) for name, part in values.get("parts", ()))
        slower = tuple(cls.from_json(other) for other in values.get("slower", ()))
        return cls(**{**values, "samples_ms": samples, "parts": parts, "slower": slower})


@dataclass(frozen=True)
class Estimate:
    """A ratio to the reference, with its 95 % interval.

    `half_width` is that of what more rounds would narrow, or, where processes contradict one
    another, of both.
    """

    median: float
    low: float
    high: float
    half_width: float

    @property
    def unstable(self) -> bool:
        """Whether the sampling interval is wider than +-2 %."""
        return not self.half_width <= STEADY


def estimate(processes: Sequence[Sequence[float]]) -> Estimate:
    """Combine the ratios of all rounds in all processes into one ratio with its interval.

    The median of a process's rounds resists preempted and throttled blocks, the trimmed mean of
    the processes one that went wrong. To the sampling error the interval adds, in quadrature, what
    differs from process to process (as seen, but never below `PROCESS_DEVIATION`) and from hour to
    hour. Processes that contradict one another make the estimate unstable.

    Raises:
        ValueError: if a process has no rounds.
    """
    if not processes or not all(processes):
        raise ValueError("`processes` must hold at least one round each, but got none.")
    medians = [math.log(median(rounds)) for rounds in processes]
    centre = _middle(medians)
    sampling = _sampling_error(processes)
    seen = pstdev(medians) * _small_sample(len(medians))
    between = max(PROCESS_DEVIATION, seen) / math.sqrt(len(medians))
    window = WINDOW_DEVIATION * (1 + abs(centre))
    error = 1.96 * math.hypot(sampling, between, window)
    told = math.hypot(sampling, between) if seen > CONTRADICTION else sampling
    return Estimate(
        math.exp(centre), math.exp(centre - error), math.exp(centre + error), 1.96 * told
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
    """Relative standard error of the median, for whatever distribution the rounds have.

    From the distribution-free interval between two order statistics of their deviations within
    each process: of two speeds between which a network flips, it spans both, however many rounds
    there are.
    """
    rounds = sorted(math.log(ratio / median(process)) for process in processes
                    for ratio in process)  # fmt: skip
    n = len(rounds)
    reach = 0.98 * math.sqrt(n)  # 1.96 binomial deviations of the median's rank
    if reach > (n - 1) / 2:
        return math.inf  # too few to tell
    return (_at(rounds, (n - 1) / 2 + reach) - _at(rounds, (n - 1) / 2 - reach)) / (2 * 1.96)


def _middle(values: Sequence[float]) -> float:
    """The mean without the extremes, so that one process that went wrong does not count."""
    ordered = sorted(values)
    out = (len(ordered) - 1) // 2 if len(ordered) < 5 else 1
    return fmean(ordered[out : len(ordered) - out])


def _at(ordered: Sequence[float], rank: float) -> float:
    """The value at a rank between two."""
    below = math.floor(rank)
    return ordered[below] + (rank - below) * (ordered[math.ceil(rank)] - ordered[below])


def _small_sample(n: int) -> float:
    """Turn the deviation of n values about their mean into one of the population."""
    return math.sqrt(n / (n - 1)) if n > 1 else 0.0
