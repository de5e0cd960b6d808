"""Latency predicted from a few dozen measurements, with intervals.

Configs become rows of numbers: from their layers if they have them, else from their genes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.cost import layers_in_groups
from predictors.gp import GaussianProcess, fit_gaussian_process
from search_spaces.layers import Layer, Layered
from search_spaces.space import AnySpace, Genes

Array = NDArray[np.float64]

# Work of a network by kind of layer; time is close to a non-negative combination of these.
_KINDS = ("conv1x1", "conv", "grouped", "patchify", "linear", "attention")
_QUANTITIES = ("macs", "weights", "activations", "count")
_UNROLLED = ("conv", "grouped")  # kinds whose kernels may copy k x k inputs for each output
_ELEMENTWISE = (
    *("relu", "gelu", "hardswish", "hard_sigmoid", "add", "multiply", "gate"),
    *("split_concat", "pool"),
)
LAYER_FEATURES = (
    *(f"{kind}.{quantity}" for kind in _KINDS for quantity in _QUANTITIES),
    *(f"{kind}.columns" for kind in _UNROLLED),
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


def linear_terms(space: AnySpace, genes: Sequence[Genes]) -> tuple[Array, Array]:
    """Return columns of which latency may be a sum: of ordered choices, and of all.

    An ordered choice is its number and, if all are positive, its logarithm, standardised; any
    choice besides is one-hot.
    """
    table = _gene_table(space, genes).astype(int)
    columns = list(zip(table.T, space.genes, strict=True))
    numbers = [_standardised(gene.choices)[at] for at, gene in columns if gene.ordered]
    hot = [
        (at[:, None] == np.arange(n)) - 1 / n
        for at, n in zip(table.T, space.cardinalities, strict=True)
    ]
    none = np.empty((len(genes), 0))
    return np.hstack([none, *numbers]), np.hstack([none, *hot])


def _standardised(choices: Sequence[float]) -> Array:
    values: Array = np.array(choices, dtype=float)[:, None]
    columns: Array = np.hstack([values, np.log(values)]) if (values > 0).all() else values
    spread = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


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
        if kind in _UNROLLED:
            columns = layer.c_in * layer.kernel**2 * layer.out_positions
            yield f"{kind}.columns", repeat * columns
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


Form = Literal["layers", "additive", "root", "multiplicative"]

COVERAGE = 0.9
FEWEST = 8  # networks that a predictor is fitted to
FOLDS = 10
_FEW, _MANY = 60, 100  # networks: up to few may choose another form; of many, half the folds do
# The powers of a latency of which the process is one; 0: the logarithm.
_POWERS: Mapping[Form, float] = {"layers": 0, "additive": 1, "root": 0.5, "multiplicative": 0}
_STEPS, _FEW_STEPS = 60, 10  # of fitting, from nothing and from an earlier fit
_NOISE = 0.01  # relative; no measurement is more exact
NORMAL = 1.645  # deviations to each side that hold 90 % of a normal distribution
_LEAST_INFLATION = 1e-3  # errors that are all zero would make intervals without width
_WIDEST = 10.0  # factor to each side: an interval says no more than "unknown"
_BEYOND = 2.0  # a prediction this factor outside of what was measured is not believed
_LEAST = 1e-3  # of the typical latency; nothing is predicted below
# The part of folds' holes, in logarithms, that other networks fall into: chosen on the CPU's table
_HOLES = 0.4  # of benchmarks/latency_predictor.py, whose coverage is no held-out figure
_OUTLIER = 4.0  # medians; an error that is larger counts as so many


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


def worst_ratios(
    predictions: Mapping[str, Prediction], budgets_ms: Mapping[str, float]
) -> RatioPrediction:
    """Return the worst ratio of each config over the devices, as `worst_ratio` does of one."""
    on_each = [(predictions[name], ms) for name, ms in budgets_ms.items()]
    return RatioPrediction(
        mean=np.max([p.mean_ms / ms for p, ms in on_each], axis=0),
        high=np.max([p.high_ms / ms for p, ms in on_each], axis=0),
    )


@dataclass(frozen=True)
class _Rows:
    """What the process sees of n configs; it is fitted to latencies in units of the trend's."""

    inputs: Array  # [n, d]
    linear: tuple[Array, ...]  # each [n, columns]
    trend_ms: Array  # [n]
    doubt: Array  # [n], variance of the trend, in units of the noise's


