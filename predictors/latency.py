"""Latency predicted from a few dozen measurements, with intervals.

Configs become rows of numbers: from their layers if they have them, else from their genes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from predictors.encodings import (
    ChoiceEncoding,
    Encoding,
    RelatedEncoding,
    Rows,
    WorkEncoding,
    relative_weights,
)
from predictors.features import gene_table, layer_features, layers_tell_all
from predictors.gp import (
    ENOUGH,
    GaussianProcess,
    Scale,
    fit_gaussian_process,
    from_power,
    to_power,
)
from predictors.prediction import (
    FEWEST as FEWEST,
    FEWEST_RELATED as FEWEST_RELATED,
    Prediction as Prediction,
    RatioPrediction as RatioPrediction,
    Relative as Relative,
    check_measured,
    checked_configs,
    checked_errors,
    checked_folds,
    checked_latencies,
    checked_relatives,
    logs_of,
)
from search_spaces.layers import is_layered
from search_spaces.space import AnySpace

Array = NDArray[np.float64]

Form = Literal["related", "layers", "additive", "root", "multiplicative"]

COVERAGE = 0.9
FOLDS = 10
_FEW, _MANY = 60, 100  # networks: up to few may choose another form; of many, half the folds do
# The powers of a latency of which the process is one; 0: the logarithm.
_POWERS: Mapping[Form, float] = {
    **{"related": 0, "layers": 0, "multiplicative": 0},
    **{"additive": 1, "root": 0.5},
}
_SAMPLED = 200  # configs of which relatives are asked what the space is like
_STEPS, _FEW_STEPS = 60, 10  # of fitting, from nothing and from an earlier fit
_NOISE = 0.01  # relative; no measurement is more exact
NORMAL = 1.645  # deviations to each side that hold 90 % of a normal distribution
_LEAST_INFLATION = 1e-3  # errors that are all zero would make intervals without width
_WIDEST = 10.0  # factor to each side, or all that was measured: no more than "unknown"
_UNSEEN = 2.0  # deviation of the logarithm of the speed of what no measured network had
_BEYOND = 2.0  # a prediction this factor outside of what was measured is not believed
_FEW_RELATED = 20  # networks; up to so many, the evidence may tell against all relatives
_RELATED = 3.0  # logarithm of the odds that one of them is like the device
_CLEARLY = 0.8  # of the errors with relatives: as much lower are those of the better fit without
_OUTLIER = 4.0  # medians; an error that is larger counts as so many
_FEW_ERRORS = 20  # fewer tell no quantile, but a deviation
_DRAWN = 40  # errors; of as many the quantile is drawn half-way to a normal distribution's
_PRIOR_ERRORS = 4.0  # errors that are as predicted, counted beside those


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """Latency as a Gaussian process with linear terms, of a config's layers or of its choices.

    Where relatives are given, predictors of other devices, it is that of the logarithm of latency
    over theirs. Else, of a config that knows its layers, it is that of the logarithm over a trend,
    a non-negative combination of the work in each kind of layer; of any other config it is that of
    the latency, of its square root or of its logarithm. What predicts best what is left out is
    taken.
    """

    space: AnySpace
    form: Form
    encoding: Encoding
    process: GaussianProcess
    inflation: float  # of the process's deviation, so that the intervals cover 90 %
    measured_ms: tuple[float, float]  # the least and the most of what it was fitted to
    error: float = 0.0  # typical, relative, of what it was fitted to
    relatives: tuple[Relative, ...] = ()

    @classmethod
    def fit(  # noqa: PLR0913 - one public entry, all options keyword-only
        cls,
        space: AnySpace,
        configs: Iterable[object],
        latencies_ms: Iterable[float],
        *,
        relatives: Iterable[Relative] | Relative | None = (),
        errors: Sequence[float] | None = None,
        folds: int = FOLDS,
        start: "LatencyPredictor | None" = None,
    ) -> "LatencyPredictor":
        """Fit to the measured latencies of some configs: thirty to fifty that cover the space.

        With `relatives` five may do: predictors of other devices, of which each is believed as far
        as it explains the latencies. `errors` are the standard errors of the latencies, each as a
        part of it, where they are known.

        The intervals follow from the errors in `folds`, each fitted to the others; with 0 each
        network is left out of what was fitted to all, which is quick, and narrow for few networks.
        `start` is an earlier fit, of which form, relatives and hyperparameters are taken up.

        Raises:
            TypeError: if a relative cannot predict, or an argument is of another kind.
            ValueError: if there are fewer than 8, or than 3 where there are relatives, a latency
                is not a positive number, or neither layers nor genes tell the configs apart.
        """
        configs, folds = checked_configs(space, configs), checked_folds(folds)
        latencies = checked_latencies(latencies_ms)
        relatives = start.relatives if start else checked_relatives(relatives)
        check_measured(space, configs, latencies, related=bool(relatives))
        known = checked_errors(errors, len(latencies))
        groups = [(start.form,)] if start else _forms(space, configs, related=bool(relatives))
        data = [
            [_Data.of(form, space, configs, (latencies, known), relatives) for form in forms]
            for forms in groups
        ]
        first, *others = (_fitted(group, folds, start) for group in data)
        better = [pair for pair in others if pair[1] < _CLEARLY * first[1]]
        return min(better or [first], key=lambda pair: pair[1])[0]

    def predict(self, configs: Iterable[object]) -> Prediction:
        """Return mean and 90 % interval of each config's latency."""
        configs = checked_configs(self.space, configs)
        if not configs:
            return Prediction(np.zeros(0), np.zeros(0), np.zeros(0))
        table = _table(self.form, self.space, configs, self.relatives)
        mean, std, rows = self._predict(table)
        trend_ms = rows.trend_ms
        margin, power = self.inflation * std, _POWERS[self.form]
        if self.form == "layers":  # less sure of what is below all that was measured
            below = self.measured_ms[0] / np.maximum(trend_ms * from_power(mean, power), 1e-300)
            margin = margin * (1 + np.log(np.maximum(below, 1.0)))
        mean_ms, low_ms, high_ms = (
            trend_ms * from_power(mean + step * margin, power) for step in (0, -1, 1)
        )
        # What nothing was measured of is doubted, however exact the rest is.
        factor = np.exp(NORMAL * _UNSEEN * rows.unseen)
        low_ms = np.minimum(low_ms, mean_ms / factor)
        high_ms = np.maximum(high_ms, mean_ms * factor)
        least, most = self.measured_ms
        low_ms = np.maximum(low_ms, np.minimum(mean_ms / _WIDEST, least))
        high_ms = np.minimum(high_ms, np.maximum(mean_ms * _WIDEST, most))
        return self._believable(mean_ms, low_ms, high_ms)

    @property
    def weights(self) -> tuple[float, ...]:
        """How far each relative is believed, at most 1 in all; empty where none helps."""
        known = self.encoding
        return tuple(known.weights[:-1].tolist()) if isinstance(known, RelatedEncoding) else ()

    def trusting(self) -> "LatencyPredictor":
        """Return it without doubt of choices that none of the measured networks had."""
        known = self.encoding
        if not isinstance(known, ChoiceEncoding):
            return self
        return replace(self, encoding=replace(known, seen=None))

    def _predict(self, table: Array) -> tuple[Array, Array, Rows]:
        """Mean and deviation on the process's scale, and what it sees."""
        rows, power = self.encoding.rows(table), _POWERS[self.form]
        mean, std = self.process.predict(rows.inputs, rows.linear)
        scale = from_power(mean, power) ** power
        noise = np.hypot(self.process.noise * np.sqrt(1 + rows.doubt), self.error)
        noise = np.hypot(noise, _UNSEEN * rows.unseen)
        return mean, np.hypot(std, noise * scale), rows

    def _believable(self, mean_ms: Array, low_ms: Array, high_ms: Array) -> Prediction:
        """Draw nearer what is far outside of all that was measured; its interval reaches back.

        But layers and relatives tell of smaller and of larger networks than were measured.
        """
        if self.form in ("related", "layers"):
            return Prediction(mean_ms, low_ms, high_ms)
        least, most = self.measured_ms
        below, above = least / _BEYOND / mean_ms, mean_ms / most / _BEYOND
        mean_ms = np.where(below > 1, least / _BEYOND / _drawn(below), mean_ms)
        mean_ms = np.where(above > 1, most * _BEYOND * _drawn(above), mean_ms)
        low_ms = np.where(above > 1, np.minimum(low_ms, most), np.minimum(low_ms, mean_ms))
        high_ms = np.where(below > 1, np.maximum(high_ms, least), np.maximum(high_ms, mean_ms))
        return Prediction(mean_ms, low_ms, high_ms)


