"""A front is recommended once it was timed in as many processes as it takes, and not before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import LARGER, TINY
from specs import candidate, each, latency, on

from nas.candidates import Candidate
from nas.pipeline import Run, time_front
from nas.study.options import SearchOptions, SearchSettings
from predictors.measurement import Latencies, Latency
from search_spaces.fasternet import FasterNetConfig

REPEATS = SearchSettings().front_repeats
PREDICTED = each(latency(1.0, source="predicted"))


def _timed(repeats: int) -> Latency:
    return replace(latency(1.0), samples_ms=((1.0, 1.0),) * repeats)


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


class Searched(Run):
    """A run whose front is all that it knows."""

    known: dict[FasterNetConfig, Latencies]

    def candidates(self, *, searching: bool = False) -> list[Candidate]:
        assert searching
        known: Mapping[FasterNetConfig, Latencies] = {**self.known, **self.study.measurements}
        found = [candidate("", c, 1.0, latencies, {"cpu": 5.0}) for c, latencies in known.items()]
        return [replace(one, on_front=True) for one in found]


@pytest.mark.parametrize("most", [REPEATS, 1])
def test_what_the_calibration_timed_briefly_is_timed_again_once(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.pipeline.SETTINGS", SearchSettings())
    well = replace(TINY, classes=3)
    clock: Any = Clock(most)
    run = Searched(tmp_path, SearchOptions(devices=on("cpu", 5.0)), {"cpu": clock})
    run.known = {TINY: each(_timed(1)), LARGER: PREDICTED, well: each(_timed(REPEATS))}
    steps = [(at.done, at.total) for at in time_front(run)]
    run.close()
    assert clock.timed == [TINY, LARGER]
    assert steps == [(2, 3), (3, 3)]
    counts = {c: len(m.by_device["cpu"].samples_ms) for c, m in run.study.measurements.items()}
    assert counts == {TINY: most, LARGER: most}
