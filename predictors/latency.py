"""Latency predicted from a few dozen measurements, with intervals; which networks to measure.

Configs become rows of numbers: from their layers if they have them, else from their genes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.cost import NO_LIMITS, Limits, costs, layers_in_groups
from predictors.gp import GaussianProcess, fit_gaussian_process
from search_spaces.layers import Layer, Layered
from search_spaces.space import AnySpace, Genes, Space

Array = NDArray[np.float64]
C = TypeVar("C")

# Work of a network by kind of layer; time is close to a non-negative combination of these.
_KINDS = ("conv1x1", "conv", "grouped", "patchify", "linear", "attention")
_QUANTITIES = ("macs", "weights", "activations", "count")
_ELEMENTWISE = (
    *("relu", "gelu", "hardswish", "hard_sigmoid", "add", "multiply", "gate"),
    *("split_concat", "pool"),
)
LAYER_FEATURES = (
    *(f"{kind}.{quantity}" for kind in _KINDS for quantity in _QUANTITIES),
    *(f"{op}.{quantity}" for op in _ELEMENTWISE for quantity in ("activations", "count")),
)


def layer_features(configs: Sequence[object]) -> Array:
    """Return sums over the layers of each kind, of shape [n, len(LAYER_FEATURES)]."""
    table = np.zeros((len(configs), len(LAYER_FEATURES)))
    for indices, layers in layers_in_groups(configs):
        for layer in layers:
            for name, value in _quantities(layer):
                table[indices, LAYER_FEATURES.index(name)] += value
    return table


def gene_features(space: AnySpace, configs: Sequence[object]) -> Array:
    """Return the configs' genes as `scaled_genes` does."""
    return scaled_genes(space, [space.encode(config) for config in configs])


def scaled_genes(space: AnySpace, genes: Sequence[Genes]) -> Array:
    """Return genes scaled to [0, 1] where their choices are ordered, one-hot where not."""
    table = _gene_table(space, genes)
    columns = [
        table[:, [i]] / max(len(gene.choices) - 1, 1)
        if gene.ordered
        else table[:, [i]] == np.arange(len(gene.choices))
        for i, gene in enumerate(space.genes)
    ]
    return np.hstack(columns).astype(float)


def one_hot(space: AnySpace, configs: Sequence[object]) -> Array:
    """Return one column for each choice of each gene, 1 where it was taken."""
    table = _gene_table(space, [space.encode(config) for config in configs])
    columns = [table[:, [i]] == np.arange(n) for i, n in enumerate(space.cardinalities)]
    return np.hstack(columns).astype(float)


def _gene_table(space: AnySpace, genes: Sequence[Genes]) -> Array:
    """Genes as rows, of shape [n, genes] even where n is 0."""
    return np.array(genes, dtype=float).reshape(len(genes), len(space.genes))


def _quantities(layer: Layer) -> Iterator[tuple[str, Any]]:
    """The work of a layer, each with the feature that it adds to; 0 where it is of another kind."""
    for kind, share in _kinds(layer):
        repeat = layer.repeat * share
        activations = layer.c_in * layer.height * layer.width
        if kind in _KINDS:
            activations = activations + layer.c_out * layer.out_positions
            yield f"{kind}.macs", layer.macs * share
            yield f"{kind}.weights", layer.weights * share
        yield f"{kind}.activations", repeat * activations
        yield f"{kind}.count", repeat


def _kinds(layer: Layer) -> Iterator[tuple[str, Any]]:
    """The kinds that a layer may be of, each with 1 where it is, as a number or an array."""
    if layer.op != "conv":
        yield layer.op, 1
        return
    vector = (layer.height == 1) * 1  # a convolution of the pooled vector
    grouped = (1 - vector) * (layer.groups > 1)
    patchify = (1 - vector) * (layer.kernel == layer.stride) * (layer.kernel > 1)
    point = (1 - vector) * (layer.kernel == 1) * (layer.stride == 1)
    yield "linear", vector
    yield "grouped", grouped
    yield "patchify", patchify
    yield "conv1x1", point
    yield "conv", 1 - vector - grouped - patchify - point


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