def expected_rows(
    space: AnySpace, configs: Sequence[object], relatives: Sequence[Relative]
) -> tuple[Rows, Scale]:
    """Return what a process with relatives sees of configs before any is measured."""
    measured = np.ones(len(configs)), np.zeros(len(configs))
    data = _Data.of("related", space, configs, measured, relatives)
    weights = np.append(np.full(len(relatives), 1 / len(relatives)), 0.0)
    encoding = RelatedEncoding.fit(space, data.sample, weights, layered=data.layered)
    return encoding.rows(data.table), encoding.expected


def _drawn(factor: Array) -> Array:
    """A factor of at most _BEYOND that grows with the one given, where that is above 1."""
    return np.asarray(_BEYOND ** np.tanh(np.log(np.maximum(factor, 1.0))))


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What a form is fitted to."""

    space: AnySpace
    form: Form
    table: Array  # a row for each config
    latencies: Array  # ms
    errors: Array  # relative
    sample: Array  # a row for each that was measured, and with relatives of random configs too
    relatives: tuple[Relative, ...]  # whose logarithms are in the table's first columns, then a 0
    layered: bool  # whether the table has layer features
    few: bool  # networks, before some were held out

    @classmethod
    def of(
        cls,
        form: Form,
        space: AnySpace,
        configs: Sequence[object],
        measured: tuple[Array, Array],
        relatives: Sequence[Relative],
    ) -> "_Data":
        """Ask relatives, if the form needs them; `measured` are latencies (ms) and errors."""
        relatives = tuple(relatives) if form == "related" else ()
        rng = Random(0)
        sample = [space.sample(rng) for _ in range(_SAMPLED)] if relatives else []
        table = _table(form, space, [*configs, *sample], relatives)
        return cls(
            space=space,
            form=form,
            table=table[: len(configs)],
            latencies=measured[0],
            errors=measured[1],
            sample=table,
            relatives=relatives,
            layered=form in ("layers", "related") and is_layered(configs[0]),
            few=len(configs) <= _FEW_RELATED,
        )

    def part(self, at: NDArray[np.intp]) -> "_Data":
        """Return it with some of the configs."""
        return replace(
            self, table=self.table[at], latencies=self.latencies[at], errors=self.errors[at]
        )

    def with_relative(self, at: int) -> "_Data":
        """Return it with one of the relatives; the last is none of them."""
        columns = [at, *range(len(self.relatives) + 1, self.table.shape[1])]
        return replace(self, table=self.table[:, columns], sample=self.sample[:, columns])


def _fit_form(
    data: _Data,
    start: LatencyPredictor | None = None,
    encoding: Encoding | None = None,
    *,
    steps: int = _FEW_STEPS,
) -> LatencyPredictor:
    """`steps` are those from the hyperparameters of `start`."""
    encoding = encoding or _encoding(data, start)
    form, power, latencies = data.form, _POWERS[data.form], data.latencies
    rows = encoding.rows(data.table)
    known = None if start is None else start.process
    if known is not None and known.inputs.shape[1] != rows.inputs.shape[1]:
        known = None  # other kinds of work vary now
    relative = latencies / rows.trend_ms
    process = fit_gaussian_process(
        rows.inputs,
        to_power(relative, power),
        linear=rows.linear,
        noise_scale=relative**power,
        errors=data.errors * relative**power,
        start=None if known is None else known.hyperparameters,
        steps=_STEPS if known is None else steps,
        least_noise=_NOISE,
        expected=encoding.expected,
    )
    return LatencyPredictor(
        space=data.space,
        form=form,
        encoding=encoding,
        process=process,
        inflation=NORMAL,
        measured_ms=(float(latencies.min()), float(latencies.max())),
        error=float(np.median(data.errors)),
        relatives=data.relatives,
    )


def _encoding(data: _Data, start: LatencyPredictor | None) -> Encoding:
    if data.form == "layers":
        return WorkEncoding.fit(data.table, data.latencies)
    if data.form != "related":
        # A fold knows all choices that were measured, else it would tell of others' errors.
        return ChoiceEncoding.fit(data.space, data.sample, data.latencies)
    if start is not None:
        return start.encoding
    return _related(data, _weights(data))


def _related(data: _Data, weights: Array) -> RelatedEncoding:
    encoding = RelatedEncoding.fit(data.space, data.sample, weights, layered=data.layered)
    return encoding.measured(data.sample, data.table, data.latencies)


def _weights(data: _Data) -> Array:
    """How far each relative is believed, and at last that the device is like none of them.

    With more networks than a few, fits without relatives tell that better.
    """
    count = len(data.relatives)
    if count == 1 and not data.few:
        return np.array([1.0, 0.0])
    alone = [data.with_relative(i) for i in range(count + data.few)]
    evidences = [_fit_form(d, None, _related(d, np.ones(1))).process.evidence for d in alone]
    evidences.append(evidences.pop() - _RELATED if data.few else -np.inf)
    return relative_weights(evidences)


def _left_out_error(predictor: LatencyPredictor, data: _Data) -> float:
    """The mean relative error where each is left out; one that is far off counts no more."""
    power, trend_ms = _POWERS[data.form], predictor.encoding.rows(data.table).trend_ms
    missed, _ = predictor.process.left_out()
    predicted = from_power(to_power(data.latencies / trend_ms, power) - missed, power)
    return _typical(np.abs(np.log(predicted * trend_ms / data.latencies)))


def _typical(errors: Array) -> float:
    """The mean; one that is far off counts no more than several that are not."""
    return float(np.mean(np.minimum(errors, _OUTLIER * np.median(errors))))


def _best(
    data: Sequence[_Data], start: LatencyPredictor | None = None
) -> tuple[LatencyPredictor, _Data]:
    """Fit each form; return the one that predicts best what is left out, and what it was given."""
    fitted = [(_fit_form(each, start), each) for each in data]
    return min(fitted, key=lambda pair: _left_out_error(*pair)) if len(fitted) > 1 else fitted[0]


def _fitted(
    data: Sequence[_Data], folds: int, start: LatencyPredictor | None
) -> tuple[LatencyPredictor, float]:
    """Return the best form with its intervals, and its typical error of what is held out.

    Each fold is fitted from nothing: hyperparameters, or a choice between the forms of `data`, that
    have seen the held-out networks would make the intervals too narrow. But of many networks a
    part tells the hyperparameters, and another part others: there the folds keep those of the best.
    """
    best, chosen = _best(data, start)
    if not folds:
        missed, std = best.process.left_out()
        seen = _quantile(np.abs(missed) / std)
        # The sum over layers was fitted to what is left out here, too.
        sure = replace(best, inflation=max(seen, NORMAL) if chosen.layered else seen)
        return sure, _left_out_error(best, chosen)
    if len(chosen.latencies) > _FEW:
        data = [chosen]
    kept = best if len(chosen.latencies) > ENOUGH else None
    parts = [_held_out(data, *part, kept) for part in _folds(chosen.table, folds)]
    scores, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return replace(best, inflation=_inflation(chosen, scores)), _typical(errors)


def _held_out(
    data: Sequence[_Data],
    kept: NDArray[np.intp],
    held_out: NDArray[np.intp],
    start: LatencyPredictor | None,
) -> tuple[Array, Array]:
    """Errors of those held out, in predicted deviations and as logarithms of a factor.

    Hyperparameters are those of `start`, if it is given; the sum over layers never is.
    """
    parts = [each.part(kept) for each in data]
    if start is None:
        fold, chosen = _best(parts)
    else:
        (chosen,) = parts
        fold = _fit_form(chosen, start, _encoding(chosen, None), steps=0)
    there = next(each for each in data if each.form == chosen.form).part(held_out)
    mean, std, rows = fold._predict(there.table)
    power, trend_ms = _POWERS[fold.form], rows.trend_ms
    predicted_ms = trend_ms * from_power(mean, power)
    scores = np.abs(to_power(there.latencies / trend_ms, power) - mean) / std
    return scores, np.abs(np.log(predicted_ms / there.latencies))


def _inflation(data: _Data, held_out: Array) -> float:
    """How many predicted deviations hold 90 % of what is measured later (split conformal).

    By the quantile of held-out errors in predicted deviations (arXiv 1604.04173). But networks with
    layers are chosen to lie far apart: a fold leaves a hole that no network falls into later. Of
    these the quantile is drawn in logarithms to that of a normal distribution: of many half of the
    way, and of fewer less, since of few it is too low itself.
    """
    found, count = _quantile(held_out), len(held_out)
    drawn = 0.5 * min(count / _DRAWN, 1) if data.layered and count >= _FEW_ERRORS else 0.0
    return float(found ** (1 - drawn) * NORMAL**drawn)


def _quantile(scores: Array) -> float:
    """The quantile of absolute errors; of few, that of a t distribution with their deviation."""
    if len(scores) >= _FEW_ERRORS:
        return max(float(np.quantile(scores, COVERAGE, method="weibull")), _LEAST_INFLATION)
    from scipy.special import stdtrit

    degrees = _PRIOR_ERRORS + len(scores)
    variance = (_PRIOR_ERRORS + np.sum(scores**2)) / degrees
    return float(np.sqrt(variance) * stdtrit(degrees, 0.5 + COVERAGE / 2))


def _forms(space: AnySpace, configs: Sequence[object], *, related: bool) -> list[tuple[Form, ...]]:
    """The forms to choose from: of a tuple what is left out of one fit tells the better one.

    Between tuples it takes fits without: layers explain a few latencies whatever these are.
    """
    layered = is_layered(configs[0])
    forms: list[tuple[Form, ...]] = [("related",)] * related
    if len(configs) > _FEW_RELATED or not related:
        forms += [("layers",)] * layered
        if not (layered and layers_tell_all(space)):
            forms.append(("additive", "root", "multiplicative"))
    return forms


def _table(
    form: Form, space: AnySpace, configs: Sequence[object], relatives: Sequence[Relative]
) -> Array:
    if form == "related":
        base = _table("layers" if is_layered(configs[0]) else "additive", space, configs, ())
        logs = [*logs_of(relatives, configs), np.zeros(len(base))]
        return np.column_stack([*logs, base])
    if form == "layers":
        return layer_features(configs)
    return gene_table(space, [space.encode(config) for config in configs])


def _folds(table: Array, count: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the rows that are kept and those held out, equal ones at once; fewer times of many."""
    n = len(table)
    _, first, alike = np.unique(table, axis=0, return_index=True, return_inverse=True)
    groups = np.arange(n) if len(first) < FEWEST_RELATED else first[alike.ravel()]
    order = [g for g in np.random.default_rng(0).permutation(n) if g in groups]
    for held in np.array_split(order, min(count if n <= _MANY else max(count // 2, 2), len(order))):
        at = np.isin(groups, held)
        yield np.flatnonzero(~at), np.flatnonzero(at)
