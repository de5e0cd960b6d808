"""Accuracy predicted from a few dozen trained networks, with its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.cost import costs
from predictors.features import gene_features
from predictors.trended import TrendedProcess, fit_trended
from search_spaces.layers import Layered
from search_spaces.space import Space

Array = NDArray[np.float64]

_FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class AccuracyPrediction:
    """Predicted accuracies of n configs and their standard deviations, each of shape [n]."""

    median: Array
    deviation: Array


@dataclass(frozen=True, kw_only=True)
class AccuracyPredictor:
    """Accuracy = a line through scores + a Gaussian process for what they miss.

    The scores are whatever is at hand for every config and goes with accuracy: a training-free
    score, the accuracy after a short training. The process sees the choices, and the costs where
    the config knows its layers.
    """

    space: Space[Any]
    process: TrendedProcess

    @classmethod
    def fit(
        cls, space: Space[Any], configs: Sequence[Any], accuracies: Sequence[float] | Array, *,
        scores: Array | None = None, least_noise: float = 0.0,
    ) -> "AccuracyPredictor":  # fmt: skip
        """Fit to n trained networks; `scores`, of shape [n] or [n, k], are finite.

        `least_noise` is by how much chance alone moves an accuracy, as a standard deviation in its
        unit, where that is known: a few dozen networks hardly tell.

        Raises:
            ValueError: if there are fewer than four, the lengths differ, or one is no number.
        """
        truth = np.asarray(accuracies, dtype=float)
        if len(configs) < _FEWEST or len(configs) != len(truth):
            raise ValueError(f"`configs` must hold {_FEWEST} trained networks or more and "
                             f"`accuracies` one number for each, but got {len(configs)} and "
                             f"{len(truth)}.")  # fmt: skip
        if not np.isfinite(truth).all():
            wrong = truth[~np.isfinite(truth)][0]
            raise ValueError(f"`accuracies` must be finite, but got {wrong}. Leave that network "
                             "out.")  # fmt: skip
        process = fit_trended(_inputs(space, configs), truth, scores, least_noise=least_noise)
        return cls(space=space, process=process)

    def predict(
        self, configs: Sequence[Any], *, scores: Array | None = None
    ) -> AccuracyPrediction:  # fmt: skip
        """Return the predicted accuracies; `scores` must be there if they were when fitting.

        Raises:
            ValueError: if there are more or fewer scores than when fitting.
        """
        inputs = _inputs(self.space, configs)
        median, deviation = self.process.predict(inputs, scores, noisy=True)
        return AccuracyPrediction(median=median, deviation=deviation)


def _inputs(space: Space[Any], configs: Sequence[Any]) -> Array:
    genes = gene_features(space, configs)
    if not len(configs) or not isinstance(configs[0], Layered):
        return genes
    found = costs(configs)
    return np.column_stack([genes, np.log(found.macs), np.log(found.params),
                            np.log(found.memory_bytes)])  # fmt: skip
