"""MLflow and Weights & Biases are told of each epoch once, and cost a training nothing."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import TINY

from nas.cli.main import main
from nas.finetune.jobs import Job
from nas.finetune.trackers import Tracker, Trackers, open_trackers
from predictors.training.recipe import EpochRow, recipe_for
from search_spaces.formats import save_config

Streams = pytest.CaptureFixture[str]
CONFIG = replace(TINY, classes=4)
ROWS = [
    EpochRow(
        epoch=i,
        loss=1 / i,
        accuracy=50.0 + i,
        lr=1e-3,
        resolution=32,
        seconds=2.0,
        images_per_s=100.0,
    )
    for i in (1, 2, 3)
]

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, of what they import


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A training that nobody begins."""
    folder = tmp_path / "mine"
    folder.mkdir()
    return Job(
        name="mine",
        config=CONFIG,
        recipe=recipe_for(CONFIG, 600),
        data="colours.npz",
        folder=folder,
    )


def _logged(metric: str) -> list[list[tuple[int, float]]]:
    """What MLflow has of each of its runs: steps and values."""
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name("fasternas").experiment_id])
    assert all(run.info.status == "FINISHED" for run in runs)
    assert all(run.data.params["widths"] == str(CONFIG.widths) for run in runs)
    return [
        [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
        for run in runs
    ]


def test_a_training_that_goes_on_is_one_run_with_each_epoch_once(job: Job) -> None:
    for known in (2, 3):
        with open_trackers(["mlflow"]) as log:
            assert log.tell(job, ROWS[:1]) == []
            assert log.tell(job, ROWS[:known]) == []
    assert _logged("accuracy") == [[(1, 51.0), (2, 52.0), (3, 53.0)]]
    with open_trackers(["mlflow"]) as log:
        log.tell(replace(job, data="others.npz"), ROWS[:1])
    assert sorted(map(len, _logged("loss"))) == [1, 3]


def test_a_training_tells_both(tmp_path: Path) -> None:
    labels = np.arange(120) % 4
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=labels)
    save_config(CONFIG, tmp_path / "mine.yaml")
    command = [
        "train",
        "mine.yaml",
        "--data",
        "noise.npz",
        "--gpus",
        "0",
        "--device",
        "none",
        "--epochs",
        "2",
        "--log",
        "mlflow,wandb",
    ]
    assert main(command) == 0
    (losses,) = _logged("loss")
    assert [step for step, _ in losses] == [1, 2]
    (kept,) = (tmp_path / "trained" / "mine").glob("wandb/offline-run-*/*.wandb")
    assert b"images_per_s" in kept.read_bytes()


def test_one_that_fails_is_named_once_and_the_others_go_on(job: Job) -> None:
    class Broken:
        """A tracker whose server is gone."""

        def tell(self, job: Job, rows: Sequence[EpochRow]) -> None:
            raise ConnectionError("no route to host\nand so on")

        def end(self) -> None:
            raise AssertionError

    class Counting:
        """A tracker that counts."""

        told = 0

        def tell(self, job: Job, rows: Sequence[EpochRow]) -> None:
            self.told += len(rows)

        def end(self) -> None:
            self.told = -self.told

    counting = Counting()
    trackers: dict[str, Tracker] = {"broken": Broken(), "counting": counting}
    log = Trackers(trackers)
    assert log.tell(job, ROWS) == ["broken is told no more, as it failed: no route to host"]
    assert log.tell(job, ROWS) == []
    assert log.end() == []
    assert counting.told == -6


def test_what_is_unknown_or_not_installed_is_one_line(
    tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(RuntimeError, match=r"pip install 'fasternas\[wandb\]'"),
        open_trackers(["wandb"]),
    ):
        raise AssertionError
    save_config(replace(CONFIG, classes=10), tmp_path / "mine.yaml")
    command = ["train", "mine.yaml", "--data", "digits", "--gpus", "0", "--device", "none"]
    assert main([*command, "--log", "paper"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "fasternas: error: `log` must be of mlflow, wandb, but got 'paper'."
    assert not (tmp_path / "trained" / "mine" / "training.csv").exists()
