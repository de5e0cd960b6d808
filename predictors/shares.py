"""Latencies on several devices as one number: the largest share of a budget, in per cent of it.

A network keeps every budget if, and only if, the largest upper end is 100 % at most. The largest
lower end, middle and upper end are taken each by itself: the device with the largest middle need
not be the one whose interval reaches highest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from predictors.latency import Prediction

WHOLE = 100.0  # per cent: all of a budget


class Predictor(Protocol):
    """Knows latencies without timing anything: a `LatencyPredictor`, or a profile."""

    def predict(self, configs: Sequence[Any]) -> Prediction:
        """Return mean and interval of each config's latency."""


@dataclass(frozen=True, kw_only=True)
class SharePredictor:
    """A predictor for each of several devices, which have a budget each."""

    each: tuple[Predictor, ...]
    budgets_ms: tuple[float, ...]

    def predict(self, configs: Sequence[Any]) -> Prediction:
        """Return the largest share of a budget, in per cent, in place of milliseconds."""
        found = self.predict_each(configs)
        mean, low, high = (
            np.max([WHOLE * (ms / budget_ms)
                    for ms, budget_ms in zip(ends, self.budgets_ms, strict=True)], axis=0)
            for ends in ([p.mean_ms for p in found], [p.low_ms for p in found],
                         [p.high_ms for p in found])
        )  # fmt: skip
        return Prediction(mean, low, high)

    def predict_each(self, configs: Sequence[Any]) -> list[Prediction]:
        """Return the latencies in milliseconds on each device."""
        return [predictor.predict(configs) for predictor in self.each]
