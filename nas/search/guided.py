"""Our own searcher: a Gaussian process of the accuracy guides evolution over the whole space.

Each proposal maximises the expected hypervolume improvement, on scales of its own. The ratio of
latency to budget counts by its logarithm: half the time is worth as much wherever it is saved, and
the slowest networks do not take all trials. Accuracy is warped to look normal: a point at the top,
where networks crowd, is worth more. The ratio is taken as known (predicted before anything is
spent and corrected by the trials, or learned from them), so the improvement in the plane is a sum
of one-dimensional expected improvements, one for each step of the front, in closed form. Under a
budget every second proposal seeks the most accurate config instead.

The ratio also tells of the accuracy: it is an input beside the choices. A cheap
score that is known of every config, where there is one, is a trend that the process departs from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from random import Random
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.search.correction import LearnedRatios
from nas.search.feasibility import Bounds, changed
from nas.search.trial import Admit, Objectives, generator
from predictors.accuracy import binomial_error
from predictors.features import gene_features, scaled_genes
from predictors.gp import TrendedProcess, fit_trended
from predictors.latency import FEWEST
from search_spaces.space import AnySpace, Genes, Space

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AccuracyPrior:
    """A cheap score that goes with accuracy, and how far chance alone moves accuracies.

    `scores(configs) -> [n]` may be any finite numbers, such as a training-free score; it is asked
    for thousands before one is evaluated. `images` is on how many an accuracy, in percent then, is
    evaluated: accuracies are taken as no more certain than that. `starts` are configs that may be
    good, such as those that the score was fitted to; the search looks around them too. They are of
    the space's config class, and need not be in the space.

    Raises:
        ValueError: if `images` is below 1.
    """

    scores: Callable[[Sequence[Any]], Array] | None = None
    images: int | None = None
    starts: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(
                f"`images` must be 1 or more, but got {self.images}. Leave it out where accuracies "
                "are exact."
            )

    def of(self, configs: Sequence[object]) -> Array | None:
        """Return the scores of configs, if there are any scores.

        Raises:
            ValueError: if they are not one finite number for each config.
        """
        if self.scores is None:
            return None
        found = np.asarray(self.scores(configs), dtype=float)
        if found.shape != (len(configs),) or not np.isfinite(found).all():
            missing = np.count_nonzero(~np.isfinite(found))
            raise ValueError(
                f"`scores` must return one finite number for each of {len(configs)} configs, but "
                f"returned an array of shape {found.shape} with {missing} that are not finite."
            )
        return found

    def fit(
        self,
        configs: Sequence[object],
        inputs: Array,
        accuracies: Array,
        *,
        start: TrendedProcess | None = None,
        steps: int = 60,
    ) -> TrendedProcess:
        """Fit to the accuracies [n] of configs with inputs [n, d]."""
        return fit_trended(
            inputs,
            accuracies,
            self.of(configs),
            start=start,
            steps=steps,
            least_noise=binomial_error(accuracies, self.images),
        )


Front = list[tuple[float, float, Genes]]  # ratio, warped accuracy, genes; the fastest first
Gain = Callable[[list[Genes], Front], Array]

START = 8  # proposals before the first model
DRAWN = 64  # random configs from which each of these is taken
QUANTILES = (0.5, 1.0, 0.0, 0.25, 0.75, 0.125, 0.625, 0.375)  # of their predicted latencies
REFIT = 8  # results between two fits of the hyperparameters
POPULATION, GENERATIONS = 150, 4
_SUREST = 0.95  # chance that is asked for at most


class GuidedSearcher:
    """Predictor-guided multi-objective search over any space."""

    def __init__(
        self,
        space: AnySpace,
        *,
        bounds: Bounds,
        seed: int,
        prior: AccuracyPrior | None = None,
    ) -> None:
        self._space = space
        self._bounds = bounds
        self._seed = seed
        self._prior = prior or AccuracyPrior()
        self._starts = _placed(space, self._prior.starts)
        self._genes: list[Genes] = []
        self._results: list[Objectives] = []
        self._pending: list[Genes] = []
        self._accuracy: TrendedProcess | None = None
        self._fitted_at = 0
        self._learned = LearnedRatios(space) if bounds.predict is None else None
        self._predict = bounds.predict or self._learned
        self._known: dict[Genes, _Known] = {}  # of this proposal
        self._configs: dict[Genes, object] = {}  # of results, asked for by each proposal
        self._risking = True  # this proposal may miss the budget

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Propose the config of the highest expected hypervolume improvement."""
        rng = generator(self._seed, number)
        self._known = {}
        self._risking = number % self._bounds.risked == 0
        if number < START or len(self._genes) < (4 if self._learned is None else FEWEST):
            genes = self._first(number, rng)
        else:
            self._fit()
            gain = self._gain_of_best if self._bounds.budget and number % 2 else self._gain_of_front
            genes = self._evolve(rng, gain)
        # What came first here, though its upper end misses the budget, could be the best.
        risked = genes in self._known and 0 < self._known[genes].chance < 1
        admitted = admit(genes, rng, risked=True) if risked else admit(genes, rng)
        if admitted is not None:
            self._pending.append(admitted)
        return admitted

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Learn from a result."""
        self._pending.remove(genes)
        if found is not None:
            self._genes.append(genes)
            self._results.append(found)
            self._configs[genes] = self._space.decode(genes)

    def _first(self, number: int, rng: Random) -> Genes:
        """Draw a config at random, one of each part of the ratios where they are predicted."""
        if self._learned is not None:
            return self._space.random_genes(rng)
        drawn = [self._space.random_genes(rng) for _ in range(DRAWN)]
        ratio, feasible = self._ratios(drawn)
        ranked = sorted(range(DRAWN), key=lambda i: (not feasible[i], ratio[i]))
        last = max(int(feasible.sum()) - 1, 0)
        return drawn[ranked[round(QUANTILES[number % START] * last)]]

    def _fit(self) -> None:
        """Fit the accuracy and, where it is not predicted for us, the ratio."""
        if self._learned is not None:
            self._learned.fit(self._genes, [r.ratio for r in self._results])
        refit = self._accuracy is None or len(self._genes) - self._fitted_at >= REFIT
        steps = 0 if not refit else 40 if self._accuracy is None else 15
        self._accuracy = self._prior.fit(
            self._decoded(self._genes),
            self._inputs(self._genes),
            np.array([r.accuracy for r in self._results]),
            start=self._accuracy,
            steps=steps,
        )
        self._fitted_at = len(self._genes) if refit else self._fitted_at

    def _evolve(self, rng: Random, gain: Gain) -> Genes:
        """Evolve the front and the starts by mutation and crossover under the acquisition."""
        front = self._front()
        known = set(self._genes) | set(self._pending)
        starts = [genes for genes in self._starts if genes not in known]
        starts = list(compress(starts, self._ratios(starts)[1] > 0))
        parents = [*([genes for _, _, genes in front] or self._genes), *starts]
        population = dict(zip(starts, gain(starts, front), strict=True))
        for _ in range(GENERATIONS):
            children = {self._child(parents, rng) for _ in range(POPULATION)}
            fresh = sorted(children - known - population.keys())
            population.update(zip(fresh, gain(fresh, front), strict=True))
            ranked = sorted(population, key=lambda g: -population[g])
            parents = ranked[: POPULATION // 5] or parents
        ratio, _ = self._ratios([*population] or parents[:1])
        fastest = dict(zip(population, (-ratio).tolist(), strict=False))
        return max(population, key=lambda g: (population[g], fastest[g]), default=parents[0])

    def _child(self, parents: list[Genes], rng: Random) -> Genes:
        if rng.random() < 0.1:
            return self._space.random_genes(rng)
        child = rng.choice(parents)
        if rng.random() < 0.5:
            other = rng.choice(parents)
            child = tuple(rng.choice(pair) for pair in zip(child, other, strict=True))
        for _ in range(1 + int(rng.expovariate(1.0))):
            child = changed(self._space, child, rng)
        return child

    def _gain_of_best(self, candidates: list[Genes], front: Front) -> Array:
        """Expected improvement on the best accuracy; 0 where a candidate breaks a bound."""
        if not candidates or not front:
            return self._gain_of_front(candidates, front)
        _, feasible = self._ratios(candidates)
        mean, std = self._accuracies(candidates)
        _, best, _ = front[-1]
        return feasible * _expected_improvement(mean, std, best)

    def _gain_of_front(self, candidates: list[Genes], front: Front) -> Array:
        """Expected improvement of each candidate, as said above; 0 where it misses the budget."""
        if not candidates:
            return np.zeros(0)
        ratio, feasible = self._ratios(candidates)
        mean, std = self._accuracies(candidates)
        steps, limit = self._steps(front)
        total = np.zeros(len(candidates))
        for start, end, height in steps:
            width = np.clip(np.log(end / np.maximum(start, ratio)), 0.0, None)
            total += width * _expected_improvement(mean, std, height)
        return total * feasible * (ratio < limit)

    def _accuracies(self, candidates: list[Genes]) -> tuple[Array, Array]:
        """Predicted accuracy of each candidate, warped, and its standard deviation."""
        assert self._accuracy is not None
        known = self._prior.of(self._decoded(candidates))
        return self._accuracy.predict_warped(self._inputs(candidates), known)

    def _accuracies_found(self) -> Array:
        """The accuracies of all results, warped."""
        assert self._accuracy is not None
        return self._accuracy.warping.warped(np.array([r.accuracy for r in self._results]))

    def _ratios(self, candidates: list[Genes]) -> tuple[Array, Array]:
        """Ratio of each candidate, and the chance that it keeps all bounds."""
        new = [genes for genes in dict.fromkeys(candidates) if genes not in self._known]
        if new:
            decode, kept = self._space.decode, self._configs
            configs = [kept[g] if g in kept else decode(g) for g in new]
            assert self._predict is not None
            ratios = self._predict(configs)
            chances = self._bounds.chances(configs, ratios)
            if not self._risking:
                chances = np.floor(chances)
            if self._learned is not None:
                chances = np.where(chances >= self._least_chance(), chances, 0.0)
            rows = zip(new, configs, ratios.mean.tolist(), chances.tolist(), strict=True)
            self._known.update({genes: _Known(*row) for genes, *row in rows})
        known = [self._known[genes] for genes in candidates]
        return np.array([k.ratio for k in known]), np.array([k.chance for k in known])

    def _least_chance(self) -> float:
        """To keep the budget where that is learned: the more trials missed it, the surer."""
        missed = np.mean([not found.feasible for found in self._results])
        return min(0.5 + 0.5 * float(missed), _SUREST)

    def _front(self) -> Front:
        """The front (ratio, warped accuracy, genes) of results and pending ones.

        These are at their modelled means, and so are results where accuracies are known to be
        noisy: what chance has lifted need not be beaten.
        """
        genes = [*self._genes, *self._pending]
        ratios = [r.ratio for r in self._results]
        if self._pending:
            ratios += self._ratios(self._pending)[0].tolist()
        accuracy = self._accuracies(genes)[0].tolist()
        if not self._prior.images:
            accuracy[: len(self._results)] = self._accuracies_found().tolist()
        kept = [r.feasible for r in self._results] + [True] * len(self._pending)
        points = compress(zip(ratios, accuracy, genes, strict=True), kept)
        front: Front = []
        for point in sorted(points, key=lambda p: (p[0], -p[1])):
            if not front or point[1] > front[-1][1]:
                front.append(point)
        return front

    def _steps(self, front: Front) -> tuple[list[tuple[float, float, float]], float]:
        """The front as steps (from ratio, to ratio, accuracy to beat), up to the reference."""
        limit = 1.0 if self._bounds.budget else max(r.ratio for r in self._results)
        floor = float(np.quantile(self._accuracies_found(), 0.05))
        starts = [0.0, *(ratio for ratio, _, _ in front)]
        ends = [*(ratio for ratio, _, _ in front), limit]
        heights = [floor, *(max(accuracy, floor) for _, accuracy, _ in front)]
        return list(zip(starts, ends, heights, strict=True)), limit

    def _inputs(self, genes: list[Genes]) -> Array:
        """The choices and the logarithm of the ratio."""
        ratio, _ = self._ratios(genes)
        return np.column_stack([scaled_genes(self._space, genes), np.log(ratio)])

    def _decoded(self, genes: list[Genes]) -> list[object]:
        self._ratios(genes)
        return [self._known[g].config for g in genes]


def _placed(space: AnySpace, starts: Sequence[object]) -> list[Genes]:
    """Return the distinct genes of the choices nearest to these configs'."""
    for config in starts:
        if not isinstance(config, space.config_class):
            raise TypeError(
                f"`starts` must be configs of class {space.config_class.__name__}, but got "
                f"{config!r}. Leave it out."
            )
    return list(dict.fromkeys(space.nearest(config) for config in starts))


