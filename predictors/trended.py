"""A Gaussian process about a line: what cheap scores of each config tell, and what they miss."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from predictors.warping import Warping, fit_warping

Array = NDArray[np.float64]

_PSEUDO = 4.0  # results without any slope that the line is fitted to beside the real ones


@dataclass(frozen=True, kw_only=True)
class TrendedProcess:
    """Warped target = a line through k scores + a Gaussian process of the inputs for the rest."""

    warping: Warping
    slopes: Array  # [k]
    process: GaussianProcess

    def predict(
        self, inputs: Array, scores: Array | None, *, noisy: bool = False
    ) -> tuple[Array, Array]:  # fmt: skip
        """Return medians and standard deviations of targets at [m, d] inputs, [m, k] scores.

        `noisy`: deviations of what would be found, which chance moves too.

        Raises:
            ValueError: if there are more or fewer scores than when fitting.
        """
        median, deviation = self.warping.spread(*self.predict_warped(inputs, scores))
        noise = self.warping.scale * self.process.noise if noisy else 0.0
        return median, np.hypot(deviation, noise)

    def predict_warped(self, inputs: Array, scores: Array | None) -> tuple[Array, Array]:
        """Return mean and standard deviation on the scale on which targets are normal."""
        columns = _columns(scores, len(inputs))
        if columns.shape[1] != len(self.slopes):
            raise ValueError(f"`scores` must have as many columns as when fitting, "
                             f"{len(self.slopes)}, but got {columns.shape[1]}.")  # fmt: skip
        mean, deviation = self.process.predict(inputs)
        return mean + columns @ self.slopes, deviation


def fit_trended(
    inputs: Array, targets: Array, scores: Array | None, *,
    start: TrendedProcess | None = None, steps: int = 60, least_noise: float = 0.0,
) -> TrendedProcess:  # fmt: skip
    """Fit to inputs [n, d], targets [n] and, if there are any, scores [n] or [n, k].

    The other arguments are those of `fit_gaussian_process`.
    """
    warping = fit_warping(targets, least_noise=least_noise)
    warped, columns = warping.warped(targets), _columns(scores, len(inputs))
    slopes = _slopes(columns, warped)
    known = None if start is None else start.process.hyperparameters
    process = fit_gaussian_process(inputs, warped - columns @ slopes, start=known, steps=steps,
                                   least_noise=least_noise / warping.scale)  # fmt: skip
    return TrendedProcess(warping=warping, slopes=slopes, process=process)


def _columns(scores: Array | None, count: int) -> Array:
    return np.empty((count, 0)) if scores is None else scores.reshape(count, -1)


def _slopes(columns: Array, targets: Array) -> Array:
    """By ridge regression: drawn to 0 while there are few results."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    z = centred / np.where(spread > 0, spread, 1.0)
    slopes = np.linalg.solve(z.T @ z + _PSEUDO * np.eye(z.shape[1]), z.T @ targets)
    return np.where(spread > 0, slopes / np.where(spread > 0, spread, 1.0), 0.0)
