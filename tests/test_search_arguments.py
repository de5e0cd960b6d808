"""What users pass to `search()` by mistake is refused before an evaluation is spent."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from points import PLANE, Point, scores_of

from nas.search.loop import search
from nas.search.trial import Scores
from predictors.latency import Prediction


def _never(_: Point) -> Scores:
    pytest.fail("an evaluation was spent")


def _all(value: float, points: Sequence[Point]) -> Prediction:
    return Prediction(*[np.full(len(points), value)] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": True}, r"`trials` must be a positive whole number, but got True\."),
        ({"parallel": "8"}, r"`parallel` must be a positive whole number, but got '8'\."),
        ({"budget_ms": "10"}, r"`budget_ms` must be a number of milliseconds, but got '10'\."),
        ({"budget_ms": True}, r"`budget_ms` must be a number of milliseconds, but got True\. Le"),
        ({"seed": None}, r"`seed` must be a whole number, but got None\."),
        ({"seed": "abc"}, r"`seed` must be a whole number, but got 'abc'\."),
        ({"seed": 1.5}, r"`seed` must be a whole number, but got 1\.5\."),
    ],
)
def test_what_is_no_number_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(PLANE, _never, **options)


def test_numbers_of_numpy_count_as_numbers() -> None:
    five: Any = np.int64(5)
    eight: Any = np.float32(8)
    found = list(search(PLANE, scores_of, trials=five, seed=five, budget_ms=eight))
    assert found == list(search(PLANE, scores_of, trials=5, seed=5, budget_ms=8.0))


@pytest.mark.parametrize("budget_ms", [None, 8.0])
@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda p: _all(0.0, p), "finite latencies above 0, but got 0 ms as `mean_ms`. Predict"),
        (lambda p: _all(-2.0, p), "finite latencies above 0, but got -2 ms as `mean_ms`"),
        (lambda p: _all(math.nan, p), "finite latencies above 0, but got nan ms as `mean_ms`"),
        (lambda p: [1.0] * len(p), "return a Prediction, but got list. Return Prediction"),
        (lambda p: _all(1.0, p[:1]), r"for each config, but got the shape \(1,\) as `mean_ms` for"),
        (lambda _: Prediction(*[1.0] * 3), r"but got the shape \(\) as `mean_ms` for 2. Return"),  # type: ignore[arg-type]
        (lambda p: Prediction(*["soon"] * 3), "arrays of numbers, but got str as `mean_ms`"),  # type: ignore[arg-type]
    ],
)
def test_a_predictor_that_is_none_is_refused_at_the_call(
    predict: Any, message: str, budget_ms: float | None
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`predict_latency` must .*{message}"):
        search(PLANE, _never, predict_latency=predict, budget_ms=budget_ms)


def test_lists_in_a_prediction_are_as_good_as_arrays() -> None:
    def predict(points: Sequence[Point]) -> Prediction:
        ms: Any = [1 + point.x for point in points]
        return Prediction(ms, ms, ms)

    found = search(PLANE, scores_of, trials=16, budget_ms=8.0, predict_latency=predict)
    assert all(trial.feasible for trial in found)


@pytest.mark.parametrize("kind", [bool, np.bool_, np.float32], ids=repr)
def test_whatever_counts_as_a_number_is_an_accuracy(kind: Any) -> None:
    def evaluate(point: Point) -> Scores:
        return Scores(accuracy=kind(point.x > 10), latency_ms=1 + point.x)

    trials = list(search(PLANE, evaluate, trials=20))
    found = [trial.scores for trial in trials if trial.scores]
    assert len(found) == 20
    assert {type(scores.accuracy) for scores in found} == {float}
    assert {scores.accuracy for scores in found} == {0.0, 1.0}
