"""Several workers train one supernet as one worker does."""

import socket
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from networks import TINY_SPACE
from torch import distributed
from torch.multiprocessing.spawn import spawn

from predictors.cost import cost
from predictors.data.datasets import load_data
from predictors.training.estimators import Sandwich, supernet_trainer
from predictors.training.recipe import SHORT
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers
from search_spaces.fasternet import FasterNetConfig
from search_spaces.supernet import Supernet

RECIPE = replace(SHORT, epochs=3, batch_size=32, shift=True)  # all that is drawn for images


def _macs(config: FasterNetConfig) -> int:
    return cost(config).macs


def _trainer(folder: Path, workers: Workers) -> Trainer:
    torch.manual_seed(0)
    data = load_data(str(folder / "noise.npz"))
    rng = Random(0)
    drawn = Sandwich(sorted((TINY_SPACE.sample(rng) for _ in range(32)), key=_macs))
    return supernet_trainer(Supernet(TINY_SPACE), data, RECIPE, drawn, workers=workers)


def _train(rank: int, size: int, port: int, folder: Path) -> None:
    """Train for an epoch and keep what it comes to."""
    if size > 1:
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
        )
    trainer = _trainer(folder, Workers(rank=rank, size=size))
    for _ in trainer.run_epoch():
        pass
    told = {"loss": trainer.rows[0].loss, "accuracy": trainer.rows[0].accuracy}
    torch.save({**trainer.state(), **told}, folder / f"{rank}-of-{size}.pt")
    if size > 1:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of noise."""
    folder = tmp_path_factory.mktemp("team")
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "noise.npz", x_train=images, y_train=np.arange(300) % 4)
    return folder


def _of(folder: Path, size: int) -> list[dict[str, Any]]:
    """What each worker of a team of so many comes to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if size == 1:
        _train(0, 1, port, folder)
    else:
        spawn(_train, (size, port, folder), nprocs=size)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}-of-{size}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 3])  # three have 11, 11 and 10 images of a step
def test_several_workers_come_to_what_one_comes_to(size: int, folder: Path) -> None:
    (one,), (first, *others) = _of(folder, 1), _of(folder, size)
    assert first["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert first["accuracy"] == pytest.approx(one["accuracy"], abs=5.0)  # an image or two of 30
    fresh = _trainer(folder, Workers()).state()["network"]
    for name, weight in one["network"].items():
        assert all(torch.equal(other["network"][name], first["network"][name]) for other in others)
        torch.testing.assert_close(first["network"][name], weight, atol=1e-4, rtol=1e-4)
    moved = one["network"]["classifier.weight"] - fresh["classifier.weight"]
    assert moved.abs().max() > 2e-3  # batch norms of their own would be seen by that


def test_more_workers_than_images_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="`workers` must be at most the 32 images of a step, but"):
        _trainer(folder, Workers(rank=0, size=33))


def test_a_worker_without_memory_says_so(folder: Path) -> None:
    trainer = _trainer(folder, Workers(rank=0, size=2))

    def hungry(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB")

    trainer._loss = hungry  # type: ignore[assignment]
    with pytest.raises(MemoryError, match="`workers` must each have the memory for their share"):
        next(trainer.run_epoch())
