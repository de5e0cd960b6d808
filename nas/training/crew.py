"""How many workers train one network together, on what, and whether a cluster has room for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Crew:
    """How many workers train one network, and how many GPUs they have; none: they have cores."""

    workers: int = 1
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The workers and GPUs that were asked for; None: as many as there are GPUs, or one worker."""

    workers: int | None = None
    gpus: int | None = None

    def crew(self, there: int) -> Crew:
        """Return the crew, with a worker for each GPU, where there are so many GPUs."""
        few = self.workers or there if there else 0
        gpus = few if self.gpus is None else self.gpus
        return Crew(workers=max(self.workers or 1, gpus), gpus=gpus)

    def check(self, there: int) -> None:
        """Refuse GPUs where there are none.

        Raises:
            ValueError: if some were asked for.
        """
        if self.gpus and not there:
            raise ValueError(f"`gpus` must be 0 where there is no GPU, but got {self.gpus}. Leave "
                             "it out.")  # fmt: skip

    def refuse(self, where: str) -> None:
        """Refuse anything that was asked for.

        Raises:
            ValueError: if something was.
        """
        for name, value in vars(self).items():
            if value is not None:
                raise ValueError(f"`{name}` must be left out where {where}, but got {value}. They "
                                 "train a supernet: --accuracy supernet.")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many cores a worker has, and how many networks are trained at a time."""

    cores: int
    networks: int


def room_for(crew: Crew, ray: Any, *, networks: int = 1) -> Room:
    """Share the cores of a cluster among the workers; each is on one node.

    Raises:
        RuntimeError: if there is no room for one network.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check_room(crew, nodes)
    side_by_side = min(_places(nodes, crew, 1) // crew.workers, networks)
    most = max(int(node.get("CPU", 0)) for node in nodes)
    cores = max(cores for cores in range(1, most + 1)
                if _places(nodes, crew, cores) >= side_by_side * crew.workers)  # fmt: skip
    return Room(cores=cores, networks=side_by_side)


def check_room(crew: Crew, nodes: Sequence[dict[str, float]]) -> None:
    """Refuse a crew for whose workers these nodes have too few cores or GPUs.

    Raises:
        RuntimeError: if there are too few.
    """
    if _places(nodes, crew, 1) < crew.workers:
        has = [sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")]
        raise RuntimeError(f"`workers` must find room, but {crew.workers} of them do not: there "
                           f"are {has[0]:g} cores and {has[1]:g} GPUs. Ask for fewer.")  # fmt: skip


def _places(nodes: Sequence[dict[str, float]], crew: Crew, cores: int) -> int:
    """How many workers of so many cores there can be."""
    by_cores = [int(node.get("CPU", 0)) // cores for node in nodes]
    if not crew.gpus:
        return sum(by_cores)
    return sum(min(count, int(node.get("GPU", 0)))
               for count, node in zip(by_cores, nodes, strict=True))  # fmt: skip
