"""Checkpoints on disk: the last, the one before, and what becomes of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from predictors.training.checkpoint import in_folder
from predictors.training.recipe import BEFORE, LAST


def _kept(folder: Path) -> tuple[int, str]:
    found = in_folder(folder).newest()
    assert found is not None
    return int(found.content["number"]), found.remark


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert in_folder(tmp_path).newest() is None
    for number in range(3):
        in_folder(tmp_path).write({"number": number, "weights": torch.ones(5)})
    assert _kept(tmp_path) == (2, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEFORE, LAST]
    (tmp_path / LAST).unlink()  # killed between the two renames
    assert _kept(tmp_path) == (1, "")


def test_of_a_cut_one_the_one_before_is_used_and_it_says_so(tmp_path: Path) -> None:
    for number in range(2):
        in_folder(tmp_path).write({"number": number})
    _cut(tmp_path / LAST)
    number, remark = _kept(tmp_path)
    assert number == 0
    assert remark == f"{tmp_path / LAST} cannot be read; the one before, {BEFORE}, is used."
    _cut(tmp_path / BEFORE)
    with pytest.raises(ValueError, match=r"must hold a checkpoint that can be read, .*last-1"):
        in_folder(tmp_path).newest()


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    for number in range(2):
        in_folder(tmp_path).write({"number": number, "weights": torch.ones(2000)})
    with files_end_at(4000), pytest.raises(OSError, match=rf"File too large.*{LAST}"):
        in_folder(tmp_path).write({"number": 2, "weights": torch.ones(2000)})
    assert _kept(tmp_path) == (1, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEFORE, LAST]
