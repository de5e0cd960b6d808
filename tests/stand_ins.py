"""Boards that time nothing, for what deals with boards; they go to Ray's workers by value."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from predictors.backends.model import Model
from predictors.devices.device import Device
from predictors.latency import Prediction
from predictors.measurement import Backend, Latency, Source
from search_spaces.fasternet import FasterNetConfig


def stand_in(
    board: str, time_one: Callable[[], Any] = str, *, slower: float = 1.0, kept_ms: float = 1.0
) -> Device:
    """A board on which every network takes twice the kept reference.

    Timing one means calling a function; the context says what came.
    """

    class StandIn:  # an inner class, so Ray's workers need not find this file
        name = board
        description = "a stand-in: measured"
        source: Source = "measured"
        runtime = "onnxruntime"
        precision = "fp32"
        threads, remarks = 1, ()

        def measure(self, network: FasterNetConfig | Model) -> Latency:
            return next(self.measure_each([network]))

        def measure_each(self, networks: Any, *, processes: int = 3) -> Iterator[Latency]:
            references = {
                "small": {"kept_ms": kept_ms, "now_ms": slower},
                "t0": {"kept_ms": 4 * kept_ms, "now_ms": 4 * slower},
            }
            for config in networks:
                yield Latency(
                    median_ms=2 * kept_ms, low_ms=1.9 * kept_ms, high_ms=2.1 * kept_ms,
                    source="measured", device=self.name, backend=Backend("onnxruntime"),
                    context={"references": references, "machine": "m", "runtime_version": "1",
                             "said": time_one(), "classes": config.classes, "nearness": 0.5},
                )  # fmt: skip

        def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
            raise NotImplementedError

    return StandIn()