class _Known(NamedTuple):
    """What is known of a candidate."""

    config: object
    ratio: float
    chance: float


def _expected_improvement(mean: Array, std: Array, height: float) -> Array:
    """E[max(a - height, 0)] for a normal a."""
    z = (mean - height) / std
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    improvement: Array = std * (z * _normal_cdf(z) + density)
    return np.maximum(improvement, 0.0)


def _normal_cdf(z: Array) -> Array:
    from scipy.special import ndtr

    probability: Array = ndtr(z)
    return probability


C = TypeVar("C")


def posterior_mean(
    space: Space[C], found: Mapping[C, Objectives], prior: AccuracyPrior
) -> dict[C, Objectives]:
    """Return the objectives with the accuracies that a model fitted to all of them has there.

    It is that of the guided searcher: a trend along the prior's scores and a Gaussian process of
    choices and ratio, whose noise is fitted too.
    """
    if len(found) < FEWEST:
        return dict(found)
    configs, points = list(found), list(found.values())
    log_ratio = np.log([point.ratio for point in points])
    inputs = np.column_stack([gene_features(space, configs), log_ratio])
    model = prior.fit(configs, inputs, np.array([point.accuracy for point in points]))
    accuracies, _ = model.predict(inputs, prior.of(configs))
    pairs = zip(found.items(), accuracies, strict=True)
    return {c: replace(point, accuracy=float(accuracy)) for (c, point), accuracy in pairs}
