"""Latency predicted from a few dozen measurements, with intervals that say how far to trust it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from predictors.features import gene_features, layer_features, one_hot
from predictors.gaussian_process import GaussianProcess, fit_gaussian_process
from search_spaces.layers import Layered
from search_spaces.space import Space

Array = NDArray[np.float64]
Form = Literal["layers", "additive", "multiplicative"]

COVERAGE = 0.9
FOLDS = 10
_RIDGE = 1e-2
_NOISE = 0.01  # relative; no measurement is more exact
_NORMAL = 1.645  # deviations to each side that hold 90 % of a normal distribution
_LEAST_INFLATION = 1e-3  # errors that are all zero would make intervals without width
_WIDEST = 2.3  # logarithm of the factor 10: an interval says no more than "unknown"


@dataclass(frozen=True)
class Prediction:
    """Predicted latencies of n configs in ms, each an array of shape [n]; a 90 % interval."""

    mean_ms: Array
    low_ms: Array
    high_ms: Array


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """Latency = trend * exp(residual): a linear trend, and a Gaussian process for what it misses.

    The trend is chosen by cross-validation: a non-negative combination of the work in each kind of
    layer, where the config knows its layers; else a sum, or a product, of one term for each choice.
    """

    space: Space[Any]
    form: Form
    coefficients: Array
    residual: GaussianProcess
    centre: Array  # of the process's inputs
    spread: Array
    inflation: float  # of the process's deviation, so that the intervals cover 90 %

    @classmethod
    def fit(
        cls, space: Space[Any], configs: Sequence[Any], latencies_ms: Sequence[float]
    ) -> "LatencyPredictor":
        """Fit to the measured latencies of some configs; thirty to fifty that cover the space.

        Raises:
            ValueError: if there are fewer than 8, a latency is not a positive number, or neither
                layers nor genes tell the configs apart.
        """
        latencies = np.asarray(latencies_ms, dtype=float)
        _check(configs, latencies)
        _check_told_apart(space, configs)
        tables = {form: _table(form, space, configs) for form in _forms(configs)}
        errors = {form: _cross_validated_error(form, table, latencies)
                  for form, table in tables.items()}  # fmt: skip
        form = min(errors, key=lambda f: errors[f])
        predictor = _fit_form(space, form, configs, latencies, steps=60)
        return replace(predictor, inflation=_inflation(predictor, configs, latencies))

    def predict(self, configs: Sequence[Any]) -> Prediction:
        """Return mean and 90 % interval of each config's latency."""
        mean, deviation = self._log_latency(configs)
        margin = np.minimum(self.inflation * deviation, _WIDEST)
        return Prediction(np.exp(mean), np.exp(mean - margin), np.exp(mean + margin))

    def _log_latency(self, configs: Sequence[Any]) -> tuple[Array, Array]:
        table = _table(self.form, self.space, configs)
        trend = _trend(self.form, table, self.coefficients)
        inputs = (_inputs(self.form, self.space, configs, table) - self.centre) / self.spread
        mean, deviation = self.residual.predict(inputs)
        return np.log(trend) + mean, np.hypot(deviation, self.residual.noise)


def _fit_form(
    space: Space[Any], form: Form, configs: Sequence[Any], latencies: Array, *, steps: int
) -> LatencyPredictor:
    table = _table(form, space, configs)
    coefficients = _fit_trend(form, table, latencies)
    inputs = _inputs(form, space, configs, table)
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    missed = np.log(latencies / _trend(form, table, coefficients))
    process = fit_gaussian_process((inputs - centre) / spread, missed, steps=steps,
                                   least_noise=_NOISE)  # fmt: skip
    return LatencyPredictor(space=space, form=form, coefficients=coefficients, residual=process,
                            centre=centre, spread=spread, inflation=_NORMAL)  # fmt: skip


def _inflation(predictor: LatencyPredictor, configs: Sequence[Any], latencies: Array) -> float:
    """The quantile of held-out errors, in predicted deviations (split conformal, 1604.04173).

    Each fold is fitted from nothing: hyperparameters that have seen the held-out networks would
    make the intervals too narrow. But networks that were chosen to lie far apart leave a hole
    when held out, and are missed by more than others: only half of what exceeds a normal
    distribution's quantile counts.
    """
    scores: list[float] = []
    for held_out in _folds(len(latencies)):
        kept = np.setdiff1d(np.arange(len(latencies)), held_out)
        fold = _fit_form(predictor.space, predictor.form, [configs[i] for i in kept],
                         latencies[kept], steps=20)  # fmt: skip
        mean, deviation = fold._log_latency([configs[i] for i in held_out])
        scores.extend(np.abs(np.log(latencies[held_out]) - mean) / deviation)
    seen = max(float(np.quantile(scores, COVERAGE)), _LEAST_INFLATION)
    return seen - 0.5 * max(seen - _NORMAL, 0.0)


