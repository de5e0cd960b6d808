"""Who trains a network together, and where there is room for them."""

from dataclasses import replace
from typing import Any

import pytest

from nas.ray_workers import Allocation, WorkerRequest, allocate


class Cluster:
    """Stands for Ray, with nodes of so many cores and GPUs."""

    def __init__(self, *nodes: tuple[float, float]) -> None:
        self._nodes = nodes

    def nodes(self) -> list[dict[str, Any]]:
        """Return them as Ray does, and one that was lost."""
        found = [{"Alive": False, "Resources": {"CPU": 99.0}}]
        for cores, gpus in self._nodes:
            some = {"CPU": cores, "GPU": gpus}
            found.append({"Alive": True, "Resources": {k: n for k, n in some.items() if n}})
        return found


@pytest.mark.parametrize(
    ("wanted", "there", "allocation"),
    [
        (WorkerRequest(), 0, Allocation()),
        (WorkerRequest(), 4, Allocation(workers=1, gpus=1)),
        (WorkerRequest(workers=3), 0, Allocation(workers=3)),
        (WorkerRequest(workers=3), 4, Allocation(workers=3, gpus=3)),
        (WorkerRequest(gpus=0), 4, Allocation()),
        (WorkerRequest(gpus=2), 4, Allocation(workers=2, gpus=2)),
        (WorkerRequest(workers=2, gpus=0), 4, Allocation(workers=2)),
    ],
)
def test_a_worker_has_a_gpu_unless_told_otherwise(
    wanted: WorkerRequest, there: int, allocation: Allocation
) -> None:
    assert wanted.resolve(there) == allocation


@pytest.mark.parametrize(
    ("nodes", "wanted", "networks", "cores", "side_by_side"),
    [
        ([(8, 0)], WorkerRequest(), 1, 8, 1),
        ([(8, 0)], WorkerRequest(workers=3), 1, 2, 1),
        ([(8, 0)], WorkerRequest(workers=2), 3, 1, 3),
        ([(8, 0), (8, 0)], WorkerRequest(), 1, 8, 1),  # a worker is on one node
        ([(8, 0), (3, 0)], WorkerRequest(workers=2), 1, 4, 1),
        ([(8, 2), (8, 0)], WorkerRequest(workers=2, gpus=2), 5, 4, 1),
        ([(0, 0), (8, 1)], WorkerRequest(gpus=1), 1, 8, 1),
    ],
)
def test_cores_are_shared_where_there_are_enough(
    nodes: list[tuple[float, float]],
    wanted: WorkerRequest,
    networks: int,
    cores: int,
    side_by_side: int,
) -> None:
    gpus = int(sum(gpus for _, gpus in nodes))
    expected = replace(wanted.resolve(gpus), cores=cores, networks=side_by_side)
    assert allocate(wanted, Cluster(*nodes), networks=networks) == expected


def test_too_many_workers_are_refused() -> None:
    message = r"`workers` must find room, but 3 of them do not: there are 2 cores and 0 GPUs\."
    with pytest.raises(RuntimeError, match=message):
        allocate(WorkerRequest(workers=3), Cluster((1, 0), (1, 0)))
    with pytest.raises(RuntimeError, match=r"there are 9 cores and 1 GPUs"):
        allocate(WorkerRequest(workers=2, gpus=2), Cluster((9, 1)))


def test_gpus_are_refused_where_there_are_none() -> None:
    WorkerRequest(gpus=2).check(1)
    with pytest.raises(ValueError, match="`gpus` must be 0 where there is no GPU, but got 2"):
        WorkerRequest(gpus=2).check(0)
