"""Workers of Ray Train: one is lost, or finds something wrong that the others do not."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from networks import TINY
from ray_nodes import kill_one
from safetensors.torch import load_file

from nas.finetune.jobs import Job, run_with_ray
from nas.ray_pool import joined
from nas.ray_workers import Allocation, WorkerRequest, begin, wait_for
from predictors.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from predictors.training.workers import Workers

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
    on_cluster: Any, data: str, tmp_path: Path
) -> None:
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
        request = WorkerRequest(workers=1, gpus=0)
        updates = list(run_with_ray([good, wild], request, address=on_cluster.address))
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


def test_an_error_of_one_worker_ends_all_of_them_at_once(on_cluster: Any, tmp_path: Path) -> None:
    def work(workers: "Workers", device: "torch.device") -> Iterator[dict[str, Any]]:
        if workers.rank == 1:
            raise ValueError("`data` must be on every node,\nbut are not on one.")
        workers.barrier()
        yield {"device": device.type}

    with joined(on_cluster.address) as ray:
        reference = begin(work, tmp_path, Allocation(workers=2), ray=ray, name="one")
        done, _ = ray.wait([reference], timeout=300)  # not the half hour of workers
        assert done, "the others wait for the one"
        error = wait_for(reference, tmp_path, ray=ray)
    assert error == "`data` must be on every node, but are not on one."
    assert not list(tmp_path.iterdir())
