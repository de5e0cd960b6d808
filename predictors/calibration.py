"""Which networks to time, so that a latency predictor fitted to them knows the others."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.cost import NO_LIMITS, Limits, costs
from predictors.latency import LatencyPredictor, layer_features, worst_ratios
from search_spaces.space import AnySpace, Genes, Space

Array = NDArray[np.float64]
C = TypeVar("C")

FIRST = 16  # networks chosen before there is a predictor
POOL = 3000
HEADROOM = 1.25  # budgets: networks up to this much over one are useful too


Measured = Sequence[tuple[C, Mapping[str, float]]]  # configs, and their latencies in ms by device


def next_batch(
    space: Space[C],
    measured: Measured[C],
    *,
    budgets_ms: Mapping[str, float],
    total: int,
    seed: int,
    limits: Limits = NO_LIMITS,
) -> list[C]:
    """Return the networks to time next, given the latencies of those timed before.

    `measured` starts with one network of any size. The first batch covers the costs within the
    budgets, as a guess from that network, and within the limits; the second covers what predictors
    fitted to the first expect there. An empty list means that there are `total` of them.
    """
    if not measured:
        raise ValueError("`measured` must hold one network to start from, but got none.")
    if len(measured) >= total:
        return []
    # A batch follows from what was measured before it, so that half of one leads to the same rest.
    first = len(measured) <= FIRST
    before = measured[: 1 if first else FIRST + 1]
    end = min(FIRST + 1, total) if first else total
    rng, count = Random(f"{seed}/{first}"), end - len(before)
    batch = _batch(space, before, budgets_ms, limits, count, rng)
    known = {config for config, _ in measured}
    return [config for config in batch if config not in known][: end - len(measured)]


def _batch(
    space: Space[C],
    measured: Measured[C],
    budgets_ms: Mapping[str, float],
    limits: Limits,
    n: int,
    rng: Random,
) -> list[C]:
    """Choose n networks within the budgets and limits, or near them where few are within."""
    known = [config for config, _ in measured]
    pool = [space.decode(_skewed(space, rng)) for _ in range(POOL)]
    fresh = list(dict.fromkeys(config for config in pool if config not in known))
    expected = _expected_ratios(space, measured, budgets_ms, fresh)
    expected = np.maximum(expected, limits.ratios(fresh))
    cheapest = [fresh[i] for i in np.argsort(expected, kind="stable")]
    within = int(np.sum(expected <= HEADROOM))
    return _spread(known, cheapest[: max(within, 2 * n)], n)


def _skewed(space: AnySpace, rng: Random) -> Genes:
    """Draw genes towards the front of their choices, from not at all to strongly.

    Choices are listed in ascending order, so this reaches small networks, which a uniform draw
    of twenty genes never does.
    """
    power = rng.choice((1.0, 1.5, 2.0, 3.0, 5.0))
    return tuple(int(n * rng.random() ** power) for n in space.cardinalities)


def _expected_ratios(
    space: Space[C], measured: Measured[C], budgets_ms: Mapping[str, float], pool: Sequence[object]
) -> Array:
    configs = [config for config, _ in measured]
    if len(measured) > FIRST:
        fitted = {
            name: LatencyPredictor.fit(space, configs, [on_each[name] for _, on_each in measured])
            for name in budgets_ms
        }
        predictions = {name: predictor.predict(pool) for name, predictor in fitted.items()}
        return worst_ratios(predictions, budgets_ms).mean
    ratio = max(measured[0][1][name] / ms for name, ms in budgets_ms.items())
    macs = np.asarray(costs([configs[0], *pool]).macs, dtype=float)
    return np.asarray(ratio * macs[1:] / macs[0])


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
    return picked
