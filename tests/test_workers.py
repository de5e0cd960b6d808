"""Several workers train one network as one worker does."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from networks import IRREGULAR
from torch import distributed
from torch.multiprocessing.spawn import spawn

from predictors.data.datasets import load_data
from predictors.training.checkpoint import check_agreed
from predictors.training.recipe import SHORT, Recipe
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers, usable_device
from search_spaces.network import build

CONFIG = replace(IRREGULAR, classes=10, resolution=16)
# Everything that looks across images: batch norm, drop path, mixup, clipping, batches in pieces.
RECIPE = Recipe(
    epochs=2, batch_size=128, micro_batch_size=64, lr=2e-3, drop_path=0.3, grad_clip=1.0, warmup=0.2
)
# Of a step's images three workers have 11, 11 and 10.
UNPAIRED = replace(SHORT, epochs=1, batch_size=32, shift=True, polynomial_averaging=False)


def test_mixed_pairs_are_one_workers() -> None:
    for size in (1, 2, 3):
        rows = [Workers(rank=rank, size=size).pairs(12) for rank in range(size)]
        assert sorted(np.concatenate(rows)) == list(range(12))
        assert len({len(own) for own in rows}) == 1
        for own in rows:
            assert list(own + own[::-1]) == [11] * len(own)


def _train(rank: int, size: int, port: int, folder: str, recipe: Recipe) -> None:
    if size > 1:
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
        )
    data = load_data(f"{folder}/noise.npz")
    torch.manual_seed(0)
    network = build(CONFIG, drop_path=recipe.drop_path)
    training = Trainer(
        network, data, recipe, device=torch.device("cpu"), workers=Workers(rank=rank, size=size)
    )
    for _ in training.run():
        pass
    torch.save(training.state(), Path(folder) / f"{rank}-of-{size}.pt")
    if size > 1:
        distributed.destroy_process_group()


# Of the stem's bias, which the next batch norms nearly cancel, gradients are mere rounding where no
# path is dropped: they are below 1e-6, and AdamW makes steps of them.
@pytest.mark.parametrize(
    ("size", "recipe", "rounding"), [(2, RECIPE, ""), (3, UNPAIRED, "patch_embed.norm.bias")]
)
def test_several_workers_give_what_one_gives_up_to_rounding(
    size: int, recipe: Recipe, rounding: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (600, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(600) % 10)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _train(0, 1, port, str(tmp_path), recipe)
    spawn(_train, (size, port, str(tmp_path), recipe), nprocs=size)  # type: ignore[no-untyped-call]
    one, first, *others = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("0-of-1", *(f"{rank}-of-{size}" for rank in range(size)))
    )
    for ours, theirs in zip(one["rows"], first["rows"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=2.0)
    torch.manual_seed(0)
    fresh = build(CONFIG).state_dict()
    for name, weight in one["network"].items():
        assert all(torch.equal(other["network"][name], first["network"][name]) for other in others)
        if name != rounding:
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


def test_more_workers_than_images_are_refused() -> None:
    data = load_data("digits", resolution=CONFIG.resolution)
    with pytest.raises(ValueError, match="`workers` must be at most the 32 images of a step, but"):
        Trainer(build(CONFIG), data, UNPAIRED, workers=Workers(rank=0, size=33))


def test_a_worker_without_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits", resolution=CONFIG.resolution)
    trainer = Trainer(build(CONFIG), data, UNPAIRED, workers=Workers(rank=0, size=2))

    def hungry(*_: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB")

    monkeypatch.setattr(trainer, "_loss", hungry)
    with pytest.raises(MemoryError, match="`workers` must each have the memory for their share"):
        next(trainer.run_epoch())


@pytest.mark.parametrize(
    ("done", "refused"),
    [((2, 2, 2), False), ((0, 0, 0), False), ((1, 2, 3), True), ((5, 0, 0), True)],
)
def test_workers_that_find_different_files_all_say_so(
    done: tuple[int, ...], *, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, torch.Tensor] = {}
    all_here = Barrier(len(done), timeout=60)

    def summed(workers: Workers, values: torch.Tensor) -> torch.Tensor:
        given[workers.rank] = values
        all_here.wait()
        return torch.stack(list(given.values())).sum(0)

    def check(rank: int) -> None:
        message = "^`out` must be a folder that all nodes share, but not all find the same"
        with pytest.raises(ValueError, match=message) if refused else nullcontext():
            check_agreed(Workers(rank=rank, size=3), done[rank], torch.device("cpu"))

    monkeypatch.setattr(Workers, "sum", summed)
    with ThreadPoolExecutor(len(done)) as threads:
        list(threads.map(check, range(len(done))))
