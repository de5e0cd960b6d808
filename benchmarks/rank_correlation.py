"""How well one quantity ranks networks by another: rank correlations, also at equal latency.

Ties count as in Kendall's tau-b and in Spearman's average ranks. Within bands, each network is
compared with those of nearly its own latency, since that is the choice a search has to make: among
networks of very different latencies, latency itself ranks well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array, Array], float]  # of scores, accuracies, latencies

BAND = 0.15  # a band holds the latencies from 15 % under its middle to 15 % above
FEWEST = 5  # networks in a band


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A rank correlation with its 95 % interval, by bootstrap over the networks."""

    value: float
    low: float
    high: float


def kendall(scores: Sequence[float] | Array, truth: Sequence[float] | Array) -> float:
    """Kendall's tau-b: agreeing pairs less disagreeing ones, in -1 to 1; 0 where all are tied."""
    return float(_kendall_within(_signs(scores), _signs(truth), _everyone(scores))[0])


def spearman(scores: Sequence[float] | Array, truth: Sequence[float] | Array) -> float:
    """Spearman's rho: the correlation of ranks, in -1 to 1; 0 where all are tied."""
    return float(_spearman_within(_signs(scores), _signs(truth), _everyone(scores))[0])


def kendall_in_bands(scores: Array, truth: Array, latencies_ms: Array) -> float:
    """The mean of Kendall's tau over the bands of all networks; NaN where no band has enough."""
    return _mean(_kendall_within(_signs(scores), _signs(truth), bands_of(latencies_ms)))


def spearman_in_bands(scores: Array, truth: Array, latencies_ms: Array) -> float:
    """The mean of Spearman's rho over the bands of all networks; NaN where no band has enough."""
    return _mean(_spearman_within(_signs(scores), _signs(truth), bands_of(latencies_ms)))


def bands_of(latencies_ms: Array) -> Array:
    """Return a row for each network with neighbours enough: 1 for those within its band, else 0."""
    ms = np.asarray(latencies_ms, dtype=float)
    near = (np.abs(ms[None, :] / ms[:, None] - 1) <= BAND).astype(float)
    found: Array = near[near.sum(axis=1) >= FEWEST]
    return found


STATISTICS: dict[str, Statistic] = {
    "kendall": lambda scores, truth, _: kendall(scores, truth),
    "spearman": lambda scores, truth, _: spearman(scores, truth),
    "kendall in bands": kendall_in_bands,
    "spearman in bands": spearman_in_bands,
}


def bootstrapped(
    statistic: Statistic,
    scores: Array,
    truth: Array,
    latencies_ms: Array,
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Correlation:
    """Return a statistic with the interval that it has over resampled networks.

    Raises:
        ValueError: if the arrays are of different lengths or of fewer than two networks.
    """
    found = _resampled(partial(_of, statistic), [scores, truth, latencies_ms], seed, resamples)
    low, high = _interval(found)
    return Correlation(value=statistic(scores, truth, latencies_ms), low=low, high=high)


def difference(
    statistic: Statistic,
    scores: tuple[Array, Array],
    truth: Array,
    latencies_ms: Array,
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Correlation:
    """Return by how much the first scores rank better than the second, on the same resamples.

    Raises:
        ValueError: if the arrays are of different lengths or of fewer than two networks.
    """

    def gain(sample: Sequence[Array]) -> float:
        first, second, accuracy, ms = sample
        return statistic(first, accuracy, ms) - statistic(second, accuracy, ms)

    arrays = [*scores, truth, latencies_ms]
    low, high = _interval(_resampled(gain, arrays, seed, resamples))
    return Correlation(value=gain(arrays), low=low, high=high)


def _interval(found: Sequence[float]) -> tuple[float, float]:
    """Where 95 % of the numbers lie; NaN, as those without enough networks are, if all are."""
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def _of(statistic: Statistic, sample: Sequence[Array]) -> float:
    return statistic(*sample)


def _resampled(
    of: Callable[[Sequence[Array]], float], arrays: Sequence[Array], seed: int, resamples: int
) -> list[float]:
    count = len(arrays[0])
    if count < 2 or any(len(array) != count for array in arrays):
        sizes = ", ".join(str(len(array)) for array in arrays)
        raise ValueError(
            f"`scores` must hold one number for each of two networks or more, as the "
            f"others do, but got {sizes} numbers."
        )
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(count, size=count) for _ in range(resamples))
    return [of([array[chosen] for array in arrays]) for chosen in drawn]


def _signs(values: Sequence[float] | Array) -> Array:
    """Of each pair, which is larger: 1, -1 or 0."""
    array = np.asarray(values, dtype=float)
    signs: Array = np.sign(array[:, None] - array[None, :])
    return signs


def _everyone(values: Sequence[float] | Array) -> Array:
    """One group of all."""
    return np.ones((1, len(values)))


def _mean(of_groups: Array) -> float:
    return float(np.mean(of_groups)) if len(of_groups) else float("nan")


def _kendall_within(a: Array, b: Array, groups: Array) -> Array:
    """Kendall's tau-b among the members of each group, from the signs of all pairs."""

    def summed(pairs: Array) -> Array:
        total: Array = ((groups @ pairs) * groups).sum(axis=1)
        return total

    return _quotient(summed(a * b), summed(np.abs(a)) * summed(np.abs(b)))


def _spearman_within(a: Array, b: Array, groups: Array) -> Array:
    """Spearman's rho among the members of each group, from the signs of all pairs.

    Over how many members one stands, less how many stand over it, is twice its rank, centred.
    """
    ranks_a, ranks_b = (groups * (groups @ signs.T) for signs in (a, b))
    both = (ranks_a * ranks_b).sum(axis=1)
    return _quotient(both, (ranks_a**2).sum(axis=1) * (ranks_b**2).sum(axis=1))


def _quotient(covariance: Array, variances: Array) -> Array:
    """The correlation; 0 where all are tied."""
    size = np.sqrt(variances)
    return np.divide(covariance, size, out=np.zeros_like(size), where=size > 0)