def _forms(configs: Sequence[Any]) -> tuple[Form, ...]:
    if isinstance(configs[0], Layered):
        return ("layers",)
    return ("additive", "multiplicative")


def _table(form: Form, space: Space[Any], configs: Sequence[Any]) -> Array:
    return layer_features(configs) if form == "layers" else one_hot(space, configs)


def _inputs(form: Form, space: Space[Any], configs: Sequence[Any], table: Array) -> Array:
    return np.log1p(table) if form == "layers" else gene_features(space, configs)


def _trend(form: Form, table: Array, coefficients: Array) -> Array:
    combined: Array = table @ coefficients[1:] + coefficients[0]
    if form == "multiplicative":
        return np.asarray(np.exp(combined))
    return np.asarray(np.maximum(combined, abs(coefficients[0]) * 1e-3 + 1e-9))


def _fit_trend(form: Form, table: Array, latencies: Array) -> Array:
    """Minimise the relative error; the first coefficient is the constant."""
    fit: Callable[[Array, Array], Array] = {
        "layers": _non_negative, "additive": _ridge_relative, "multiplicative": _ridge_log,
    }[form]  # fmt: skip
    return fit(table, latencies)


def _non_negative(table: Array, latencies: Array) -> Array:
    from scipy.optimize import nnls

    rows = np.column_stack([np.ones(len(table)), table])
    scale = np.maximum(rows.max(axis=0), 1e-12)
    solution, _ = nnls(rows / scale / latencies[:, None], np.ones(len(rows)))
    return np.asarray(solution / scale)


def _ridge_relative(table: Array, latencies: Array) -> Array:
    centre = float(np.median(latencies))
    weights = centre / latencies
    rows = np.column_stack([np.ones(len(table)), table]) * weights[:, None]
    return centre * _ridge(rows, np.ones(len(rows)))


def _ridge_log(table: Array, latencies: Array) -> Array:
    return _ridge(np.column_stack([np.ones(len(table)), table]), np.log(latencies))


def _ridge(rows: Array, targets: Array) -> Array:
    penalty = np.diag([0.0, *[_RIDGE] * (rows.shape[1] - 1)])
    solution: Array = np.asarray(np.linalg.solve(rows.T @ rows + penalty, rows.T @ targets), float)
    return solution


def _cross_validated_error(form: Form, table: Array, latencies: Array) -> float:
    errors: list[float] = []
    for held_out in _folds(len(latencies)):
        kept = np.setdiff1d(np.arange(len(latencies)), held_out)
        coefficients = _fit_trend(form, table[kept], latencies[kept])
        predicted = _trend(form, table[held_out], coefficients)
        errors.extend(np.abs(np.log(predicted / latencies[held_out])))
    return float(np.mean(errors))


def _folds(n: int) -> list[NDArray[np.intp]]:
    order = np.random.default_rng(0).permutation(n)
    return [np.asarray(fold) for fold in np.array_split(order, min(FOLDS, n))]


def _check(configs: Sequence[Any], latencies: Array) -> None:
    if latencies.ndim != 1:
        raise ValueError(f"`latencies_ms` must be one number for each config, but got an array of "
                         f"shape {latencies.shape}. Give the medians.")  # fmt: skip
    if len(configs) != len(latencies):
        raise ValueError(f"`latencies_ms` must have one entry for each of the {len(configs)} "
                         f"configs, but got {len(latencies)}.")  # fmt: skip
    if len(configs) < 8:
        raise ValueError(f"`configs` must hold at least 8 measured networks, but got "
                         f"{len(configs)}. Measure more.")  # fmt: skip
    wrong = latencies[~(np.isfinite(latencies) & (latencies > 0))]
    if len(wrong):
        raise ValueError(f"`latencies_ms` must be positive numbers, but got {wrong[0]}.")


def _check_told_apart(space: Space[Any], configs: Sequence[Any]) -> None:
    if not space.genes and _forms(configs) != ("layers",):
        raise ValueError("`space` must have an open field where its configs know no layers, but "
                         "got one config only. Open a field with oneof(...).")  # fmt: skip