class _Encoding(Protocol):
    """Makes rows of a table of what is known of configs (see `_table`)."""

    def rows(self, table: Array) -> _Rows:
        """Return what the process sees of it."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The work in each kind of layer; the trend is a non-negative combination of it."""

    coefficients: Array  # ms, the first is the constant
    varied: NDArray[np.bool_]  # the columns that differ between the networks fitted to
    centre: Array  # of their logarithms
    spread: Array
    covariance: Array  # of the coefficients, in units of the noise's

    @classmethod
    def fit(cls, table: Array, latencies: Array) -> "_Work":
        coefficients = _non_negative(table, latencies)
        logs = np.log1p(table)
        varied = logs.std(axis=0) > 1e-9
        varied[0] = True  # of networks that are all alike, something must be left
        parts = _parts(table, coefficients) / latencies[:, None]
        return cls(
            coefficients=coefficients,
            varied=varied,
            centre=logs.mean(axis=0)[varied],
            spread=np.maximum(logs.std(axis=0), 1e-9)[varied],
            covariance=np.asarray(
                np.linalg.pinv(parts.T @ parts, rcond=1e-9, hermitian=True), dtype=float
            ),
        )

    def rows(self, table: Array) -> _Rows:
        trend_ms = _combined(table, self.coefficients)
        inputs = (np.log1p(table)[:, self.varied] - self.centre) / self.spread
        parts = _parts(table, self.coefficients) / trend_ms[:, None]
        doubt = np.sum(parts @ self.covariance * parts, axis=1)
        return _Rows(inputs, (), trend_ms, doubt)


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """The choices themselves; all are in units of one typical latency."""

    space: AnySpace
    typical_ms: float

    def rows(self, table: Array) -> _Rows:
        genes: list[Genes] = list(map(tuple, table.astype(int).tolist()))
        trend_ms = np.full(len(table), self.typical_ms)
        linear = linear_terms(self.space, genes)
        return _Rows(scaled_genes(self.space, genes), linear, trend_ms, np.zeros(len(table)))


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """Latency as a Gaussian process with linear terms, of a config's layers or of its choices.

    Of a config that knows its layers, the process is that of the logarithm of latency over a trend,
    a non-negative combination of the work in each kind of layer. Else it is that of the latency, of
    its square root or of its logarithm, whichever predicts best what is left out: a sum of what
    each choice takes, a product of factors, or what lies between.
    """

    space: AnySpace
    form: Form
    encoding: _Encoding
    process: GaussianProcess
    inflation: float  # of the process's deviation, so that the intervals cover 90 %
    measured_ms: tuple[float, float]  # the least and the most of what it was fitted to

    @classmethod
    def fit(
        cls,
        space: AnySpace,
        configs: Sequence[object],
        latencies_ms: Sequence[float],
        *,
        folds: int = FOLDS,
        start: "LatencyPredictor | None" = None,
    ) -> "LatencyPredictor":
        """Fit to the measured latencies of some configs; thirty to fifty that cover the space.

        The intervals follow from the errors in `folds`, each fitted to the others; with 0 each
        network is left out of what was fitted to all, which is quick, and narrow for few networks.
        `start` is an earlier fit, of which form and hyperparameters are taken up.

        Raises:
            ValueError: if there are fewer than 8, a latency is not a positive number, or neither
                layers nor genes tell the configs apart.
        """
        latencies = np.asarray(latencies_ms, dtype=float)
        _check(space, configs, latencies)
        forms = (start.form,) if start else _forms(configs)
        data = [_Data(space, form, _table(form, space, configs), latencies) for form in forms]
        best, chosen = _best(data, start)
        if len(latencies) > _FEW:
            data = [chosen]
        return replace(best, inflation=_inflation(best, data, folds))

    def predict(self, configs: Sequence[object]) -> Prediction:
        """Return mean and 90 % interval of each config's latency."""
        mean, std, trend_ms = self._predict(_table(self.form, self.space, configs))
        margin, power = self.inflation * std, _POWERS[self.form]
        mean_ms, low_ms, high_ms = (
            trend_ms * _from_scale(mean + step * margin, power) for step in (0, -1, 1)
        )
        low_ms = np.maximum(low_ms, mean_ms / _WIDEST)
        return self._believable(mean_ms, low_ms, np.minimum(high_ms, mean_ms * _WIDEST))

    def _predict(self, table: Array) -> tuple[Array, Array, Array]:
        """Mean and deviation on the process's scale, and the trend."""
        rows, power = self.encoding.rows(table), _POWERS[self.form]
        mean, std = self.process.predict(rows.inputs, rows.linear)
        noise = self.process.noise * _from_scale(mean, power) ** power
        return mean, np.hypot(std, noise * np.sqrt(1 + rows.doubt)), rows.trend_ms

    def _believable(self, mean_ms: Array, low_ms: Array, high_ms: Array) -> Prediction:
        """Draw nearer what is far outside of all that was measured; its interval reaches back.

        More work takes more time, so that layers tell of larger networks than were measured.
        """
        least, most = self.measured_ms
        below = least / _BEYOND / mean_ms
        above = mean_ms / most / _BEYOND if self.form != "layers" else np.zeros(len(mean_ms))
        mean_ms = np.where(below > 1, least / _BEYOND / _drawn(below), mean_ms)
        mean_ms = np.where(above > 1, most * _BEYOND * _drawn(above), mean_ms)
        low_ms = np.where(above > 1, np.minimum(low_ms, most), np.minimum(low_ms, mean_ms))
        high_ms = np.where(below > 1, np.maximum(high_ms, least), np.maximum(high_ms, mean_ms))
        return Prediction(mean_ms, low_ms, high_ms)


