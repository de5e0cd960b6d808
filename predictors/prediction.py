"""Predicted latencies, and what they may be predicted from: other predictions, and measurements."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import index
from random import Random
from typing import Any, Protocol, SupportsIndex, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from search_spaces.io import named_reason, short_repr
from search_spaces.layers import is_layered
from search_spaces.space import AnySpace, Space

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


PredictLatency = Callable[[Sequence[Any]], Prediction]


@runtime_checkable
class Relative(Protocol):
    """Relative the latencies of another device: a `LatencyPredictor`, or a device that does."""

    def predict(self, configs: Sequence[Any], /) -> Prediction:
        """Return mean and interval of each config's latency."""


def checked_relatives(relatives: Iterable[Relative] | Relative | None) -> tuple[Relative, ...]:
    """Return relatives that can predict; one alone counts as a list of one, None as none."""
    if relatives is None or isinstance(relatives, Relative):
        return () if relatives is None else (relatives,)
    if not isinstance(relatives, Iterable):
        relatives = cast(Iterable[Relative], (relatives,))
    found = tuple(relatives)
    for one in found:
        if not isinstance(one, Relative):
            raise TypeError(
                f"`relatives` must each predict latencies, but got {short_repr(one)}. Fit a "
                "LatencyPredictor to what it measured."
            )
    return found


def checked_configs(space: object, configs: Iterable[object]) -> list[object]:
    """Return configs as a list, whatever gives them one after another."""
    if not isinstance(space, Space):
        raise TypeError(
            f"`space` must be a Space, but got {short_repr(space)}. Write Space(Config, ...)."
        )
    if isinstance(configs, space.config_class) or not isinstance(configs, Iterable):
        raise TypeError(
            f"`configs` must be a list of configs, but got {short_repr(configs)}. Write [config] "
            "for one."
        )
    return list(configs)


def checked_latencies(latencies_ms: Iterable[float]) -> Array:
    """Return latencies as an array, [n], of what may yet be no latencies."""
    try:
        if not isinstance(latencies_ms, np.ndarray):
            latencies_ms = list(latencies_ms)
        found = np.asarray(latencies_ms, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "`latencies_ms` must be one number for each config, but got "
            f"{short_repr(latencies_ms)}. Give the medians."
        ) from error
    if found.ndim != 1:
        raise ValueError(
            "`latencies_ms` must be one number for each config, but got an array of shape "
            f"{found.shape}. Give the medians."
        )
    return found


def checked_folds(folds: object) -> int:
    """Return into how many parts what was measured is split."""
    if isinstance(folds, bool) or not isinstance(folds, SupportsIndex):
        raise TypeError(f"`folds` must be a whole number, but got {short_repr(folds)}.")
    if index(folds) < 0 or index(folds) == 1:
        raise ValueError(f"`folds` must be 0, or 2 or more, but got {folds}.")
    return index(folds)


def checked_errors(errors: Sequence[float] | None, count: int) -> Array:
    """Return the relative standard errors of latencies; none are 0."""
    try:
        found = np.zeros(count) if errors is None else np.asarray(errors, dtype=float)
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if found.shape != (count,) or not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(
            f"`errors` must be a number for each of the {count} latencies, 0 or more, but got "
            f"{short_repr(errors)}. Give each standard error over its latency."
        )
    return found


def check_measured(
    space: AnySpace, configs: Sequence[object], latencies: Array, *, related: bool
) -> None:
    """Refuse measurements that a predictor cannot be fitted to."""
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


def logs_of(relatives: Sequence[Relative], configs: Sequence[object]) -> list[Array]:
    """Return the logarithms of what each relative predicts of configs, arrays of shape [n]."""
    return [_logs_of(i, one, configs) for i, one in enumerate(relatives)]


def _logs_of(at: int, relative: Relative, configs: Sequence[object]) -> Array:
    name = f"relatives[{at}], {short_repr(relative)},"
    try:
        given = relative.predict(configs)
        found = np.asarray(given.mean_ms, dtype=float)
    except Exception as error:  # whatever another's code raises
        raise ValueError(
            f"`relatives` must each predict latencies, but {name} raised {named_reason(error)}. "
            "Mend it, or leave it out."
        ) from error
    if found.shape != (len(configs),):
        raise ValueError(
            f"`relatives` must each predict a latency for each of the {len(configs)} configs, but "
            f"{name} gave the shape {found.shape} as `mean_ms`. Mend it, or leave it out."
        )
    wrong = found[~(np.isfinite(found) & (found > 0))]
    if len(wrong):
        raise ValueError(
            f"`relatives` must each predict positive latencies, but {name} gave {wrong[0]}. "
            "Leave it out."
        )
    return np.asarray(np.log(found))


def checked_predictor(predict: PredictLatency, space: AnySpace) -> PredictLatency:
    """Return the predictor with each of its answers checked, the first one now.

    Two configs are asked for, so that one value for many is found before an evaluation is spent.
    """

    def predicted(configs: Sequence[object]) -> Prediction:
        return _checked_prediction(predict(configs), len(configs))

    rng = Random(0)
    predicted([space.decode(space.random_genes(rng)) for _ in range(2)])
    return predicted


def _checked_prediction(found: object, count: int) -> Prediction:
    if not isinstance(found, Prediction):
        raise TypeError(
            f"`predict_latency` must return a Prediction, but got {type(found).__name__}. Return "
            "Prediction(mean_ms, low_ms, high_ms), an array each."
        )
    mean_ms, low_ms, high_ms = (
        _latencies(getattr(found, end), end, count) for end in ("mean_ms", "low_ms", "high_ms")
    )
    # The lower end of an interval may well be below zero.
    for end, latencies_ms in (("mean_ms", mean_ms), ("high_ms", high_ms)):
        _refuse(latencies_ms, ~(np.isfinite(latencies_ms) & (latencies_ms > 0)), end)
    _refuse(low_ms, ~np.isfinite(low_ms), "low_ms")
    return Prediction(mean_ms, low_ms, high_ms)


def _latencies(values: object, end: str, count: int) -> Array:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`predict_latency` must return arrays of numbers, but got {type(values).__name__} as "
            f"`{end}`. Return a latency in ms for each config."
        ) from error
    if array.shape != (count,):
        raise ValueError(
            "`predict_latency` must return a latency for each config, but got the shape "
            f"{array.shape} as `{end}` for {count}. Return arrays of shape ({count},)."
        )
    return array


def _refuse(latencies_ms: Array, wrong: NDArray[np.bool_], end: str) -> None:
    if wrong.any():
        raise ValueError(
            "`predict_latency` must return finite latencies above 0, but got "
            f"{latencies_ms[wrong][0]:g} ms as `{end}`. Predict the logarithm, or bound what it "
            "predicts."
        )
