"""Rounds of blocks: what divides the machine's drift out, and which rounds it was slowed down in.

The machine's speed drifts by tens of percent within minutes, so a bare time means little. Every
round times a block of each candidate and of two reference models, a small and a larger one; what
slows a machine down slows them unequally, so a candidate between them is divided by a mean of both,
weighted by where it lies.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

from predictors.timing import STEADY, estimate

Round = Mapping[int, float]  # block medians in ms by network
SMALL, LARGE = 0, 1  # the references' places
DRIFT = 0.03  # of the references, or of the frequency: beyond it the machine is slowed down


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


def nearness_in(rounds: Sequence[Round], index: int) -> float:
    """Where a network lies between the references that were timed beside it."""
    timed = [blocks for blocks in rounds if index in blocks]
    return nearness(*(median(blocks[i] for blocks in timed) for i in (index, SMALL, LARGE)))


def ratios_in(rounds: Sequence[Round], index: int, near: float) -> list[float]:
    """Divide a network's blocks by those of its reference in the same rounds."""
    timed = [blocks for blocks in rounds if index in blocks]
    return ratios([blocks[index] for blocks in timed],
                  [blend(blocks[SMALL], blocks[LARGE], near) for blocks in timed])  # fmt: skip


def unsettled(rounds: Sequence[Round], index: int, *, processes: int) -> bool:
    """Whether so many processes with rounds like these would still leave a network unstable."""
    found = estimate([ratios_in(rounds, index, nearness_in(rounds, index))])
    return not found.half_width <= STEADY * math.sqrt(processes)


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
