"""Proposals kept within the budget and the limits, and new, before anything is spent on them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import index
from random import Random
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.search.trial import Admit, Objectives, generator
from predictors.cost import NO_LIMITS, Limits, cost, costs
from predictors.prediction import Prediction, PredictLatency, RatioPrediction
from search_spaces.layers import is_layered
from search_spaces.space import AnySpace, Genes, Space

C = TypeVar("C")
Array = NDArray[np.float64]
PredictRatio = Callable[[Sequence[Any]], RatioPrediction]

End = Literal["high_ms", "mean_ms", "low_ms"]

_ENDS: tuple[End, ...] = ("high_ms", "mean_ms", "low_ms")
_ENOUGH = 8  # configs within the budget; after as many trials predictions are corrected


def as_ratios(
    predict: PredictLatency, budget_ms: float | None, *, upper: End = "high_ms"
) -> PredictRatio:
    """Return what predicts ratios to the budget; without one, to 1 ms.

    `upper` is what counts as the upper end of a prediction, until trials tell better.
    """
    reference_ms = 1.0 if budget_ms is None else budget_ms

    def predict_ratio(configs: Sequence[object]) -> RatioPrediction:
        found = predict(configs)
        return RatioPrediction(found.mean_ms / reference_ms, _end(found, upper) / reference_ms)

    return predict_ratio


_STEPS = 200  # changes of one gene on the way from a config to a new one within the budget
_RESTARTS = 20
_COUNTED = 10_000  # configs; a space of no more is counted through
_AROUND = 64  # configs that are drawn around the lowest, and as many of the whole space
_STARTS = 4
_ROUNDS, _DRAWN, _ELITE = 15, 200, 20  # of the cross-entropy method
_FAR = 1e9  # a ratio that no network has
_PATIENCE = 24  # more trials than `_ENOUGH` may miss the budget before the first that keeps it
_LEARNED = 0.7  # of the elite's shares, the rest of the former ones


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a config must keep: the budget, which is a ratio of 1.0, and limits of what it costs.

    `predict` gives the ratios of configs, if they are known before an evaluation; it does so
    without a `budget` too. One proposal of every `risked` may miss the budget, if that is less
    likely than not.
    """

    predict: PredictRatio | None = None
    budget: bool = False
    limits: Limits = NO_LIMITS
    risked: int = 1

    def means(self, configs: Sequence[object]) -> Array:
        """Return each config's predicted ratio, far above all others where it breaks a limit."""
        assert self.predict is not None
        ends = self.limits.ratios(configs)
        return np.where(ends <= 1, self.predict(configs).mean, _FAR * np.maximum(ends, 1.0))

    def worst(self, configs: Sequence[object]) -> Array:
        """Return each config's worst ratio to a bound; with 1.0 at most it keeps all of them.

        Of a latency it is the upper end of what is predicted, where it is.
        """
        ends = self.limits.ratios(configs)
        if self.predict is None or not self.budget:
            return ends
        return np.maximum(ends, self.predict(configs).high)

    def kept(self, configs: Sequence[object]) -> NDArray[np.bool_]:
        """Return whether each config keeps all bounds that are known before an evaluation."""
        kept: NDArray[np.bool_] = self.worst(configs) <= 1
        return kept

    def chances(self, configs: Sequence[object], ratios: RatioPrediction | None) -> Array:
        """Return the chance of each config, whose predicted ratios these are, to keep all bounds.

        It is 1 where the upper end does. Where that misses by so little that the budget is more
        likely kept than not, trials have to have told how far ratios are wrong.
        """
        within = (self.limits.ratios(configs) <= 1).astype(float)
        if ratios is None or not self.budget:
            return within
        kept = ratios.high <= 1
        if ratios.log_std is None:
            return within * kept
        return np.asarray(within * np.where(kept, 1.0, likely(np.log(ratios.mean), ratios.log_std)))


def likely(log_ratio: Array, std: Array) -> Array:
    """Return the chance that a ratio is below 1, where that is more likely than not; else 0."""
    from scipy.special import ndtr

    return np.where(log_ratio < 0, ndtr(-log_ratio / np.maximum(std, 1e-12)), 0.0)


def whole_numbers(genes: Genes) -> Genes:
    """Return genes as Python's own integers, in which they are kept; numpy's will do.

    Raises:
        TypeError: if they are none.
    """
    try:
        return tuple(map(index, genes))
    except TypeError:
        raise TypeError(
            f"`genes` of a searcher must be whole numbers, but got {genes!r}. Mend the searcher."
        ) from None


