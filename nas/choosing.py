"""Which accuracy estimator suits the data, the time and the machine: for `--accuracy auto`.

It trains networks or takes the training-free score; no supernet, which ranks networks worse than
that score (`benchmarks/ranking.py`).
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from statistics import median

from nas.search.pareto import going_on
from nas.study.options import SearchOptions
from predictors.cost import cost
from predictors.data.datasets import ImageData
from search_spaces.fasternet import FasterNetConfig

LEAST, MOST = 12, 200  # trials of a search that trains its networks
SAMPLE, STEPS = 9, 4  # configs whose median is timed, and training steps of it

Clock = Callable[[SearchOptions, ImageData], float]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The options with the estimator and the trials that were chosen, and why."""

    options: SearchOptions
    reason: str


def choose(
    options: SearchOptions, data: ImageData | None, *, minutes: float | None,
    clock: Clock | None = None,
) -> Choice:  # fmt: skip
    """Choose the estimator and, where networks are trained in a given time, how many trials.

    `clock` returns the seconds that an epoch of a typical network takes on one core; unless given,
    some steps are timed. Without a limit of time, networks are trained.
    """
    if data is None:
        return Choice(options=replace(options, accuracy="proxy", data=""),
                      reason="a training-free score, since there is no data")  # fmt: skip
    if minutes is None:
        reason = f"{options.trials} short trainings, since no --time limits them"
        return Choice(options=replace(options, accuracy="train"), reason=reason)
    cores = os.cpu_count() or 1
    training = (clock or epoch_seconds)(options, data) * options.epochs / cores / 60  # minutes
    trials = max(n for n in range(MOST + 1) if n == 0 or _trainings_of(n) * training <= minutes)
    if trials < LEAST:
        reason = (f"a training-free score; {_spelled(minutes)} would do for {trials} short "
                  "trainings only")  # fmt: skip
        return Choice(options=replace(options, accuracy="proxy"), reason=reason)
    reason = (f"{trials} short trainings, which take about "
              f"{_spelled(_trainings_of(trials) * training)}")  # fmt: skip
    return Choice(options=replace(options, accuracy="train", trials=trials), reason=reason)


def _trainings_of(trials: int) -> float:
    """Return how many whole trainings a search comes to.

    All trials train for a quarter of the epochs, those that go on for the next quarter, and those
    of them that go on again for the other half.
    """
    further = going_on(trials)
    return trials / 4 + further / 4 + going_on(further) / 2


def epoch_seconds(options: SearchOptions, data: ImageData) -> float:
    """Train the median of some configs for some steps on one core; return what an epoch takes."""
    import torch

    from predictors.training.batches import batches
    from predictors.training.recipe import Recipe
    from search_spaces.network import build

    rng, space = Random(0), options.open_space()
    configs = [space.sample(rng) for _ in range(SAMPLE)]
    middle = median(cost(config).macs for config in configs)
    config: FasterNetConfig = next(c for c in configs if cost(c).macs == middle)
    size = Recipe().batch_size
    images, labels = next(batches(data.train, data=data, batch_size=size, rng=None))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start = math.nan
        for step in range(STEPS + 1):
            if step == 1:  # the first one warms up
                start = time.monotonic()
            torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        a_step = (time.monotonic() - start) / STEPS
    finally:
        torch.set_num_threads(threads)
    return a_step * len(data.train) / len(images)


def _spelled(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
