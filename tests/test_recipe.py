"""The published recipe, between the published sizes, and on fewer images."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from networks import TINY

from predictors.training.recipe import (
    Recipe,
    batch_size_for,
    read_overrides,
    read_recipe,
    recipe_for,
    recipe_with,
    resolution_at,
    save_recipe,
)
from search_spaces.fasternet import FASTERNET, SPACES

IMAGENET = 1_281_167
RAND = "rand-m{}-mstd0.5-inc1"


@pytest.mark.parametrize(
    ("name", "batch", "rate", "decay", "clip", "augment", "mixup", "drop_path"),
    [
        ("t0", 4096, 0.004, 0.005, 0.0, "", 0.05, 0.0),
        ("t1", 4096, 0.004, 0.01, 0.0, RAND.format(3), 0.1, 0.02),
        ("t2", 4096, 0.004, 0.02, 0.0, RAND.format(5), 0.1, 0.05),
        ("s", 4096, 0.004, 0.03, 0.0, RAND.format(7), 0.3, 0.1),
        ("m", 2048, 0.002, 0.05, 1.0, RAND.format(7), 0.5, 0.2),
        ("l", 2048, 0.002, 0.05, 0.01, RAND.format(7), 0.7, 0.3),
    ],
)
def test_of_the_published_sizes_it_is_the_published_one(  # noqa: PLR0913
    name: str,
    batch: int,
    rate: float,
    decay: float,
    clip: float,
    augment: str,
    mixup: float,
    drop_path: float,
) -> None:
    recipe = recipe_for(FASTERNET[name], IMAGENET)
    found = (
        recipe.batch_size,
        recipe.lr,
        recipe.weight_decay,
        recipe.grad_clip,
        recipe.augment,
        recipe.mixup,
        recipe.drop_path,
    )
    assert found == (batch, rate, decay, clip, augment, mixup, drop_path)
    assert (recipe.epochs, recipe.cutmix, recipe.label_smoothing, recipe.ema) == (
        300,
        1.0,
        0.1,
        0.0,
    )
    assert recipe.warmup * 300 == pytest.approx(20, rel=0.01)
    sizes = [resolution_at(recipe, 224, epoch, stride=32) for epoch in range(300)]
    assert sizes == [192] * 280 + [224] * 20


def test_between_two_sizes_it_is_between_their_recipes() -> None:
    between = replace(FASTERNET["s"], depths=(2, 3, 15, 3))
    recipe = recipe_for(between, IMAGENET)
    small, medium = (recipe_for(FASTERNET[name], IMAGENET) for name in ("s", "m"))
    for name in ("weight_decay", "mixup", "drop_path"):
        assert getattr(small, name) < getattr(recipe, name) < getattr(medium, name)
    below = recipe_for(SPACES["fasternet"].decode((0,) * len(SPACES["fasternet"].genes)), IMAGENET)
    tiniest = recipe_for(FASTERNET["t0"], IMAGENET)
    assert below == tiniest


def test_a_network_is_as_large_as_its_maps_whatever_the_images_are() -> None:
    t1 = FASTERNET["t1"]
    sharper = replace(t1, resolution=112, stem_stride=2)
    decays = [recipe_for(config, IMAGENET).weight_decay for config in (sharper, t1)]
    assert decays[0] == pytest.approx(decays[1], rel=0.01)  # but for the stem itself


def test_small_images_are_not_distorted() -> None:
    config = replace(FASTERNET["m"], resolution=64)
    assert recipe_for(config, 50_000).augment == ""
    assert recipe_for(replace(config, resolution=128), 50_000).augment == RAND.format(7)


def test_the_rate_for_small_images_does_not_sink_with_the_batch() -> None:
    small, pictures = TINY, replace(TINY, resolution=128)
    assert recipe_for(small, 1500).lr == 2e-3
    assert recipe_for(pictures, 1500).lr == 2.5e-4
    assert recipe_for(small, 900_000).lr == recipe_for(pictures, 900_000).lr == 4e-3
    told = recipe_for(small, 900_000, batch_size=64)
    assert (told.batch_size, told.lr) == (64, 2e-3)


def test_few_epochs_of_small_images_have_steps_enough_and_leave_these_in_place() -> None:
    pictures = replace(TINY, resolution=128)
    found = [
        (r.batch_size, r.shift)
        for config in (TINY, pictures)
        for epochs in (10, 300)
        if (r := recipe_for(config, 54_000, epochs=epochs))
    ]
    assert found == [(64, False), (256, True), (256, False), (256, True)]


@pytest.mark.parametrize(
    ("images", "batch"),
    [(IMAGENET, 4096), (54_000, 256), (10_000, 32), (1_500, 32), (31, 30), (2, 2)],
)
def test_fewer_images_make_smaller_batches(images: int, batch: int) -> None:
    assert batch_size_for(images) == batch
    assert recipe_for(TINY, images).lr <= 0.004


def test_few_epochs_warm_up_longer_and_mix_less() -> None:
    long, short = recipe_for(TINY, 5000), recipe_for(TINY, 5000, epochs=10)
    assert (long.mixup_prob, short.mixup_prob) == (1.0, 0.1)
    assert (long.warmup, short.warmup) == (0.0667, 0.2)
    assert resolution_at(short, 32, 9, stride=8) == 32
    assert resolution_at(replace(short, progressive=("resolution",)), 32, 0, stride=32) == 32
    assert resolution_at(short, 32, 8, stride=8) == 24  # a multiple of its stride of 8


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(ValueError, match="`images` must be 2 or more, but got 1"):
        recipe_for(TINY, 1)
    with pytest.raises(ValueError, match="`epochs` must be 1 or more, but got 0"):
        recipe_for(TINY, 100, epochs=0)


def test_settings_are_changed_by_words() -> None:
    changed = recipe_with(
        Recipe(), {"batch_size": "1024", "flip": "false", "amp": "on", "grad_clip": "1"}
    )
    assert (changed.batch_size, changed.flip, changed.amp, changed.grad_clip) == (
        1024,
        False,
        "on",
        1.0,
    )
    assert changed.lr == pytest.approx(0.002 * 0.5**0.5, rel=0.01)  # goes with the batch
    assert recipe_with(Recipe(), {"batch_size": "1024", "lr": "1e-4"}).lr == 1e-4


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"bach_size": "3"}, "known settings, but got 'bach_size'. Did you mean batch_size?"),
        ({"xyzzy": "3"}, "They are epochs, batch_size"),
        ({"batch_size": "3.5"}, "`batch_size` must be a whole number, but got '3.5'"),
        ({"lr": "fast"}, "`lr` must be a number, but got 'fast'"),
        ({"lr": "nan"}, "`lr` must be a number, but got 'nan'"),
        ({"flip": "maybe"}, "`flip` must be true or false, but got 'maybe'"),
        ({"amp": "perhaps"}, "`amp` must be auto, on or off, but got 'perhaps'"),
        ({"label_smoothing": "1"}, "`label_smoothing` must be from 0 to 0.99, but got 1.0"),
        ({"lr": "inf"}, "`lr` must be finite, but got inf. Give a smaller one."),
        ({"lr": "1e300"}, r"`lr` must be from 0 to 1e\+30, but got 1e\+300"),
        ({"grad_clip": "1e31"}, r"`grad_clip` must be from 0 to 1e\+30, but got 1e\+31"),
        ({"grad_clip": "-inf"}, "`grad_clip` must be finite, but got -inf"),
        ({"teacher_weights": "x.pth"}, "`teacher` must be given with its weights, but only teach"),
        ({"batch_size": "7"}, "`batch_size` and `micro_batch_size` must be even, since images are"),
        ({"progressive": "colours"}, "`progressive` must be of resolution, images, but got 'col"),
        ({"seeding": "never"}, "`seeding` must be step or epoch, but got 'never'"),
        ({"ema": "0.9", "polynomial_averaging": "yes"}, "`ema` must be 0 with polynomial_avera"),
    ],
)
def test_wrong_settings_are_refused(told: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        recipe_with(Recipe(), told)


def test_a_recipe_comes_back_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    recipe = Recipe(
        epochs=7, amp="off", teacher="regnety_160", lr=1.25e-5, flip=False, progressive=("images",)
    )
    save_recipe(recipe, file, comment="Ours.")
    assert read_recipe(file) == recipe
    assert file.read_text().count("\n") == len(asdict(recipe)) + 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- 3\n", "must hold a mapping"),
        ("batch_size: [1, 2]\n", "`batch_size` must be one value, but got"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"recipe.yaml: .*{complaint}"):
        read_overrides(tmp_path / "recipe.yaml")
