"""Estimators of how accurate a config's network will be, behind one interface."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol

from search_spaces.fasternet import FASTERNET, FasterNetConfig

if TYPE_CHECKING:
    from search_spaces.network import FasterNet

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

    The mean of two scores, each in units of its difference between T0 and T2: the synaptic flow
    (arXiv 2006.05467), which rises with depth, and the logarithm of the parameters, which rises
    with width. Either alone leads a search to extremes.
    """

    seed: int = 0
    kind: AccuracyKind = "proxy"

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the score of the config's network, freshly initialised."""
        zero, one = _yardstick(self.seed)
        found = _scores(config, self.seed)
        parts = [(x - a) / (b - a) for x, a, b in zip(found, zero, one, strict=True)]
        return 100 * (1 + sum(parts) / len(parts))


@cache
def _yardstick(seed: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The two scores of T0 and of T2."""
    return _scores(FASTERNET["t0"], seed), _scores(FASTERNET["t2"], seed)


def _scores(config: FasterNetConfig, seed: int) -> tuple[float, ...]:
    from predictors.proxies import log_parameters, log_synflow

    network = _initialised(config, seed)
    return log_synflow(network), log_parameters(network)


def _initialised(config: FasterNetConfig, seed: int) -> "FasterNet":
    import torch

    from search_spaces.network import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config)
