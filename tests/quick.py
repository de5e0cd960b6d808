"""Searches and timings that take seconds: without Ray; short and imprecise."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
from networks import LARGER, TINY

from nas.search.trial import Evaluate, InProcess
from nas.study.options import SearchSettings
from predictors import calibration
from predictors.measurement import TimingProtocol

# Of fewer than six rounds there is no interval. What is timed is what is timed in earnest.
QUICK = TimingProtocol(
    repeats=1,
    rounds=(6, 6),
    most_rounds=6,
    most_warm_up=2,
    pauses=0,
    discard_ms=1.0,
    block_ms=4.0,
    inferences=(3, 10),
    attempt_pause_s=0.1,
    retry_s=0.2,
)
REFERENCES = {
    "small": replace(TINY, resolution=48),
    "t0": replace(LARGER, widths=(32, 64), depths=(2, 2)),
}
POOL = calibration.POOL  # as it is in earnest
# Of the named sizes those are timed that are far within the budget.
FEW = SearchSettings(calibration=12, front_repeats=1, timed_ratio=0.5)


def time_quickly(patch: pytest.MonkeyPatch) -> None:
    """Time in this process by `QUICK`, beside references that are small, and `FEW` networks."""
    patch.setattr("nas.pipeline.SETTINGS", FEW)
    patch.setattr("predictors.calibration.POOL", 600)
    patch.setattr("predictors.devices.registry.PROTOCOL", QUICK)
    patch.setattr("predictors.devices.timed.REFERENCES", REFERENCES)


def evaluate_here(patch: pytest.MonkeyPatch) -> None:
    """Evaluate trials in this process: Ray and its workers take ten seconds to start."""

    @contextmanager
    def in_process(
        evaluate: Evaluate[Any], *, address: str | None, timeout_s: float | None, gpu: float
    ) -> Iterator[InProcess[Any]]:
        assert (address, timeout_s) == (None, None)
        del gpu
        yield InProcess(evaluate)

    patch.setattr("nas.pipeline.RayPool", in_process)
    patch.setattr("nas.pipeline.joined", nullcontext)
    patch.setattr("nas.pipeline.through_ray", lambda devices, _: nullcontext(devices))
