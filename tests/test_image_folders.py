"""Trees of image files: sizes, colours, splits, broken and grey images, bad trees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_trees import GREEN, RED, coloured_tree, saved
from PIL import Image

from predictors.data.datasets import load_data


def test_classes_are_numbered_by_name_and_images_are_what_the_files_hold(tmp_path: Path) -> None:
    data = load_data(str(coloured_tree(tmp_path)))
    assert data.classes == ("green", "red")
    assert (data.resolution, data.channels) == (40, 3)
    pixels = data.train.pixels(range(len(data.train)))
    assert pixels.shape == (18, 40, 40, 3)
    assert pixels.dtype == np.uint8
    for image, label in zip(pixels, data.train.labels, strict=True):
        assert np.all(image == (GREEN, RED)[label])


def test_mean_and_deviation_are_those_of_the_training_split(tmp_path: Path) -> None:
    data = load_data(str(coloured_tree(tmp_path)))
    pixels = data.train.pixels(range(len(data.train))) / 255
    assert data.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert data.std[:2] == pytest.approx(pixels.std(axis=(0, 1, 2))[:2])
    assert data.std[2] == pytest.approx(1 / 255)  # blue is the same everywhere


def test_a_tree_without_splits_is_cut_by_class_and_seed(tmp_path: Path) -> None:
    root = str(coloured_tree(tmp_path, count=20))
    one, same, other = load_data(root, seed=1), load_data(root, seed=1), load_data(root, seed=2)
    assert np.bincount(one.validation.labels).tolist() == [2, 2]
    assert np.bincount(one.train.labels).tolist() == [18, 18]
    assert not set(one.train.rows) & set(one.validation.rows)
    assert np.array_equal(one.validation.rows, same.validation.rows)
    assert not np.array_equal(one.validation.rows, other.validation.rows)
    assert one.test is None
    assert one.remarks == ("There is no validation split: 4 of the 40 training images became one.",)


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_folders_named_as_splits_are_splits(tmp_path: Path, validation: str) -> None:
    for name, count in (("train", 5), (validation, 3), ("test", 2)):
        coloured_tree(tmp_path / name, count=count)
    data = load_data(str(tmp_path))
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [10, 6, 4]
    assert data.remarks == ()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_images_are_counted_left_out_and_the_first_is_named(
    tmp_path: Path, suffix: str
) -> None:
    coloured_tree(tmp_path, suffix=suffix)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for number in (3, 7):
        path = tmp_path / "red" / f"{number}{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:-2000])  # PIL opens it, and fails when it decodes
    data = load_data(str(tmp_path))
    assert len(data.train) + len(data.validation) == 18
    first = tmp_path / "red" / f"3{suffix}"
    assert (
        f"2 of 20 images cannot be read and were left out, the first: {first}. "
        "Of 2 the reason is: image file is truncated."
    ) in data.remarks


def test_what_is_no_image_at_all_or_empty_is_broken_too(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    (tmp_path / "red" / "0.png").write_bytes(b"")
    (tmp_path / "red" / "1.png").write_text("<html>", encoding="utf-8")
    assert any(r.startswith("2 of 20 images") for r in load_data(str(tmp_path)).remarks)


def test_grey_images_among_colour_ones_become_rgb(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    saved(tmp_path / "red" / "grey.png", [77])
    data = load_data(str(tmp_path))
    assert data.channels == 3
    assert "1 of 21 images is grey and was converted to RGB." in data.remarks
    both = [*data.train.pixels(range(len(data.train))), *data.validation.pixels([0, 1])]
    assert any(np.all(image == 77) for image in both)


def test_if_all_are_grey_there_is_one_channel(tmp_path: Path) -> None:
    for name, grey in (("dark", 20), ("light", 220)):
        for number in range(3):
            saved(tmp_path / name / f"{number}.png", [grey])
    data = load_data(str(tmp_path))
    assert data.channels == len(data.mean) == 1
    assert data.train.pixels([0]).shape == (1, 40, 40, 1)
    assert np.all(data.train.pixels([0]) == 20)


def test_colours_in_the_test_split_only_become_grey(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            saved(tmp_path / "train" / name / f"{number}.png", [50])
        saved(tmp_path / "test" / name / "0.png", RED)
    data = load_data(str(tmp_path))
    assert data.channels == 1
    assert any(r.startswith("2 of 8 images have colours") for r in data.remarks)


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    for name, value in (("a", 100 * 256), ("b", 200 * 256)):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.full((32, 32), value, dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    data = load_data(str(tmp_path))
    assert [int(image.max()) for image in data.validation.pixels([0, 1])] == [100, 200]


def test_palettes_with_transparency_and_alpha_become_rgb(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    alpha = Image.new("RGBA", (40, 40), (*RED, 128))
    alpha.save(tmp_path / "red" / "alpha.png")
    alpha.quantize().save(tmp_path / "red" / "palette.png")
    data = load_data(str(tmp_path))
    assert len(data.train) + len(data.validation) == 22
    assert data.train.pixels(range(len(data.train))).shape[-1] == 3


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([(40, 80)], 40),
        ([(48, 48)], 48),
        ([(100, 90)], 96),
        ([(900, 700)], 224),
        ([(20, 20), (60, 60), (60, 300)], 64),
    ],
)
def test_the_size_is_the_median_shorter_side(
    tmp_path: Path, sides: list[tuple[int, int]], expected: int
) -> None:
    for name in ("a", "b"):
        for number, size in enumerate([*sides] * 3):
            saved(tmp_path / name / f"{number}.png", size=size)
    data = load_data(str(tmp_path))
    assert data.resolution == expected
    assert data.train.pixels([0]).shape == (1, expected, expected, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_that_are_not_square_give_their_centre(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = 255  # the square in the middle
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}{suffix}", quality=95)
    data = load_data(str(tmp_path), resolution=16)
    assert data.train.pixels([0])[0, :, 1:-1].min() > 240


def _without_class_folders(root: Path) -> None:
    saved(root / "1.png")


def _empty_class(root: Path) -> None:
    (coloured_tree(root) / "blue").mkdir()


def _one_class(root: Path) -> None:
    saved(root / "red" / "1.png")


def _one_folder_around(root: Path) -> None:
    coloured_tree(root / "inner" / "train")


def _other_validation_classes(root: Path) -> None:
    coloured_tree(root / "train")
    saved(root / "val" / "red" / "1.png")
    saved(root / "val" / "blue" / "1.png")


def _other_test_classes(root: Path) -> None:
    coloured_tree(root / "train")
    saved(coloured_tree(root / "test") / "blue" / "1.png")


def _no_train(root: Path) -> None:
    coloured_tree(root / "val")


def _splits_without_classes(root: Path) -> None:
    for name in ("train", "test"):
        saved(root / name / "1.png")


def _two_validations(root: Path) -> None:
    for name in ("train", "val", "valid"):
        coloured_tree(root / name)


def _all_of_a_class_broken(root: Path) -> None:
    for path in (coloured_tree(root) / "red").iterdir():
        path.write_bytes(b"broken")


def _all_broken(root: Path) -> None:
    for path in coloured_tree(root).rglob("*.png"):
        path.write_bytes(b"broken")


def _all_of_test_broken(root: Path) -> None:
    coloured_tree(root / "train")
    for path in coloured_tree(root / "test").rglob("*.png"):
        path.write_bytes(b"broken")


def _one_image_each(root: Path) -> None:
    coloured_tree(root, count=1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: None, "must hold a folder for each class, but .* holds none. Move"),
        (_without_class_folders, "must hold a folder for each class, but .* holds none"),
        (_empty_class, "must have images in each class folder, but .*blue has none. Add"),
        (_one_class, r"must have two classes or more, but got 1 \(red\). There is nothing"),
        (_one_folder_around, r"or more, but got 1 \(inner\). Name .*/inner if the classes are in"),
        (
            _other_validation_classes,
            r"classes of train in every split, but .*val adds \['blue'\] and lacks "
            r"\['green'\]. Give",
        ),
        (_other_test_classes, r"but .*test adds \['blue'\]. Give each split the same"),
        (_no_train, r"train with class folders beside its other splits, but .* has \['val'\]"),
        (_splits_without_classes, "folder for each class in each split, but .*/test holds none"),
        (_two_validations, "must have each split once, but .* has the folders val and valid. Ren"),
        (_all_of_a_class_broken, "images of every class, but got none .* of red: no image that P"),
        (_all_broken, "images in every split, but got none that can be read in train: no image th"),
        (_all_of_test_broken, "got none that can be read in test: no image that Pillow knows"),
        (_one_image_each, "two images of a class at least .* but got one of each. Add"),
    ],
)
def test_bad_trees_are_refused(tmp_path: Path, build: Callable[[Path], None], message: str) -> None:
    build(tmp_path)
    with pytest.raises(ValueError, match=f"^`data` .*{message}"):
        load_data(str(tmp_path))


def test_an_image_that_vanishes_is_named(tmp_path: Path) -> None:
    data = load_data(str(coloured_tree(tmp_path)))
    for path in (tmp_path / "red").iterdir():
        path.unlink()
    with pytest.raises(OSError, match=r"red/.*png can no longer be read: .* Leave the data alone"):
        data.train.pixels(range(len(data.train)))
