"""Predicted latencies, and what they may be predicted from: other predictions, and measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from search_spaces.layers import is_layered
from search_spaces.space import AnySpace

Array = NDArray[np.float64]

FEWEST, FEWEST_RELATED = 8, 3  # networks that a predictor is fitted to, alone and with relatives


@dataclass(frozen=True)
class Prediction:
    """Predicted latencies of n configs in ms, each an array of shape [n]; a 90 % interval."""

    mean_ms: Array
    low_ms: Array
    high_ms: Array


@dataclass(frozen=True)
class RatioPrediction:
    """Predicted latency/budget ratios of n configs: means and upper ends, arrays of shape [n].

    `log_std` is the deviation of their logarithms, where measurements of others have told it.
    """

    mean: Array
    high: Array
    log_std: Array | None = None


@runtime_checkable
class Relative(Protocol):
    """Relative the latencies of another device: a `LatencyPredictor`, or a device that does."""

    def predict(self, configs: Sequence[Any], /) -> Prediction:
        """Return mean and interval of each config's latency."""


def check_relatives(relatives: Sequence[object]) -> None:
    """Refuse what cannot predict."""
    for one in relatives:
        if not isinstance(one, Relative):
            raise TypeError(
                f"`relatives` must each predict latencies, but got {one!r}. Fit a LatencyPredictor "
                "to what it measured."
            )


def checked_errors(errors: Sequence[float] | None, count: int) -> Array:
    """Return the relative standard errors of latencies; none are 0."""
    found = np.zeros(count) if errors is None else np.asarray(errors, dtype=float)
    if found.shape != (count,) or not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(
            f"`errors` must be a number for each of the {count} latencies, 0 or more, but got "
            f"{errors}. Give each standard error over its latency."
        )
    return found


def check_measured(
    space: AnySpace, configs: Sequence[object], latencies: Array, *, related: bool
) -> None:
    """Refuse measurements that a predictor cannot be fitted to."""
    if latencies.ndim != 1:
        raise ValueError(
            "`latencies_ms` must be one number for each config, but got an array of shape "
            f"{latencies.shape}. Give the medians."
        )
    if len(configs) != len(latencies):
        raise ValueError(
            f"`latencies_ms` must have one entry for each of the {len(configs)} configs, but got "
            f"{len(latencies)}."
        )
    fewest = FEWEST_RELATED if related else FEWEST
    if len(configs) < fewest:
        raise ValueError(
            f"`configs` must hold at least {fewest} measured networks, but got {len(configs)}. "
            "Measure more."
        )
    wrong = latencies[~(np.isfinite(latencies) & (latencies > 0))]
    if len(wrong):
        raise ValueError(f"`latencies_ms` must be positive numbers, but got {wrong[0]}.")
    if not space.genes and not is_layered(configs[0]):
        raise ValueError(
            "`space` must have an open field where its configs know no layers, but got one config "
            "only. Open a field with oneof(...)."
        )


def logs_of(relative: Relative, configs: Sequence[object]) -> Array:
    """Return the logarithms of what a relative predicts of configs, an array of shape [n]."""
    found = np.asarray(relative.predict(configs).mean_ms, dtype=float)
    wrong = found[~(np.isfinite(found) & (found > 0))]
    if len(wrong):
        raise ValueError(
            f"`relatives` must each predict positive latencies, but {relative!r} gave {wrong[0]}. "
            "Leave it out."
        )
    return np.asarray(np.log(found))
