"""Which networks to time, so that a latency predictor fitted to them knows the others."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.cost import NO_LIMITS, Limits, costs
from predictors.features import layer_features
from predictors.gp import expected_covariance
from predictors.latency import (
    FEWEST_RELATED,
    LatencyPredictor,
    Prediction,
    RatioPrediction,
    Relative,
    expected_rows,
)
from search_spaces.space import AnySpace, Genes, Space

Array = NDArray[np.float64]
C = TypeVar("C")

FIRST = 16  # networks chosen before there is a predictor
# With relatives: networks after which it is asked whether more are needed. The first two are there.
STAGES = (2, 5, 9, 17, 33)
POOL = 3000
TELLING = 500  # of the pool, among which those are sought that tell the most
HEADROOM = 1.25  # budgets: networks up to this much over one are useful too


Measured = Sequence[tuple[C, Mapping[str, float]]]  # configs, and their latencies in ms by device


def worst_ratios(
    predictions: Mapping[str, Prediction], budgets_ms: Mapping[str, float]
) -> RatioPrediction:
    """Return the worst ratio of each config over the devices, as `worst_ratio` does of one."""
    on_each = [(predictions[name], ms) for name, ms in budgets_ms.items()]
    return RatioPrediction(
        mean=np.max([p.mean_ms / ms for p, ms in on_each], axis=0),
        high=np.max([p.high_ms / ms for p, ms in on_each], axis=0),
    )


def next_batch(  # noqa: PLR0913 - one public entry, all options keyword-only
    space: Space[C],
    measured: Measured[C],
    *,
    budgets_ms: Mapping[str, float],
    total: int,
    seed: int,
    limits: Limits = NO_LIMITS,
    relatives: Sequence[Relative] = (),
) -> list[C]:
    """Return the networks to time next, given the latencies of those timed before.

    `measured` starts with one network of any size. The first batch covers the costs within the
    budgets, as a guess from that network, and within the limits; the second covers what predictors
    fitted to the first expect there. With relatives batches are smaller, and each holds what tells
    most of the others. An empty list means that there are `total` of them.
    """
    if not measured:
        raise ValueError("`measured` must hold one network to start from, but got none.")
    if len(measured) >= total:
        return []
    # A batch follows from what was measured before it, so that half of one leads to the same rest.
    stages = STAGES if relatives else (1, FIRST + 1)
    start = max((n for n in stages if n <= len(measured)), default=1)
    before = measured[:start]
    end = min((n for n in (*stages, total) if n > len(measured)), default=total)
    end, count = min(end, total), min(end, total) - len(before)
    rng = Random(f"{seed}/{start if relatives else start == 1}")
    pool = _pool(space, before, budgets_ms, limits, count, rng, relatives)
    known = [config for config, _ in before]
    batch = (
        telling(space, known, pool, count, relatives)
        if relatives
        else (_spread(known, pool, count))
    )
    timed = {config for config, _ in measured}
    return [config for config in batch if config not in timed][: end - len(measured)]


def upper_margin(
    space: AnySpace, ratios: Callable[[Sequence[Any]], RatioPrediction], seed: int
) -> float:
    """Return how far upper ends are above what is predicted, in the middle of what may be chosen.

    That is of networks within the budgets or, where none is drawn, of the fastest. 0.07 is 7 %.
    """
    rng = Random(f"{seed}/margin")
    found = ratios([space.decode(_skewed(space, rng)) for _ in range(TELLING)])
    order = np.argsort(found.mean, kind="stable")
    within = max(int(np.sum(found.mean <= 1)), 20)
    return float(np.median((found.high / found.mean)[order[:within]]) - 1)


def _pool(  # noqa: PLR0913 - what a batch follows from
    space: Space[C],
    measured: Measured[C],
    budgets_ms: Mapping[str, float],
    limits: Limits,
    n: int,
    rng: Random,
    relatives: Sequence[Relative],
) -> list[C]:
    """Networks within the budgets and limits, or near them where few are within."""
    known = [config for config, _ in measured]
    pool = [space.decode(_skewed(space, rng)) for _ in range(POOL)]
    fresh = list(dict.fromkeys(config for config in pool if config not in known))
    expected = _expected_ratios(space, measured, budgets_ms, fresh, relatives)
    expected = np.maximum(expected, limits.ratios(fresh))
    cheapest = [fresh[i] for i in np.argsort(expected, kind="stable")]
    within = int(np.sum(expected <= HEADROOM))
    return cheapest[: max(within, 2 * n)]


def _skewed(space: AnySpace, rng: Random) -> Genes:
    """Draw genes towards the front of their choices, from not at all to strongly.

    Choices are listed in ascending order, so this reaches small networks, which a uniform draw
    of twenty genes never does.
    """
    power = rng.choice((1.0, 1.5, 2.0, 3.0, 5.0))
    return tuple(int(n * rng.random() ** power) for n in space.cardinalities)


def _expected_ratios(
    space: Space[C],
    measured: Measured[C],
    budgets_ms: Mapping[str, float],
    pool: Sequence[object],
    relatives: Sequence[Relative],
) -> Array:
    configs = [config for config, _ in measured]
    if len(measured) >= (FEWEST_RELATED if relatives else FIRST + 1):
        fitted = {
            name: LatencyPredictor.fit(
                space, configs, [on_each[name] for _, on_each in measured], relatives=relatives
            )
            for name in budgets_ms
        }
        predictions = {name: predictor.predict(pool) for name, predictor in fitted.items()}
        return worst_ratios(predictions, budgets_ms).mean
    ratio = max(measured[0][1][name] / ms for name, ms in budgets_ms.items())
    if relatives:
        logs = [np.log(one.predict([configs[0], *pool]).mean_ms) for one in relatives]
        work = np.exp(np.mean(logs, axis=0))
    else:
        work = np.asarray(costs([configs[0], *pool]).macs, dtype=float)
    return np.asarray(ratio * work[1:] / work[0])


def telling(
    space: Space[C],
    known: Sequence[C],
    pool: Sequence[C],
    n: int,
    relatives: Sequence[Relative],
) -> list[C]:
    """Pick n candidates one by one, each that which leaves the least variance of the whole pool.

    By what a predictor with these relatives expects before anything is measured (active learning
    by integrated variance: Cohn, Neural Networks 9, 1996). The variance is that of logarithms, and
    a network counts by its latency: else the small ones, of which least is known, are all picked.
    """
    at = np.linspace(0, len(pool) - 1, min(len(pool), TELLING)).astype(int)
    candidates = [pool[i] for i in at]
    rows, expected = expected_rows(space, [*known, *candidates], relatives)
    covariance, noise = expected_covariance(rows.inputs, rows.linear, expected)
    latencies_ms = rows.trend_ms[len(known) :]
    for i in range(len(known)):
        covariance = _conditioned(covariance, i, noise)
    picked: list[int] = []
    for _ in range(min(n, len(candidates))):
        there = covariance[len(known) :, len(known) :]
        gain = latencies_ms @ there**2 / (np.diag(there) + noise)
        gain[picked] = -1.0
        best = int(gain.argmax())
        picked.append(best)
        covariance = _conditioned(covariance, len(known) + best, noise)
    return [candidates[i] for i in picked]


def _conditioned(covariance: Array, at: int, noise: float) -> Array:
    """The covariance once one of the targets is measured."""
    column = covariance[:, at]
    return np.asarray(covariance - np.outer(column, column) / (column[at] + noise))


def _spread(known: Sequence[C], candidates: Sequence[C], n: int) -> list[C]:
    """Pick n candidates one by one, each the farthest from all that are known or picked.

    They are as far apart as the logarithms of their work by kind of layer.
    """
    work = np.log1p(layer_features([*known, *candidates]))
    work = work[:, work.std(axis=0) > 1e-9]
    rows = (work - work.mean(axis=0)) / work.std(axis=0)
    near, free = rows[: len(known)], rows[len(known) :]
    distance = np.linalg.norm(free[:, None] - near, axis=2).min(axis=1)
    picked = []
    for _ in range(min(n, len(candidates))):
        best = int(distance.argmax())
        picked.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(free - free[best], axis=1))
        distance[best] = -1.0  # others may be as near
    return picked
