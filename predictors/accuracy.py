"""Estimators of how accurate a config's network will be, behind one interface."""

from dataclasses import dataclass
from typing import Literal, Protocol

from search_spaces.fasternet import FasterNetConfig

AccuracyKind = Literal["proxy", "trained"]


class AccuracyEstimator(Protocol):
    """Maps a config to a number, higher for a better network; `kind` says what the number is."""

    @property
    def kind(self) -> AccuracyKind:
        """`proxy`: a training-free score, good for ranking only; `trained`: an accuracy in %."""

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the estimate; the same config gives the same number."""


@dataclass(frozen=True, kw_only=True)
class ProxyEstimator:
    """The training-free score `naswot` (arXiv 2006.04647) of a freshly initialised network."""

    seed: int = 0
    kind: AccuracyKind = "proxy"

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the score."""
        import torch

        from predictors.proxies import naswot
        from search_spaces.network import build

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = build(config)
        return naswot(network, seed=self.seed)
