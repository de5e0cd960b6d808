"""What is a data set by its name, and what is none."""

from pathlib import Path

import numpy as np
import pytest

from predictors.data.arrays import ArrayPictures
from predictors.data.datasets import load_data
from predictors.data.images import Images, cut


@pytest.mark.parametrize("name", ["nowhere", "digit", "cats/dogs", "hfds/", "hfds"])
def test_what_is_no_data_set_is_refused(name: str) -> None:
    message = f"^`data` must be a folder .*hfds/NAME.*, but got '{name}', which is none. Check"
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
