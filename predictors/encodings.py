"""What a Gaussian process of latency sees of configs: rows of numbers, and a trend.

Of a config that knows its layers the trend is the work in each kind of layer; of any other it is
one typical latency. Where relatives are known, predictors of other devices, it is theirs: a new
device is like them but for a factor, for the speed of each kind of work, and for what each
operator costs besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.features import LAYER_FEATURES, linear_terms, scaled_genes
from predictors.gp import LogNormal, Scale
from search_spaces.space import AnySpace, Genes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """What the process sees of n configs; it is fitted to latencies in units of the trend's."""

    inputs: Array  # [n, d]
    linear: tuple[Array, ...]  # each [n, columns]
    trend_ms: Array  # [n]
    doubt: Array  # [n], variance of the trend, in units of the noise's
    unseen: Array  # [n], the share of work of a kind, or of a choice, that none was fitted to


class Encoding(Protocol):
    """Makes rows of a table of what is known of configs."""

    def rows(self, table: Array) -> Rows:
        """Return what the process sees of it."""

    @property
    def expected(self) -> Scale | None:
        """What is known of the process before anything is measured."""


# The columns of which an unseen kind of work is a share.
_SHARED = [
    np.array([i for i, name in enumerate(LAYER_FEATURES) if name.endswith(quantity)])
    for quantity in (".macs", ".activations")
]
_FAR = 3.3  # logarithm of a ratio beyond all that were measured that is as good as unseen
# What is proportional while one number of layers is the same in all of them: columns of two
# quantities of one kind, and for each of the above which of these are of its columns' kinds.
_COLUMNS = {name: i for i, name in enumerate(LAYER_FEATURES)}
_KINDS = [name.partition(".")[0] for name in LAYER_FEATURES]
_PAIRS = [
    (_COLUMNS[f"{kind}.{over}"], _COLUMNS[f"{kind}.{under}"])
    for kind in dict.fromkeys(_KINDS)
    for over, under in (("macs", "activations"), ("activations", "count"))
    if f"{kind}.{over}" in _COLUMNS
]


@dataclass(frozen=True, kw_only=True)
class WorkEncoding:
    """The work in each kind of layer; the trend is a non-negative combination of it."""

    coefficients: Array  # ms, the first is the constant
    varied: NDArray[np.bool_]  # the columns that differ between the networks fitted to
    centre: Array  # of their logarithms
    spread: Array
    covariance: Array  # of the coefficients, in units of the noise's
    seen: NDArray[np.bool_]  # the columns in which one of those has work
    ratios: Array  # the least and the most of each ratio of two quantities in those, [2, ratios]
    expected: Scale | None = None

    @classmethod
    def fit(cls, table: Array, latencies: Array) -> "WorkEncoding":
        """Fit to layer features [n, features] and latencies [n] in ms."""
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
            seen=table.max(axis=0) > 0,
            ratios=_extremes(_log_ratios(table)),
        )

    def rows(self, table: Array) -> Rows:
        """Return the rows of layer features [n, features]."""
        parts = _parts(table, self.coefficients)
        trend_ms = np.maximum(parts.sum(axis=1), self.coefficients[0] * 1e-3 + 1e-9)
        shares = parts / trend_ms[:, None]
        doubt = np.sum(shares @ self.covariance * shares, axis=1)
        return Rows(self.inputs(table), (), trend_ms, doubt, self._unseen(table))

    def _unseen(self, table: Array) -> Array:
        """The share of the MACs or of the activations, whichever is larger, of unseen kinds.

        Layers count by a part of theirs that are, say, wider than any measured one by more than
        those differ: which of two quantities takes the time, none of these told.
        """
        unlike = self._unlike(table)
        shares = []
        for columns in _SHARED:
            work = table[:, columns] * np.maximum(~self.seen[columns], unlike[:, columns])
            shares.append(work.sum(axis=1) / np.maximum(table[:, columns].sum(axis=1), 1))
        return np.asarray(np.max(shares, axis=0), dtype=float)

    def _unlike(self, table: Array) -> Array:
        """How far each kind's ratios are beyond those that were measured, [n, features]."""
        found, (least, most) = _log_ratios(table), self.ratios
        beyond = np.maximum(np.maximum(least - found, found - most), 0)  # of none it is none
        beyond = np.maximum(np.nan_to_num(beyond) - np.nan_to_num(most - least), 0)
        by_column = np.zeros_like(table)
        for (over, _), column in zip(_PAIRS, beyond.T, strict=True):
            alike = [i for i, kind in enumerate(_KINDS) if kind == _KINDS[over]]
            by_column[:, alike] = np.maximum(by_column[:, alike], column[:, None])
        return np.minimum(by_column / _FAR, 1.0)

    def inputs(self, table: Array) -> Array:
        """Return the logarithms of the work, standardised."""
        return np.asarray((np.log1p(table)[:, self.varied] - self.centre) / self.spread)

    def shares(self, table: Array) -> Array:
        """Return the part that each kind of work has in the trend, [n, kinds]."""
        parts = _parts(table, self.coefficients)
        return np.asarray(parts / np.maximum(parts.sum(axis=1), 1e-300)[:, None])


