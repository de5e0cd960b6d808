"""Budgets that no network of a space meets are refused before anything is spent on them."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.devices import LatencyModels
from nas.quantities import cost_words
from nas.search.feasibility import lowest
from nas.search.trial import generator
from predictors.cost import NO_LIMITS, Limits, cost
from predictors.devices.profiled import ProfiledDevice
from predictors.measurement import Backend, Latencies
from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import AnySpace, Space


def fastest_of(space: Space[FasterNetConfig], seed: int) -> FasterNetConfig:
    """Return the network that descent finds to be the fastest on a board of the profile."""
    profile = ProfiledDevice("arm", Backend())

    def latencies(configs: Sequence[FasterNetConfig]) -> NDArray[np.float64]:
        return profile.predict(configs).mean_ms

    return lowest(space, latencies, Random(seed))


def check_reached(budgets_ms: Mapping[str, float], fastest: Latencies) -> None:
    """Refuse a budget below what `fastest_of` takes."""
    for name, budget_ms in budgets_ms.items():
        found = fastest.by_device[name]
        if found.low_ms > budget_ms:
            where = f" on {name}" if len(budgets_ms) > 1 else ""
            predicted = "" if found.source == "measured" else " (predicted)"
            raise ValueError(
                f"`budget` must be within reach of the space, but got {budget_ms:g} ms{where}: "
                f"the fastest config takes {found.median_ms:.3g} ms "
                f"[{found.low_ms:.3g}, {found.high_ms:.3g}]{predicted}. Raise the budget."
            )


def _words(name: str, number: int) -> str:
    return cost_words(name, number, exact=True)


def check_reachable(
    space: AnySpace, models: LatencyModels, seed: int, *, limits: Limits = NO_LIMITS
) -> None:
    """Refuse budgets that no network is predicted to meet, all at once and within the limits."""

    def worst(configs: Sequence[Any]) -> NDArray[np.float64]:
        return np.maximum(models.ratios(configs).high, limits.ratios(configs))

    closest = lowest(space, worst, generator(seed, -1), enough=1)
    (latencies,) = models.latencies([closest])
    missed = [
        f"takes {latencies.by_device[name].high_ms:.3g} ms on {name} (budget {budget_ms:g} ms)"
        for name, budget_ms in models.budgets_ms.items()
        if latencies.by_device[name].high_ms > budget_ms
    ]
    broken = [
        f"has {_words(name, value)} (limit {_words(name, limits.given[name])})"
        for name, value in limits.exceeded(limits.limited(cost(closest))).items()
    ]
    if missed or broken:
        at_once = " on every device at once" if len(models.budgets_ms) > 1 else ""
        at_once += " and within the limits" if limits.given else ""
        raise ValueError(
            f"`budget` must be within reach of the space{at_once}, but the network that comes "
            f"closest {' and '.join(missed + broken)}; upper ends, predicted. Raise the budget"
            f"{' or a limit' if limits.given else ''}."
        )
