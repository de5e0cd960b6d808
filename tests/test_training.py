"""A network is trained by a recipe, in one go or in pieces."""

import io
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY
from torch import Tensor
from torch.nn.functional import cross_entropy

from predictors.data.datasets import ImageData, load_data
from predictors.training.batches import calibration_images
from predictors.training.recipe import Fidelity, Recipe, rungs, steps_in, steps_of
from predictors.training.trainer import DivergedError, Training, _average, accuracy
from search_spaces.batch_norms import recalibrate
from search_spaces.network import build

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=3e-3, warm_up=0.15, flip=False)


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


def _training(data: ImageData, recipe: Recipe = RECIPE) -> Training:
    torch.manual_seed(recipe.seed)
    return Training(build(TINY), data, recipe)


def test_a_network_learns(data: ImageData) -> None:
    training = _training(data)
    before = accuracy(training.network, data.validation, data)
    epochs = [training.run_epoch() for _ in range(3)]
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert epochs[2].loss < epochs[1].loss < epochs[0].loss
    assert epochs[2].accuracy > before + 30
    assert epochs[2].accuracy == accuracy(training.network, data.validation, data)


def test_stopped_and_gone_on_with_it_comes_to_the_same_weights(
    data: ImageData, tmp_path: Path
) -> None:
    whole = _training(data)
    epochs = [whole.run_epoch() for _ in range(3)]
    first = _training(data)
    assert first.run_epoch() == epochs[0]
    torch.save(first.state(), tmp_path / "state.pt")
    torch.manual_seed(99)
    second = Training(build(TINY), data, RECIPE)
    second.load_state(torch.load(tmp_path / "state.pt"))
    assert [second.run_epoch(), second.run_epoch()] == epochs[1:]
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, second.network.state_dict()[name]), name


@pytest.mark.parametrize(("images", "sizes"), [(90, [90]), (129, [128]), (300, [128, 128])])
def test_batch_norms_are_calibrated_by_whole_batches(
    data: ImageData, images: int, sizes: list[int]
) -> None:
    few = replace(data, train=data.train.subset(np.arange(images)))
    assert [len(batch) for batch in calibration_images(few)] == sizes


def test_before_the_last_epoch_averaged_weights_are_judged(data: ImageData) -> None:
    training, plain = _training(data), _training(data, replace(RECIPE, averaging=False))
    first, after = training.run_epoch(), plain.run_epoch()
    assert training.judged is not training.network
    assert plain.judged is plain.network
    assert first.loss == after.loss
    assert first.accuracy == accuracy(training.judged, data.validation, data)
    for one, other in zip(training.network.parameters(), plain.network.parameters(), strict=True):
        assert torch.equal(one, other)  # judging changes nothing
    assert not torch.equal(next(training.judged.parameters()),
                           next(training.network.parameters()))  # fmt: skip
    anew = deepcopy(training.judged)
    recalibrate(anew, calibration_images(data))
    for name, value in training.judged.state_dict().items():  # whose batch norms are its own
        assert torch.equal(value, anew.state_dict()[name]), name
    training.run_epoch()
    training.run_epoch()
    assert training.judged is training.network


@pytest.mark.parametrize("steps", [100, 1000])
def test_an_average_is_over_the_last_share_of_the_steps(steps: int) -> None:
    average = torch.zeros(1)
    for step in range(1, steps):
        _average([average], [torch.full((1,), float(step >= 0.9 * steps))], step)
    assert average.item() == pytest.approx(1 - 0.9**4, abs=0.02)


def test_the_seed_decides_the_order_of_images(data: ImageData) -> None:
    losses = {_training(data, replace(RECIPE, seed=0)).run_epoch().loss for _ in range(2)}
    assert len(losses) == 1
    torch.manual_seed(0)
    other = Training(build(TINY), data, replace(RECIPE, seed=1)).run_epoch().loss
    assert other not in losses


def test_after_the_last_epoch_there_is_none(data: ImageData) -> None:
    training = _training(data, replace(RECIPE, epochs=1))
    training.run_epoch()
    assert training.done == 1
    with pytest.raises(RuntimeError, match="`epochs` are done: 1"):
        training.run_epoch()


def test_a_loss_that_is_no_number_ends_it(data: ImageData) -> None:
    training = _training(data, replace(RECIPE, learning_rate=1e9))
    with pytest.raises(DivergedError, match=r"must stay a number, but is .* Use a smaller"):
        [training.run_epoch() for _ in range(3)]


def test_biases_and_norms_are_not_decayed(data: ImageData) -> None:
    state = _training(data).state()
    decays = [group["weight_decay"] for group in state["optimizer"]["param_groups"]]
    assert decays == [RECIPE.weight_decay, 0.0]
    saved = io.BytesIO()
    torch.save(state, saved)
    assert torch.load(io.BytesIO(saved.getvalue()), weights_only=True).keys() == state.keys()


def test_where_memory_is_short_a_batch_is_taken_in_pieces(data: ImageData) -> None:
    def hungry(images: Tensor, labels: Tensor, _: int) -> Tensor:
        if len(images) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB")
        return cross_entropy(training.network(images), labels)

    torch.manual_seed(0)
    training = Training(build(TINY), data, RECIPE, loss=hungry)
    first = training.run_epoch()
    assert training.pieces == 4  # of the 16
    assert training.run_epoch().loss < first.loss


def test_other_errors_are_not_taken_for_a_lack_of_memory(data: ImageData) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    training = Training(build(TINY), data, RECIPE, loss=broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        training.run_epoch()
    assert training.pieces == 1


@pytest.mark.parametrize(
    ("growing", "sizes", "batches"),
    [
        (("resolution",), [24, 28, 32, 32], [22, 22, 22, 22]),
        (("images",), [32, 32, 32, 32], [11, 16, 22, 22]),
        (("resolution", "images"), [24, 28, 32, 32], [11, 16, 22, 22]),
    ],
)
def test_what_grows_is_smaller_in_early_epochs(
    growing: tuple[Fidelity, ...], sizes: list[int], batches: list[int], data: ImageData
) -> None:
    seen: list[int] = []

    def watched(images: Tensor, labels: Tensor, _: int) -> Tensor:
        seen.append(images.shape[-1])
        return cross_entropy(network(images), labels)

    recipe = Recipe(epochs=4, batch_size=16, growing=growing)
    network = build(TINY)
    training = Training(network, data, recipe, loss=watched)
    for size, count in zip(sizes, batches, strict=True):
        seen.clear()
        training.run_epoch()
        assert seen == [size] * count
    assert steps_of(recipe, len(data.train)) == sum(batches)


def test_a_recipe_ends_at_full_size_whatever_its_length() -> None:
    for epochs in range(1, 9):
        recipe = Recipe(epochs=epochs, batch_size=10, growing=("images",))
        assert steps_in(recipe, epochs - 1, 100) == 10
        assert rungs(epochs)[-1] == epochs
    assert rungs(8) == (2, 4, 8)


def test_digits_are_not_mirrored() -> None:
    digits = load_data("digits")
    assert not digits.symmetric
    losses = {
        _training(digits, replace(RECIPE, epochs=1, batch_size=64, flip=flip)).run_epoch().loss
        for flip in (True, False)
    }
    assert len(losses) == 1
