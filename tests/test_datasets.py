"""What is a data set by its name, and what is none."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_trees import coloured_tree, saved

from predictors.data.arrays import ArrayPictures
from predictors.data.datasets import load_data, located
from predictors.data.images import Images, cut


@pytest.mark.parametrize("name", ["nowhere", "digit", "cats/dogs", "hfds/", "hfds"])
def test_what_is_no_data_set_is_refused(name: str) -> None:
    message = (
        f"^`data` must be digits, a folder .*hfds/NAME.*, but got '{name}', which is none. Check"
    )
    with pytest.raises(ValueError, match=message):
        load_data(name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2", encoding="utf-8")
    with pytest.raises(ValueError, match=r"data.csv', which is a file of another kind"):
        load_data(str(tmp_path / "data.csv"))


@pytest.mark.parametrize("resolution", [0, -32])
def test_a_resolution_below_one_is_refused(resolution: int) -> None:
    message = f"^`resolution` must be 1 pixel or more, but got {resolution}. Leave it out"
    with pytest.raises(ValueError, match=message):
        load_data("digits", resolution=resolution)


def test_the_resolution_that_is_asked_for_is_given() -> None:
    data = load_data("digits", resolution=48)
    assert data.resolution == 48
    assert data.validation.pixels([0, 1]).shape == (2, 48, 48, 1)


def test_digits_beside_a_folder_of_that_name_says_how_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for plots in ("digits", "digits/run", "digits/trained/a"):  # what a search to there leaves
        saved(Path(plots) / "pareto.png")
        (Path(plots) / "pareto.csv").touch()
    assert len(load_data("digits").classes) == 10
    coloured_tree(Path("digits/train"))
    with pytest.raises(ValueError, match=r"`data` must name one set, .* Write \./digits for the f"):
        load_data("digits")
    assert load_data("./digits").classes == ("green", "red")
    assert located("./digits") == str(tmp_path / "digits")


def _split(labels: list[int]) -> Images:
    pixels = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Images(
        labels=np.array(labels),
        pictures=ArrayPictures(pixels=pixels, resolution=1),
        rows=np.arange(len(labels)),
    )


def test_a_cut_takes_each_class_in_proportion_and_each_image_once() -> None:
    left, taken = cut(_split([0] * 40 + [1] * 10 + [2] * 3 + [3]), fraction=0.2, seed=0)
    assert np.bincount(taken.labels, minlength=4).tolist() == [8, 2, 1, 0]
    assert np.bincount(left.labels, minlength=4).tolist() == [32, 8, 2, 1]
    assert sorted([*left.rows, *taken.rows]) == list(range(54))


def test_pixels_follow_the_labels_through_cuts() -> None:
    labels = [number % 3 for number in range(60)]
    for part in cut(cut(_split(labels), fraction=0.5, seed=1)[0], fraction=0.2, seed=2):
        pixels = part.pixels(range(len(part)))[:, 0, 0, 0]
        assert np.array_equal(pixels % 3, part.labels)


def _npz(folder: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> str:
    np.savez(folder / "data.npz", x_train=images, y_train=labels)
    return str(folder / "data.npz")


def _noise(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def _constant(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.full_like(images, 90)


def _almost_constant(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (90 + images % 3).astype(np.uint8)


def _one_picture(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.broadcast_to(images[:1], images.shape)


@pytest.mark.parametrize("spoil", [_constant, _almost_constant, _one_picture])
def test_a_nearly_constant_training_split_is_said(
    tmp_path: Path, spoil: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    (remark,) = load_data(_npz(tmp_path, spoil(_noise(100)), np.arange(100) % 2)).remarks[1:]
    assert re.match(
        "There is next to nothing to learn: the 90 training images looked at differ by [01].* of "
        "255 in a pixel. Check how they were made.",
        remark,
    )


def test_one_picture_among_few_others_is_said(tmp_path: Path) -> None:
    images = _noise(400)
    images[:388] = images[0]
    remarks = load_data(_npz(tmp_path, images, np.arange(400) % 2)).remarks
    assert any("of the 360 training images looked at are one and the same." in r for r in remarks)


def test_equal_images_of_different_classes_are_said(tmp_path: Path) -> None:
    images = _noise(100)
    images[1:40:2] = images[:40:2]
    remarks = load_data(_npz(tmp_path, images, np.arange(100) % 2)).remarks
    assert any("training images looked at equal one of another class." in r for r in remarks)


def test_nothing_is_said_of_images_that_differ(tmp_path: Path) -> None:
    remarks = load_data(_npz(tmp_path, _noise(100), np.arange(100) % 2)).remarks
    assert remarks == ("There is no validation split: 10 of the 100 training images became one.",)


@pytest.mark.parametrize(("smaller", "is_said"), [(15, True), (49, True), (50, False)])
def test_classes_of_very_unequal_sizes_are_said(
    tmp_path: Path, smaller: int, *, is_said: bool
) -> None:
    labels = np.repeat(["noise", "signal"], [250, smaller])
    data = load_data(_npz(tmp_path, _noise(250 + smaller), labels))
    said = (
        f"The classes have {smaller} (signal) to 250 (noise) training images, "
        f"{250 / smaller:.3g} to 1: always guessing the largest gets "
        f"{25_000 / (250 + smaller):.1f} % of them right."
    )
    assert (said in data.remarks) is is_said


def test_what_guessing_the_largest_class_reaches_is_of_the_split() -> None:
    assert _split([0, 1, 1, 2]).largest_class == 50
    assert _split([3] * 28 + [1] * 2).largest_class == pytest.approx(93.333, abs=0.001)
