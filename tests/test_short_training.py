"""The accuracy of a config by training it, a little at first and then further."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY

from nas.search.loop import search
from nas.search.trial import Scores
from predictors.data.datasets import load_data
from predictors.training.estimators import TrainingEstimator
from predictors.training.recipe import SHORT, TrainingProgress
from predictors.training.trainer import Trainer
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import build
from search_spaces.space import Space, each, oneof

RECIPE = replace(SHORT, epochs=3, batch_size=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (10, 1, 1, 3))
    labels = np.arange(300) % 10
    images = np.clip(colours[labels] + rng.normal(0, 40, (300, 32, 32, 3)), 0, 255)
    file = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    return str(file)


@pytest.fixture
def epochs_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were trained, as they come."""
    run: list[int] = []
    whole = Trainer.run_epoch

    def counted(self: Trainer) -> Iterator[TrainingProgress]:
        run.append(self.epochs_done + 1)
        return whole(self)

    monkeypatch.setattr(Trainer, "run_epoch", counted)
    return run


def test_a_checkpoint_has_the_weights_whose_accuracy_was_told(data: str, tmp_path: Path) -> None:
    estimator = TrainingEstimator(data=data, recipe=RECIPE, epochs=1, folder=tmp_path)
    told = estimator(TINY)
    weights = estimator.checkpoint(TINY).weights
    torch.manual_seed(RECIPE.seed)
    trainer = Trainer(build(TINY), load_data(data), RECIPE)
    for _ in trainer.run_epoch():
        pass
    assert trainer.rows[0].accuracy == told
    for name, weight in trainer.evaluated.state_dict().items():
        assert torch.equal(weights[name], weight), name
    latest = trainer.network.state_dict()
    assert not all(torch.equal(weights[name], weight) for name, weight in latest.items())


def test_asked_for_more_it_goes_on(data: str, tmp_path: Path, epochs_run: list[int]) -> None:
    short = TrainingEstimator(data=data, recipe=RECIPE, epochs=1, folder=tmp_path / "in_steps")
    first = short(TINY)
    assert epochs_run == [1]
    assert short(TINY) == first
    assert epochs_run == [1]
    last = short.to(3)(TINY)
    assert epochs_run == [1, 2, 3]
    at_once = TrainingEstimator(data=data, recipe=RECIPE, epochs=3, folder=tmp_path / "at_once")
    assert at_once(TINY) == last
    assert 0 <= last <= 100
    assert short.kind == "trained"


def test_other_networks_seeds_and_recipes_are_other_trainings(
    data: str, tmp_path: Path, epochs_run: list[int]
) -> None:
    short = TrainingEstimator(data=data, recipe=RECIPE, epochs=1, folder=tmp_path)
    for estimator, config in (
        (short, TINY),
        (short, replace(TINY, head_width=16)),
        (replace(short, recipe=replace(RECIPE, seed=1)), TINY),
    ):
        estimator(config)
    assert epochs_run == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_training_that_began_by_another_known_seed_goes_on(
    data: str, tmp_path: Path, epochs_run: list[int]
) -> None:
    own = TrainingEstimator(data=data, recipe=RECIPE, epochs=1, folder=tmp_path, seeds=(7, 1))
    other = replace(own, recipe=replace(RECIPE, seed=1), seeds=())
    first = other(TINY)
    assert own(TINY) == first
    assert own.file(TINY) == other.file(TINY)
    assert own.checkpoint(TINY).weights.keys() == other.checkpoint(TINY).weights.keys()
    last = own.to(2)(TINY)
    assert epochs_run == [1, 2]
    assert other.to(2)(TINY) == last


def test_a_checkpoint_that_cannot_be_read_is_trained_again(
    data: str, tmp_path: Path, epochs_run: list[int]
) -> None:
    short = TrainingEstimator(data=data, recipe=RECIPE, epochs=1, folder=tmp_path)
    first = short(TINY)
    (checkpoint,) = tmp_path.iterdir()
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert short(TINY) == first
    assert epochs_run == [1, 1]


def test_it_draws_no_random_numbers_of_others(data: str, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    TrainingEstimator(data=data, recipe=RECIPE, epochs=1, folder=tmp_path)(TINY)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("epochs", [0, 4])
def test_no_more_epochs_than_the_recipe_has(epochs: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`epochs` must be from 1 to the 3 of the recipe, but got"):
        TrainingEstimator(data="digits", recipe=RECIPE, epochs=epochs, folder=tmp_path)


def test_a_training_that_diverges_is_a_failed_trial_and_the_search_goes_on(
    data: str, tmp_path: Path
) -> None:
    def evaluate(config: FasterNetConfig) -> Scores:
        wild = config.activation == "gelu"
        recipe = replace(RECIPE, epochs=1, lr=1e30 if wild else 3e-3)
        estimator = TrainingEstimator(data=data, recipe=recipe, epochs=1, folder=tmp_path)
        return Scores(accuracy=estimator(config), latency_ms=1.0)

    tiny = {field.name: getattr(TINY, field.name) for field in fields(TINY)}
    free = {
        "activation": oneof("relu", "gelu"),
        "partial_ratios": each(oneof(0.25, 0.5), oneof(0.25, 0.5)),
    }
    space = Space(FasterNetConfig, **tiny | free)
    trials = list(search(space, evaluate, trials=6, searcher="random"))
    failed = [trial for trial in trials if trial.scores is None]
    assert {trial.config.activation for trial in failed} == {"gelu"}
    assert all("Use a smaller learning rate" in (trial.error or "") for trial in failed)
    assert any(trial.scores for trial in trials)
    assert len(trials) == 6
