"""A search that trains its networks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from nas.cli import main
from nas.trainings import read_trainings

Streams = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 1, 1, 3))
    labels = np.arange(160) % 4
    images = np.clip(colours[labels] + rng.normal(0, 40, (160, 32, 32, 3)), 0, 255)
    file = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    return str(file)


def _search(folder: Path, data: str, *more: str) -> list[str]:
    return ["search", "--device", "arm", "--budget", "1ms", "--space", "fasternet-32",
            "--out", str(folder), "--data", data, "--trials", "7", "--epochs", "4",
            *more]  # fmt: skip


def test_the_front_has_accuracies_and_its_best_were_trained_longest(
    data: str, tmp_path: Path, capsys: Streams
) -> None:
    folder = tmp_path / "run"
    assert main(_search(folder, data)) == 0
    printed = capsys.readouterr()
    assert "accuracy %" in printed.out
    assert "validation" in printed.err  # what was cut off
    with (folder / "pareto.csv").open() as file:
        front = list(csv.DictReader(file))
    assert front
    assert all(row["accuracy_kind"] == "trained" for row in front)
    assert all(0 <= float(row["accuracy"]) <= 100 for row in front)
    options = json.loads((folder / "run.json").read_text())["options"]
    assert (options["classes"], options["accuracy"]) == (4, "train")
    trainings = read_trainings(folder)
    longest = [max(by_epochs) for by_epochs in trainings.values()]
    assert sorted(longest) == [2, 4]  # of seven two go on, of those one
    assert main(_search(folder, data, "--resume")) == 0
    assert read_trainings(folder) == trainings
    assert main(["show", str(folder)]) == 0


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--classes", "10"], "`classes` must be the 4 of .*, but got 10"),
        (["--accuracy", "guess"], "`accuracy` must be one of proxy, train, but got 'guess'"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    more: list[str], complaint: str, data: str, tmp_path: Path, capsys: Streams
) -> None:
    import re

    folder = tmp_path / "run"
    assert main(_search(folder, data, *more)) == 2
    said = capsys.readouterr().err
    assert re.search(complaint, said)
    assert said.count("\n") == 1
    assert not folder.exists()


def test_training_needs_data(tmp_path: Path, capsys: Streams) -> None:
    assert main(["search", "--device", "arm", "--budget", "1ms", "--accuracy", "train",
                 "--out", str(tmp_path / "run")]) == 2  # fmt: skip
    assert "`data` must be given where `accuracy` is train" in capsys.readouterr().err
