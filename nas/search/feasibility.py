"""Proposals kept within the latency budget and new, before anything is spent on them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from random import Random
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.search.trial import Admit, generator
from predictors.latency import Prediction, RatioPrediction
from search_spaces.space import AnySpace, Genes, Space

C = TypeVar("C")
Array = NDArray[np.float64]
PredictLatency = Callable[[Sequence[Any]], Prediction]
PredictRatio = Callable[[Sequence[Any]], RatioPrediction]

_ENDS = ("mean_ms", "low_ms", "high_ms")


def checked(predict: PredictLatency, space: AnySpace) -> PredictLatency:
    """Return the predictor with each of its answers checked, the first one now.

    Two configs are asked for, so that one value for many is found before an evaluation is spent.
    """

    def predicted(configs: Sequence[object]) -> Prediction:
        return _checked(predict(configs), len(configs))

    rng = Random(0)
    predicted([space.decode(space.random_genes(rng)) for _ in range(2)])
    return predicted


def as_ratios(predict: PredictLatency, budget_ms: float | None) -> PredictRatio:
    """Return what predicts ratios to the budget; without one, to 1 ms."""
    reference_ms = 1.0 if budget_ms is None else budget_ms

    def predict_ratio(configs: Sequence[object]) -> RatioPrediction:
        found = predict(configs)
        return RatioPrediction(found.mean_ms / reference_ms, found.high_ms / reference_ms)

    return predict_ratio


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
    """Turns any proposal into a new one near it that is predicted to meet every budget.

    A config does if the upper end of its predicted ratio is 1.0 at most. Without a prediction or a
    budget only repeats are turned away.
    """

    def __init__(self, space: AnySpace, predict: PredictRatio | None) -> None:
        self._space = space
        self._predict = predict
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
        if self._predict is not None and not self._upper_ends(self._predict, [genes])[0] <= 1:
            return False
        self._seen.add(genes)
        return True

    def _upper_ends(self, predict: PredictRatio, candidates: Sequence[Genes]) -> list[float]:
        return list(map(float, predict([self._space.decode(g) for g in candidates]).high))

    def _repair(self, genes: Genes, rng: Random) -> Genes:
        """Change single genes, each to a faster config, until the budget is met."""
        if self._predict is None:
            return genes
        (upper,) = self._upper_ends(self._predict, [genes])
        while upper > 1:
            near = neighbours(self._space, genes)
            ends = zip(near, self._upper_ends(self._predict, near), strict=True)
            faster = [(n, end) for n, end in ends if end < upper]
            if not faster:
                return genes
            genes, upper = rng.choice(faster)
        return genes


def lowest(space: Space[C], values: Callable[[Sequence[C]], Array], rng: Random) -> C:
    """Return the config of the lowest value that descent finds; `values` gives one for each."""
    found = [_descend(space, values, space.random_genes(rng)) for _ in range(_STARTS)]
    return space.decode(min(found, key=lambda pair: pair[1])[0])


def _descend(
    space: Space[C], values: Callable[[Sequence[C]], Array], genes: Genes
) -> tuple[Genes, float]:
    value = float(values([space.decode(genes)])[0])
    while True:
        near = neighbours(space, genes)
        if not near:
            return genes, value
        there = values([space.decode(n) for n in near])
        best = int(there.argmin())
        if there[best] >= value:
            return genes, value
        genes, value = near[best], float(there[best])


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
    """Refuse a budget that no network of the space is predicted to meet."""
    config = lowest(space, lambda configs: predict(configs).mean_ms, generator(seed, -1))
    upper_ms = float(predict([config]).high_ms[0])
    if upper_ms > budget_ms:
        raise ValueError(
            f"`budget_ms` must be within reach of the space, but got {budget_ms:g} ms: the fastest "
            f"config takes {upper_ms:.3g} ms (upper end, predicted). Raise the budget."
        )
