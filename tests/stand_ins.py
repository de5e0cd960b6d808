"""Boards that time nothing, for what deals with boards; they go to Ray's workers by value."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from predictors.devices.device import Measures, Network
from predictors.measurement import Backend, Context, Latency, Reference


def stand_in(
    board: str, time_one: Callable[[], Any] = str, *, slower: float = 1.0, kept_ms: float = 1.0
) -> Measures:
    """A board on which every network takes twice the kept reference.

    Timing one means calling a function; `said` tells what came, `classes` of which network.
    """

    class StandIn:  # an inner class, so Ray's workers need not find this file
        name = board
        description = "a stand-in: measured"
        source: Literal["measured"] = "measured"
        backends = (Backend("onnxruntime"),)
        remarks: Sequence[str] = ()

        def measure(self, network: Network) -> Latency:
            return next(self.measure_each([network]))

        def measure_each(self, networks: Any, *, repeats: int | None = None) -> Iterator[Latency]:
            for config in networks:
                context = Context(
                    machine="m",
                    runtime_version="1",
                    references={
                        "small": Reference(kept_ms=kept_ms, now_ms=slower),
                        "t0": Reference(kept_ms=4 * kept_ms, now_ms=4 * slower),
                    },
                    nearness=0.5,
                    session=json.dumps({"said": time_one(), "classes": config.classes}),
                )
                yield Latency(
                    median_ms=2 * kept_ms,
                    low_ms=1.9 * kept_ms,
                    high_ms=2.1 * kept_ms,
                    source="measured",
                    device=self.name,
                    backend=self.backends[0],
                    context=context,
                )

    return StandIn()


def said(latency: Latency) -> Any:
    """What came of timing it."""
    return json.loads(latency.context.session)["said"]


def classes(latency: Latency) -> Any:
    """The classes of the network that was timed."""
    return json.loads(latency.context.session)["classes"]
