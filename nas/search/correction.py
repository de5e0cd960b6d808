"""Ratios of latency to budget that trials teach: predicted ones are corrected, others learned.

A search may be told wrong: by a predictor of another device, or of other networks. What it is told
is the start, and each answer is checked; the logarithm of found over predicted is learned from the
trials, as a Gaussian process of the choices with linear terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.search.feasibility import PredictRatio
from nas.search.trial import Objectives
from predictors.features import linear_terms, scaled_genes
from predictors.gp import GaussianProcess, fit_gaussian_process
from predictors.latency import (
    COVERAGE,
    NORMAL,
    LatencyPredictor,
    RatioPrediction,
)
from search_spaces.space import AnySpace, Genes

Array = NDArray[np.float64]

_REFIT = 8  # results between two fits, the first of them after as many
_FEW = 32  # results; up to so many, what is learned from nothing is fitted oftener
_MOST_CHOSEN = 64  # results; with more, the form of what is learned is kept
_ALIKE = 1e-6  # of a ratio: the evaluation is the prediction itself
_NOISE = 1e-3  # relative; evaluations may be exact
_STEPS, _FEW_STEPS = 40, 8  # of the first fit, and of further ones


class _Told(NamedTuple):
    """What is predicted of a config."""

    mean: float
    high: float
    log_std: float | None


@dataclass(eq=False)
class CorrectedRatios:
    """`predict` until eight results, and wherever trials find just that; then what corrects it."""

    space: AnySpace
    predict: PredictRatio
    _genes: list[Genes] = field(default_factory=list)
    _missed: list[float] = field(default_factory=list)  # logarithms of found over predicted
    _above: list[float] = field(default_factory=list)  # logarithms of found upper ends over found
    _told: dict[Genes, _Told] = field(default_factory=dict)  # of those that trials had
    _process: GaussianProcess | None = None
    _inflation: float = NORMAL

    def __call__(self, configs: Sequence[object]) -> RatioPrediction:
        """Return mean and upper end of each config's ratio, by all that was found so far."""
        if not self._told or not len(configs):
            return self.predict(configs)
        genes = list(map(self.space.encode, configs))
        told = self._predicted(configs, genes)
        if self._process is None:
            return told
        shift, std = self._process.predict(*_rows(self.space, genes))
        log_std = self._inflation / NORMAL * np.hypot(std, self._process.noise)
        mean = told.mean * np.exp(shift)
        above = float(np.median(self._above))
        return RatioPrediction(mean, mean * np.exp(above + NORMAL * log_std), log_std)

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Take in what a trial found; None where it failed."""
        if found is None:
            return
        config = self.space.decode(genes)
        told = self.predict([config])
        std = None if told.log_std is None else float(told.log_std[0])
        self._told[self.space.encode(config)] = _Told(float(told.mean[0]), float(told.high[0]), std)
        self._genes.append(genes)
        self._missed.append(float(np.log(found.ratio / told.mean[0])))
        self._above.append(max(float(np.log((1 + found.excess) / found.ratio)), 0.0))
        if len(self._genes) % _REFIT == 0 and max(map(abs, self._missed)) > _ALIKE:
            self._fit()

    def _predicted(self, configs: Sequence[object], genes: Sequence[Genes]) -> RatioPrediction:
        """What is told of the configs; of those that trials had it is known already."""
        kept = list(map(self._told.get, genes))
        at = np.array([one is None for one in kept])
        if at.all():
            return self.predict(configs)
        new = [config for config, one in zip(configs, kept, strict=True) if one is None]
        found = self.predict(new) if new else None

        def merged(column: str) -> Array:
            values = np.array([0.0 if one is None else getattr(one, column) for one in kept])
            values[at] = [] if found is None else getattr(found, column)
            return values

        first = next(one for one in kept if one is not None)
        log_std = None if first.log_std is None else merged("log_std")
        return RatioPrediction(merged("mean"), merged("high"), log_std)

    def _fit(self) -> None:
        start = None if self._process is None else self._process.hyperparameters
        inputs, linear = _rows(self.space, self._genes)
        self._process = fit_gaussian_process(
            inputs,
            np.array(self._missed),
            linear=linear,
            start=start,
            steps=_STEPS if start is None else _FEW_STEPS,
            least_noise=_NOISE,
        )
        missed, std = self._process.left_out()
        seen = float(np.quantile(np.abs(missed) / std, COVERAGE, method="weibull"))
        self._inflation = max(seen, NORMAL)


def _rows(space: AnySpace, genes: Sequence[Genes]) -> tuple[Array, tuple[Array, ...]]:
    return scaled_genes(space, genes), linear_terms(space, genes)


class LearnedRatios:
    """Ratios where nothing predicts them: a latency predictor, fitted to the trials."""

    def __init__(self, space: AnySpace) -> None:
        self._space = space
        self._predictor: LatencyPredictor | None = None
        self._fitted = self._chosen = 0  # results when it was fitted, and when its form was chosen

    def fit(self, genes: Sequence[Genes], ratios: Sequence[float]) -> None:
        """Fit to all results, now and then; the form is chosen anew at twice as many."""
        count = len(ratios)
        if self._predictor is not None and count - self._fitted < (_REFIT if count > _FEW else 2):
            return
        chosen = self._predictor is not None and (count < 2 * self._chosen or count > _MOST_CHOSEN)
        start = self._predictor if chosen else None
        configs = [self._space.decode(g) for g in genes]
        fitted = LatencyPredictor.fit(self._space, configs, ratios, folds=0, start=start)
        self._predictor = fitted.trusting()  # what no trial had would never be tried else
        self._fitted, self._chosen = count, self._chosen if chosen else count

    def __call__(self, configs: Sequence[object]) -> RatioPrediction:
        """Return the ratios; the chance to keep the budget follows from the deviation."""
        assert self._predictor is not None
        found = self._predictor.predict(configs)
        log_std = np.log(found.high_ms / found.mean_ms) / NORMAL
        return RatioPrediction(found.mean_ms, found.high_ms, log_std)
