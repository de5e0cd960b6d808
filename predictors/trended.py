"""A Gaussian process about a line: what a cheap score of each config tells, and what it misses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.gaussian_process import GaussianProcess, fit_gaussian_process

Array = NDArray[np.float64]

_PSEUDO = 4.0  # results without any slope that the line is fitted to beside the real ones


@dataclass(frozen=True, kw_only=True)
class TrendedProcess:
    """Target = a line through the score + a Gaussian process of the inputs for the rest."""

    slope: float
    process: GaussianProcess

    def predict(self, inputs: Array, scores: Array | None) -> tuple[Array, Array]:
        """Return mean and standard deviation (without noise) at [m, d] inputs and [m] scores."""
        mean, deviation = self.process.predict(inputs)
        return mean + self._line(scores), deviation

    def _line(self, scores: Array | None) -> Array | float:
        return 0.0 if scores is None else self.slope * scores


def fit_trended(
    inputs: Array, targets: Array, scores: Array | None, *,
    start: TrendedProcess | None = None, steps: int = 60, least_noise: float = 0.0,
) -> TrendedProcess:  # fmt: skip
    """Fit to inputs [n, d], targets [n] and, if there are any, scores [n].

    The other arguments are those of `fit_gaussian_process`.
    """
    slope = 0.0 if scores is None else _slope(scores, targets)
    rest = targets if scores is None else targets - slope * scores
    known = None if start is None else start.process.hyperparameters
    process = fit_gaussian_process(inputs, rest, start=known, steps=steps, least_noise=least_noise)
    return TrendedProcess(slope=slope, process=process)


def _slope(scores: Array, targets: Array) -> float:
    """By least squares, drawn to 0 while there are few results."""
    x = scores - scores.mean()
    variance = float(x @ x) / len(x)
    return float(x @ targets) / (len(x) + _PSEUDO) / variance if variance > 0 else 0.0
