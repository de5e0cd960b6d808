"""What a user's latency predictor returns, looked at before anything relies on it."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.latency import Prediction
from search_spaces.space import Space

PredictLatency = Callable[[Sequence[Any]], Prediction]

_ENDS = ("mean_ms", "low_ms", "high_ms")


def checked(predict: PredictLatency, space: Space[Any]) -> PredictLatency:
    """Return the predictor with each of its answers checked, the first one now.

    Two configs are asked for, so that one value for many is found before an evaluation is spent.

    Raises:
        TypeError: if it does not return a Prediction.
        ValueError: if a latency lacks, or is not positive and finite; later calls raise alike.
    """

    def predicted(configs: Sequence[Any]) -> Prediction:
        return _checked(predict(configs), len(configs))

    rng = Random(0)
    predicted([space.decode(space.random_genes(rng)) for _ in range(2)])
    return predicted


def _checked(found: object, count: int) -> Prediction:
    if not isinstance(found, Prediction):
        raise TypeError("`predict_latency` must return a Prediction, but got "
                        f"{type(found).__name__}. Return Prediction(mean_ms, low_ms, high_ms), "
                        "an array each.")  # fmt: skip
    mean_ms, low_ms, high_ms = (_array(getattr(found, end), end, count) for end in _ENDS)
    # The lower end of an interval may well be below zero.
    for end, latencies_ms in (("mean_ms", mean_ms), ("high_ms", high_ms)):
        _refuse(latencies_ms, ~(np.isfinite(latencies_ms) & (latencies_ms > 0)), end)
    _refuse(low_ms, ~np.isfinite(low_ms), "low_ms")
    return Prediction(mean_ms, low_ms, high_ms)


def _array(values: Any, end: str, count: int) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`predict_latency` must return arrays of numbers, but got "
                        f"{type(values).__name__} as `{end}`. Return a latency in ms for each "
                        "config.") from error  # fmt: skip
    if array.shape != (count,):
        raise ValueError(f"`predict_latency` must return a latency for each config, but got "
                         f"the shape {array.shape} as `{end}` for {count}. Return arrays of shape "
                         f"({count},).")  # fmt: skip
    return array


def _refuse(latencies_ms: NDArray[np.float64], wrong: NDArray[np.bool_], end: str) -> None:
    if wrong.any():
        raise ValueError(f"`predict_latency` must return finite latencies above 0, but got "
                         f"{latencies_ms[wrong][0]:g} ms as `{end}`. Predict the logarithm, "
                         "or bound what it predicts.")  # fmt: skip
