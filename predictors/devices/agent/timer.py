"""The process that times single inferences of loaded models: a fresh one for each repetition."""

from __future__ import annotations

import os
import resource
import time
from importlib import import_module
from typing import TYPE_CHECKING

from predictors.devices.agent.cores import Choice, choose
from predictors.devices.agent.host import heat, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from predictors.devices.agent.host import Message

    Inference = Callable[[], object]


class Timer:
    """Holds loaded models and times single inferences of them."""

    def __init__(
        self, infer: Sequence[Inference] = (), call: Callable[[Inference], float] | None = None
    ) -> None:
        self._models = list(infer)
        self._call = call or _call

    def answer(self, request: Message) -> Message:
        """Answer one request."""
        if "start" in request:
            start = request["start"]
            settled = _settle(start["threads"], start.get("cores"))
            backend = import_module(start["module"])  # which came with this program
            self._models = backend.load(start)
            self._call = backend.event_ms if start["clock"] == "event_ms" else _call
            return {"ready": settled}
        return self._time(self._models[request["time"]], request["discard"], request["repeats"])

    def _time(self, infer: Inference, discard: int, repeats: int) -> Message:
        """Time one inference after another; `preempted`: did others take the core meanwhile?"""
        for _ in range(discard):
            self._call(infer)  # a GPU may be behind: it is waited for, as it is in the samples
        wall, cpu, events, preempted = [], [], [], []
        for _ in range(repeats):
            switches = _switches()
            wall_start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
            events.append(self._call(infer))
            cpu.append((time.process_time_ns() - cpu_start) / 1e6)
            wall.append((time.perf_counter_ns() - wall_start) / 1e6)
            preempted.append(int(_switches() > switches))
        times = {"wall_ms": wall, "cpu_ms": cpu, "event_ms": events}
        return {**times, "preempted": preempted, **heat()}


def _call(infer: Inference) -> float:
    infer()
    return 0.0  # no time by events


def _switches() -> int:
    """How often a core was taken from this process against its will."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _settle(threads: int, asked: list[int] | None) -> dict[str, object]:
    """Pin to the cores, or to those that suit, at real-time priority if permitted."""
    chosen = Choice(tuple(asked), "as asked") if asked else choose(threads)
    settled: dict[str, object] = {"pinned": False, "realtime": False}
    try:
        os.sched_setaffinity(0, chosen.cores)
        settled = {**settled, "pinned": True, "cores": chosen.cores, "why": chosen.why}
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        settled["realtime"] = True
    except (OSError, AttributeError) as error:  # not permitted, or not this system
        if asked and not settled["pinned"]:
            numbers = ",".join(map(str, asked))
            raise ValueError(f"the cores {numbers} cannot be used: {error}") from None
    return settled


def main() -> None:
    """Time what is asked for until the input ends."""
    timer = Timer()
    serve(lambda request, _: timer.answer(request))
