"""The workers of Ray Train, one of which finds something wrong that the others do not."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nas.ray_pool import joined
from nas.ray_workers import Allocation, begin, wait_for

if TYPE_CHECKING:
    import torch

    from predictors.training.workers import Workers


def test_an_error_of_one_worker_ends_all_of_them_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

    def work(workers: "Workers", device: "torch.device") -> Iterator[dict[str, Any]]:
        if workers.rank == 1:
            raise ValueError("`data` must be on every node,\nbut are not on one.")
        workers.barrier()
        yield {"device": device.type}

    with joined(None) as ray:
        reference = begin(work, tmp_path, Allocation(workers=2), ray=ray, name="one")
        done, _ = ray.wait([reference], timeout=300)  # not the half hour of workers
        assert done, "the others wait for the one"
        error = wait_for(reference, tmp_path, ray=ray)
    assert error == "`data` must be on every node, but are not on one."
    assert not list(tmp_path.iterdir())