@dataclass(frozen=True)
class RatioPrediction:
    """Predicted latency/budget ratios of n configs: means and upper ends, arrays of shape [n]."""

    mean: Array
    high: Array


def worst_ratios(
    predictions: Mapping[str, Prediction], budgets_ms: Mapping[str, float]
) -> RatioPrediction:
    """Return the worst ratio of each config over the devices, as `worst_ratio` does of one."""
    on_each = [(predictions[name], ms) for name, ms in budgets_ms.items()]
    return RatioPrediction(
        mean=np.max([p.mean_ms / ms for p, ms in on_each], axis=0),
        high=np.max([p.high_ms / ms for p, ms in on_each], axis=0),
    )


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """Latency = trend * exp(residual): a linear trend, and a Gaussian process for what it misses.

    The trend is chosen by cross-validation: a non-negative combination of the work in each kind of
    layer, where the config knows its layers; else a sum, or a product, of one term for each choice.
    """

    space: AnySpace
    form: Form
    coefficients: Array
    residual: GaussianProcess
    varied: NDArray[np.bool_]  # the inputs that differ between the networks fitted to
    centre: Array  # of these inputs
    spread: Array
    inflation: float  # of the process's deviation, so that the intervals cover 90 %

    @classmethod
    def fit(
        cls, space: AnySpace, configs: Sequence[object], latencies_ms: Sequence[float]
    ) -> "LatencyPredictor":
        """Fit to the measured latencies of some configs; thirty to fifty that cover the space.

        Raises:
            ValueError: if there are fewer than 8, a latency is not a positive number, or neither
                layers nor genes tell the configs apart.
        """
        latencies = np.asarray(latencies_ms, dtype=float)
        _check(space, configs, latencies)
        tables = {form: _table(form, space, configs) for form in _forms(configs)}
        errors = {
            form: _cross_validated_error(form, table, latencies) for form, table in tables.items()
        }
        form = min(errors, key=lambda f: errors[f])
        predictor = _fit_form(space, form, configs, latencies, steps=60)
        return replace(predictor, inflation=_inflation(predictor, configs, latencies))

    def predict(self, configs: Sequence[object]) -> Prediction:
        """Return mean and 90 % interval of each config's latency."""
        mean, std = self._log_latency(configs)
        margin = np.minimum(self.inflation * std, _WIDEST)
        return Prediction(np.exp(mean), np.exp(mean - margin), np.exp(mean + margin))

    def _log_latency(self, configs: Sequence[object]) -> tuple[Array, Array]:
        table = _table(self.form, self.space, configs)
        trend = _trend(self.form, table, self.coefficients)
        inputs = _inputs(self.form, self.space, configs, table)[:, self.varied]
        inputs = (inputs - self.centre) / self.spread
        mean, std = self.residual.predict(inputs)
        return np.log(trend) + mean, np.hypot(std, self.residual.noise)


def _fit_form(
    space: AnySpace, form: Form, configs: Sequence[object], latencies: Array, *, steps: int
) -> LatencyPredictor:
    table = _table(form, space, configs)
    coefficients = _fit_trend(form, table, latencies)
    inputs = _inputs(form, space, configs, table)
    varied = inputs.std(axis=0) > 1e-9
    varied[0] = True  # of networks that are all alike, something must be left
    inputs = inputs[:, varied]
    centre, spread = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-9)
    missed = np.log(latencies / _trend(form, table, coefficients))
    process = fit_gaussian_process(
        (inputs - centre) / spread, missed, steps=steps, least_noise=_NOISE
    )
    return LatencyPredictor(
        space=space,
        form=form,
        coefficients=coefficients,
        residual=process,
        varied=varied,
        centre=centre,
        spread=spread,
        inflation=_NORMAL,
    )


