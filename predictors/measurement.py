"""Latencies: where and how they are timed, their statistics, and which of two is lower.

Statistics only. The machine's speed drifts by tens of percent within minutes, so a bare time means
little. Every round times a block of each candidate and of two reference models, a small and a
larger one. What slows a machine down slows them unequally, so a candidate is divided by a mean of
both, weighted by where it lies between them. A latency is the median of these ratios times the
reference's own latency. Its interval covers other rounds, processes and times of day.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import Annotated, Literal

import msgspec

Source = Literal["measured", "predicted"]

CONFIDENCE = 0.95
STEADY = 0.02  # a latency is unstable while the half-width of its sampling interval is above
# Between processes memory lies differently, and between times of day so does the machine's load:
# the ratio of two networks moves by this much (relative standard deviation), as far as
# benchmarks/repeatability.py finds on a shared host. What slows a machine down slows unlike
# networks unequally, so the latter counts once more for each factor e between the two.
PROCESS_DEVIATION = 0.02
WINDOW_DEVIATION = 0.016
CONTRADICTION = 2.5 * PROCESS_DEVIATION  # between processes

Milliseconds = Annotated[float, msgspec.Meta(gt=0, lt=1e9)]  # as they are read from files
Round = Mapping[int, float]  # block medians in ms by network
SMALL, LARGE = 0, 1  # the references' places
LASTING = 0.10  # by which a machine's speed differs from that of the kept references: told from
FEWEST = 3  # so many processes on; of fewer the difference is noise unless it is
PLAIN = 0.30  # as large as this
DRIFT = 0.03  # of the references, or of the frequency: beyond it the machine is slowed down


@dataclass(frozen=True)
class Backend:
    """How a network is run: the runtime, the precision of its numbers and the threads."""

    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class TimingProtocol:
    """How networks are timed: in how many processes, rounds, blocks and inferences.

    `repeats` fresh processes time each network: it lies in memory otherwise in each. A process
    times `rounds` (fewest, most) at the machine's own speed, and `most_rounds` with those in which
    it was slowed down. Untimed inferences begin a block: they bring the network back into the
    caches, which takes the longer the more often it fits there.
    """

    repeats: int = 7
    rounds: tuple[int, int] = (6, 8)
    most_rounds: int = 16
    discard_ms: float = 12.0
    discards: tuple[int, int] = (1, 25)  # fewest and most inferences of a block that are not timed
    block_ms: float = 20.0
    inferences: tuple[int, int] = (5, 50)  # fewest and most inferences of a block that are timed
    most_warm_up: int = 20  # blocks
    pause_s: float = 1.0  # where the machine is slowed down
    pauses: int = 1
    group: int = 8  # networks in memory at once
    turn: int = 16  # networks timed on one of several devices before the next one's turn
    attempts: int = 3  # connections tried for one group
    attempt_pause_s: float = 2.0
    answer_s: float = 300.0  # the longest that a machine may take over one request
    retry_s: float = 10.0  # until a board that failed is tried again
    failures: int = 2  # in a row, after which a board is left out
    reuse: bool = False  # what was timed before is not timed again


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference model's latency: as kept, which defines our milliseconds, and as it is now."""

    kept_ms: Milliseconds
    now_ms: Milliseconds


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is needed to repeat a measurement; of a prediction, the profile that it is from."""

    machine: str = ""  # one line on the hardware
    address: str = ""  # of a board behind SSH; empty: this machine
    board: str = ""  # of a pool, by name
    cores: str = ""  # to which it was pinned, such as 4,5; empty: the agent chose
    emulated: bool = False
    runtime_version: str = ""
    artifact: str = ""  # SHA-256 of the deployed file in hex
    clock: str = ""
    session: str = ""  # what was timed side by side has the same one
    references: Mapping[str, Reference] = field(default_factory=dict)  # the smaller first
    nearness: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None  # to the larger reference
    counts: Mapping[str, int] = field(default_factory=dict)  # samples and rounds, and left out
    pinned: bool = False
    ran_on: str = ""  # the cores that it was pinned to, and why these
    realtime: bool = False
    lowest_mhz: float | None = None
    highest_celsius: float | None = None
    cached: bool = False  # timed by an earlier run
    profile: str = ""
    profile_source: str = ""
    instructions: int | None = None  # of one run, by the profile
    fma_instructions: int | None = None  # as many of them are vector multiply-adds
    shares: Mapping[str, float] = field(default_factory=dict)  # of them, by operator

    def as_json(self) -> dict[str, object]:
        """Return what is known as JSON values."""
        unknown: tuple[object, ...] = (None, "", {})
        values = asdict(self).items()
        return {name: v for name, v in values if v is not False and v not in unknown}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The latency of one network on one device, in milliseconds: a median with an interval.

    The interval holds 95 % if it is measured, 90 % if it is predicted.

    `source` says whether a clock or a model of the device gave it. `unstable` is True where the
    sampling interval stayed wider than +-2 % until the time ran out. `samples_ms` are the raw
    block medians, one tuple a process; `context` holds what is needed to repeat them. Where it was
    timed in several backends, it is that of the fastest, and `slower` are the others.
    """

    median_ms: Milliseconds
    low_ms: Milliseconds
    high_ms: Milliseconds
    source: Source
    device: str
    backend: Backend | None  # None of a prediction: which of several is the fastest is not known
    unstable: bool = False
    samples_ms: tuple[tuple[Milliseconds, ...], ...] = ()
    context: Context = Context()
    slower: tuple["Latency", ...] = ()

    def meets(self, budget_ms: float) -> bool:
        """Whether the upper end of the interval is within the budget."""
        return self.high_ms <= budget_ms

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        values = {**asdict(self), "context": self.context.as_json()}
        values["slower"] = [other.as_json() for other in self.slower]
        return {name: value for name, value in values.items() if value != []}

    @classmethod
    def from_json(cls, values: object) -> "Latency":
        """Return the latency that `as_json` spelled.

        Raises:
            ValueError: if the values are others, naming the field.
        """
        return msgspec.convert(values, cls)

    def now_ms(self) -> float:
        """Return what it was by the clock, at the machine's speed when it was timed."""
        if not self.context.references or self.context.nearness is None:
            return self.median_ms
        small, large = (one.now_ms / one.kept_ms for one in self.context.references.values())
        return self.median_ms * blend(small, large, self.context.nearness)

    def in_doubt(self, changes: Sequence[float]) -> "Latency":
        """Return it with an interval that reaches to what it takes at the machine's speed of now.

        `changes` are the references', the smaller first, as `lasting_change` returns them.
        """
        if self.context.nearness is None or not changed_alike(changes):
            return self
        small, large = changes
        factor = blend(small, large, self.context.nearness)
        low_ms, high_ms = min(1.0, factor) * self.low_ms, max(1.0, factor) * self.high_ms
        return replace(self, low_ms=low_ms, high_ms=high_ms)

    def on_scale(self, kept_ms: Mapping[str, float]) -> "Latency":
        """Return it in the milliseconds in which the references take these; the smaller first.

        Raises:
            ValueError: if the references or the nearness to them are not known.
        """
        references, near = self.context.references, self.context.nearness
        if near is None or not kept_ms.keys() <= references.keys():
            raise ValueError(f"`context` must tell the references, but got {self.context}.")
        small, large = (ms / references[name].kept_ms for name, ms in kept_ms.items())
        factor = blend(small, large, near)
        scaled = {name: replace(references[name], kept_ms=ms) for name, ms in kept_ms.items()}
        return replace(
            self,
            median_ms=self.median_ms * factor,
            low_ms=self.low_ms * factor,
            high_ms=self.high_ms * factor,
            context=replace(self.context, references=scaled),
        )


