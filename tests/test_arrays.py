"""Arrays of images: .npz files and scikit-learn's digits, good and bad."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictors.data.datasets import load_data

RNG = np.random.default_rng(0)


def _images(count: int, *, size: tuple[int, ...] = (8, 8, 3)) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (count, *size), dtype=np.uint8)


def _arrays(**changes: Any) -> dict[str, Any]:
    """20 training and 6 test images of two classes; None takes an array away."""
    arrays = {
        "x_train": _images(20),
        "y_train": np.arange(20) % 2,
        "x_test": _images(6),
        "y_test": np.arange(6) % 2,
        **changes,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _npz(folder: Path, **changes: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **_arrays(**changes))
    return str(path)


def test_an_npz_is_read_as_it_is(tmp_path: Path) -> None:
    arrays = _arrays()
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    data = load_data(str(tmp_path / "data.npz"))
    assert (data.classes, data.resolution, data.channels) == (("0", "1"), 8, 3)
    assert data.test is not None
    assert np.array_equal(data.test.pixels(range(6)), arrays["x_test"])
    assert np.array_equal(data.test.labels, arrays["y_test"])
    assert np.array_equal(data.train.pixels([0, 5]), arrays["x_train"][data.train.rows[[0, 5]]])
    assert data.train.labels.dtype == np.int64
    assert [len(data.train), len(data.validation)] == [18, 2]
    assert data.mean == pytest.approx((data.train.pixels(range(18)) / 255).mean(axis=(0, 1, 2)))


def test_an_npz_may_have_its_ending_in_capitals(tmp_path: Path) -> None:
    path = Path(_npz(tmp_path)).rename(tmp_path / "DATA.NPZ")
    assert load_data(str(path)).classes == ("0", "1")


def test_a_validation_split_of_the_npz_is_kept(tmp_path: Path) -> None:
    data = load_data(_npz(tmp_path, x_val=_images(4), y_val=[0, 1, 1, 0]))
    assert [len(data.train), len(data.validation)] == [20, 4]
    assert data.validation.labels.tolist() == [0, 1, 1, 0]
    assert data.remarks == ()


@pytest.mark.parametrize("name", ["valid", "validation", "Val"])
def test_splits_may_have_their_other_names(tmp_path: Path, name: str) -> None:
    data = load_data(_npz(tmp_path, **{f"x_{name}": _images(4), f"y_{name}": [0, 1, 1, 0]}))
    assert [len(data.train), len(data.validation)] == [20, 4]
    assert data.remarks == ()


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "val_images", "val_labels"),  # MedMNIST
        ("X_train", "Y_train", "X_valid", "Y_valid"),
        ("train_x", "train_y", "dev_x", "dev_y"),
        ("trainImages", "trainLabels", "validationImages", "validationLabels"),
        ("train_data", "train_targets", "val_data", "val_targets"),
        ("x-train", "y-train", "x-val", "y-val"),
    ],
)
def test_arrays_may_have_the_names_of_other_sets(tmp_path: Path, names: tuple[str, ...]) -> None:
    given = (_images(20), np.arange(20).reshape(20, 1) % 2, _images(4), np.arange(4) % 2)
    arrays: dict[str, Any] = dict(zip(names, given, strict=True))
    np.savez(tmp_path / "data.npz", **arrays)
    data = load_data(str(tmp_path / "data.npz"))
    assert np.array_equal(data.train.pixels(range(20)), given[0])
    assert [len(data.train), len(data.validation)] == [20, 4]
    assert data.remarks == ()


def test_arrays_without_a_split_are_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=_images(20), labels=np.arange(20) % 2)
    assert len(load_data(str(tmp_path / "data.npz")).train) == 18
    names = {"labels": np.array(["cat", "dog"]), "x_val": _images(4), "y_val": [0, 1, 1, 0]}
    remarks = load_data(_npz(tmp_path, **names)).remarks  # beside splits it is something else
    assert remarks == ("1 array is no split's by name and not used: ['labels'].",)


def test_names_that_say_nothing_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", _images(20), np.arange(20) % 2)
    message = r"lacks x_train, y_train and has \['arr_0', 'arr_1'\]. Save them with numpy.savez"
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path / "data.npz"))


def test_arrays_that_are_not_used_are_named(tmp_path: Path) -> None:
    more = {"x_val": _images(4), "y_val": [0, 1, 1, 0], "x_extra": _images(2), "mean": [0.5]}
    remarks = load_data(_npz(tmp_path, **more)).remarks
    assert remarks == ("2 arrays are no split's by name and not used: ['mean', 'x_extra'].",)


def test_without_test_arrays_there_is_no_test(tmp_path: Path) -> None:
    assert load_data(_npz(tmp_path, x_test=None, y_test=None)).test is None


def test_images_without_channels_have_one(tmp_path: Path) -> None:
    grey = {"x_train": _images(20, size=(8, 8)), "x_test": _images(6, size=(8, 8))}
    data = load_data(_npz(tmp_path, **grey))
    assert data.channels == len(data.std) == 1
    assert data.train.pixels([0]).shape == (1, 8, 8, 1)


def test_arrays_that_are_not_square_give_their_centre_and_any_size(tmp_path: Path) -> None:
    wide = np.zeros((20, 8, 12, 3), dtype=np.uint8)
    wide[:, :, 2:10] = 200
    path = _npz(tmp_path, x_train=wide, x_test=wide[:6])
    assert load_data(path).train.pixels([3]).tolist() == np.full((1, 8, 8, 3), 200).tolist()
    for size in (4, 12):
        pixels = load_data(path, resolution=size).train.pixels([3, 4])
        assert pixels.shape == (2, size, size, 3)
        assert np.all(pixels == 200)


@pytest.mark.parametrize(
    ("labels", "classes", "shown"),
    [
        (np.arange(20) % 3 + 1, ("1", "2", "3"), "1, 2, 3"),
        (np.array([0, 1, 3, 7])[np.arange(20) % 4], ("0", "1", "3", "7"), "0, 1, ... 7"),
        (np.array(["dog", "cat"])[np.arange(20) % 2], ("cat", "dog"), "cat, dog"),
        (np.array([b"dog", b"cat"])[np.arange(20) % 2], ("cat", "dog"), "cat, dog"),
        (np.array([-1, 1])[np.arange(20) % 2], ("-1", "1"), "-1, 1"),
    ],
)
def test_labels_that_are_not_0_to_n_are_numbered_and_remarked_on(
    tmp_path: Path, labels: np.ndarray[Any, Any], classes: tuple[str, ...], shown: str
) -> None:
    data = load_data(_npz(tmp_path, y_train=labels, y_test=labels[:6]))
    assert data.classes == classes
    assert data.remarks[0] == f"The labels {shown} were numbered 0 to {len(classes) - 1}."
    assert data.test is not None
    plain = [label.decode() if isinstance(label, bytes) else str(label) for label in labels[:6]]
    assert [data.classes[label] for label in data.test.labels] == plain


def test_labels_may_be_a_column(tmp_path: Path) -> None:
    data = load_data(_npz(tmp_path, y_train=np.arange(20).reshape(20, 1) % 2))
    assert sorted(data.train.labels.tolist()) == [0] * 9 + [1] * 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "must hold the arrays .*, but .*data.npz lacks x_train. Save them"),
        ({"y_test": None}, "must hold the arrays .*, but .*data.npz lacks y_test"),
        (
            {"x_val": _images(4), "x_valid": _images(4)},
            "must have each split once, but .*data.npz has the arrays x_val and x_valid. "
            "Remove one",
        ),
        ({"x_val": _images(4)}, "must hold the arrays .*, but .*data.npz lacks y_val"),
        ({"x_train": _images(20) / 255}, "in uint8, but got float64 in train. Scale"),
        ({"x_train": _images(20, size=(3, 8, 8))}, r"but got \[20, 3, 8, 8\] in train. Put the ch"),
        ({"x_train": _images(20, size=(192,))}, r"3 channels, but got \[20, 192\] in train"),
        ({"x_train": _images(0), "y_train": []}, "images in every split, but got none in train"),
        ({"x_val": [], "y_val": []}, "images in every split, but got none in validation. Add"),
        (
            {"x_test": _images(6, size=(9, 8, 3))},
            r"of one shape, but got \[8, 8, 3\] in train and \[9, 8, 3\] in test. Make them alike",
        ),
        ({"y_train": np.arange(19) % 2}, "but got 20 images and 19 labels in train. Check"),
        ({"y_train": np.zeros(20)}, "whole numbers or text, but got float64 in train. Convert"),
        ({"y_train": np.eye(20, dtype=int)}, r"got labels of shape \[20, 20\] in train. Give"),
        (
            {"y_train": np.zeros(20, dtype=int), "y_test": np.zeros(6, dtype=int)},
            r"must have two classes or more, but got 1 \(0\)",
        ),
        ({"y_test": np.arange(6)}, r"test with \['2', '3', '4', '5'\], which train has not. Label"),
        ({"y_test": np.array(["0", "1"] * 3)}, "classes of train in every split, but got test"),
        ({"y_train": np.array([0, 1] * 10, dtype=object)}, "some of Python's objects. Convert"),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^`data` .*{message}"):
        load_data(_npz(tmp_path, **changes))


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def _replaced(path: Path) -> None:
    path.write_text("no archive", encoding="utf-8")


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _single_array(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncated, "a file that can be read, but .* cannot: it is no .npz archive, or not the w"),
        (_damaged, "a file that can be read, but .* cannot: "),
        (_replaced, "a file that can be read, but .* cannot: it is no .npz archive, or not the wh"),
        (_emptied, "a file that can be read, but .* cannot: nothing is in it. Get it again"),
        (_single_array, "an archive of arrays, but .* is a single one. Save images and labels tog"),
    ],
)
def test_a_corrupt_npz_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = _npz(tmp_path)
    spoil(Path(path))
    with pytest.raises(ValueError, match=f"^`data` must be {message}"):
        load_data(path)


def test_digits_have_a_test_split_that_no_seed_changes() -> None:
    one, other = load_data("digits", seed=1), load_data("digits", seed=2)
    assert one.test is not None
    assert other.test is not None
    assert [len(one.train), len(one.validation), len(one.test)] == [1295, 143, 359]
    assert np.array_equal(one.test.rows, other.test.rows)
    assert not np.array_equal(one.validation.rows, other.validation.rows)
    rows = [*one.train.rows, *one.validation.rows, *one.test.rows]
    assert sorted(rows) == list(range(1797))


def test_digits_are_enlarged_by_repeating_pixels() -> None:
    data = load_data("digits")
    assert (data.resolution, data.channels, len(data.classes)) == (32, 1, 10)
    pixels = data.train.pixels(range(100))
    assert pixels.max() == 255
    small = pixels[:, ::4, ::4]
    assert np.array_equal(small.repeat(4, axis=1).repeat(4, axis=2), pixels)
