"""Which folders of a tree are classes, which files count, and where links lead."""

import os
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from image_trees import GREEN, RED, coloured_tree, saved

from predictors.data.datasets import load_data


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        for number in range(3):
            saved(tmp_path / name / f"{number}.png")
    data = load_data(str(tmp_path))
    assert data.classes == ("car", "train")
    remark = f"{tmp_path / 'train'} has a split's name, but no class folders, and became a class."
    assert data.remarks[0] == f"The folder {remark}"


def test_a_test_folder_without_classes_is_left_out_and_named(tmp_path: Path) -> None:
    coloured_tree(tmp_path / "train")
    saved(tmp_path / "test" / "1.png")
    data = load_data(str(tmp_path))
    assert data.test is None
    assert any("test is no split with class folders" in remark for remark in data.remarks)


@pytest.mark.parametrize("inside", ["unknown", "test"])
def test_a_test_folder_whose_images_have_no_labels_is_left_out_and_named(
    inside: str, tmp_path: Path
) -> None:
    coloured_tree(tmp_path / "train")
    saved(tmp_path / "test" / inside / "1.png")
    data = load_data(str(tmp_path))
    assert data.test is None
    assert data.classes == ("green", "red")
    assert data.remarks[0].startswith(f"The folder {tmp_path / 'test'} ")
    assert "was left out" in data.remarks[0]


def test_files_may_lie_deeper_and_hidden_ones_do_not_count(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    saved(tmp_path / "red" / "more" / "deeper.PNG")
    (tmp_path / "red" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    data = load_data(str(tmp_path))
    assert len(data.train) + len(data.validation) == 21
    assert len(data.remarks) == 1  # of the cut


def test_links_are_followed_but_not_in_a_circle_nor_to_another_class(tmp_path: Path) -> None:
    root = coloured_tree(tmp_path / "data" / "train")
    coloured_tree(tmp_path / "data" / "val", count=3)
    saved(tmp_path / "elsewhere" / "more" / "0.png")
    (root / "red" / "more").symlink_to(tmp_path / "elsewhere")
    assert len(load_data(str(tmp_path / "data")).train) == 21
    for name, place in (
        ("loop", root),
        ("up", tmp_path),
        ("other", root / "green"),
        ("again", tmp_path / "elsewhere" / "more"),
    ):
        (root / "red" / name).symlink_to(place)
    data = load_data(str(tmp_path / "data"))
    assert np.bincount(data.train.labels).tolist() == [10, 11]
    (remark,) = data.remarks
    assert "red/loop leads to a folder that is read elsewhere and was not followed, nor" in remark


def test_files_that_are_no_images_by_name_or_lie_beside_are_counted(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    (tmp_path / "red" / "notes.txt").write_text("red", encoding="utf-8")
    saved(tmp_path / "stray.png")
    (remark,) = [r for r in load_data(str(tmp_path)).remarks if "by their names" in r]
    assert remark.startswith("2 files are no images by their names or in no class folder")
    assert "stray.png" in remark


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir",
        "__MACOSX",
        "lost+found",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "@Recycle",
        "LOST.DIR",
        "__pycache__",
        "~snapshot",
        "@SynoResource",
        "FOUND.001",
        "_gsdata_",
    ],
)
def test_folders_of_systems_are_passed_over_and_named(tmp_path: Path, name: str) -> None:
    for split in ("train", "val"):
        coloured_tree(tmp_path / split)
        saved(tmp_path / split / name / "thumb.png")
        saved(tmp_path / split / "red" / name / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
    saved(tmp_path / name / "train" / "blue" / "0.png")
    data = load_data(str(tmp_path))
    assert data.classes == ("green", "red")
    assert [len(data.train), len(data.validation)] == [20, 20]
    assert data.remarks == (f"5 folders of systems were passed over: {name}.",)


def test_a_folder_around_is_told_from_what_an_archive_brought(tmp_path: Path) -> None:
    coloured_tree(tmp_path / "mine")
    (tmp_path / "__MACOSX").mkdir()
    with pytest.raises(ValueError, match=r"got 1 \(mine\). Name .*/mine if the classes are in"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [("\u732b", "\u72ac"), ("caf\u00e9", "\u05e9"), ("\U0001f408", "a b"), ("@home", "#1")],
)
def test_classes_have_names_in_any_alphabet(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, colour in zip(names, (RED, GREEN), strict=True):
        for number in range(3):
            saved(tmp_path / name / f"{number}.png", colour)
    data = load_data(str(tmp_path))
    assert sorted(data.classes) == sorted(names)
    shown = data.validation.pixels([0, 1])[:, 0, 0]
    for pixel, label in zip(shown, data.validation.labels, strict=True):
        assert tuple(pixel) == (RED, GREEN)[names.index(data.classes[label])]


def test_names_that_are_no_utf8_or_have_control_characters_are_spelled_out(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"two\nlines", b"plain"):
        folder = tmp_path / os.fsdecode(name)
        for number in range(3):
            saved(folder / f"{number}.png")
    (tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.png")).write_bytes(b"")
    data = load_data(str(tmp_path))
    assert set(data.classes) == {r"caf\xe9", "plain", r"two\nlines"}
    said = "The names of class folders are no plain UTF-8; the classes are called "
    assert any(remark.startswith(said) for remark in data.remarks)
    assert any(r"the first: " in r and r"caf\xe9/\xff.png." in r for r in data.remarks)
    assert all(remark.encode().decode().isprintable() for remark in data.remarks)


def test_splits_made_on_macos_and_elsewhere_have_the_same_classes(tmp_path: Path) -> None:
    composed, apart = "\u00e9t\u00e9", normalize("NFD", "\u00e9t\u00e9")
    for split, name in (("train", composed), ("val", apart)):
        for number in range(3):
            saved(tmp_path / split / name / f"{number}.png")
            saved(tmp_path / split / "hiver" / f"{number}.png", GREEN)
    data = load_data(str(tmp_path))
    assert set(data.classes) == {"hiver", composed}
    assert data.remarks == ()
    saved(tmp_path / "train" / apart / "0.png")
    with pytest.raises(ValueError, match=r"must have each class once, but .*train has two folders"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("heic", "`heif-convert`"),
        ("HEIF", "`heif-convert`"),
        ("nef", "`darktable-cli`"),
        ("jxl", "`djxl`"),
        ("dcm", "`dcm2img`"),
        ("mp4", "`ffmpeg`"),
        ("svg", "`rsvg-convert`"),
    ],
)
def test_a_class_of_files_that_must_be_converted_names_what_does_it(
    tmp_path: Path, ending: str, how: str
) -> None:
    coloured_tree(tmp_path)
    (tmp_path / "blue").mkdir()
    for number in range(3):
        (tmp_path / "blue" / f"IMG_{number}.{ending}").write_bytes(b"x")
    message = rf"/blue has none: 3 are .{ending.lower()}, of which {how} makes images. Convert them"
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path))
    saved(tmp_path / "blue" / "0.png")
    saved(tmp_path / "blue" / "1.png")
    (remark,) = [r for r in load_data(str(tmp_path)).remarks if "left out" in r]
    assert f"3 are .{ending.lower()}, of which {how} makes images." in remark


def test_files_without_an_ending_are_read_by_their_content(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    for name in ("n01440764_18", "0001.001"):
        saved(tmp_path / "red" / "x.png").rename(tmp_path / "red" / name)
    (tmp_path / "red" / "README").write_text("red", encoding="utf-8")
    data = load_data(str(tmp_path))
    assert len(data.train) + len(data.validation) == 22
    assert any(remark.startswith("1 file is no image by its name") for remark in data.remarks)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train", "seg_test"),
        ("training_set", "test_set"),
        ("train-images", "test-images"),
        ("Training Data", "Testing Data"),
        ("train_1", "test1"),
    ],
)
@pytest.mark.parametrize("doubled", [False, True])
def test_splits_are_known_by_names_with_additions(
    tmp_path: Path, train: str, test: str, *, doubled: bool
) -> None:
    for name in (train, test):
        coloured_tree(tmp_path / name / name if doubled else tmp_path / name)
    saved(tmp_path / "seg_pred" / "1.png")
    data = load_data(str(tmp_path))
    assert data.classes == ("green", "red")
    assert [len(data.train) + len(data.validation), len(data.test or ())] == [20, 20]
    assert any("seg_pred is no split with class folders and was" in one for one in data.remarks)