class Admission:
    """Turns any proposal into a new one near it that keeps every bound."""

    def __init__(self, space: AnySpace, bounds: Bounds) -> None:
        self._space = space
        self._bounds = bounds
        self._seen: set[Genes] = set()
        self._missed = -_PATIENCE  # results after the last that kept the budget
        # Of this proposal alone, so that a search that goes on proposes the same.
        self._ratios: dict[Genes, float] = {}  # the worst of each config that was looked at
        self._safe: list[Genes] = []  # the lowest that is known, once it was sought

    def admit(self, genes: Genes, rng: Random, *, risked: bool = False) -> Genes | None:
        """Return genes not admitted before, or None where no more are found.

        What is `risked` may miss the budget: its upper end does, but more likely than not it is
        kept, and what was proposed could be the best.
        """
        genes = whole_numbers(genes)
        self._ratios, self._safe = {}, []
        if risked and genes not in self._seen and self._chance(genes) > 0:
            self._seen.add(genes)
            return genes
        for _ in range(_RESTARTS):
            genes = self._repair(genes, rng)
            if self._is_new(genes):
                return genes
            near = self._new_near(genes, rng) if genes in self._seen else None
            if near is not None:
                return near
            genes = self._space.random_genes(rng)
        left = self._any_left()
        return self._lowest_left(rng) if left is None else left

    def tell(self, found: Objectives | None) -> None:
        """Take in what an evaluation found; None where it failed."""
        if found is not None:
            self._missed = 0 if found.feasible else self._missed + 1

    def admits(self, kept: Genes) -> Admit:
        """Admit what an earlier run did, whatever would be proposed now.

        Another version or machine may propose otherwise after the same trials.
        """

        def admit(_genes: Genes, _rng: Random, *, risked: bool = False) -> Genes:
            self._seen.add(kept)
            return kept

        return admit

    def _any_left(self) -> Genes | None:
        """The first new one in a space small enough to be counted through."""
        if self._space.size > _COUNTED:
            return None
        left = [genes for genes in all_genes(self._space) if genes not in self._seen]
        self._worst(left)  # all at once: one by one takes seconds
        return next(filter(self._is_new, left), None)

    def _lowest_left(self, rng: Random) -> Genes | None:
        """The lowest mean that is left, where trials have told that all upper ends are above 1.

        A correction by few trials is not sure of that. But as many as are enough may miss the
        budget after the last that kept it, and before the first some more.
        """
        decode, predict = self._space.decode, self._bounds.predict
        if predict is None or not self._bounds.budget or self._missed >= _ENOUGH:
            return None
        left = sorted({*self._left(rng)} - self._seen)
        if not left:
            return None
        best = left[int(self._bounds.means(list(map(decode, left))).argmin())]
        corrected = predict([decode(best)]).log_std is not None
        if not corrected or self._bounds.limits.ratios([decode(best)])[0] > 1:
            return None
        self._seen.add(best)
        return best

    def _left(self, rng: Random) -> Iterator[Genes]:
        """All of a small space; of others what is around the lowest mean, and random ones."""
        space = self._space
        if space.size <= _COUNTED:
            yield from all_genes(space)
            return
        least = lowest_genes(space, self._bounds.means, rng)
        yield from (least, *neighbours(space, least))
        for _ in range(_AROUND):
            yield changed(space, changed(space, least, rng), rng)
            yield space.random_genes(rng)

    def _new_near(self, genes: Genes, rng: Random) -> Genes | None:
        """Walk by single changes among configs that keep all, until one is new."""
        for _ in range(_STEPS):
            near = changed(self._space, genes, rng)
            if self._is_new(near):
                return near
            if near in self._seen and self._worst([near])[0] <= 1:
                genes = near
        return None

    def _is_new(self, genes: Genes) -> bool:
        """Whether genes keep all and were not admitted, which they are from now on."""
        if genes in self._seen or not self._worst([genes])[0] <= 1:
            return False
        self._seen.add(genes)
        return True

    def _chance(self, genes: Genes) -> float:
        configs, predict = [self._space.decode(genes)], self._bounds.predict
        ratios = None if predict is None else predict(configs)
        return float(self._bounds.chances(configs, ratios)[0])

    def _worst(self, candidates: Sequence[Genes]) -> list[float]:
        new = [genes for genes in dict.fromkeys(candidates) if genes not in self._ratios]
        if new:
            found = self._bounds.worst([self._space.decode(genes) for genes in new])
            self._ratios.update(zip(new, map(float, found), strict=True))
        return [self._ratios[genes] for genes in candidates]

    def _repair(self, genes: Genes, rng: Random) -> Genes:
        """Make changes that each cost less by themselves, until all is kept.

        Where none costs less, choices are taken over from a config that keeps all.
        """
        (worst,) = self._worst([genes])
        while worst > 1:
            near = neighbours(self._space, genes)
            ratios = zip(near, self._worst(near), strict=True)
            cheaper = [n for n, ratio in ratios if ratio < worst]
            rng.shuffle(cheaper)
            path = _one_by_one(genes, cheaper)
            reached = self._worst(path)
            if not path or min(reached) >= worst:
                return self._towards_safe(genes, rng)
            kept = (i for i, ratio in enumerate(reached) if ratio <= 1)
            end = next(kept, reached.index(min(reached)))
            genes, worst = path[end], reached[end]
        return genes

    def _towards_safe(self, genes: Genes, rng: Random) -> Genes:
        """Take over choices of a config that keeps all, in random order, no more than it takes."""
        self._safe = self._safe or [
            lowest_genes(self._space, self._bounds.worst, Random(0), enough=1)
        ]
        (safe,) = self._safe
        path = [genes]
        for i in rng.sample(range(len(genes)), len(genes)):
            path.append((*path[-1][:i], safe[i], *path[-1][i + 1 :]))
        ratios = self._worst(path)
        return next((g for g, ratio in zip(path, ratios, strict=True) if ratio <= 1), genes)