def _log_ratios(table: Array) -> Array:
    """Logarithms of the ratios of `_PAIRS`, [n, pairs]; no number where there is no such layer."""
    over, under = (table[:, list(columns)] for columns in zip(*_PAIRS, strict=True))
    there = (over > 0) & (under > 0)
    ratios = np.divide(over, under, out=np.ones_like(over), where=there)
    return np.where(there, np.log(ratios), np.nan)


def _extremes(ratios: Array) -> Array:
    """The least and the most of each column; no number where none has one."""
    return np.array([np.fmin.reduce(ratios), np.fmax.reduce(ratios)])


_UNSEEN_CHOICE = 0.5  # share of a latency that a choice may well change


@dataclass(frozen=True, kw_only=True)
class ChoiceEncoding:
    """The choices themselves; all are in units of one typical latency."""

    space: AnySpace
    typical_ms: float
    # The values of each gene that some measured network had; None where others count as seen.
    seen: tuple[frozenset[int], ...] | None = None
    expected: Scale | None = None

    @classmethod
    def fit(cls, space: AnySpace, measured: Array, latencies: Array) -> "ChoiceEncoding":
        """Fit to latencies [n] in ms; `measured` are the genes of all networks that were."""
        seen = tuple(map(frozenset, measured.astype(int).T.tolist()))
        return cls(space=space, typical_ms=float(np.median(latencies)), seen=seen)

    def rows(self, table: Array) -> Rows:
        """Return the rows of genes [n, genes]."""
        genes = _genes(table)
        none, trend_ms = np.zeros(len(table)), np.full(len(table), self.typical_ms)
        linear = linear_terms(self.space, genes)
        unseen = self._unseen(table)
        return Rows(scaled_genes(self.space, genes), linear, trend_ms, none, unseen)

    def _unseen(self, table: Array) -> Array:
        """A constant share where nothing tells what a choice does.

        Other values of an ordered choice tell, if there are two at least.
        """
        found = np.zeros(len(table))
        for gene, seen, column in zip(self.space.genes, self.seen or (), table.T, strict=False):
            if not gene.ordered or len(seen) == 1:
                found = np.maximum(found, _UNSEEN_CHOICE * ~np.isin(column, list(seen)))
        return found


# What is expected of a device beside its relative, in deviations of logarithms: how far the speeds
# of two kinds of work differ, how much of a typical latency is paid by the network or by the
# operator, what no such sum explains, and the noise. A factor is free. Where layers are known,
# hardly anything is expected of the size, unless measurements tell it: small networks may gain
# nothing from a second thread.
_UNIT = 0.1
_FACTOR, _SPEEDS, _OVERHEAD, _REST, _NOISE = 3.0, 0.3, 0.03, 0.07, 0.02
_SIZE = 0.03  # in a network e times as slow
# What part of a typical latency may well be constant: where layers are known, and where not.
_CONSTANT, _CONSTANT_ELSE = 0.3, 3.0
_LEAST = 0.01  # of a latency; at least so much counts as beyond the least of all
_COUNTS = [i for i, name in enumerate(LAYER_FEATURES) if name.endswith(".count")]