def test_splits_by_their_additions_that_hold_no_classes_are_none(tmp_path: Path) -> None:
    for name in ("train", "test1"):
        saved(tmp_path / name / "cat.1.png")
    with pytest.raises(ValueError, match=r"folder for each class in each split, but .*test1 holds"):
        load_data(str(tmp_path))


def test_classes_may_have_names_of_splits_in_them(tmp_path: Path) -> None:
    for name in ("bullet_train", "crash_test", "steam_train"):
        for number in range(3):
            saved(tmp_path / name / "inner" / f"{number}.png")
    assert load_data(str(tmp_path)).classes == ("bullet_train", "crash_test", "steam_train")


def test_folders_that_all_classes_hold_are_told_of(tmp_path: Path) -> None:
    for name in ("covid", "normal"):
        for inner in ("images", "masks"):
            for number in range(3):
                saved(tmp_path / name / inner / f"{number}.png")
    said = "Each class folder holds the folders images, masks, of which all images count as of"
    assert any(remark.startswith(said) for remark in load_data(str(tmp_path)).remarks)


def test_pipes_are_not_read(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    os.mkfifo(tmp_path / "red" / "pipe.png")
    (remark,) = [r for r in load_data(str(tmp_path)).remarks if "left out" in r]
    assert remark.startswith("1 file is no image by its name")
    assert "pipe.png" in remark


def test_a_class_without_images_says_what_is_there(tmp_path: Path) -> None:
    coloured_tree(tmp_path)
    (tmp_path / "blue").mkdir()
    (tmp_path / "blue" / "a.jpg?w=300").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"blue has none, and a.jpg\?w=300 is none by its name."):
        load_data(str(tmp_path))


def test_files_beside_a_class_say_what_makes_images_of_them(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,pixel0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds none: 1 is .csv, of which a script, or images"):
        load_data(str(tmp_path))
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"another kind: 1 is .zip, of which unpacking them"):
        load_data(str(tmp_path / "data.zip"))
