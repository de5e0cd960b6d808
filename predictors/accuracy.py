"""Estimators of how accurate a config's network will be, behind one interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.structure import STRUCTURE
from search_spaces.fasternet import FASTERNET, FasterNetConfig

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

    The binomial one at their mean. Networks that are judged on the same images are wrong together
    to some degree, which makes it too large, but seeds add what it does not have.
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