def _inflation(predictor: LatencyPredictor, configs: Sequence[object], latencies: Array) -> float:
    """The quantile of held-out errors, in predicted deviations (split conformal, 1604.04173).

    Each fold is fitted from nothing: hyperparameters that have seen the held-out networks would
    make the intervals too narrow. But networks that were chosen to lie far apart leave a hole
    when held out, and are missed by more than others: only half of what exceeds a normal
    distribution's quantile counts.
    """
    scores: list[float] = []
    for kept, held_out in _folds(len(latencies)):
        fold = _fit_form(
            predictor.space, predictor.form, [configs[i] for i in kept], latencies[kept], steps=20
        )
        mean, std = fold._log_latency([configs[i] for i in held_out])
        scores.extend(np.abs(np.log(latencies[held_out]) - mean) / std)
    seen = max(float(np.quantile(scores, COVERAGE)), _LEAST_INFLATION)
    return seen - 0.5 * max(seen - _NORMAL, 0.0)


def _forms(configs: Sequence[object]) -> tuple[Form, ...]:
    if isinstance(configs[0], Layered):
        return ("layers",)
    return ("additive", "multiplicative")


def _table(form: Form, space: AnySpace, configs: Sequence[object]) -> Array:
    return layer_features(configs) if form == "layers" else one_hot(space, configs)


def _inputs(form: Form, space: AnySpace, configs: Sequence[object], table: Array) -> Array:
    return np.log1p(table) if form == "layers" else gene_features(space, configs)


def _trend(form: Form, table: Array, coefficients: Array) -> Array:
    combined: Array = table @ coefficients[1:] + coefficients[0]
    if form == "multiplicative":
        return np.asarray(np.exp(combined))
    return np.asarray(np.maximum(combined, abs(coefficients[0]) * 1e-3 + 1e-9))


def _fit_trend(form: Form, table: Array, latencies: Array) -> Array:
    """Minimise the relative error; the first coefficient is the constant."""
    rows = np.column_stack([np.ones(len(table)), table])
    if form == "layers":
        return _non_negative(rows, latencies)
    if form == "multiplicative":
        return _ridge(rows, np.log(latencies))
    centre = float(np.median(latencies))
    weights = centre / latencies
    return centre * _ridge(rows * weights[:, None], np.ones(len(rows)))


def _non_negative(rows: Array, latencies: Array) -> Array:
    from scipy.optimize import nnls

    scale = np.maximum(rows.max(axis=0), 1e-12)
    solution, _ = nnls(rows / scale / latencies[:, None], np.ones(len(rows)))
    return np.asarray(solution / scale)


def _ridge(rows: Array, targets: Array) -> Array:
    penalty = np.diag([0.0, *[_RIDGE] * (rows.shape[1] - 1)])
    return np.asarray(np.linalg.solve(rows.T @ rows + penalty, rows.T @ targets), float)


def _cross_validated_error(form: Form, table: Array, latencies: Array) -> float:
    errors: list[float] = []
    for kept, held_out in _folds(len(latencies)):
        coefficients = _fit_trend(form, table[kept], latencies[kept])
        predicted = _trend(form, table[held_out], coefficients)
        errors.extend(np.abs(np.log(predicted / latencies[held_out])))
    return float(np.mean(errors))


