"""A front is recommended once it was timed in as many processes as it takes, and not before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from networks import LARGER, TINY

from nas.candidate import Candidate
from nas.study.options import SearchOptions
from nas.verifying import PROCESSES, verify
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FasterNetConfig

PREDICTED = Latency(median_ms=1.0, low_ms=0.9, high_ms=1.1, source="predicted", device="cpu",
                        backend=Backend("onnxruntime"))  # fmt: skip


def _timed(processes: int) -> Latency:
    return replace(PREDICTED, source="measured", samples_ms=((1.0, 1.0),) * processes)


class Clock:
    """A device that takes note of what it times, in at most so many processes."""

    def __init__(self, most: int) -> None:
        self.timed: list[FasterNetConfig] = []
        self._most = most

    def measure_each(
        self, networks: Sequence[FasterNetConfig], *, repeats: int
    ) -> Iterator[Latency]:
        self.timed += networks
        yield from [_timed(min(repeats, self._most))] * len(networks)


class Record(dict[FasterNetConfig, Latency]):
    """What is known of latencies, as a study keeps it."""

    keep_measurement = dict.__setitem__


@dataclass
class Searched:
    """A run whose front is all that it knows."""

    options: SearchOptions
    device: Any
    study: Any

    def candidates(self, *, searching: bool = False) -> list[Candidate]:
        assert searching
        return [Candidate(name="", config=config, accuracy=1.0, accuracy_kind="proxy", macs=1,
                          params=1, latency=latency, feasible=True, on_front=True)
                for config, latency in self.study.items()]  # fmt: skip


@pytest.mark.parametrize("most", [PROCESSES, 1])
def test_what_the_calibration_timed_briefly_is_timed_again_once(most: int) -> None:
    well = replace(TINY, classes=3)
    record = Record({TINY: _timed(1), LARGER: PREDICTED, well: _timed(PROCESSES)})
    clock = Clock(most)
    options = SearchOptions(device="cpu", budget_ms=5.0)
    record.folder = None  # type: ignore[attr-defined]
    steps = list(verify(Searched(options, clock, record)))
    assert clock.timed == [TINY, LARGER]
    assert steps == [(2, 3), (3, 3)]
    assert [len(latency.samples_ms) for latency in record.values()] == [most, most, PROCESSES]
