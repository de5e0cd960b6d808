"""How sure an accuracy is, and what a network is shown of an image when it is judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY
from torch import Tensor

import fasternas as fn
from nas.finetune.export import real_images
from predictors.data.datasets import ImageData, load_data
from predictors.training.batches import evaluation_batches
from predictors.training.evaluate import EvalResult, ValidationSplit, chance_of_best, count_correct
from predictors.training.recipe import Recipe, crop_of
from predictors.training.trainer import Trainer
from search_spaces.checkpoint import Checkpoint, read_checkpoint
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import FasterNet


class Watching(FasterNet):
    """A network that keeps the images that it is shown."""

    def __init__(self, config: FasterNetConfig) -> None:
        super().__init__(config)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return super().forward(x)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(file, x_train=images, y_train=np.arange(40) % 4)
    return load_data(str(file))


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(81, 263, 25.5, 36.6), (0, 20, 0.0, 16.1), (20, 20, 83.9, 100.0), (9_000, 10_000, 89.4, 90.6)],
)
def test_the_interval_is_wilsons(right: int, images: int, low: float, high: float) -> None:
    found = EvalResult(split="test", images=images, correct=right)
    assert found.interval == pytest.approx((low, high), abs=0.05)
    assert found.accuracy == 100 * right / images


def test_pictures_are_judged_by_their_middle_wherever_they_are_judged(
    data: ImageData, tmp_path: Path
) -> None:
    recipe = Recipe(test_crop=0.9, drop_path=0.0)
    crop = crop_of(recipe, data.resolution)
    assert crop == 0.9
    assert crop_of(recipe, 32) == 0.0
    config = replace(TINY, classes=4, resolution=96)
    network = Watching(config)
    Trainer(network, data, recipe)._accuracy(96)
    seen = torch.cat(network.seen)
    fn.save(
        fn.build(config),
        tmp_path / "x.safetensors",
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        crop=crop,
    )
    checkpoint = read_checkpoint(tmp_path / "x.safetensors")
    checked = real_images(data.name, checkpoint, trained=True, count=99)
    assert torch.equal(torch.cat([images for images, _ in checked(3)]), seen)
    whole = torch.cat(
        [
            images
            for images, _ in evaluation_batches(data.validation, data=data, crop=0.0, at_once=9)
        ]
    )
    assert whole.shape == seen.shape
    assert not torch.allclose(whole, seen, atol=0.1)


def test_timm_crops_as_a_checkpoint_was_judged(tmp_path: Path) -> None:
    from search_spaces.timm_models import import_timm, pretrained_config, register

    register()
    fn.save(fn.build(TINY), tmp_path / "x.safetensors", crop=0.875)
    network = import_timm().create_model("fasternas", checkpoint=tmp_path / "x.safetensors")
    assert network.pretrained_cfg["crop_pct"] == 0.875
    assert pretrained_config(Checkpoint(config=TINY, weights={}))["crop_pct"] == 1.0
    with pytest.raises(ValueError, match=r"`crop` must be a share from 0 to 1, but got 90"):
        fn.save(fn.build(TINY), tmp_path / "x.safetensors", crop=90)


def test_right_are_those_that_have_the_largest_logit() -> None:
    labels = torch.tensor([0, 1, 1])
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    assert count_correct(lambda images: logits, [(torch.zeros(3, 3, 8, 8), labels)]) == 2


@pytest.mark.parametrize(
    ("correct", "largest_class", "is_guess"),
    [(28, 93.33, True), (90, 50.0, False), (60, 50.0, False), (58, 50.0, True), (58, None, False)],
)
def test_an_accuracy_that_guessing_may_reach_is_told(
    correct: int, largest_class: float | None, *, is_guess: bool
) -> None:
    images = 30 if correct == 28 else 100
    found = EvalResult(split="test", images=images, correct=correct, largest_class=largest_class)
    assert found.is_guess is is_guess


def test_the_best_of_equals_is_a_toss_and_of_far_ones_is_sure() -> None:
    assert chance_of_best([50.0, 50.0], 1000) == pytest.approx(0.5, abs=0.01)
    assert chance_of_best([50.0, 50.0, 50.0, 50.0], 1000) == pytest.approx(0.25, abs=0.01)
    assert chance_of_best([50.0, 90.0], 1000) == pytest.approx(1.0, abs=1e-6)
    assert chance_of_best([100.0, 100.0], 10) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("right", "images", "likely"), [((1, 3), 4, 0.897), ((1, 2), 4, 0.737), ((50, 60), 100, 0.920)]
)
def test_few_images_leave_a_doubt(right: tuple[int, int], images: int, likely: float) -> None:
    """As likely as that one share is above another, each after so many images (by simulation)."""
    accuracies = [100 * k / images for k in right]
    assert chance_of_best(accuracies, images) == pytest.approx(likely, abs=0.02)


def test_more_images_make_the_best_surer() -> None:
    chances = [chance_of_best([70.0, 72.0], images) for images in (100, 1000, 10_000)]
    assert 0.5 < chances[0] < chances[1] < chances[2]


def test_a_split_gives_an_accuracy_the_interval_of_its_images() -> None:
    split = ValidationSplit(images=200, largest_class=10.0)
    found = EvalResult(split="validation", images=200, correct=150)
    assert split.interval(75.0) == pytest.approx(found.interval)
