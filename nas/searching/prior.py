"""What is known of accuracies before there is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy import chance
from predictors.trended import TrendedProcess, fit_trended

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AccuracyPrior:
    """A cheap score that goes with accuracy, and how far chance alone moves accuracies.

    `scores(configs) -> [n]` may be any numbers, such as a training-free score; it is asked for
    thousands before one is evaluated. `images` is on how many an accuracy in percent is judged: it
    is taken as no more certain than that.
    """

    scores: Callable[[Sequence[Any]], Array] | None = None
    images: int | None = None

    def of(self, configs: Sequence[Any]) -> Array | None:
        """Return the scores of configs, if there are any scores."""
        return None if self.scores is None else self.scores(configs)

    def fit(
        self, configs: Sequence[Any], inputs: Array, accuracies: Array, *,
        start: TrendedProcess | None = None, steps: int = 60,
    ) -> TrendedProcess:  # fmt: skip
        """Fit to the accuracies [n] of configs with inputs [n, d]."""
        return fit_trended(inputs, accuracies, self.of(configs), start=start, steps=steps,
                           least_noise=chance(accuracies, self.images))  # fmt: skip
