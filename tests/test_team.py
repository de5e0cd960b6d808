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

from nas.training.full_recipe import FullRecipe
from nas.training.full_training import FullTraining
from predictors.data.datasets import load_data
from predictors.training.workers import Team, usable_device
from search_spaces.network import build

CONFIG = replace(IRREGULAR, classes=10, resolution=16)
# Everything that looks across images: batch norm, drop path, mixup, clipping, batches in pieces.
RECIPE = FullRecipe(epochs=2, batch=128, at_once=64, rate=2e-3, drop_path=0.3, clip=1.0,
                    warm_up=0.2)  # fmt: skip


def test_mixed_pairs_are_one_workers() -> None:
    for size in (1, 2, 3):
        rows = [Team(rank=rank, size=size).rows(12) for rank in range(size)]
        assert sorted(np.concatenate(rows)) == list(range(12))
        assert len({len(own) for own in rows}) == 1
        for own in rows:
            assert list(own + own[::-1]) == [11] * len(own)


def _train(rank: int, size: int, port: int, folder: str) -> None:
    if size > 1:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank,
                                       world_size=size)  # fmt: skip
    data = load_data(f"{folder}/noise.npz")
    torch.manual_seed(0)
    network = build(CONFIG, drop_path=RECIPE.drop_path)
    training = FullTraining(network, data, RECIPE, device=torch.device("cpu"),
                            team=Team(rank=rank, size=size))  # fmt: skip
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
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True)
                          for name in ("0-of-1", "0-of-2", "1-of-2"))  # fmt: skip
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


def test_a_batch_that_cannot_be_dealt_out_is_refused() -> None:
    data = load_data("digits", resolution=CONFIG.resolution)
    with pytest.raises(ValueError, match="`batch` must be dealt out in pairs to 3 workers, but is"):
        FullTraining(build(CONFIG), data, RECIPE, device=torch.device("cpu"),
                     team=Team(rank=0, size=3))  # fmt: skip


def test_a_device_that_is_not_there_is_refused() -> None:
    assert usable_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="`device` must be cpu, or cuda where there is a GPU"):
        usable_device("tpu")