@dataclass(frozen=True)
class Latencies:
    """What a network has: its latency on each device, by the device's name."""

    by_device: Mapping[str, Latency]

    @property
    def measured(self) -> bool:
        """Whether a clock was read on one device at least."""
        return any(one.source == "measured" for one in self.by_device.values())

    @property
    def source(self) -> Source:
        """Predicted if the latency on any device is."""
        sources = {one.source for one in self.by_device.values()}
        return "predicted" if "predicted" in sources else "measured"

    @property
    def unstable(self) -> bool:
        """Whether the latency on any device is."""
        return any(one.unstable for one in self.by_device.values())

    def meet(self, budgets_ms: Mapping[str, float]) -> bool:
        """Whether a network is feasible: within the budget on every device that has one."""
        return all(self.by_device[name].meets(ms) for name, ms in budgets_ms.items())

    def as_json(self) -> dict[str, object]:
        """Return them as JSON values."""
        return {name: one.as_json() for name, one in self.by_device.items()}

    @classmethod
    def from_json(cls, values: object) -> "Latencies":
        """Return the latencies that `as_json` spelled."""
        return cls(msgspec.convert(values, dict[str, Latency]))


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Latency by budget, dimensionless: 1.0 is the budget. A median with its interval."""

    median: float
    low: float
    high: float


def worst_ratio(latencies: Latencies, budgets_ms: Mapping[str, float]) -> Ratio:
    """Return the largest ratio of a latency to the budget of its device.

    The median, the lower and the upper end are the largest each by itself: the device with the
    largest median need not be the one whose interval reaches highest. A network is within every
    budget if, and only if, the upper end is 1.0 at most.
    """
    on_each = [(latencies.by_device[name], ms) for name, ms in budgets_ms.items()]
    return Ratio(
        median=max(latency.median_ms / ms for latency, ms in on_each),
        low=max(latency.low_ms / ms for latency, ms in on_each),
        high=max(latency.high_ms / ms for latency, ms in on_each),
    )


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
    """
    if not processes or not all(processes):
        raise ValueError("`processes` must hold at least one round each, but got none.")
    medians = [math.log(median(rounds)) for rounds in processes]
    centre = _trimmed_mean(medians)
    sampling = _sampling_error(processes)
    seen = stdev(medians) if len(medians) > 1 else 0.0
    between = max(PROCESS_DEVIATION, seen) / math.sqrt(len(medians))
    window = WINDOW_DEVIATION * (1 + abs(centre))
    error = 1.96 * math.hypot(sampling, between, window)
    narrowed = math.hypot(sampling, between) if seen > CONTRADICTION else sampling
    low, high = math.exp(centre - error), math.exp(centre + error)
    return Estimate(math.exp(centre), low, high, 1.96 * narrowed)


