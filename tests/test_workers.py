"""Several workers train one network as one worker does."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import IRREGULAR
from torch import distributed
from torch.multiprocessing.spawn import spawn

from predictors.data.datasets import load_data
from predictors.training.recipe import SHORT, Recipe
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers, usable_device
from search_spaces.network import build

CONFIG = replace(IRREGULAR, classes=10, resolution=16)
# Everything that looks across images: batch norm, drop path, mixup, clipping, batches in pieces.
RECIPE = Recipe(
    epochs=2, batch_size=128, micro_batch_size=64, lr=2e-3, drop_path=0.3, grad_clip=1.0, warmup=0.2
)


def test_mixed_pairs_are_one_workers() -> None:
    for size in (1, 2, 3):
        rows = [Workers(rank=rank, size=size).pairs(12) for rank in range(size)]
        assert sorted(np.concatenate(rows)) == list(range(12))
        assert len({len(own) for own in rows}) == 1
        for own in rows:
            assert list(own + own[::-1]) == [11] * len(own)


def _train(rank: int, size: int, port: int, folder: str) -> None:
    if size > 1:
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
        )
    data = load_data(f"{folder}/noise.npz")
    torch.manual_seed(0)
    network = build(CONFIG, drop_path=RECIPE.drop_path)
    training = Trainer(
        network, data, RECIPE, device=torch.device("cpu"), workers=Workers(rank=rank, size=size)
    )
    for _ in training.run():
        pass
    torch.save(training.state(), Path(folder) / f"{rank}-of-{size}.pt")
    if size > 1:
        distributed.destroy_process_group()


def test_two_workers_give_what_one_gives_up_to_rounding(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (600, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(600) % 10)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _train(0, 1, port, str(tmp_path))
    spawn(_train, (2, port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    one, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("0-of-1", "0-of-2", "1-of-2")
    )
    for ours, theirs in zip(one["rows"], first["rows"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=2.0)
    torch.manual_seed(0)
    fresh = build(CONFIG).state_dict()
    for name, weight in one["network"].items():
        assert torch.equal(first["network"][name], second["network"][name])
        torch.testing.assert_close(first["network"][name], weight, atol=1e-4, rtol=1e-4)
    moved = one["network"]["classifier.weight"] - fresh["classifier.weight"]
    assert moved.abs().max() > 2e-3  # of a batch norm or a pair of its own one would see it


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    data = load_data("digits", resolution=CONFIG.resolution)
    with pytest.raises(ValueError, match="`batch_size` must be shared in pairs by 3 workers, b"):
        Trainer(
            build(CONFIG), data, RECIPE, device=torch.device("cpu"), workers=Workers(rank=0, size=3)
        )


def test_a_device_that_is_not_there_is_refused() -> None:
    assert usable_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="`device` must be cpu, or cuda where there is a GPU"):
        usable_device("tpu")


def test_averages_that_want_batch_norms_of_their_own_are_one_workers() -> None:
    data = load_data("digits", resolution=CONFIG.resolution)
    with pytest.raises(ValueError, match="`polynomial_averaging` must be false with several work"):
        Trainer(build(CONFIG), data, SHORT, workers=Workers(rank=0, size=3))
