"""The map under which accuracies look normal: monotone, with an inverse, taking off the skew."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import skew

from predictors.trended import fit_trended
from predictors.warping import Warping, fit_warping

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


def test_moments_are_those_of_many_draws() -> None:
    warping = Warping(centre=90.0, scale=2.0, power=1.6)
    mean, deviation = warping.moments(np.array([-1.0, 0.5]), np.array([0.7, 0.2]))
    draws = np.random.default_rng(0).normal([-1.0, 0.5], [0.7, 0.2], (200_000, 2))
    values = warping.unwarped(draws)
    assert mean == pytest.approx(values.mean(axis=0), abs=0.02)
    assert deviation == pytest.approx(values.std(axis=0), rel=0.02)


def test_what_is_predicted_is_what_is_predicted_on_the_warped_scale() -> None:
    x = np.linspace(0, 1, 20)[:, None]
    model = fit_trended(x, 90 - 5 * x[:, 0] ** 3, None)
    mean, deviation = model.predict_warped(x, None)
    plain, _ = model.predict(x, None)
    assert plain == pytest.approx(model.warping.moments(mean, deviation)[0])
    assert (model.predict(x, None, noisy=True)[1] >= model.predict(x, None)[1]).all()


def test_few_bad_networks_do_not_hide_the_differences_of_the_good_ones() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (40, 1))
    truth = 90 - 40 * np.exp(-8 * x[:, 0])
    model = fit_trended(x, truth + rng.normal(0, 0.1, 40), None)
    good = np.linspace(0.6, 0.95, 8)[:, None]
    mean, _ = model.predict(good, None)
    assert mean == pytest.approx(90 - 40 * np.exp(-8 * good[:, 0]), abs=0.3)
