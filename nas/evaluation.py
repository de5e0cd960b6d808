"""What a trial of a study does with its config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.search.trial import Scores
from predictors.accuracy import AccuracyEstimator
from predictors.latency import Prediction
from search_spaces.fasternet import FasterNetConfig


@dataclass(frozen=True)
class Evaluation:
    """Scores a config: its latency is predicted, its accuracy estimated."""

    predict: Callable[[Sequence[FasterNetConfig]], Prediction]
    estimator: AccuracyEstimator

    def __call__(self, config: FasterNetConfig) -> Scores:
        latency = self.predict([config])
        return Scores(accuracy=self.estimator(config), latency_ms=float(latency.mean_ms[0]),
                      latency_high_ms=float(latency.high_ms[0]))  # fmt: skip
