"""How accurate a network will be: from its structure alone, or learned from trained networks.

The scores of a structure were found on the 96 networks of PConv-Bench (`benchmarks/`) that are
spread over their space; `benchmarks/ranking.py` judges them, on the other networks too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.cost import costs
from predictors.gp import TrendedProcess, fit_trended
from predictors.latency import gene_features
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.layers import Layered
from search_spaces.space import AnySpace


def fine_units(config: FasterNetConfig) -> float:
    """The logarithm of the hidden units at each place of the finest map, in the first stage."""
    return math.log(config.depths[0] * config.hidden_widths[0])


def late_mixing(config: FasterNetConfig) -> float:
    """The logarithm of PConv's weights in a stage, its mean over the last two stages."""
    stages = list(zip(config.depths, config.partial_widths, strict=True))[: config.stages]
    return fmean(math.log(depth * 9 * width**2) for depth, width in stages[-2:])


def last_width(config: FasterNetConfig) -> float:
    """The logarithm of the channels of the last stage."""
    return math.log(config.out_width)


STRUCTURE: Mapping[str, Callable[[FasterNetConfig], float]] = {
    "fine_units": fine_units,
    "late_mixing": late_mixing,
    "last_width": last_width,
}


AccuracyKind = Literal["proxy", "trained", "supernet"]


class AccuracyEstimator(Protocol):
    """Maps a config to a number, higher for a better network; `kind` says what the number is."""

    @property
    def kind(self) -> AccuracyKind:
        """What the number is.

        `proxy`: a training-free score, good for ranking only; `trained`: an accuracy in %;
        `supernet`: how likely the labels are, in %, with weights that all networks share.
        """

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the estimate; the same config gives the same number."""


@dataclass(frozen=True, kw_only=True)
class ProxyEstimator:
    """The training-free score: FasterNet-T0 has 100 and T2 has 200.

    The mean of the scores of `STRUCTURE`, each in units of its difference between T0 and T2: the
    hidden units where the map is finest, the weights by which PConv mixes places where it is
    coarsest, and the width at the end. No network is built. It sees neither the image size nor the
    activation.
    """

    kind: AccuracyKind = "proxy"

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the score of a config."""
        return float(proxy_scores([config])[0])


def proxy_scores(configs: Sequence[FasterNetConfig]) -> NDArray[np.float64]:
    """Return the training-free score of each config, as `ProxyEstimator` does of one."""
    t0, t2 = _scores_of("t0"), _scores_of("t2")  # each of shape [1, 3]
    units = (_scores(configs) - t0) / (t2 - t0)
    return 100 * (1 + np.asarray(units.mean(axis=1)))


def binomial_error(accuracies: NDArray[np.float64], images: int | None) -> float:
    """Return the standard error of accuracies, in percent, on so many images; 0 if not known.

    The binomial one at their mean. Networks that are evaluated on the same images are wrong
    together to some degree, which makes it too large, but seeds add what it does not have.
    """
    if not images:
        return 0.0
    share = np.clip(np.mean(accuracies) / 100, 0.0, 1.0)
    return float(100 * np.sqrt(share * (1 - share) / images))


@cache
def _scores_of(name: str) -> NDArray[np.float64]:
    return _scores([FASTERNET[name]])


def _scores(configs: Sequence[FasterNetConfig]) -> NDArray[np.float64]:
    """Return the scores of `STRUCTURE`, of shape [n, 3]."""
    found = [[score(config) for score in STRUCTURE.values()] for config in configs]
    return np.array(found, dtype=float).reshape(-1, len(STRUCTURE))


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
    if not len(configs) or not isinstance(configs[0], Layered):
        return genes
    found = costs(configs)
    logs = [np.log(c) for c in (found.macs, found.params, found.memory_bytes)]
    return np.column_stack([genes, *logs])
