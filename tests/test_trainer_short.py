"""A network is trained by a recipe, in one go or in pieces."""

import io
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from predictors.data.datasets import ImageData, load_data
from predictors.training.batches import calibration_images
from predictors.training.evaluate import accuracy
from predictors.training.recipe import SHORT, DivergedError, Fidelity, Recipe, rungs, steps_at
from predictors.training.trainer import Trainer, _AveragedWeights
from search_spaces.network import build, recalibrate

RECIPE = replace(SHORT, epochs=3, batch_size=16, lr=3e-3, warmup=0.15, flip=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Ten classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (10, 1, 1, 3))
    labels = np.arange(400) % 10
    images = np.clip(colours[labels] + rng.normal(0, 40, (400, 32, 32, 3)), 0, 255)
    file = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    return load_data(str(file))


def _trainer(data: ImageData, recipe: Recipe = RECIPE) -> Trainer:
    torch.manual_seed(recipe.seed)
    return Trainer(build(TINY), data, recipe)


def _epoch(trainer: Trainer) -> tuple[int, float, float]:
    """Train for an epoch; return its number, loss and accuracy."""
    for _ in trainer.run_epoch():
        pass
    row = trainer.rows[-1]
    return row.epoch, row.loss, row.accuracy


def test_a_network_learns(data: ImageData) -> None:
    trainer = _trainer(data)
    before = accuracy(trainer.network, data.validation, data)
    epochs = [_epoch(trainer) for _ in range(3)]
    assert [epoch[0] for epoch in epochs] == [1, 2, 3]
    assert epochs[2][1] < epochs[1][1] < epochs[0][1]
    assert epochs[2][2] > before + 30
    assert epochs[2][2] == accuracy(trainer.network, data.validation, data)


def test_stopped_and_gone_on_with_it_comes_to_the_same_weights(
    data: ImageData, tmp_path: Path
) -> None:
    whole = _trainer(data)
    epochs = [_epoch(whole) for _ in range(3)]
    first = _trainer(data)
    assert _epoch(first) == epochs[0]
    torch.save(first.state(), tmp_path / "state.pt")
    torch.manual_seed(99)
    second = Trainer(build(TINY), data, RECIPE)
    second.load_state(torch.load(tmp_path / "state.pt"))
    assert [_epoch(second), _epoch(second)] == epochs[1:]
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, second.network.state_dict()[name]), name


@pytest.mark.parametrize(("images", "sizes"), [(90, [90]), (129, [128]), (300, [128, 128])])
def test_batch_norms_are_calibrated_by_whole_batches(
    data: ImageData, images: int, sizes: list[int]
) -> None:
    few = replace(data, train=data.train.subset(np.arange(images)))
    assert [len(batch) for batch in calibration_images(few, count=1024)] == sizes


