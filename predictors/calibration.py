"""Which networks to time so that a latency predictor knows the part of the space that matters."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.cost import costs
from predictors.features import layer_features
from predictors.latency import LatencyPredictor
from search_spaces.space import Genes, Space

FIRST = 16  # networks chosen before there is a predictor
POOL = 3000
HEADROOM = 1.25  # networks up to this much over the limit are useful too


def next_batch(
    space: Space[Any], measured: Sequence[tuple[Any, float]], *, limit_ms: float, total: int,
    seed: int,
) -> list[Any]:  # fmt: skip
    """Return the networks to time next, given (config, latency in ms) of those timed before.

    `measured` starts with one network of any size. The first batch covers the costs under the
    limit as a guess from that network; the second covers what a predictor fitted to the first
    expects under it. An empty list means that there are `total` of them.

    Raises:
        ValueError: if nothing was measured yet.
    """
    if not measured:
        raise ValueError("`measured` must hold one network to start from, but got none.")
    if len(measured) >= total:
        return []
    # A batch follows from what was measured before it, so that half of one leads to the same rest.
    first = len(measured) <= FIRST
    before = measured[: 1 if first else FIRST + 1]
    end = min(FIRST + 1, total) if first else total
    batch = _batch(space, before, limit_ms, end - len(before), Random(f"{seed}/{first}"))
    known = {config for config, _ in measured}
    return [config for config in batch if config not in known][: end - len(measured)]


def _batch(
    space: Space[Any], measured: Sequence[tuple[Any, float]], limit_ms: float, n: int, rng: Random
) -> list[Any]:
    """Choose n networks under the limit, or near it where few are under it."""
    known = [config for config, _ in measured]
    pool = [space.decode(_skewed(space, rng)) for _ in range(POOL)]
    fresh = list(dict.fromkeys(config for config in pool if config not in known))
    expected = _expected_ms(space, measured, fresh)
    cheapest = [fresh[i] for i in np.argsort(expected, kind="stable")]
    within = int(np.sum(expected <= HEADROOM * limit_ms))
    return _spread(known, cheapest[: max(within, 2 * n)], n)


def _skewed(space: Space[Any], rng: Random) -> Genes:
    """Draw genes towards the front of their choices, from not at all to strongly.

    Choices are listed in ascending order, so this reaches small networks, which a uniform draw
    of twenty genes never does.
    """
    power = rng.choice((1.0, 1.5, 2.0, 3.0, 5.0))
    return tuple(int(n * rng.random() ** power) for n in space.cardinalities)


def _expected_ms(
    space: Space[Any], measured: Sequence[tuple[Any, float]], pool: Sequence[Any]
) -> NDArray[np.float64]:
    configs, latencies = [c for c, _ in measured], [ms for _, ms in measured]
    if len(measured) > FIRST:
        return LatencyPredictor.fit(space, configs, latencies).predict(pool).mean_ms
    macs = np.asarray(costs([configs[0], *pool]).macs, dtype=float)
    expected: NDArray[np.float64] = latencies[0] * macs[1:] / macs[0]
    return expected


def _spread(known: Sequence[Any], candidates: Sequence[Any], n: int) -> list[Any]:
    """Pick n candidates one by one, each the farthest from all that are known or picked."""
    rows = _position(known, candidates)
    distance = np.full(len(candidates), math.inf)
    for i in range(len(known)):
        distance = np.minimum(distance, np.linalg.norm(rows[len(known) :] - rows[i], axis=1))
    picked = []
    for _ in range(min(n, len(candidates))):
        best = int(distance.argmax())
        picked.append(candidates[best])
        away = np.linalg.norm(rows[len(known) :] - rows[len(known) + best], axis=1)
        distance = np.minimum(distance, away)
    return picked


def _position(known: Sequence[Any], candidates: Sequence[Any]) -> NDArray[np.float64]:
    """Where configs lie for the cover: the logarithms of their work by kind of layer."""
    work = np.log1p(layer_features([*known, *candidates]))
    work = work[:, work.std(axis=0) > 1e-9]
    position: NDArray[np.float64] = (work - work.mean(axis=0)) / work.std(axis=0)
    return position
