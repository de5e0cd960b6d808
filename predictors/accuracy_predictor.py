"""Accuracy predicted from a few dozen trained networks, with its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.cost import costs
from predictors.features import gene_features
from predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from search_spaces.layers import Layered
from search_spaces.space import Space

Array = NDArray[np.float64]

_RIDGE = 1.0  # on standardised columns: a third of what one network in a few dozen says
_FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class AccuracyPrediction:
    """Predicted accuracies of n configs and their standard deviations, each of shape [n]."""

    mean: Array
    deviation: Array


@dataclass(frozen=True, kw_only=True)
class AccuracyPredictor:
    """Accuracy = a ridge regression + a Gaussian process for what that misses.

    Both see the choices, the costs where the config knows its layers, and whatever scores are at
    hand for every config: training-free ones, or accuracies after a short training.
    """

    space: Space[Any]
    centre: Array  # of the inputs
    spread: Array
    coefficients: Array  # of the trend, the constant first
    residual: GaussianProcess

    @classmethod
    def fit(
        cls, space: Space[Any], configs: Sequence[Any], accuracies: Sequence[float] | Array, *,
        scores: Array | None = None,
    ) -> "AccuracyPredictor":  # fmt: skip
        """Fit to trained networks; `scores`, of shape [n, k], are finite and say more of each.

        Raises:
            ValueError: if there are fewer than four, or the lengths differ.
        """
        truth = np.asarray(accuracies, dtype=float)
        if len(configs) < _FEWEST or len(configs) != len(truth):
            raise ValueError(f"`configs` must hold {_FEWEST} trained networks or more and "
                             f"`accuracies` one number for each, but got {len(configs)} and "
                             f"{len(truth)}.")  # fmt: skip
        inputs = _inputs(space, configs, scores)
        centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
        spread = np.where(spread > 1e-9, spread, 1.0)
        z = (inputs - centre) / spread
        coefficients = _ridge(z, truth)
        return cls(
            space=space, centre=centre, spread=spread, coefficients=coefficients,
            residual=fit_gaussian_process(z, truth - _trend(z, coefficients)),
        )  # fmt: skip

    def predict(
        self, configs: Sequence[Any], *, scores: Array | None = None
    ) -> AccuracyPrediction:  # fmt: skip
        """Return the predicted accuracies; `scores` must be there if they were when fitting.

        Raises:
            ValueError: if there are more or fewer scores than when fitting.
        """
        inputs = _inputs(self.space, configs, scores)
        if inputs.shape[1] != len(self.centre):
            raise ValueError(f"`scores` must have as many columns as when fitting, but got "
                             f"{0 if scores is None else scores.shape[1]}.")  # fmt: skip
        z = (inputs - self.centre) / self.spread
        mean, deviation = self.residual.predict(z)
        return AccuracyPrediction(mean=_trend(z, self.coefficients) + mean,
                                  deviation=np.hypot(deviation, self.residual.noise))  # fmt: skip


def _inputs(space: Space[Any], configs: Sequence[Any], scores: Array | None) -> Array:
    tables = [gene_features(space, configs)]
    if len(configs) and isinstance(configs[0], Layered):
        found = costs(configs)
        tables.append(np.log(np.column_stack([found.macs, found.params, found.memory_bytes])))
    if scores is not None:
        tables.append(np.asarray(scores, dtype=float).reshape(len(configs), -1))
    return np.column_stack(tables)


def _ridge(z: Array, truth: Array) -> Array:
    centred = truth - truth.mean()
    solution = np.linalg.solve(z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1]), z.T @ centred)
    return np.concatenate([[truth.mean()], solution])


def _trend(z: Array, coefficients: Array) -> Array:
    trend: Array = z @ coefficients[1:] + coefficients[0]
    return trend