def lowest(
    space: Space[C],
    values: Callable[[Sequence[C]], Array],
    rng: Random,
    *,
    enough: float = -np.inf,
) -> C:
    """Return the config of the lowest value that is found, or one of a value that is `enough`.

    `values` gives one for each config.
    """
    return space.decode(lowest_genes(space, values, rng, enough=enough))


def lowest_genes(
    space: Space[C],
    values: Callable[[Sequence[C]], Array],
    rng: Random,
    *,
    enough: float = -np.inf,
) -> Genes:
    """Descend from both ends of the choices and from random configs.

    Where the slowest of several stages counts, a single change may not tell, and descents end
    apart. Then one more begins at the best of many draws, of which some have all stages fast.
    """
    ends = [(0,) * len(space.genes), tuple(n - 1 for n in space.cardinalities)]
    found = []
    for genes in (*ends, *[space.random_genes(rng) for _ in range(_STARTS)]):
        found.append(_descend(space, values, genes))
        if found[-1][1] <= enough:
            return found[-1][0]
    if len({genes for genes, _ in found}) > 1:
        found.append(_descend(space, values, _best_drawn(space, values, rng)))
    return min(found, key=lambda pair: pair[1])[0]


def _best_drawn(space: Space[C], values: Callable[[Sequence[C]], Array], rng: Random) -> Genes:
    """The cross-entropy method (Rubinstein, Methodol. Comput. Appl. Probab. 1, 1999)."""
    shares = [np.full(n, 1 / n) for n in space.cardinalities]
    draws = np.random.default_rng(rng.getrandbits(64))
    best, least = space.random_genes(rng), np.inf
    for _ in range(_ROUNDS):
        columns = [draws.choice(len(share), _DRAWN, p=share) for share in shares]
        drawn = [tuple(map(int, genes)) for genes in zip(*columns, strict=True)]
        if not drawn:
            break
        there = values([space.decode(genes) for genes in drawn])
        elite = np.argsort(there, kind="stable")[:_ELITE]
        if there[elite[0]] < least:
            best, least = drawn[elite[0]], float(there[elite[0]])
        for share, column in zip(shares, columns, strict=True):
            seen = np.bincount(column[elite], minlength=len(share)) / _ELITE
            share += _LEARNED * (seen - share)
    return best


