"""Rank correlations, overall and among networks of nearly the same latency."""

from collections.abc import Callable

import numpy as np
import pytest
from rank_correlation import (
    BAND,
    STATISTICS,
    Array,
    bands_of,
    bootstrapped,
    difference,
    kendall,
    kendall_in_bands,
    spearman,
    spearman_in_bands,
)

TEN = np.arange(10.0)
SAME = np.ones(10)


def _brute_kendall(a: Array, b: Array) -> float:
    """Kendall's tau-b, pair by pair."""
    pairs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i in range(len(a)) for j in range(i)]
    size = sum(x != 0 for x, _ in pairs) * sum(y != 0 for _, y in pairs)
    return float(sum(x * y for x, y in pairs) / np.sqrt(size))


@pytest.mark.parametrize("correlation", [kendall, spearman])
def test_same_order_is_one_and_the_reverse_minus_one(
    correlation: Callable[[Array, Array], float],
) -> None:
    assert correlation(TEN, TEN**3) == pytest.approx(1)
    assert correlation(TEN, -TEN) == pytest.approx(-1)
    assert correlation(TEN, SAME) == 0


def test_they_are_what_their_definitions_say_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(6, size=(2, 30)).astype(float)
        assert kendall(a, b) == pytest.approx(_brute_kendall(a, b))
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_a_band_holds_those_of_nearly_the_same_latency() -> None:
    ms = np.array([1.0, 1.1, 1.0 + BAND, 0.9, 0.95, 1.2, 50.0])
    bands = bands_of(ms)
    assert bands[0].tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert all(band[6] == 0 for band in bands)  # alone: it has no band of its own


def test_within_bands_latency_itself_does_not_help() -> None:
    """Accuracy rises with latency from band to band, and within a band it falls with it."""
    rng = np.random.default_rng(1)
    ms = np.concatenate([band * rng.uniform(0.97, 1.03, 20) for band in (1, 2, 4, 8)])
    truth = np.repeat([10.0, 20, 30, 40], 20) - ms / np.repeat([1.0, 2, 4, 8], 20)
    assert kendall(ms, truth) > 0.4
    assert kendall_in_bands(ms, truth, ms) == pytest.approx(-1)
    assert spearman_in_bands(ms, truth, ms) == pytest.approx(-1)
    assert spearman_in_bands(truth, truth, ms) == pytest.approx(1)


def test_without_a_band_there_is_no_number() -> None:
    ms = 2.0**TEN
    assert np.isnan(kendall_in_bands(TEN, TEN, ms))
    assert np.isnan(spearman_in_bands(TEN, TEN, ms))


@pytest.mark.parametrize("name", STATISTICS)
def test_intervals_contain_the_value_and_shrink_with_more_networks(name: str) -> None:
    rng = np.random.default_rng(2)
    widths = []
    for count in (30, 150):
        truth, ms = rng.normal(size=count), rng.uniform(0.95, 1.05, count)
        found = bootstrapped(
            STATISTICS[name], truth + rng.normal(size=count), truth, ms, resamples=40
        )
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < 0.8 * widths[0]


def test_a_better_score_is_surely_better_than_a_worse_one_and_not_than_itself() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=100)
    good, bad = truth + 0.1 * rng.normal(size=100), truth + 2 * rng.normal(size=100)
    found = difference(STATISTICS["kendall"], (good, bad), truth, np.ones(100), resamples=100)
    assert 0 < found.low < found.value < found.high
    alike = difference(STATISTICS["kendall"], (good, good), truth, np.ones(100), resamples=20)
    assert (alike.low, alike.value, alike.high) == (0, 0, 0)


def test_one_seed_gives_one_interval() -> None:
    rng = np.random.default_rng(4)
    truth, scores = rng.normal(size=(2, 50))
    one, same = (
        bootstrapped(STATISTICS["kendall"], scores, truth, np.ones(50), resamples=30)
        for _ in range(2)
    )
    assert one == same


@pytest.mark.parametrize(("scores", "truth"), [(TEN, TEN[:9]), (TEN[:1], TEN[:1])])
def test_what_cannot_be_compared_is_refused(scores: Array, truth: Array) -> None:
    with pytest.raises(ValueError, match=r"`scores` must hold one number .* but got"):
        bootstrapped(STATISTICS["kendall"], scores, truth, truth)