@dataclass(frozen=True, kw_only=True)
class RelatedEncoding:
    """The latencies of relatives, and by what a device may differ from them.

    A table has the logarithms of the relatives' latencies in its first columns, then one of zeros
    (of a device like none of them), then the layer features of configs that know their layers, the
    genes of others. The trend is a factor of the relatives' latency and, at least 0 each, a
    constant for the network and for each operator. Where layers are unknown it has two factors: of
    the least that the relatives take in a sample, and of what a config takes beyond that. So a
    device may have less overhead than its relatives.
    """

    space: AnySpace
    weights: Array  # of relatives and none, 1 in all: theirs is the weighted geometric mean
    work: WorkEncoding | None  # how their time is made up; None where layers are unknown
    fastest: float  # ms, the least that theirs is in the sample
    trend: Array  # coefficients of what `_columns` returns
    centre: Array  # of the linear terms, side by side
    typical_ms: float  # of the sample
    overhead: Array  # of a typical network

    @classmethod
    def fit(
        cls, space: AnySpace, sample: Array, weights: Array, *, layered: bool
    ) -> "RelatedEncoding":
        """Take in what the relatives say of a sample of the space, [n, columns]."""
        logs, base = np.split(sample, [len(weights)], axis=1)
        latencies = np.exp(logs @ weights)
        unset = cls(
            space=space,
            weights=weights,
            work=WorkEncoding.fit(base, latencies) if layered else None,
            fastest=float(latencies.min()),
            trend=np.array([1.0, 0.0, 0.0]) if layered else np.ones(2),
            centre=np.zeros(1),
            typical_ms=1.0,
            overhead=np.ones(1),
        )
        return unset._centred(sample)

    def measured(self, sample: Array, table: Array, latencies: Array) -> "RelatedEncoding":
        """Return it with the trend of a table's latencies, in ms."""
        columns = self._columns(table)
        typical = np.exp(np.mean(np.log(latencies)))
        sizes = np.exp(np.mean(np.log(np.maximum(self._columns(sample), 1e-12)), axis=0))
        # What the constants are of a typical latency is drawn to 0, where layers are unknown to
        # that of the relatives; else a few networks would tell them.
        if self.work:
            scale, drawn = typical / sizes, np.diag([0.0, 1.0, 1.0]) / _CONSTANT
        else:
            overhead = self.fastest / sizes.sum()
            drawn = np.array([[-overhead, overhead]]) / _CONSTANT_ELSE
            scale = np.full(2, typical / sizes.sum())
        rows = np.vstack([columns * scale / latencies[:, None], _REST * drawn])
        from scipy.optimize import nnls

        solution, _ = nnls(rows, np.append(np.ones(len(latencies)), np.zeros(len(drawn))))
        if solution[0] <= 0:  # nothing is like the relatives but for the constants
            return self
        return replace(self, trend=solution * scale)._centred(sample)

    @property
    def expected(self) -> Scale:
        """That it is like its relatives."""
        slopes = tuple(map(_variance, (_FACTOR, _SPEEDS, _OVERHEAD)))
        return Scale(
            unit=_UNIT,
            signal=_variance(_REST),
            slopes=(*slopes, _variance(_SIZE, unsure=2.0)) if self.work else slopes,
            noise=_variance(_NOISE),
        )

    def rows(self, table: Array) -> Rows:
        """Return the rows of a table as said above."""
        trend_ms = self._columns(table) @ self.trend
        base = table[:, len(self.weights) :]
        size = np.log(trend_ms / self.typical_ms)[:, None]
        linear = (
            np.ones((len(table), 1)),
            self._differences(table, trend_ms) - self.centre,
            self._overheads(table, trend_ms) / self.overhead,
            *([size] if self.work else []),
        )
        inputs = self.work.inputs(base) if self.work else scaled_genes(self.space, _genes(base))
        none = np.zeros(len(table))
        return Rows(inputs, linear, trend_ms, none, none)

    def _centred(self, sample: Array) -> "RelatedEncoding":
        trend_ms = self._columns(sample) @ self.trend
        return replace(
            self,
            centre=self._differences(sample, trend_ms).mean(axis=0),
            typical_ms=float(np.exp(np.mean(np.log(trend_ms)))),
            overhead=np.maximum(self._overheads(sample, trend_ms).mean(axis=0), 1e-12),
        )

    def _columns(self, table: Array) -> Array:
        """What the trend is a sum of."""
        logs, base = np.split(table, [len(self.weights)], axis=1)
        latencies = np.exp(logs @ self.weights)
        if self.work:
            counts = base[:, _COUNTS].sum(axis=1)
            return np.column_stack([latencies, np.ones(len(table)), counts])
        shared = (1 - _LEAST) * np.minimum(latencies, self.fastest)
        return np.column_stack([latencies - shared, shared])

    def _differences(self, table: Array, trend_ms: Array) -> Array:
        """By what speeds may differ: kinds of work, or choices and size; and other relatives."""
        logs, base = np.split(table, [len(self.weights)], axis=1)
        log_mean = (logs @ self.weights)[:, None]
        others = (logs - log_mean) * self.weights
        if self.work is None:
            numbers, hot = linear_terms(self.space, _genes(base))
            size = 0.1 * np.log(trend_ms)[:, None]
            return np.hstack([0.2 * numbers, 0.2 * hot, size, others])
        part = self.trend[0] * np.exp(log_mean) / trend_ms[:, None]  # that is no constant
        return np.hstack([part * self.work.shares(base), others])

    def _overheads(self, table: Array, trend_ms: Array) -> Array:
        """What a constant for the network, and one for each kind of work, is beside the trend."""
        work = table[:, len(self.weights) :] if self.work else np.empty((len(table), 0))
        return np.asarray(np.column_stack([np.ones(len(table)), work]) / trend_ms[:, None])


def _variance(std: float, unsure: float = 1.0) -> LogNormal:
    """The prior of a variance, of which the deviation is within a factor of 1.6 of that.

    With `unsure` that is 1.6 to its power.
    """
    return 2 * float(np.log(std / _UNIT)), unsure


def _genes(table: Array) -> list[Genes]:
    return list(map(tuple, table.astype(int).tolist()))


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


def relative_weights(evidences: Sequence[float]) -> Array:
    """Return the weights of relatives by the evidence for each alone, prior odds included."""
    odds = np.exp(np.array(evidences) - max(evidences))
    return np.asarray(odds / odds.sum())
