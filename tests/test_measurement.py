"""The statistics of timing: drift divides out, outliers do not count, the interval is honest."""

import math
from collections.abc import Sequence
from random import Random

import pytest

from predictors.measurement import (
    PROCESS_DEVIATION,
    STEADY,
    Backend,
    Estimate,
    Latency,
    estimate,
    ratios,
    settled,
)


def _rounds(rng: Random, *, ratio: float, noise: float, number: int = 12) -> list[float]:
    """Ratios of one process, with noise from round to round."""
    return [ratio * math.exp(rng.gauss(0.0, noise)) for _ in range(number)]


def _processes(rng: Random, *, noise: float, between: float, number: int = 5) -> list[list[float]]:
    """Ratios around 2 of several processes, each off by its own factor."""
    return [
        _rounds(rng, ratio=2.0 * math.exp(rng.gauss(0.0, between)), noise=noise)
        for _ in range(number)
    ]


def test_a_drift_of_both_divides_out() -> None:
    drift = [1 + 0.2 * i / 29 for i in range(30)]
    found = ratios([12.0 * d for d in drift], [8.0 * d for d in drift])
    assert found == pytest.approx([1.5] * 30)
    assert estimate([found]).median == pytest.approx(1.5)
    assert not estimate([found]).unstable


def test_outliers_hardly_move_the_median() -> None:
    rng = Random(0)
    clean = [_rounds(rng, ratio=2.0, noise=0.005, number=40) for _ in range(5)]
    spoilt = [[r * (10 if i % 10 == 0 else 1) for i, r in enumerate(p)] for p in clean]
    assert estimate(spoilt).median == pytest.approx(estimate(clean).median, rel=0.01)
    assert estimate(spoilt).median == pytest.approx(2.0, rel=0.01)
    assert not estimate(spoilt).unstable


def test_a_process_that_ran_slow_throughout_hardly_moves_the_median() -> None:
    processes = _processes(Random(1), noise=0.005, between=0.0)
    processes[2] = [10 * ratio for ratio in processes[2]]
    found = estimate(processes)
    assert found.median == pytest.approx(2.0, rel=0.01)
    assert found.high / found.low > 2.0  # but its interval does not hide it


def test_a_noisy_signal_is_unstable_and_a_quiet_one_is_not() -> None:
    noisy = estimate(_processes(Random(0), noise=0.3, between=0.0))
    quiet = estimate(_processes(Random(0), noise=0.01, between=0.0))
    assert noisy.unstable
    assert noisy.half_width > STEADY
    assert not quiet.unstable
    assert quiet.half_width < STEADY


def test_more_rounds_make_it_stable() -> None:
    rng = Random(0)
    few, many = ([_rounds(rng, ratio=2.0, noise=0.1, number=n) for _ in range(5)] for n in (6, 60))
    assert estimate(few).unstable
    assert not estimate(many).unstable


def test_an_estimate_that_is_no_number_is_unstable() -> None:
    assert Estimate(1.0, 1.0, 1.0, float("nan")).unstable


@pytest.mark.parametrize("number", [1, 3, 5])
def test_the_interval_contains_the_truth(number: int) -> None:
    found = [
        estimate(_processes(Random(seed), noise=0.03, between=0.02, number=number))
        for seed in range(200)
    ]
    assert sum(e.low <= 2.0 <= e.high for e in found) >= 180
    assert all(e.low < e.median < e.high for e in found)


def test_the_interval_is_no_wider_than_needed() -> None:
    found = estimate(_processes(Random(0), noise=0.01, between=0.02))
    assert (found.high - found.low) / 2 / found.median < 0.06


def test_processes_that_disagree_widen_the_interval() -> None:
    agree = estimate([[1.0] * 12] * 5)
    disagree = estimate([[x] * 12 for x in (0.9, 0.95, 1.0, 1.05, 1.1)])
    assert math.log(disagree.high) > 2 * math.log(agree.high)


def test_one_process_is_trusted_less_than_five() -> None:
    one, five = estimate([[1.0] * 60]), estimate([[1.0] * 12] * 5)
    assert one.half_width == five.half_width == 0.0
    assert math.log(one.high) > 1.96 * PROCESS_DEVIATION
    assert one.high / one.low > five.high / five.low


def test_a_scaled_signal_gives_a_scaled_estimate() -> None:
    processes = _processes(Random(3), noise=0.05, between=0.02)
    once = estimate(processes)
    scaled = estimate([[r / once.median**2 for r in rounds] for rounds in processes])
    assert scaled.median == pytest.approx(1 / once.median)  # as unlike the reference as before
    assert scaled.high / scaled.low == pytest.approx(once.high / once.low)
    assert scaled.half_width == pytest.approx(once.half_width)


@pytest.mark.parametrize("ratio", [1 / 7, 7])
def test_networks_unlike_the_reference_are_known_less_well(ratio: float) -> None:
    like, unlike = estimate([[1.0] * 12] * 3), estimate([[ratio] * 12] * 3)
    assert math.log(unlike.high / ratio) > 2 * math.log(like.high)


@pytest.mark.parametrize("processes", [[], [[]], [[1.0], []]])
def test_an_estimate_needs_rounds(processes: Sequence[Sequence[float]]) -> None:
    with pytest.raises(ValueError, match="`processes` must hold at least one round each, but got"):
        estimate(processes)


@pytest.mark.parametrize("blocks", [[10, 8, 5, 5, 5, 5, 5, 5], [5] * 6, [5, 5, 5, 6, 6, 6]])
def test_warming_up_ends_when_the_blocks_stop_falling(blocks: list[float]) -> None:
    assert settled(blocks)


@pytest.mark.parametrize("blocks", [[10, 9, 8, 7, 6, 5], [10, 8, 6, 5, 5, 5], [5] * 5, []])
def test_warming_up_goes_on_while_they_fall_or_are_few(blocks: list[float]) -> None:
    assert not settled(blocks)


def test_a_budget_is_met_by_the_upper_end() -> None:
    measured = Latency(
        median_ms=9.5,
        low_ms=9.2,
        high_ms=9.9,
        source="measured",
        device="cpu",
        backend=Backend("onnxruntime"),
    )
    assert measured.meets(9.9)
    assert not measured.meets(9.8)
    assert not measured.unstable