def test_before_the_last_epoch_averaged_weights_are_judged(data: ImageData) -> None:
    trainer, plain = _trainer(data), _trainer(data, replace(RECIPE, polynomial_averaging=False))
    first, after = _epoch(trainer), _epoch(plain)
    assert trainer.evaluated is not trainer.network
    assert plain.evaluated is plain.network
    assert first[1] == after[1]
    assert first[2] == accuracy(trainer.evaluated, data.validation, data)
    for one, other in zip(trainer.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(one, other)  # judging changes nothing
    assert not torch.equal(next(trainer.evaluated.parameters()), next(trainer.network.parameters()))
    anew = deepcopy(trainer.evaluated)
    recalibrate(anew, calibration_images(data, count=512))
    for name, value in trainer.evaluated.state_dict().items():  # whose batch norms are its own
        assert torch.equal(value, anew.state_dict()[name]), name
    _epoch(trainer)
    _epoch(trainer)
    assert trainer.evaluated is trainer.network


@pytest.mark.parametrize("steps", [100, 1000])
def test_an_average_is_over_the_last_share_of_the_steps(steps: int) -> None:
    network = nn.Linear(1, 1, bias=False)
    averages = _AveragedWeights(network, RECIPE)
    for step in range(1, steps):
        nn.init.constant_(network.weight, float(step >= 0.9 * steps))
        averages.update(network, step)
    (average,) = averages.network.parameters()
    assert average.item() == pytest.approx(1 - 0.9**4, abs=0.02)


def test_the_seed_decides_the_order_of_images(data: ImageData) -> None:
    losses = {_epoch(_trainer(data, replace(RECIPE, seed=0)))[1] for _ in range(2)}
    assert len(losses) == 1
    torch.manual_seed(0)
    other = _epoch(Trainer(build(TINY), data, replace(RECIPE, seed=1)))[1]
    assert other not in losses


def test_after_the_last_epoch_there_is_none(data: ImageData) -> None:
    trainer = _trainer(data, replace(RECIPE, epochs=1))
    _epoch(trainer)
    assert trainer.epochs_done == 1
    with pytest.raises(RuntimeError, match="`epochs` are done: 1"):
        _epoch(trainer)


def test_a_loss_that_is_no_number_ends_it(data: ImageData) -> None:
    trainer = _trainer(data, replace(RECIPE, lr=1e9))
    with pytest.raises(DivergedError, match=r"must stay a number, but is .* in epoch \d"):
        [_epoch(trainer) for _ in range(3)]


def test_biases_and_norms_are_not_decayed(data: ImageData) -> None:
    state = _trainer(data).state()
    decays = [group["weight_decay"] for group in state["optimizer"]["param_groups"]]
    assert decays == [RECIPE.weight_decay, 0.0]
    saved = io.BytesIO()
    torch.save(state, saved)
    assert torch.load(io.BytesIO(saved.getvalue()), weights_only=True).keys() == state.keys()


def test_where_memory_is_short_a_batch_is_taken_in_pieces(
    data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(images: Tensor, labels: Tensor) -> Tensor:
        if len(images) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB")
        return cross_entropy(trainer.network(images), labels)

    torch.manual_seed(0)
    trainer = Trainer(build(TINY), data, RECIPE)
    monkeypatch.setattr(trainer, "_loss", hungry)
    first = _epoch(trainer)
    assert trainer.micro_batches == 4  # of the 16
    assert _epoch(trainer)[1] < first[1]


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    trainer = Trainer(build(TINY), data, RECIPE)
    monkeypatch.setattr(trainer, "_loss", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        _epoch(trainer)
    assert trainer.micro_batches == 1


@pytest.mark.parametrize(
    ("progressive", "sizes", "batches"),
    [
        (("resolution",), [24, 28, 32, 32], [22, 22, 22, 22]),
        (("images",), [32, 32, 32, 32], [11, 16, 22, 22]),
        (("resolution", "images"), [24, 28, 32, 32], [11, 16, 22, 22]),
    ],
)
def test_what_grows_is_smaller_in_early_epochs(
    progressive: tuple[Fidelity, ...],
    sizes: list[int],
    batches: list[int],
    data: ImageData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def watched(images: Tensor, labels: Tensor) -> Tensor:
        seen.append(images.shape[-1])
        return cross_entropy(network(images), labels)

    recipe = replace(SHORT, epochs=4, batch_size=16, progressive=progressive)
    network = build(TINY)
    trainer = Trainer(network, data, recipe)
    monkeypatch.setattr(trainer, "_loss", watched)
    for size, count in zip(sizes, batches, strict=True):
        seen.clear()
        _epoch(trainer)
        assert seen == [size] * count
    assert trainer.steps_done == sum(batches)


def test_a_recipe_ends_at_full_size_whatever_its_length() -> None:
    for epochs in range(1, 9):
        recipe = replace(SHORT, epochs=epochs, batch_size=10, progressive=("images",))
        assert steps_at(recipe, epochs - 1, 100) == 10
        assert rungs(epochs)[-1] == epochs
    assert rungs(8) == (2, 4, 8)


def test_digits_are_not_mirrored() -> None:
    digits = load_data("digits")
    assert not digits.symmetric
    losses = {
        _epoch(_trainer(digits, replace(RECIPE, epochs=1, batch_size=64, flip=flip)))[1]
        for flip in (True, False)
    }
    assert len(losses) == 1
