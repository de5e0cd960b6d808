"""Which folders of a tree are classes, which files count, and where links lead."""

from pathlib import Path

import numpy as np
from image_trees import coloured_tree, saved

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
    for name, place in (("loop", root), ("up", tmp_path), ("other", root / "green"),
                        ("again", tmp_path / "elsewhere" / "more")):  # fmt: skip
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
