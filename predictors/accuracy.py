"""Estimators of how accurate a config's network will be, behind one interface."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal, Protocol

from predictors.structure import STRUCTURE
from search_spaces.fasternet import FASTERNET, FasterNetConfig

AccuracyKind = Literal["proxy", "trained", "supernet"]


class AccuracyEstimator(Protocol):
    """Maps a config to a number, higher for a better network; `kind` says what the number is."""

    @property
    def kind(self) -> AccuracyKind:
        """What the number is.

        `proxy`: a training-free score, good for ranking only; `trained`: an accuracy in %;
        `supernet`: one in % with weights that all networks share, lower than that when trained.
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
        t0, t2 = FASTERNET["t0"], FASTERNET["t2"]
        return 100 * (1 + fmean((score(config) - score(t0)) / (score(t2) - score(t0))
                                for score in STRUCTURE.values()))  # fmt: skip
