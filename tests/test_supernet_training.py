"""One set of weights, trained for every network of a space."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from networks import TINY_SPACE

from predictors.cost import cost
from predictors.data.datasets import ImageData, load_data
from predictors.training.estimators import Sandwich, log_likelihood, score, supernet_trainer
from predictors.training.recipe import SHORT
from predictors.training.trainer import Trainer
from search_spaces.supernet import Supernet

RECIPE = replace(SHORT, epochs=4, batch_size=16, flip=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Four classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 1, 1, 3))
    labels = np.arange(240) % 4
    images = np.clip(colours[labels] + rng.normal(0, 60, (240, 16, 16, 3)), 0, 255)
    file = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    return load_data(str(file))


def _supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(TINY_SPACE)


def test_every_network_learns(data: ImageData) -> None:
    supernet = _supernet()
    rng = Random(1)
    networks = [*_draw()(rng), *(TINY_SPACE.sample(rng) for _ in range(2))]
    before = np.mean([score(supernet, config, data) for config in networks])
    training = supernet_trainer(supernet, data, RECIPE, _draw())
    epochs = [_loss(training) for _ in range(RECIPE.epochs)]
    assert epochs[-1] < epochs[0]
    after = [score(supernet, config, data) for config in networks]
    assert np.mean(after) > before + 20
    assert min(after) > 40  # of four classes
    assert after == [score(supernet, config, data) for config in networks]


def _draw() -> Sandwich:
    rng = Random(0)
    configs = [TINY_SPACE.sample(rng) for _ in range(32)]
    return Sandwich(sorted(configs, key=lambda config: cost(config).macs))


def _loss(trainer: Trainer) -> float:
    """Train for an epoch."""
    for _ in trainer.run_epoch():
        pass
    return trainer.rows[-1].loss


@pytest.mark.parametrize("sureness", [1.0, 2.5, 5.0])
def test_how_sure_a_network_is_does_not_count(sureness: float) -> None:
    labels = torch.zeros(10, dtype=torch.int64)
    logits = torch.zeros(10, 3)
    logits[:7, 0] = logits[7:, 1] = sureness  # seven of ten are right
    as_sure_as_right = 0.7 * np.log(0.7) + 0.3 * np.log(0.15)
    assert log_likelihood(logits, labels) == pytest.approx(as_sure_as_right, abs=1e-3)


def test_a_network_that_knows_nothing_is_as_likely_right_as_chance() -> None:
    assert log_likelihood(torch.zeros(5, 3), torch.arange(5) % 3) == pytest.approx(-np.log(3))


def test_it_goes_on_where_it_stopped(data: ImageData) -> None:
    draw = _draw()
    whole = supernet_trainer(_supernet(), data, RECIPE, draw)
    epochs = [_loss(whole) for _ in range(2)]
    first = supernet_trainer(_supernet(), data, RECIPE, draw)
    _loss(first)
    second = supernet_trainer(Supernet(TINY_SPACE), data, RECIPE, draw)
    second.load_state(first.state())
    assert _loss(second) == epochs[1]