def _descend(
    space: Space[C], values: Callable[[Sequence[C]], Array], genes: Genes
) -> tuple[Genes, float]:
    """Apply the best change of each gene, in order of gain, as many as lead lowest; repeat."""

    def valued(found: Sequence[Genes]) -> Array:
        return values([space.decode(one) for one in found])

    value = float(valued([genes])[0])
    while near := neighbours(space, genes):
        there = valued(near)
        order = np.argsort(there, kind="stable")
        path = _one_by_one(genes, [near[i] for i in order if there[i] < value])
        if not path:
            break
        reached = valued(path)
        best = int(reached.argmin())
        if not reached[best] < value:  # batches of other sizes are rounded otherwise
            break
        genes, value = path[best], float(reached[best])
    return genes, value


def _one_by_one(genes: Genes, near: Sequence[Genes]) -> list[Genes]:
    """The changes of neighbours on top of each other, in order, one of each gene."""
    path, left = [genes], set(range(len(genes)))
    for other in near:
        if not left:
            break
        (i,) = (i for i in range(len(genes)) if other[i] != genes[i])
        if i in left:
            left.remove(i)
            path.append((*path[-1][:i], other[i], *path[-1][i + 1 :]))
    return path[1:]


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


def end_within(space: AnySpace, predict: PredictLatency, budget_ms: float, seed: int) -> End:
    """Return which end of a predicted latency is to keep the budget.

    That is the upper one, unless fewer configs keep the budget with it than trials are needed to
    correct predictions: those from few measurements have wide intervals, or stay near what was
    measured. Then it is the mean, or even the lower end.

    Raises:
        ValueError: if no config is found whose lower end keeps the budget.
    """
    for end in _ENDS:
        ends = partial(_predicted_end, predict, end)
        best = lowest_genes(space, ends, generator(seed, -1), enough=budget_ms)
        found = predict(list(map(space.decode, (best, *neighbours(space, best)))))
        within, possible = (int(np.sum(_end(found, e) <= budget_ms)) for e in (end, _ENDS[-1]))
        if within >= min(possible, _ENOUGH) and _end(found, end)[0] <= budget_ms:
            return end
    mean_ms, low_ms, high_ms = (float(v[0]) for v in (found.mean_ms, found.low_ms, found.high_ms))
    raise ValueError(
        f"`budget_ms` must be within reach of the space, but got {budget_ms:g} ms: the fastest "
        f"config takes {mean_ms:.3g} ms [{low_ms:.3g}, {high_ms:.3g}] (predicted). Raise the "
        "budget."
    )


def _predicted_end(predict: PredictLatency, end: End, configs: Sequence[object]) -> Array:
    return _end(predict(configs), end)


def _end(found: Prediction, end: End) -> Array:
    """One end of predictions; a lower one may be below zero."""
    return np.asarray(np.maximum(getattr(found, end), 1e-9 * found.mean_ms), dtype=float)


def check_limits(space: AnySpace, limits: Limits, seed: int) -> None:
    """Refuse limits that no network of the space keeps, one of them alone or all at once.

    Raises:
        TypeError: if the space's configs do not say what they cost.
        ValueError: if a limit is below what was found.
    """
    if not limits.given:
        return
    if not is_layered(space.decode((0,) * len(space.genes))):
        raise TypeError(
            f"{_listed(limits)} must be left out of a space of {space.config_class.__name__}, "
            "which has no layers() that would say what a network costs. Give it one."
        )
    for name, limit in limits.given.items():
        alone = limits.alone(name)
        for least in alone.exceeded(alone.limited(cost(_cheapest(space, alone, seed)))).values():
            raise ValueError(
                f"`{name}` must be within reach of the space, but got {limit:,}: the least that "
                f"was found is {least:,}. Raise it."
            )
    missed = limits.exceeded(limits.limited(cost(_cheapest(space, limits, seed))))
    if missed:
        words = " and ".join(f"{value:,} of `{name}`" for name, value in missed.items())
        raise ValueError(
            f"{_listed(limits)} must be within reach of the space all at once, but the network "
            f"that comes closest has {words}. Raise them."
        )


def _listed(limits: Limits) -> str:
    return " and ".join(f"`{name}`" for name in limits.given)


def _cheapest(space: Space[C], limits: Limits, seed: int) -> C:
    """The config of the lowest worst ratio; of equal ratios that which moves the fewest bytes.

    The most memory that stages take is often that of two, of which one alone changes nothing.
    """

    def values(configs: Sequence[C]) -> Array:
        moved: Array = np.asarray(costs(configs).memory_bytes, dtype=float)
        return limits.ratios(configs) + 1e-12 * moved

    return lowest(space, values, generator(seed, -1), enough=1)