def _folds(n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield which of n networks are kept and which are held out."""
    order = np.random.default_rng(0).permutation(n)
    for held_out in np.array_split(order, min(FOLDS, n)):
        yield np.setdiff1d(np.arange(n), held_out), held_out


def _check(space: AnySpace, configs: Sequence[object], latencies: Array) -> None:
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
    if len(configs) < 8:
        raise ValueError(
            f"`configs` must hold at least 8 measured networks, but got {len(configs)}. Measure "
            "more."
        )
    wrong = latencies[~(np.isfinite(latencies) & (latencies > 0))]
    if len(wrong):
        raise ValueError(f"`latencies_ms` must be positive numbers, but got {wrong[0]}.")
    if not space.genes and _forms(configs) != ("layers",):
        raise ValueError(
            "`space` must have an open field where its configs know no layers, but got one config "
            "only. Open a field with oneof(...)."
        )


FIRST = 16  # networks chosen before there is a predictor
POOL = 3000
HEADROOM = 1.25  # budgets: networks up to this much over one are useful too


Measured = Sequence[tuple[C, Mapping[str, float]]]  # configs, and their latencies in ms by device


def next_batch(
    space: Space[C],
    measured: Measured[C],
    *,
    budgets_ms: Mapping[str, float],
    total: int,
    seed: int,
    limits: Limits = NO_LIMITS,
) -> list[C]:
    """Return the networks to time next, given the latencies of those timed before.

    `measured` starts with one network of any size. The first batch covers the costs within the
    budgets, as a guess from that network, and within the limits; the second covers what predictors
    fitted to the first expect there. An empty list means that there are `total` of them.
    """
    if not measured:
        raise ValueError("`measured` must hold one network to start from, but got none.")
    if len(measured) >= total:
        return []
    # A batch follows from what was measured before it, so that half of one leads to the same rest.
    first = len(measured) <= FIRST
    before = measured[: 1 if first else FIRST + 1]
    end = min(FIRST + 1, total) if first else total
    rng, count = Random(f"{seed}/{first}"), end - len(before)
    batch = _batch(space, before, budgets_ms, limits, count, rng)
    known = {config for config, _ in measured}
    return [config for config in batch if config not in known][: end - len(measured)]


def _batch(
    space: Space[C],
    measured: Measured[C],
    budgets_ms: Mapping[str, float],
    limits: Limits,
    n: int,
    rng: Random,
) -> list[C]:
    """Choose n networks within the budgets and limits, or near them where few are within."""
    known = [config for config, _ in measured]
    pool = [space.decode(_skewed(space, rng)) for _ in range(POOL)]
    fresh = list(dict.fromkeys(config for config in pool if config not in known))
    expected = _expected_ratios(space, measured, budgets_ms, fresh)
    expected = np.maximum(expected, limits.ratios(fresh))
    cheapest = [fresh[i] for i in np.argsort(expected, kind="stable")]
    within = int(np.sum(expected <= HEADROOM))
    return _spread(known, cheapest[: max(within, 2 * n)], n)


def _skewed(space: AnySpace, rng: Random) -> Genes:
    """Draw genes towards the front of their choices, from not at all to strongly.

    Choices are listed in ascending order, so this reaches small networks, which a uniform draw
    of twenty genes never does.
    """
    power = rng.choice((1.0, 1.5, 2.0, 3.0, 5.0))
    return tuple(int(n * rng.random() ** power) for n in space.cardinalities)


def _expected_ratios(
    space: Space[C], measured: Measured[C], budgets_ms: Mapping[str, float], pool: Sequence[object]
) -> Array:
    configs = [config for config, _ in measured]
    if len(measured) > FIRST:
        fitted = {
            name: LatencyPredictor.fit(space, configs, [on_each[name] for _, on_each in measured])
            for name in budgets_ms
        }
        predictions = {name: predictor.predict(pool) for name, predictor in fitted.items()}
        return worst_ratios(predictions, budgets_ms).mean
    ratio = max(measured[0][1][name] / ms for name, ms in budgets_ms.items())
    macs = np.asarray(costs([configs[0], *pool]).macs, dtype=float)
    return np.asarray(ratio * macs[1:] / macs[0])


def _spread(known: Sequence[C], candidates: Sequence[C], n: int) -> list[C]:
    """Pick n candidates one by one, each the farthest from all that are known or picked.

    They are as far apart as the logarithms of their work by kind of layer.
    """
    work = np.log1p(layer_features([*known, *candidates]))
    work = work[:, work.std(axis=0) > 1e-9]
    rows = (work - work.mean(axis=0)) / work.std(axis=0)
    near, free = rows[: len(known)], rows[len(known) :]
    distance = np.linalg.norm(free[:, None] - near, axis=2).min(axis=1)
    picked = []
    for _ in range(min(n, len(candidates))):
        best = int(distance.argmax())
        picked.append(candidates[best])
        distance = np.minimum(distance, np.linalg.norm(free - free[best], axis=1))
    return picked
