"""Whether a space has anything within the budgets, before anything else is tried."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

import numpy as np

from nas.search.feasibility import check_budget, fastest
from nas.search.trial import generator
from nas.study.targets import Target
from predictors.cost import costs
from predictors.latency import Prediction
from predictors.measurement import Latency
from predictors.shares import Predictor, SharePredictor
from search_spaces.space import Space

C = TypeVar("C")


def smallest_of(space: Space[C], seed: int) -> C:
    """Return the config with the fewest MACs that is found, in place of the fastest."""
    config: C = fastest(space, _macs, Random(seed))[0]
    return config


def check_reached(targets: Sequence[Target], smallest: Latency) -> None:
    """Refuse a budget below what the smallest network takes.

    Raises:
        ValueError: naming the device, where there are several.
    """
    for target, (name, found) in zip(targets, smallest.on_each, strict=True):
        if found.low_ms > target.budget_ms:
            where = f" on {name}" if smallest.parts else ""
            told = "" if found.source == "measured" else " (predicted)"
            raise ValueError(
                f"`budget` must be within reach of the space, but got {target.budget_ms:g} ms"
                f"{where}: the fastest config takes {found.median_ms:.3g} ms "
                f"[{found.low_ms:.3g}, {found.high_ms:.3g}]{told}. Raise the budget."
            )


def check_reachable(
    space: Space[Any], predictor: Predictor, targets: Sequence[Target], seed: int
) -> None:
    """Refuse budgets that no network is predicted to keep, on several devices all at once.

    Raises:
        ValueError: naming the devices on which the network that comes closest does not.
    """
    if not isinstance(predictor, SharePredictor):
        check_budget(space, predictor.predict, targets[0].budget_ms, seed)
        return
    config, _ = fastest(space, predictor.predict, generator(seed, -1))
    upper = [float(found.high_ms[0]) for found in predictor.predict_each([config])]
    missed = [(t, ms) for t, ms in zip(targets, upper, strict=True) if ms > t.budget_ms]
    if missed:
        words = " and ".join(f"{ms:.3g} ms on {t.device} (budget {t.budget_ms:g} ms)"
                             for t, ms in missed)  # fmt: skip
        raise ValueError(
            "`budget` must be within reach of the space on every device at once, but the network "
            f"that comes closest takes {words}; upper ends, predicted. Raise the budget."
        )


def _macs(configs: Sequence[Any]) -> Prediction:
    macs = np.asarray(costs(configs).macs, dtype=float)
    return Prediction(macs, macs, macs)