def lasting_change(now_ms: Sequence[float], kept_ms: float) -> float:
    """Return what a reference takes now, over what was kept of it; 1.0 unless that lasts.

    `now_ms` are the medians of processes. What was kept is the fastest of some processes: the
    machine is slower than then if none comes near it, and faster if most are below.
    """
    bound = 1 + (LASTING if len(now_ms) >= FEWEST else PLAIN)
    if not now_ms or (min(now_ms) < kept_ms * bound and median(now_ms) > kept_ms / bound):
        return 1.0
    return min(now_ms) / kept_ms


def changed_alike(changes: Sequence[float]) -> bool:
    """Whether both references are slower than kept, or both faster."""
    return len(changes) == 2 and (max(changes) < 1 or min(changes) > 1)


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
    rounds = sorted(math.log(ratio / median(process)) for process in processes for ratio in process)
    n = len(rounds)
    reach = 0.98 * math.sqrt(n)  # 1.96 binomial deviations of the median's rank
    if reach > (n - 1) / 2:
        return math.inf  # too few to tell
    return (_at(rounds, (n - 1) / 2 + reach) - _at(rounds, (n - 1) / 2 - reach)) / (2 * 1.96)


def _trimmed_mean(values: Sequence[float]) -> float:
    """The mean without the extremes, so that one process that went wrong does not count."""
    ordered = sorted(values)
    out = (len(ordered) - 1) // 2 if len(ordered) < 5 else 1
    return fmean(ordered[out : len(ordered) - out])


def _at(ordered: Sequence[float], rank: float) -> float:
    """The value at a rank between two."""
    below = math.floor(rank)
    return ordered[below] + (rank - below) * (ordered[math.ceil(rank)] - ordered[below])


def ratios(candidate_ms: Sequence[float], reference_ms: Sequence[float]) -> list[float]:
    """Divide the drift out, round by round."""
    if len(candidate_ms) != len(reference_ms) or not candidate_ms:
        raise ValueError(
            "`candidate_ms` must have a block for each block of the reference, but got "
            f"{len(candidate_ms)} and {len(reference_ms)}."
        )
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


def nearness_in(rounds: Sequence[Round], index: int) -> float:
    """Where a network lies between the references that were timed beside it."""
    timed = [blocks for blocks in rounds if index in blocks]
    return nearness(*(median(blocks[i] for blocks in timed) for i in (index, SMALL, LARGE)))


def ratios_in(rounds: Sequence[Round], index: int, near: float) -> list[float]:
    """Divide a network's blocks by those of its reference in the same rounds."""
    timed = [blocks for blocks in rounds if index in blocks]
    reference_ms = [blend(blocks[SMALL], blocks[LARGE], near) for blocks in timed]
    return ratios([blocks[index] for blocks in timed], reference_ms)


