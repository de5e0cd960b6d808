"""Who trains a network together, and where there is room for them."""

from typing import Any

import pytest

from nas.training.crew import Asked, Crew, Room, room_for


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
    ("asked", "there", "crew"),
    [
        (Asked(), 0, Crew()),
        (Asked(), 4, Crew(workers=4, gpus=4)),
        (Asked(workers=3), 0, Crew(workers=3)),
        (Asked(workers=3), 4, Crew(workers=3, gpus=3)),
        (Asked(gpus=0), 4, Crew()),
        (Asked(gpus=2), 4, Crew(workers=2, gpus=2)),
        (Asked(workers=2, gpus=0), 4, Crew(workers=2)),
    ],
)
def test_a_worker_has_a_gpu_unless_told_otherwise(asked: Asked, there: int, crew: Crew) -> None:
    assert asked.crew(there) == crew


@pytest.mark.parametrize(
    ("nodes", "crew", "networks", "room"),
    [
        ([(8, 0)], Crew(), 1, Room(cores=8, networks=1)),
        ([(8, 0)], Crew(workers=3), 1, Room(cores=2, networks=1)),
        ([(8, 0)], Crew(workers=2), 3, Room(cores=1, networks=3)),
        ([(8, 0), (8, 0)], Crew(), 1, Room(cores=8, networks=1)),  # a worker is on one node
        ([(8, 0), (3, 0)], Crew(workers=2), 1, Room(cores=4, networks=1)),
        ([(8, 2), (8, 0)], Crew(workers=2, gpus=2), 5, Room(cores=4, networks=1)),
        ([(0, 0), (8, 1)], Crew(gpus=1), 1, Room(cores=8, networks=1)),
    ],
)
def test_cores_are_shared_where_there_are_enough(
    nodes: list[tuple[float, float]], crew: Crew, networks: int, room: Room
) -> None:
    assert room_for(crew, Cluster(*nodes), networks=networks) == room


def test_too_many_workers_are_refused() -> None:
    message = r"`workers` must find room, but 3 of them do not: there are 2 cores and 0 GPUs\."
    with pytest.raises(RuntimeError, match=message):
        room_for(Crew(workers=3), Cluster((1, 0), (1, 0)))
    with pytest.raises(RuntimeError, match=r"there are 9 cores and 1 GPUs"):
        room_for(Crew(workers=2, gpus=2), Cluster((9, 1)))


def test_gpus_are_refused_where_there_are_none_and_workers_where_no_supernet_is() -> None:
    Asked(gpus=2).check(1)
    Asked().refuse("`accuracy` is train")
    with pytest.raises(ValueError, match="`gpus` must be 0 where there is no GPU, but got 2"):
        Asked(gpus=2).check(0)
    with pytest.raises(
        ValueError, match="`workers` must be left out where `accuracy` is train, bu"
    ):
        Asked(workers=1).refuse("`accuracy` is train")
