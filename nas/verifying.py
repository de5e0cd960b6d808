"""The front of a study as it is recommended: every network timed, every file judged."""

from collections.abc import Iterator
from typing import Protocol

from nas.candidate import Candidate
from nas.estimators import open_weights
from nas.study.file_accuracies import judge, unjudged
from nas.study.options import SearchOptions
from nas.study.store import Study
from predictors.devices.device import Device
from predictors.measurement import Latency, TimingProtocol
from search_spaces.fasternet import FasterNetConfig

PROCESSES = TimingProtocol().repeats  # that time the networks of a front
ROUNDS = 6  # of timing what has come onto the front


class Searched(Protocol):
    """A run whose search is over."""

    options: SearchOptions
    device: Device
    study: Study

    def candidates(self, *, searching: bool = False) -> list[Candidate]:
        """Every network with scores; the front is marked."""


def verify(run: Searched) -> Iterator[tuple[int, int]]:
    """Time the front, and what takes the place of those that miss the budget or lose accuracy.

    What the calibration timed in fewer processes is timed again. Yields how many networks of the
    front are timed, and of how many.
    """
    begun: set[FasterNetConfig] = set()
    for _ in range(ROUNDS):
        front = _front(run)
        waiting = [c.config for c in front if c.config not in begun and not _well_timed(c.latency)]
        begun.update(waiting)
        done = len(front) - len(waiting)
        measured = run.device.measure_each(waiting, repeats=PROCESSES)
        for config, measurement in zip(waiting, measured, strict=True):
            done += 1
            run.study.keep_measurement(config, measurement)
            yield done, len(front)
        if not _judge_files(run) and not waiting:
            return


def _well_timed(latency: Latency) -> bool:
    """Whether each device with a clock has timed it in as many processes as a front is timed in."""
    read = [part for _, part in latency.on_each if part.source == "measured"]
    return bool(read) and all(len(part.samples_ms) >= PROCESSES for part in read)


def _front(run: Searched) -> list[Candidate]:
    return [c for c in run.candidates(searching=True) if c.on_front]


def _judge_files(run: Searched) -> int:
    """Measure what the files of the front lose that are not in fp32; return how many."""
    weights = open_weights(run.options, run.study.folder)
    if weights is None:
        return 0
    waiting = [
        (c.config, form, c.fp32_accuracy) for c in _front(run) if c.fp32_accuracy is not None
        for form in unjudged(c.fp32_accuracy, c.latency, run.study.files.get(c.config, {}))
    ]  # fmt: skip
    for config, form, accuracy in waiting:
        found = judge(weights, config, form, of=accuracy, data=run.options.data)
        run.study.keep_file(config, form, found)
    return len(waiting)
