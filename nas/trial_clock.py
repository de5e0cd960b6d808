"""How long each trial of a cluster has been running, so that one that hangs can be ended.

A task waits for a core first, and may begin again elsewhere: only where it runs is known when that
is. So it tells an actor next to the driver; the clock is that actor's.
One whose worker was lost waits again, and its time does not run.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LOOK_S = 1.0  # between two looks
PATIENCE_S = 20.0  # with a node that is asked whether a process is there


Place = tuple[str, int]  # a node's id and a process on it


class TrialClock:
    """Says which of the running trials takes longer than `limit_s`."""

    def __init__(self, ray: Any, limit_s: float) -> None:
        self._ray = ray
        self._limit_s = limit_s
        self._looked = time.monotonic()
        self.beginnings = self._new_beginnings()

    def late(self, running: Mapping[Any, int]) -> Any:
        """Return a running task that takes too long, None if there is none or it is early to ask.

        `running` maps tasks to the numbers of their trials.
        """
        if time.monotonic() < self._looked + LOOK_S:
            return None
        try:
            ages = self._ray.get(self.beginnings.ages_s.remote(list(running.values())))
        except self._ray.exceptions.RayActorError:  # what has begun runs on without a limit
            self.beginnings, ages = self._new_beginnings(), {}
        found = None
        for task, number in running.items():
            age_s, place = ages.get(number, (0.0, None))
            if age_s > self._limit_s and self._still_runs(number, place):
                found = task
                break
        self._looked = time.monotonic()
        return found

    def _new_beginnings(self) -> Any:
        actor = self._ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Beginnings)
        here = self._ray.get_runtime_context().get_node_id()
        return actor.options(scheduling_strategy=_only_on(here)).remote()

    def _still_runs(self, number: int, place: Place) -> bool:
        """Whether the process is there; if it was lost, the trial waits to begin anew."""
        node, process = place
        look = self._ray.remote(num_cpus=0, max_retries=0)(is_there)
        task = look.options(scheduling_strategy=_only_on(node)).remote(process)
        try:
            there: bool = self._ray.get(task, timeout=PATIENCE_S)
        except self._ray.exceptions.GetTimeoutError:
            return False  # the node is busy or about to be given up: asked again
        except self._ray.exceptions.RayError:
            there = False
        if not there:
            with suppress(self._ray.exceptions.RayActorError):  # then all is forgotten
                self._ray.get(self.beginnings.forget.remote(number, place))
        return there


class Beginnings:
    """When and where each trial began to run; an actor."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[float, Place]] = {}

    def begin(self, number: int, place: Place) -> None:
        """Take note that a trial begins, or begins anew."""
        self._begun[number] = (time.monotonic(), place)

    def forget(self, number: int, place: Place) -> None:
        """Forget a trial, unless it has begun elsewhere."""
        if self._begun.get(number, (0.0, None))[1] == place:
            del self._begun[number]

    def ages_s(self, numbers: list[int]) -> dict[int, tuple[float, Place]]:
        """How long and where those of these trials that have begun run; forget the others."""
        self._begun = {n: begun for n, begun in self._begun.items() if n in numbers}
        return {n: (time.monotonic() - at, place) for n, (at, place) in self._begun.items()}


def timed(
    beginnings: Any, work: Callable[..., Any], evaluate: Any, number: int, config: Any
) -> Any:
    """Do the work of a trial, and tell first that it begins."""
    import ray

    place = (ray.get_runtime_context().get_node_id(), os.getpid())
    with suppress(ray.exceptions.RayActorError):  # the trial can do without a limit
        ray.get(beginnings.begin.remote(number, place))
    return work(evaluate, number, config)


def is_there(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # ended, and not yet cleared away


def _only_on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
