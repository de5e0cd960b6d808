"""Signals whose truth is known: what drifts, steps, throttles, bursts, or cannot be told."""

import math
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean

import pytest

from predictors.measurement import (
    Estimate,
    Round,
    blend,
    estimate,
    is_steady,
    nearness,
    nearness_in,
    ratios,
    ratios_in,
)

SMALL_MS, LARGE_MS, TRUE_MS = 1.0, 10.0, 5.0
NOISE = 0.01
ROUNDS, PROCESSES = 20, 3
Speed = Callable[[Random, float], float]  # of the machine, by how far the measurement is, 0 to 1


def _drifting(_: Random, progress: float) -> float:
    return 1 + 0.2 * progress


def _stepping(_: Random, progress: float) -> float:
    return 1.3 if progress > 0.4 else 1.0


def _throttling(_: Random, progress: float) -> float:
    return 1.6 if 0.3 < progress < 0.6 else 1.0


def _bursting(rng: Random, _: float) -> float:
    return 10.0 if rng.random() < 0.1 else 1.0


def _sessions(
    speed: Speed, seed: int, *, rounds: int = 20, processes: int = 3
) -> list[list[Round]]:
    """Blocks of two references and a network, each held up on its own by what happens just then."""
    rng = Random(seed)

    def block(true_ms: float, progress: float) -> float:
        return true_ms * speed(rng, progress) * math.exp(rng.gauss(0, NOISE))

    return [
        [
            {i: block(ms, n / ROUNDS) for i, ms in enumerate((SMALL_MS, LARGE_MS, TRUE_MS))}
            for n in range(ROUNDS)
        ]
        for _ in range(PROCESSES)
    ]


def _estimate(sessions: Sequence[Sequence[Round]], *, steady: bool = True) -> Estimate:
    """What a device makes of them; in milliseconds where the references keep theirs."""
    if steady:
        sessions = [_steady(rounds) for rounds in sessions]
    near = nearness_in([blocks for rounds in sessions for blocks in rounds], 2)
    found = estimate([ratios_in(rounds, 2, near) for rounds in sessions])
    scale = blend(SMALL_MS, LARGE_MS, near)
    return Estimate(scale * found.median, scale * found.low, scale * found.high, found.half_width)


def _steady(rounds: Sequence[Round]) -> list[Round]:
    kept = _kept([math.sqrt(blocks[0] * blocks[1]) for blocks in rounds])
    return [blocks for blocks, steady in zip(rounds, kept, strict=True) if steady]


def _kept(reference_ms: Sequence[float], mhz: Sequence[float | None] = ()) -> list[bool]:
    """Of each round, said when it was the last."""
    return [is_steady(reference_ms[: i + 1], mhz[: i + 1]) for i in range(len(reference_ms))]


@pytest.mark.parametrize("speed", [_drifting, _stepping, _throttling, _bursting])
@pytest.mark.parametrize("steady", [True, False], ids=["left out", "kept"])
def test_the_median_is_right_within_one_percent(speed: Speed, steady: bool) -> None:  # noqa: FBT001
    found = [_estimate(_sessions(speed, seed), steady=steady) for seed in range(60)]
    errors = [abs(e.median / TRUE_MS - 1) for e in found]
    assert sorted(errors)[56] < 0.01  # nineteen of twenty
    assert all(e.low < TRUE_MS < e.high for e in found)


def test_leaving_slow_rounds_out_does_not_bias() -> None:
    """Chosen by their own blocks, rounds with a lucky reference would make networks look slow."""
    for speed in (_drifting, _throttling):
        found = [_estimate(_sessions(speed, seed)).median / TRUE_MS for seed in range(200)]
        assert abs(fmean(found) - 1) < 0.002


def _flipping(seed: int, *, rounds: int) -> list[list[float]]:
    """Ratios of a network that runs at one of two speeds, as a coin falls."""
    rng = Random(seed)
    return [
        [rng.choice((1.0, 1.3)) * math.exp(rng.gauss(0, 0.003)) for _ in range(rounds)]
        for _ in range(3)
    ]


@pytest.mark.parametrize("rounds", [8, 20, 200])
def test_what_flips_between_two_speeds_is_unstable(rounds: int) -> None:
    assert all(estimate(_flipping(seed, rounds=rounds)).unstable for seed in range(50))


def test_processes_that_contradict_one_another_are_unstable() -> None:
    quiet = [[math.exp(Random(i).gauss(0, 0.003)) for i in range(20)] for _ in range(3)]
    assert not estimate(quiet).unstable
    assert estimate([*quiet[:2], [1.3 * ratio for ratio in quiet[2]]]).unstable


def test_too_few_rounds_tell_nothing() -> None:
    assert estimate([[1.0, 1.0, 1.0]]).unstable


def test_a_throttled_stretch_is_left_out() -> None:
    kept = _kept([10.0] * 6 + [13.0] * 6 + [10.1] * 8)
    assert all(kept[:6])
    assert not any(kept[7:13])  # two slow blocks in three tell
    assert all(kept[13:])


def test_one_slow_block_is_no_throttling() -> None:
    assert all(_kept([10.0, 10.1, 40.0, 10.0, 9.9, 10.0, 10.1, 9.95]))


def test_a_machine_that_is_merely_restless_loses_few_rounds() -> None:
    rng = Random(0)
    kept = [_kept([10 * math.exp(rng.gauss(0, 0.06)) for _ in range(24)]) for _ in range(50)]
    assert fmean(map(fmean, kept)) > 0.85


def test_where_the_frequency_is_known_it_decides() -> None:
    assert _kept([10.0] * 4, [2400.0, 2399.0, 1500.0, 2400.0]) == [True, True, False, True]
    assert _kept([10.0, 20.0, 20.0, 20.0], [2400.0] * 4) == [True] * 4
    assert _kept([10.0] * 3, [2400.0, None, 1500.0]) == [True] * 3


@pytest.mark.parametrize(
    ("candidate_ms", "expected"), [(0.1, 0.0), (1.0, 0.0), (3.0, 0.5), (9.0, 1.0), (50.0, 1.0)]
)
def test_a_network_is_compared_with_what_is_like_it(candidate_ms: float, expected: float) -> None:
    near = nearness(candidate_ms, 1.0, 9.0)
    assert near == pytest.approx(expected)
    assert blend(1.0, 9.0, near) == pytest.approx(min(max(candidate_ms, 1.0), 9.0))


def test_what_slows_unlike_networks_unequally_divides_out_between_two_references() -> None:
    quiet = 3.0 / blend(1.0, 9.0, 0.5)
    contended = 3.0 * 1.06 / blend(1.0 * 1.1, 9.0 * 1.02, 0.5)  # the smaller, the more
    assert contended == pytest.approx(quiet, rel=0.002)


def test_references_of_one_speed_are_no_scale() -> None:
    assert nearness(5.0, 9.0, 9.0) == nearness(5.0, 9.5, 9.0) == 1.0


@pytest.mark.parametrize(("candidate", "reference"), [([], []), ([1.0], [1.0, 2.0])])
def test_every_block_needs_its_reference(candidate: list[float], reference: list[float]) -> None:
    message = rf"`candidate_ms` must have a block for .* got {len(candidate)} and {len(reference)}"
    with pytest.raises(ValueError, match=message):
        ratios(candidate, reference)
