"""Proposals kept within the latency budget and new, before anything is spent on them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from random import Random
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.search.trial import Admit, generator
from predictors.latency import Prediction
from search_spaces.space import AnySpace, Genes, Space

C = TypeVar("C")
PredictLatency = Callable[[Sequence[Any]], Prediction]

_ENDS = ("mean_ms", "low_ms", "high_ms")


def checked(predict: PredictLatency, space: AnySpace) -> PredictLatency:
    """Return the predictor with each of its answers checked, the first one now.

    Two configs are asked for, so that one value for many is found before an evaluation is spent.

    Raises:
        TypeError: if it does not return a Prediction.
        ValueError: if a latency lacks, or is not positive and finite; later calls raise alike.
    """

    def predicted(configs: Sequence[object]) -> Prediction:
        return _checked(predict(configs), len(configs))

    rng = Random(0)
    predicted([space.decode(space.random_genes(rng)) for _ in range(2)])
    return predicted


def _checked(found: object, count: int) -> Prediction:
    if not isinstance(found, Prediction):
        raise TypeError(
            f"`predict_latency` must return a Prediction, but got {type(found).__name__}. Return "
            "Prediction(mean_ms, low_ms, high_ms), an array each."
        )
    mean_ms, low_ms, high_ms = (_array(getattr(found, end), end, count) for end in _ENDS)
    # The lower end of an interval may well be below zero.
    for end, latencies_ms in (("mean_ms", mean_ms), ("high_ms", high_ms)):
        _refuse(latencies_ms, ~(np.isfinite(latencies_ms) & (latencies_ms > 0)), end)
    _refuse(low_ms, ~np.isfinite(low_ms), "low_ms")
    return Prediction(mean_ms, low_ms, high_ms)


def _array(values: object, end: str, count: int) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`predict_latency` must return arrays of numbers, but got {type(values).__name__} as "
            f"`{end}`. Return a latency in ms for each config."
        ) from error
    if array.shape != (count,):
        raise ValueError(
            "`predict_latency` must return a latency for each config, but got the shape "
            f"{array.shape} as `{end}` for {count}. Return arrays of shape ({count},)."
        )
    return array


def _refuse(latencies_ms: NDArray[np.float64], wrong: NDArray[np.bool_], end: str) -> None:
    if wrong.any():
        raise ValueError(
            "`predict_latency` must return finite latencies above 0, but got "
            f"{latencies_ms[wrong][0]:g} ms as `{end}`. Predict the logarithm, or bound what it "
            "predicts."
        )


_STEPS = 200  # changes of one gene on the way from a config to one within the budget
_RESTARTS = 20
_STARTS = 4


class Gate:
    """Turns any proposal into a new one near it whose predicted latency meets the budget.

    A config meets the budget if the upper end of its predicted interval does. Without a prediction
    only repeats are turned away.
    """

    def __init__(
        self, space: AnySpace, predict: PredictLatency | None, budget_ms: float | None
    ) -> None:
        self._space = space
        self._predict = predict
        self._budget_ms = budget_ms
        self._seen: set[Genes] = set()

    def admit(self, genes: Genes, rng: Random) -> Genes | None:
        """Return genes not admitted before, or None where no more are found."""
        for _ in range(_RESTARTS):
            genes = self._repair(genes, rng)
            for _ in range(_STEPS):
                if self._is_new(genes):
                    return genes
                genes = changed(self._space, genes, rng)
            genes = self._space.random_genes(rng)
        return self._any_left()

    def admits(self, kept: Genes) -> Admit:
        """Admit what an earlier run did, whatever would be proposed now.

        Another version or machine may propose otherwise after the same trials.
        """

        def admit(_genes: Genes, _rng: Random) -> Genes:
            self._seen.add(kept)
            return kept

        return admit

    def _any_left(self) -> Genes | None:
        """The first new one in a space small enough to be counted through."""
        if self._space.size > 10_000:
            return None
        return next(filter(self._is_new, all_genes(self._space)), None)

    def _is_new(self, genes: Genes) -> bool:
        """Whether genes are within the budget and were not admitted, which they are from now on."""
        if genes in self._seen:
            return False
        if self._predict is not None and self._budget_ms is not None:
            (upper_ms,) = self._upper_ms([genes])
            if not upper_ms <= self._budget_ms:
                return False
        self._seen.add(genes)
        return True

    def _upper_ms(self, candidates: Sequence[Genes]) -> list[float]:
        assert self._predict is not None
        configs = [self._space.decode(genes) for genes in candidates]
        return [float(ms) for ms in self._predict(configs).high_ms]

    def _repair(self, genes: Genes, rng: Random) -> Genes:
        """Change single genes, each to a faster config, until the budget is met."""
        if self._predict is None or self._budget_ms is None:
            return genes
        (upper,) = self._upper_ms([genes])
        while upper > self._budget_ms:
            near = neighbours(self._space, genes)
            faster = [
                (n, ms) for n, ms in zip(near, self._upper_ms(near), strict=True) if ms < upper
            ]
            if not faster:
                return genes
            genes, upper = rng.choice(faster)
        return genes


def fastest(space: Space[C], predict: PredictLatency, rng: Random) -> tuple[C, float]:
    """Return the config of the lowest predicted latency that descent finds, and that latency."""
    found = [_descend(space, predict, space.random_genes(rng)) for _ in range(_STARTS)]
    genes, latency_ms = min(found, key=lambda pair: pair[1])
    return space.decode(genes), latency_ms


def _descend(space: AnySpace, predict: PredictLatency, genes: Genes) -> tuple[Genes, float]:
    latency_ms = float(predict([space.decode(genes)]).mean_ms[0])
    while True:
        near = neighbours(space, genes)
        if not near:
            return genes, latency_ms
        means = predict([space.decode(n) for n in near]).mean_ms
        best = int(means.argmin())
        if means[best] >= latency_ms:
            return genes, latency_ms
        genes, latency_ms = near[best], float(means[best])


def neighbours(space: AnySpace, genes: Genes) -> list[Genes]:
    """All genes that differ in one place."""
    return [
        (*genes[:i], value, *genes[i + 1 :])
        for i, n in enumerate(space.cardinalities)
        for value in range(n)
        if value != genes[i]
    ]


def changed(space: AnySpace, genes: Genes, rng: Random) -> Genes:
    """Return the genes with one of them drawn anew."""
    if not genes:
        return genes
    i = rng.randrange(len(genes))
    return (*genes[:i], rng.randrange(space.cardinalities[i]), *genes[i + 1 :])


def all_genes(space: AnySpace) -> Iterator[Genes]:
    """Yield every point of a space, in order."""
    return product(*map(range, space.cardinalities))


def check_budget(space: AnySpace, predict: PredictLatency, budget_ms: float, seed: int) -> None:
    """Refuse a budget that no network of the space is predicted to meet.

    Raises:
        ValueError: naming the latency of the fastest.
    """
    config, _ = fastest(space, predict, generator(seed, -1))
    upper_ms = float(predict([config]).high_ms[0])
    if upper_ms > budget_ms:
        raise ValueError(
            f"`budget_ms` must be within reach of the space, but got {budget_ms:g} ms: the fastest "
            f"config takes {upper_ms:.3g} ms (upper end, predicted). Raise the budget."
        )
