"""Workers of Ray Train: one is lost, or finds something wrong that the others do not."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from networks import TINY
from ray_nodes import kill_one
from safetensors.torch import load_file

from nas.cli.main import main
from nas.finetune.folder import read_table
from nas.finetune.jobs import Job, run_job, run_with_ray
from nas.ray_pool import joined
from nas.ray_workers import Allocation, WorkerRequest, begin, wait_for
from predictors.training.checkpoint import in_folder
from predictors.training.recipe import Recipe
from search_spaces.formats import save_config

if TYPE_CHECKING:
    from predictors.training.workers import Workers

RECIPE = Recipe(epochs=6, batch_size=16, lr=2e-3)
CPU = torch.device("cpu")
COMMAND = "import sys; from nas.cli.main import main; sys.exit(main())"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As each of the workers has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _when_trained(file: Path, ended: threading.Event, killed: list[bool]) -> None:
    while not ended.wait(0.05):
        if file.exists() and file.read_text().count("\n") > 2:
            killed.append(kill_one("RayTrainWorker"))
            return


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (450, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(450) % 4)
    return str(tmp_path / "noise.npz")


def _last(job: Job) -> dict[str, Any]:
    newest = in_folder(job.folder).newest()
    assert newest
    return newest.content


def test_two_go_on_with_what_one_began_one_is_lost_and_an_error_is_that_networks_alone(
    on_cluster: Any, data: str, tmp_path: Path, one_thread: None
) -> None:
    config = replace(TINY, classes=4)
    whole = Job(name="whole", config=config, recipe=RECIPE, data=data, folder=tmp_path / "whole")
    shared = replace(whole, name="shared", folder=tmp_path / "shared")
    wild = replace(whole, name="wild", recipe=replace(RECIPE, lr=1e30), folder=tmp_path / "wild")
    assert all(progress for progress in run_job(whole, device=CPU))
    for progress in run_job(shared, device=CPU):
        if progress.row:
            break
    (shared.folder / ".ray").mkdir()  # as a team leaves it that is killed
    (shared.folder / ".error").write_text("left", encoding="utf-8")
    ended, killed = threading.Event(), list[bool]()
    watcher = threading.Thread(
        target=_when_trained, args=(shared.folder / "training.csv", ended, killed)
    )
    watcher.start()
    try:
        request = WorkerRequest(workers=2, gpus=0)
        updates = list(run_with_ray([shared, wild], request, address=on_cluster.address))
    finally:
        ended.set()
        watcher.join()
    assert killed == [True]
    over = {update.job.name: update for update in updates if update.over}
    assert over["shared"].error == ""
    assert [row.epoch for row in over["shared"].rows] == [1, 2, 3, 4, 5, 6]
    assert "The loss must stay a number" in over["wild"].error
    ours, theirs = _last(shared)["network"], _last(whole)["network"]
    apart = torch.cat([(ours[name] - theirs[name]).abs().double().flatten() for name in theirs])
    assert apart.mean() < 1e-4  # AdamW makes much of some gradients that are mere rounding
    assert load_file(shared.folder / "weights.safetensors")
    assert not list(tmp_path.glob("*/.ray"))
    assert not list(tmp_path.glob("*/.error"))


def test_a_killed_training_of_two_workers_goes_on_with_one(
    on_cluster: Any, data: str, tmp_path: Path
) -> None:
    save_config(replace(TINY, classes=4), tmp_path / "mine.yaml")
    words = ["--gpus", "0", "--epochs", "6", "--set", "batch_size=16", "--device", "none"]
    command = ["train", str(tmp_path / "mine.yaml"), "--data", data, "--out", str(tmp_path), *words]
    folder = tmp_path / "mine"
    team = ["--workers", "2", "--ray", on_cluster.address]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *command, *team],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 600
        while not read_table(folder):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.kill()
    begun = read_table(folder)
    assert len(begun) < 6
    while main([*command, "--resume"]) != 0:  # the workers end a moment after their driver
        assert time.monotonic() < end
        time.sleep(0.5)
    rows = read_table(folder)
    assert rows[: len(begun)] == begun
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5, 6]
    assert load_file(folder / "weights.safetensors")


def test_too_many_workers_for_the_cluster_are_one_line(
    on_cluster: Any, data: str, tmp_path: Path
) -> None:
    job = Job(name="a", config=TINY, recipe=RECIPE, data=data, folder=tmp_path / "a")
    message = r"^`workers` must find room, but 3 of them do not: there are 2 cores and 1 GPUs\..*$"
    with pytest.raises(RuntimeError, match=message):
        list(run_with_ray([job], WorkerRequest(workers=3, gpus=0), address=on_cluster.address))
    assert not job.folder.exists()


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
