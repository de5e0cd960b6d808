"""How accurate a network will be: what says it, and what learns it while networks are trained.

What a FasterNet is estimated to reach on ImageNet-1k without any training is in `top1`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.cost import costs
from predictors.features import gene_features
from predictors.gp import TrendedProcess, fit_trended
from search_spaces.fasternet import FasterNetConfig
from search_spaces.layers import is_layered
from search_spaces.space import AnySpace

AccuracyKind = Literal["estimated", "score", "trained"]


class AccuracyEstimator(Protocol):
    """Maps a config to a number, higher for a better network; `kind` says what the number is."""

    @property
    def kind(self) -> AccuracyKind:
        """What the number is.

        `estimated`: the lower end of an estimate's 90 % interval, in %, so that what is little
        known does not win; `score`: any training-free number, of another package's, which ranks
        networks; `trained`: an accuracy in %.
        """

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the estimate; the same config gives the same number."""


def binomial_error(accuracies: NDArray[np.float64], images: int | None) -> float:
    """Return the standard error of accuracies, in percent, on so many images; 0 if not known.

    The binomial one at their mean. Networks that are evaluated on the same images are wrong
    together to some degree, which makes it too large, but seeds add what it does not have.
    """
    if not images:
        return 0.0
    share = np.clip(np.mean(accuracies) / 100, 0.0, 1.0)
    return float(100 * np.sqrt(share * (1 - share) / images))


Array = NDArray[np.float64]

_FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class AccuracyPrediction:
    """Predicted accuracies of n configs and their standard deviations, each of shape [n]."""

    median: Array
    std: Array


@dataclass(frozen=True, kw_only=True)
class AccuracyPredictor:
    """Accuracy = a line through scores + a Gaussian process for what they miss.

    The scores are whatever is at hand for every config and goes with accuracy: a training-free
    score, the accuracy after a short training. The process sees the choices, and the costs where
    the config knows its layers.
    """

    space: AnySpace
    process: TrendedProcess

    @classmethod
    def fit(
        cls,
        space: AnySpace,
        configs: Sequence[object],
        accuracies: Sequence[float] | Array,
        *,
        scores: Array | None = None,
        least_noise: float = 0.0,
    ) -> "AccuracyPredictor":
        """Fit to n trained networks; `scores`, of shape [n] or [n, k], are finite.

        `least_noise` is by how much chance alone moves an accuracy, as a standard deviation in its
        unit, where that is known: a few dozen networks hardly tell.
        """
        truth = np.asarray(accuracies, dtype=float)
        if len(configs) < _FEWEST or len(configs) != len(truth):
            raise ValueError(
                f"`configs` must hold {_FEWEST} trained networks or more and `accuracies` one "
                f"number for each, but got {len(configs)} and {len(truth)}."
            )
        if not np.isfinite(truth).all():
            wrong = truth[~np.isfinite(truth)][0]
            raise ValueError(
                f"`accuracies` must be finite, but got {wrong}. Leave that network out."
            )
        process = fit_trended(_inputs(space, configs), truth, scores, least_noise=least_noise)
        return cls(space=space, process=process)

    def predict(
        self, configs: Sequence[object], *, scores: Array | None = None
    ) -> AccuracyPrediction:
        """Return the predicted accuracies; `scores` must be there if they were when fitting."""
        inputs = _inputs(self.space, configs)
        median, std = self.process.predict(inputs, scores, noisy=True)
        return AccuracyPrediction(median=median, std=std)


def _inputs(space: AnySpace, configs: Sequence[object]) -> Array:
    genes = gene_features(space, configs)
    if not len(configs) or not is_layered(configs[0]):
        return genes
    found = costs(configs)
    logs = [np.log(c) for c in (found.macs, found.params, found.memory_bytes)]
    return np.column_stack([genes, *logs])