def _drawn(factor: Array) -> Array:
    """A factor of at most _BEYOND that grows with the one given, where that is above 1."""
    return np.asarray(_BEYOND ** np.tanh(np.log(np.maximum(factor, 1.0))))


@dataclass(frozen=True)
class _Data:
    """What a form is fitted to."""

    space: AnySpace
    form: Form
    table: Array  # a row for each config
    latencies: Array  # ms

    def part(self, at: NDArray[np.intp]) -> "_Data":
        return replace(self, table=self.table[at], latencies=self.latencies[at])


def _fit_form(data: _Data, start: LatencyPredictor | None = None) -> LatencyPredictor:
    form, power, latencies = data.form, _POWERS[data.form], data.latencies
    encoding: _Encoding = (
        _Work.fit(data.table, latencies)
        if form == "layers"
        else _Choices(space=data.space, typical_ms=float(np.median(latencies)))
    )
    rows = encoding.rows(data.table)
    known = None if start is None else start.process
    if known is not None and known.inputs.shape[1] != rows.inputs.shape[1]:
        known = None  # other kinds of work vary now
    relative = latencies / rows.trend_ms
    process = fit_gaussian_process(
        rows.inputs,
        _to_scale(relative, power),
        linear=rows.linear,
        noise_scale=relative**power,
        start=None if known is None else known.hyperparameters,
        steps=_STEPS if known is None else _FEW_STEPS,
        least_noise=_NOISE,
    )
    return LatencyPredictor(
        space=data.space,
        form=form,
        encoding=encoding,
        process=process,
        inflation=NORMAL,
        measured_ms=(float(latencies.min()), float(latencies.max())),
    )


def _to_scale(latencies: Array, power: float) -> Array:
    """(t^power - 1) / power, by its limit at 0 (Box and Cox, J. R. Stat. Soc. B 26, 1964)."""
    return np.log(latencies) if not power else (latencies**power - 1) / power


def _from_scale(values: Array, power: float) -> Array:
    """The inverse of `_to_scale`, above 0 everywhere."""
    if not power:
        return np.asarray(np.exp(values))
    return np.asarray(np.maximum(1 + power * values, _LEAST**power) ** (1 / power))


def _left_out_error(predictor: LatencyPredictor, data: _Data) -> float:
    """The mean relative error where each is left out; one that is far off counts no more."""
    power, trend_ms = _POWERS[data.form], predictor.encoding.rows(data.table).trend_ms
    missed, _ = predictor.process.left_out()
    predicted = _from_scale(_to_scale(data.latencies / trend_ms, power) - missed, power)
    errors = np.abs(np.log(predicted * trend_ms / data.latencies))
    return float(np.mean(np.minimum(errors, _OUTLIER * np.median(errors))))


