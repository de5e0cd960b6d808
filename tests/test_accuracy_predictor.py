"""Accuracies of networks that were not trained, from some that were."""

from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from rank_correlation import Array, spearman

from predictors.accuracy import AccuracyPredictor
from predictors.cost import cost
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.space import Space, each, oneof

SPACE = SPACES["fasternet-32"]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A config that knows nothing of layers."""

    kernels: tuple[int, ...] = (3, 3, 3)
    activation: str = "relu"


def _accuracy(config: FasterNetConfig, rng: Random) -> float:
    """Rises with size ever more slowly and with depth, and wants a ratio that is not too small."""
    size = np.log(cost(config).params / 1e5)
    mixing = sum(config.partial_ratios) / len(config.partial_ratios)
    return float(
        60 + 6 * np.tanh(size / 2) + 0.4 * sum(config.depths) + 4 * mixing + rng.gauss(0, 0.3)
    )


def _trained(count: int, seed: int) -> tuple[list[FasterNetConfig], Array]:
    rng = Random(seed)
    configs = [SPACE.sample(rng) for _ in range(count)]
    return configs, np.array([_accuracy(config, rng) for config in configs])


def test_forty_networks_rank_others_better_than_their_parameters_do() -> None:
    predictor = AccuracyPredictor.fit(SPACE, *_trained(40, 0))
    configs, truth = _trained(150, 1)
    params = [cost(config).params for config in configs]
    found = spearman(predictor.predict(configs).median, truth)
    assert found > max(0.85, spearman(params, truth) + 0.1)


def test_the_deviation_says_how_far_off_it_is() -> None:
    predictor = AccuracyPredictor.fit(SPACE, *_trained(60, 2))
    configs, truth = _trained(150, 3)
    predicted = predictor.predict(configs)
    within = np.abs(predicted.median - truth) < 2 * predicted.std
    assert within.mean() > 0.85
    assert np.median(predicted.std) < np.std(truth)


def test_a_score_that_knows_more_is_used() -> None:
    configs, truth = _trained(40, 4)
    others, true = _trained(100, 5)
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=140) * 5  # what neither choices nor costs tell
    hint = hidden + rng.normal(size=140) * 0.5
    blind = AccuracyPredictor.fit(SPACE, configs, truth + hidden[:40])
    told = AccuracyPredictor.fit(SPACE, configs, truth + hidden[:40], scores=hint[:40, None])
    better = spearman(told.predict(others, scores=hint[40:, None]).median, true + hidden[40:])
    assert better > spearman(blind.predict(others).median, true + hidden[40:]) + 0.2
    with pytest.raises(ValueError, match="`scores` must have as many columns as when fitting"):
        told.predict(others)


def test_configs_without_layers_are_told_apart_by_their_choices() -> None:
    space = Space(Cells, kernels=each(*[oneof(1, 3, 5, 7)] * 3), activation=oneof("relu", "gelu"))
    rng = Random(0)
    configs = [space.sample(rng) for _ in range(60)]
    truth = [sum(c.kernels) + 3 * (c.activation == "gelu") + rng.gauss(0, 0.5) for c in configs]
    predictor = AccuracyPredictor.fit(space, configs[:30], truth[:30])
    assert spearman(predictor.predict(configs[30:]).median, truth[30:]) > 0.8


@pytest.mark.parametrize(("configs", "accuracies"), [(3, 3), (5, 4)])
def test_too_few_networks_are_refused(configs: int, accuracies: int) -> None:
    found, truth = _trained(configs, 6)
    with pytest.raises(ValueError, match="`configs` must hold 4 trained networks or more"):
        AccuracyPredictor.fit(SPACE, found, truth[:accuracies])


def test_an_accuracy_that_is_no_number_is_refused() -> None:
    found, truth = _trained(6, 6)
    with pytest.raises(ValueError, match="`accuracies` must be finite, but got nan"):
        AccuracyPredictor.fit(SPACE, found, [*truth[:5], float("nan")])
