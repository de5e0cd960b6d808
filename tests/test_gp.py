"""The map under which accuracies look normal: monotone, with an inverse, taking off the skew."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rank_correlation import kendall
from scipy.stats import skew

from predictors.gp import Warping, fit_gaussian_process, fit_trended, fit_warping

values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


@given(values=values, power=st.sampled_from([0.0, 1e-9, 0.3, 1.0, 1.7, 2.0]))
def test_the_inverse_gives_back_what_was_warped(values: list[float], power: float) -> None:
    warping = Warping(centre=3.0, scale=20.0, power=power)
    given_values = np.array(values)
    warped = warping.warped(given_values)
    assert warping.unwarped(warped) == pytest.approx(given_values, rel=1e-6, abs=1e-6)
    assert (np.diff(warped[np.argsort(given_values)]) >= 0).all()


@given(values=values)
def test_any_values_can_be_fitted(values: list[float]) -> None:
    warping = fit_warping(np.array(values))
    assert 0 <= warping.power <= 2
    assert np.isfinite(warping.warped(np.array(values))).all()


def test_what_falls_far_below_is_drawn_nearer() -> None:
    accuracies = 93 - np.random.default_rng(0).exponential(2.0, 200)
    warping = fit_warping(accuracies)
    assert warping.power > 1.2
    assert abs(skew(warping.warped(accuracies))) < 0.3 < abs(skew(accuracies))


def test_symmetric_values_stay_as_they_are() -> None:
    assert fit_warping(np.linspace(60, 70, 31)).power == pytest.approx(1, abs=0.02)
    assert fit_warping(np.full(5, 70.0)) == Warping(centre=70.0, scale=1.0, power=1.0)


def test_the_spread_is_that_of_many_draws() -> None:
    warping = Warping(centre=90.0, scale=2.0, power=1.6)
    median, deviation = warping.spread(np.array([-1.0, 0.5]), np.array([0.7, 0.2]))
    draws = np.random.default_rng(0).normal([-1.0, 0.5], [0.7, 0.2], (200_000, 2))
    low, middle, high = np.quantile(warping.unwarped(draws), [0.15866, 0.5, 0.84134], axis=0)
    assert median == pytest.approx(middle, abs=0.02)
    assert deviation == pytest.approx((high - low) / 2, rel=0.02)


def test_one_failure_does_not_set_the_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (30, 3))
    accuracies = 97 + 2 * x[:, 0]
    accuracies[7] = 12.6
    median, deviation = fit_trended(x, accuracies, None).predict(rng.uniform(0, 1, (200, 3)), None)
    assert fit_warping(accuracies).scale < 2
    assert median.max() < 101
    assert np.quantile(median, 0.1) > 90
    assert (deviation > 0).all()


@pytest.mark.parametrize("accuracies", [[66.7] * 10 + [83.3], [10.0] * 20 + [10.7]])
def test_where_chance_explains_all_nothing_absurd_is_predicted(accuracies: list[float]) -> None:
    x = np.random.default_rng(0).uniform(0, 1, (len(accuracies), 4))
    model = fit_trended(x, np.array(accuracies), None, least_noise=15.0)
    median, deviation = model.predict(x, None, noisy=True)
    assert min(accuracies) - 5 < median.min()
    assert median.max() < max(accuracies) + 5
    assert ((deviation >= 14) & (deviation < 40)).all()


@pytest.mark.parametrize("others", [[70.0, 71.0, 72.0, 73.0], [70.0] * 9])
def test_what_is_beyond_all_measure_is_but_far_away(others: list[float]) -> None:
    accuracies = np.array([*others, -1e300])
    warping = fit_warping(accuracies)
    assert np.isfinite(warping.warped(accuracies)).all()
    assert np.isfinite(warping.unwarped(np.array([-1.0, 0.0, 1.0]))).all()


def test_what_is_predicted_is_what_is_predicted_on_the_warped_scale() -> None:
    x = np.linspace(0, 1, 20)[:, None]
    model = fit_trended(x, 90 - 5 * x[:, 0] ** 3, None)
    mean, deviation = model.predict_warped(x, None)
    plain, _ = model.predict(x, None)
    assert plain == pytest.approx(model.warping.spread(mean, deviation)[0])
    assert (model.predict(x, None, noisy=True)[1] >= model.predict(x, None)[1]).all()


def test_few_bad_networks_do_not_hide_the_differences_of_the_good_ones() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (240, 6))
    truth = 90 - np.exp(x @ np.array([3.0, 2.0, -2.0, 1.5, -1.0, 0.5]))
    warped, _ = fit_trended(x[:40], truth[:40], None).predict(x[40:], None)
    plain, _ = fit_gaussian_process(x[:40], truth[:40]).predict(x[40:])
    good = truth[40:] > np.median(truth)
    by_warped, by_plain = (kendall(found[good], truth[40:][good]) for found in (warped, plain))
    assert by_warped > by_plain + 0.1
