"""Noisy accuracies are seen together: with a cheap score of each, and with those like it."""

from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_correlation import kendall

from nas.search.guided import AccuracyPrior, posterior_mean
from nas.search.loop import search
from nas.search.trial import Objectives, Scores
from predictors.gp import fit_trended
from search_spaces.fasternet import SPACES, FasterNetConfig

SPACE = SPACES["fasternet-32"]
Array = NDArray[np.float64]


def _widths(configs: Sequence[Any]) -> Array:
    return np.array([np.log(config.widths[-1]) + config.depths[0] / 4 for config in configs])


def _nothing(configs: Sequence[Any]) -> Array:
    """The same numbers whatever they are of, in no order."""
    return np.random.default_rng(1).normal(size=len(configs))


def _scores(noise: float, count: int) -> tuple[dict[FasterNetConfig, Objectives], Array]:
    """Accuracies that rise with `_widths`, and those without noise."""
    rng, chance = Random(0), np.random.default_rng(0)
    configs = list(dict.fromkeys(SPACE.sample(rng) for _ in range(count)))
    truth = 50 + 2 * _widths(configs)
    seen = truth + chance.normal(0, noise, len(configs))
    pairs = zip(configs, seen, strict=True)
    return {c: Objectives(accuracy=float(accuracy), ratio=1.0) for c, accuracy in pairs}, truth


def test_noise_is_seen_through_by_a_score_that_goes_with_the_truth() -> None:
    scores, truth = _scores(noise=3.0, count=36)
    found = posterior_mean(SPACE, scores, AccuracyPrior(scores=_widths, images=1000))
    assert list(found) == list(scores)
    assert [s.ratio for s in found.values()] == [s.ratio for s in scores.values()]
    raw = kendall([s.accuracy for s in scores.values()], truth)
    assert kendall([s.accuracy for s in found.values()], truth) > raw + 0.2


def test_a_score_that_tells_nothing_does_no_harm() -> None:
    scores, truth = _scores(noise=0.1, count=36)
    found = posterior_mean(SPACE, scores, AccuracyPrior(scores=_nothing))
    assert kendall([s.accuracy for s in found.values()], truth) > 0.8


def test_a_few_are_left_as_they_are() -> None:
    scores, _ = _scores(noise=3.0, count=5)
    assert posterior_mean(SPACE, scores, AccuracyPrior(scores=_widths, images=1000)) == scores


def test_a_trend_goes_on_where_nothing_was_seen() -> None:
    x = np.linspace(0, 1, 12)
    model = fit_trended(np.zeros((12, 1)), 5 * x, x)
    mean, deviation = model.predict(np.zeros((2, 1)), np.array([0.5, 2.0]))
    # the slope is drawn to 0 by four results without one
    assert mean[1] - mean[0] == pytest.approx(1.5 * 5 * 12 / 16)
    assert (deviation >= 0).all()


def test_the_search_is_led_by_a_score_that_goes_with_the_accuracy() -> None:
    def later(seed: int, prior: AccuracyPrior | None) -> float:
        chance = np.random.default_rng(seed)

        def evaluate(config: FasterNetConfig) -> Scores:
            accuracy = 50 + 4 * _widths([config])[0] + chance.normal(0, 4)
            return Scores(accuracy=float(accuracy), latency_ms=1.0)

        trials = list(search(SPACE, evaluate, trials=20, seed=seed, budget_ms=2.0, prior=prior))
        return float(_widths([trial.config for trial in trials[8:]]).mean())

    told = AccuracyPrior(scores=_widths, images=1000)
    assert fmean(later(seed, told) - later(seed, None) for seed in range(4)) > 0.2


def test_the_search_looks_around_configs_that_may_be_good() -> None:
    good = SPACE.sample(Random(1))

    def scores(configs: Sequence[FasterNetConfig]) -> Array:
        """Wide networks are good, and one that no way leads to is better."""
        found: Array = _widths(configs) + np.array([100.0 * (one == good) for one in configs])
        return found

    def evaluate(config: FasterNetConfig) -> Scores:
        return Scores(accuracy=float(scores([config])[0]), latency_ms=1.0)

    def found(prior: AccuracyPrior) -> bool:
        trials = search(SPACE, evaluate, trials=12, seed=0, budget_ms=2.0, prior=prior)
        return good in [trial.config for trial in trials]

    assert not found(AccuracyPrior(scores=scores))
    assert found(AccuracyPrior(scores=scores, starts=[good]))


def test_configs_to_look_around_are_of_the_space() -> None:
    prior = AccuracyPrior(starts=["t0"])
    with pytest.raises(TypeError, match=r"`starts` must be configs of class FasterNetConfig, but"):
        next(search(SPACE, lambda _: Scores(accuracy=1.0, latency_ms=1.0), trials=1, prior=prior))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (lambda configs: np.full(len(configs), np.nan), "with 2 that are not finite"),
        (lambda configs: [1.0], "each of 2 configs, but returned an array of shape \\(1,\\)"),
    ],
)
def test_scores_that_are_no_numbers_are_refused(
    scores: Callable[[Sequence[FasterNetConfig]], Array], said: str
) -> None:
    configs = [SPACE.sample(Random(seed)) for seed in range(2)]
    with pytest.raises(ValueError, match=said):
        AccuracyPrior(scores=scores).of(configs)


def test_scores_may_be_a_list() -> None:
    prior = AccuracyPrior(scores=lambda configs: [1, 2])  # type: ignore[arg-type,return-value]
    found = prior.of([SPACE.sample(Random(seed)) for seed in range(2)])
    assert found is not None
    assert found.tolist() == [1.0, 2.0]


def test_images_must_be_counted() -> None:
    with pytest.raises(ValueError, match="`images` must be 1 or more, but got 0"):
        AccuracyPrior(images=0)