def _best(
    data: Sequence[_Data], start: LatencyPredictor | None = None
) -> tuple[LatencyPredictor, _Data]:
    """Fit each form; return the one that predicts best what is left out, and what it was given."""
    fitted = [(_fit_form(each, start), each) for each in data]
    return min(fitted, key=lambda pair: _left_out_error(*pair)) if len(fitted) > 1 else fitted[0]


def _inflation(predictor: LatencyPredictor, data: Sequence[_Data], folds: int) -> float:
    """The quantile of held-out errors, in predicted deviations (split conformal, 1604.04173).

    Each fold is fitted from nothing: hyperparameters, or a choice between the forms of `data`, that
    have seen the held-out networks would make the intervals too narrow. But of networks that were
    chosen to lie far apart, as those with layers are, a fold leaves a hole that no network falls
    into later; what is left out alone leaves none. The truth is between, unless there are so few
    that all the others are in holes.
    """
    missed, std = predictor.process.left_out()
    alone = _quantile(np.abs(missed) / std)
    if not folds:
        return alone
    parts = _folds(len(data[0].latencies), folds)
    held_out = _quantile(np.concatenate([_scores(data, kept, out) for kept, out in parts]))
    if predictor.form != "layers" or len(missed) <= len(LAYER_FEATURES):
        return held_out
    return float(held_out**_HOLES * alone ** (1 - _HOLES))


def _quantile(scores: Array) -> float:
    found = float(np.quantile(scores, COVERAGE, method="weibull"))
    return max(found, _LEAST_INFLATION)


def _scores(data: Sequence[_Data], kept: NDArray[np.intp], held_out: NDArray[np.intp]) -> Array:
    """Errors of those held out, in predicted deviations."""
    fold, chosen = _best([each.part(kept) for each in data])
    there = next(each for each in data if each.form == chosen.form).part(held_out)
    mean, std, trend_ms = fold._predict(there.table)
    return np.abs(_to_scale(there.latencies / trend_ms, _POWERS[fold.form]) - mean) / std


def _forms(configs: Sequence[object]) -> tuple[Form, ...]:
    if isinstance(configs[0], Layered):
        return ("layers",)
    return ("additive", "root", "multiplicative")


def _table(form: Form, space: AnySpace, configs: Sequence[object]) -> Array:
    if form == "layers":
        return layer_features(configs)
    return _gene_table(space, [space.encode(config) for config in configs])


def _combined(table: Array, coefficients: Array) -> Array:
    """The combination, above 0 everywhere."""
    combined: Array = table @ coefficients[1:] + coefficients[0]
    return np.asarray(np.maximum(combined, coefficients[0] * 1e-3 + 1e-9))


def _parts(table: Array, coefficients: Array) -> Array:
    """What each column adds to the combination, [n, columns + 1]."""
    return np.column_stack([np.ones(len(table)), table]) * coefficients


def _non_negative(table: Array, latencies: Array) -> Array:
    """The coefficients that minimise the relative error; the first is the constant."""
    from scipy.optimize import nnls

    rows = np.column_stack([np.ones(len(table)), table])
    scale = np.maximum(rows.max(axis=0), 1e-12)
    solution, _ = nnls(rows / scale / latencies[:, None], np.ones(len(rows)))
    return np.asarray(solution / scale)


def _folds(n: int, count: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield which of n networks are kept and which are held out; fewer times if there are many."""
    order = np.random.default_rng(0).permutation(n)
    for held_out in np.array_split(order, min(count if n <= _MANY else count // 2, n)):
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
    if len(configs) < FEWEST:
        raise ValueError(
            f"`configs` must hold at least {FEWEST} measured networks, but got {len(configs)}. "
            "Measure more."
        )
    wrong = latencies[~(np.isfinite(latencies) & (latencies > 0))]
    if len(wrong):
        raise ValueError(f"`latencies_ms` must be positive numbers, but got {wrong[0]}.")
    if not space.genes and _forms(configs) != ("layers",):
        raise ValueError(
            "`space` must have an open field where its configs know no layers, but got one config "
            "only. Open a field with oneof(...)."
        )
