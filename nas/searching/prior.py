"""What is known of accuracies before there is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy import binomial_error
from predictors.trended import TrendedProcess, fit_trended

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AccuracyPrior:
    """A cheap score that goes with accuracy, and how far chance alone moves accuracies.

    `scores(configs) -> [n]` may be any finite numbers, such as a training-free score; it is asked
    for thousands before one is evaluated. `images` is on how many an accuracy, in percent then, is
    judged: accuracies are taken as no more certain than that.

    Raises:
        ValueError: if `images` is below 1.
    """

    scores: Callable[[Sequence[Any]], Array] | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(f"`images` must be 1 or more, but got {self.images}. Leave it out "
                             "where accuracies are exact.")  # fmt: skip

    def of(self, configs: Sequence[Any]) -> Array | None:
        """Return the scores of configs, if there are any scores.

        Raises:
            ValueError: if they are not one finite number for each config.
        """
        if self.scores is None:
            return None
        found = np.asarray(self.scores(configs), dtype=float)
        if found.shape != (len(configs),) or not np.isfinite(found).all():
            raise ValueError(f"`scores` must return one finite number for each of {len(configs)} "
                             f"configs, but returned an array of shape {found.shape}"
                             f"{_not_finite(found)}.")  # fmt: skip
        return found

    def fit(
        self, configs: Sequence[Any], inputs: Array, accuracies: Array, *,
        start: TrendedProcess | None = None, steps: int = 60,
    ) -> TrendedProcess:  # fmt: skip
        """Fit to the accuracies [n] of configs with inputs [n, d]."""
        return fit_trended(inputs, accuracies, self.of(configs), start=start, steps=steps,
                           least_noise=binomial_error(accuracies, self.images))  # fmt: skip


def _not_finite(found: Array) -> str:
    missing = int((~np.isfinite(found)).sum())
    return f" with {missing} that are not finite" if missing else ""