def unsettled(rounds: Sequence[Round], index: int, *, repeats: int) -> bool:
    """Whether so many processes with rounds like these would still leave a network unstable."""
    found = estimate([ratios_in(rounds, index, nearness_in(rounds, index))])
    return not found.half_width <= STEADY * math.sqrt(repeats)


def is_steady(reference_ms: Sequence[float], mhz: Sequence[float | None] = ()) -> bool:
    """Say of the last round whether the machine ran at its speed, not throttled or held up.

    Where the frequency is known, by that: it must be within 3 % of the highest so far. Else by the
    reference: the median of its last blocks must be within 3 % of the fastest such median, or
    within what its own noise explains. One slow block is no throttling, and choosing rounds by it
    would bias the ratios.
    """
    if mhz and all(mhz):
        known = [value for value in mhz if value]
        return known[-1] >= (1 - DRIFT) * max(known)
    levels = [median(reference_ms[max(i - 2, 0) : i + 1]) for i in range(len(reference_ms))]
    fastest = sorted(levels)[len(levels) // 5]  # not the luckiest
    return levels[-1] <= (1 + max(DRIFT, 2 * _noise(reference_ms))) * fastest


def _noise(reference_ms: Sequence[float]) -> float:
    """Relative deviation from block to block; slow drifts and steps do not count."""
    if len(reference_ms) < 2:
        return 0.0
    steps = [abs(math.log(after / before)) for before, after in pairwise(reference_ms)]
    return 1.4826 * median(steps) / math.sqrt(2)


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
            return (
                f"{first} and {second} cannot be told apart: {second} takes {self.ratio:.2f} times "
                f"as long ({self.low:.2f} to {self.high:.2f}, {how_sure})."
            )
        if self.ratio > 1:
            faster, slower, times = first, second, (self.ratio, self.low, self.high)
        else:
            faster, slower, times = second, first, (1 / self.ratio, 1 / self.high, 1 / self.low)
        return (
            f"{faster} is {times[0]:.2f}x faster than {slower} ({times[1]:.2f} to {times[2]:.2f}, "
            f"{how_sure})."
        )


def compare(first: Latency, second: Latency) -> Comparison:
    """Compare two latencies: round by round where they were timed side by side, else as they are.

    In the latter case their errors count as independent, which is never too narrow: what both
    share with their references would cancel out. Of two predictions from the same counts nothing
    but the rates can be wrong, and whatever those are, the ratio lies between the counts' own.
    """
    source: Source = "measured" if first.source == second.source == "measured" else "predicted"
    if _side_by_side(first, second):
        found = estimate(list(map(paired_ratios, first.samples_ms, second.samples_ms)))
        return Comparison(ratio=found.median, low=found.low, high=found.high, source=source)
    ratio = second.median_ms / first.median_ms
    if first.backend != second.backend and not (first.context.cached or second.context.cached):
        ratio = second.now_ms() / first.now_ms()  # a runtime has milliseconds of its own
    slower = math.log(first.median_ms / first.low_ms), math.log(second.high_ms / second.median_ms)
    faster = math.log(first.high_ms / first.median_ms), math.log(second.median_ms / second.low_ms)
    low, high = ratio * math.exp(-math.hypot(*faster)), ratio * math.exp(math.hypot(*slower))
    if counts := _count_ratios(first, second):
        low, high = max(low, min(counts)), min(high, max(counts))
    return Comparison(ratio=ratio, low=low, high=high, source=source)


def _count_ratios(first: Latency, second: Latency) -> list[float]:
    """How often the second has the multiply-adds and the other instructions of the first."""
    a, b = first.context, second.context
    fma = a.fma_instructions or 0, b.fma_instructions or 0
    other = (a.instructions or 0) - fma[0], (b.instructions or 0) - fma[1]
    alike = a.profile and (a.profile, first.backend) == (b.profile, second.backend)
    return [n / old for old, n in (fma, other)] if alike and all((*fma, *other)) else []


def _side_by_side(first: Latency, second: Latency) -> bool:
    """Whether both were timed in the same processes, as their contexts and their samples say."""
    session, both = first.context.session, (first.samples_ms, second.samples_ms)
    rounds = len(both[0]) == len(both[1]) > 0 and all(map(all, both))
    return rounds and session == second.context.session != ""


def paired_ratios(first_ms: Sequence[float], second_ms: Sequence[float]) -> list[float]:
    """Return ratios in the rounds that both were timed in: a network is timed from the first on."""
    both = min(len(first_ms), len(second_ms))
    return ratios(second_ms[:both], first_ms[:both])
