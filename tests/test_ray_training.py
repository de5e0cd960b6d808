"""Networks trained side by side by Ray, one of whose workers is lost."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import TINY
from ray_nodes import kill_one
from safetensors.torch import load_file

from nas.finetune.jobs import Job, run_with_ray
from nas.ray_workers import WorkerRequest
from predictors.training.recipe import Recipe

RECIPE = Recipe(epochs=6, batch_size=16, lr=2e-3)


def _when_trained(file: Path, ended: threading.Event, killed: list[bool]) -> None:
    while not ended.wait(0.05):
        if file.exists() and file.read_text().count("\n") > 2:
            killed.append(kill_one("RayTrainWorker"))
            return


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (900, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(900) % 4)
    return str(tmp_path / "noise.npz")


def test_a_lost_worker_goes_on_and_an_error_is_that_networks_alone(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    good = Job(
        name="good",
        config=replace(TINY, classes=4),
        recipe=RECIPE,
        data=data,
        folder=tmp_path / "good",
    )
    wild = replace(good, name="wild", recipe=replace(RECIPE, lr=1e30), folder=tmp_path / "wild")
    ended, killed = threading.Event(), list[bool]()
    watcher = threading.Thread(
        target=_when_trained, args=(good.folder / "training.csv", ended, killed)
    )
    watcher.start()
    try:
        updates = list(run_with_ray([good, wild], WorkerRequest(workers=1, gpus=0)))
    finally:
        ended.set()
        watcher.join()
    assert killed == [True]
    over = {update.job.name: update for update in updates if update.over}
    assert over["good"].error == ""
    assert [row.epoch for row in over["good"].rows] == [1, 2, 3, 4, 5, 6]
    assert load_file(good.folder / "weights.safetensors")
    assert "The loss must stay a number" in over["wild"].error
    assert not list(tmp_path.glob("*/.ray"))
    assert not list(tmp_path.glob("*/.error"))
