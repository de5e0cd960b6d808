"""On which cores a timer runs: fast ones, never two threads of one core while there are others.

The kernel tells which hyper-threads share a core, how fast each core is, and which share a cache.
Of cores that are alike the last are taken: the first have most interrupts to serve.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

SYSTEM = Path("/sys/devices")
ALIKE = 0.9  # of the fastest: cores of one kind differ by less in how far they may be clocked


class Choice(NamedTuple):
    """The cores to run on, in order, and why these, in a few words."""

    cores: tuple[int, ...]
    why: str


class _Core(NamedTuple):
    """A core with those of its hyper-threads that may be used."""

    threads: tuple[int, ...]
    rank: int  # 0: of the fastest kind
    near: tuple[str, str]  # its package and its last cache

    @property
    def number(self) -> int:
        return self.threads[-1]


def choose(threads: int, allowed: set[int] | None = None, system: Path = SYSTEM) -> Choice:
    """Choose cores for so many threads among the allowed ones, all that this process may use."""
    allowed = os.sched_getaffinity(0) if allowed is None else allowed
    cores = sorted(_cores(allowed, system), key=lambda core: (core.rank, -core.number))
    first = cores[0]
    by_distance = sorted(
        cores,
        key=lambda core: (
            core.rank,
            core.near[0] != first.near[0],
            core.near != first.near,
            -core.number,
        ),
    )
    taken = by_distance[:threads]
    spare = [number for core in by_distance for number in core.threads[:-1]]
    shared = spare[: threads - len(taken)]
    chosen = sorted([*(core.number for core in taken), *shared])
    return Choice(tuple(chosen), _why(cores, taken, shared=bool(shared)))


def _why(cores: list[_Core], taken: list[_Core], *, shared: bool) -> str:
    fast = [core for core in cores if core.rank == 0]
    if shared:
        words = f"hyper-threads of one core among them: there are {len(cores)} cores"
    elif len(fast) == len(cores):
        words = f"of {len(cores)} alike" if len(cores) > 1 else "the only one"
    elif any(core.rank for core in taken):
        words = f"slow ones among them: there are {len(fast)} fast ones of {len(cores)}"
    else:
        words = f"of the {len(fast)} fast ones of {len(cores)}"
    idle = any(len(core.threads) > 1 for core in taken) and not shared
    return f"{words}, the other hyper-thread left idle" if idle else words


def _cores(allowed: set[int], system: Path) -> list[_Core]:
    """The cores of the allowed hyper-threads; where the kernel tells nothing, each is one."""
    speeds = {number: _speed(number, system) for number in allowed}
    slow = (
        _listed(_text(system / "cpu_atom/cpus")) if (system / "cpu_core/cpus").exists() else set()
    )
    ranks = _ranks({n: 0.0 if n in slow else speed for n, speed in speeds.items()})
    by_core: dict[frozenset[int], list[int]] = defaultdict(list)
    for number in sorted(allowed):
        by_core[frozenset(_siblings(number, system) | {number})].append(number)
    return [
        _Core(tuple(numbers), min(ranks[n] for n in numbers), _place(numbers[-1], system))
        for numbers in by_core.values()
    ]


def _ranks(speeds: dict[int, float]) -> dict[int, int]:
    """The kind of each core, the fastest 0: of one kind are those nearly as fast as its fastest."""
    rank, fastest, found = 0, max(speeds.values()), {}
    for number, speed in sorted(speeds.items(), key=lambda item: -item[1]):
        if speed < ALIKE * fastest:
            rank, fastest = rank + 1, speed
        found[number] = rank
    return found


def _speed(number: int, system: Path) -> float:
    """How fast a core is beside others: its capacity, or how far it may be clocked."""
    folder = system / f"system/cpu/cpu{number}"
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq", "acpi_cppc/highest_perf"):
        text = _text(folder / file)
        if text.isdigit() and int(text):
            return float(text)
    return 1.0


def _siblings(number: int, system: Path) -> set[int]:
    topology = system / f"system/cpu/cpu{number}/topology"
    texts = (_text(topology / f"{name}_list") for name in ("core_cpus", "thread_siblings"))
    return _listed(next(filter(None, texts), ""))


def _place(number: int, system: Path) -> tuple[str, str]:
    folder = system / f"system/cpu/cpu{number}"
    caches = sorted(folder.glob("cache/index*/shared_cpu_list"))
    package = _text(folder / "topology/physical_package_id")
    return package, _text(caches[-1]) if caches else ""


def _listed(text: str) -> set[int]:
    """The numbers of a list such as 0-3,8."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            return set()
        found.update(range(int(first), int(last or first) + 1))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
