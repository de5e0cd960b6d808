"""Estimators of how accurate a config's network will be, behind one interface."""

from collections.abc import Mapping, Sequence
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


# Shares of the training-free scores in the default one, each in units of its difference between T0
# and T2.
SHARES: Mapping[str, float] = {"synflow": 0.5, "parameters": 0.5}


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
        names = tuple(SHARES)
        found = zip(SHARES.values(), _scores(config, names, self.seed), t0_of(names, self.seed),
                    t0_to_t2(names, self.seed), strict=True)  # fmt: skip
        return 100 * (1 + sum(share * (x - t0) / unit for share, x, t0, unit in found))


@cache
def t0_of(proxies: tuple[str, ...], seed: int = 0) -> tuple[float, ...]:
    """Return training-free scores, by their names in `PROXIES`, of T0."""
    return _scores(FASTERNET["t0"], proxies, seed)


@cache
def t0_to_t2(proxies: tuple[str, ...], seed: int = 0) -> tuple[float, ...]:
    """Return by how much training-free scores, by their names in `PROXIES`, rise from T0 to T2."""
    t2 = _scores(FASTERNET["t2"], proxies, seed)
    return tuple(b - a for a, b in zip(t0_of(proxies, seed), t2, strict=True))


def _scores(config: FasterNetConfig, proxies: Sequence[str], seed: int) -> tuple[float, ...]:
    from predictors.proxies import PROXIES

    network = _initialised(config, seed)
    return tuple(PROXIES[name](network) for name in proxies)


def _initialised(config: FasterNetConfig, seed: int) -> "FasterNet":
    import torch

    from search_spaces.network import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config)
