"""The searchers by name: evolution, local search and Optuna's samplers beside the guided one."""

import logging
import warnings
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Literal, get_args

from nas.search.feasibility import changed, neighbours
from nas.search.guided import AccuracyPrior, GuidedSearcher
from nas.search.pareto import dominates
from nas.search.trial import Admit, Scores, Searcher, generator
from search_spaces.space import Genes, OneOf, Space

if TYPE_CHECKING:
    import optuna

    from nas.search.feasibility import PredictLatency


class OptunaSearcher:
    """One of Optuna's samplers, with accuracy up, latency down and the budget as a constraint."""

    def __init__(
        self,
        space: Space[Any],
        make_sampler: Callable[[int], "optuna.samplers.BaseSampler"],
        *,
        budget_ms: float | None,
        seed: int,
    ) -> None:
        import optuna

        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._make_sampler = make_sampler
        self._budget_ms = budget_ms
        self._seed = seed
        self._distributions = distributions(space)
        self._study = optuna.create_study(directions=["maximize", "minimize"])
        self._attributes: dict[int, dict[str, Any]] = {}
        self._asked: list[dict[str, Any]] = []

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Ask the sampler; it is told what was admitted in place of its proposal."""
        import optuna

        rng = generator(self._seed, number)
        self._study.sampler = self._make_sampler(rng.randrange(2**31))
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._asked.append(self._study.trials[trial.number].system_attrs)
        return admit(tuple(int(trial.params[name]) for name in self._distributions), rng)

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Tell the sampler, in the order of asking."""
        import optuna

        attributes = self._asked.pop(0)
        if scores is None:
            return
        excess = 0.0 if self._budget_ms is None else scores.upper_ms - self._budget_ms
        self._study.add_trial(
            optuna.trial.create_trial(
                values=[float(scores.accuracy), float(scores.latency_ms)],
                params=dict(zip(self._distributions, genes, strict=True)),
                distributions=self._distributions,
                system_attrs=attributes,
                constraints={"budget": excess},
            )
        )


def distributions(space: Space[Any]) -> "dict[str, optuna.distributions.BaseDistribution]":
    """One Optuna distribution for each gene: ordered choices as integers, others categorical."""
    import optuna

    def distribution(gene: OneOf) -> "optuna.distributions.BaseDistribution":
        n = len(gene.choices)
        if gene.ordered:
            return optuna.distributions.IntDistribution(0, n - 1)
        return optuna.distributions.CategoricalDistribution(range(n))

    return {name: distribution(gene) for name, gene in zip(space.names, space.genes, strict=True)}


def _nsga2(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)


def _nsga3(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIIISampler(population_size=20, dividing_parameter=12, seed=seed)


def _tpe(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.TPESampler(seed=seed)


def _gp(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.GPSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], "optuna.samplers.BaseSampler"]] = {
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "tpe": _tpe,
    "gp": _gp,
}


POPULATION, SAMPLE = 20, 5
START = 8  # random configs before local search begins


class EvolutionSearcher:
    """Regularised evolution (arXiv 1802.01548): the best of a sample has a child, the oldest dies.

    Best is what no other of the sample beats in accuracy and latency, within the budget first.
    """

    def __init__(self, space: Space[Any], *, budget_ms: float | None, seed: int) -> None:
        self._space = space
        self._budget_ms = budget_ms
        self._seed = seed
        self._population: deque[tuple[Genes, Scores]] = deque(maxlen=POPULATION)

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Change one choice of a parent."""
        rng = generator(self._seed, number)
        if number < POPULATION or not self._population:
            return admit(self._space.random_genes(rng), rng)
        sample = rng.choices(self._population, k=SAMPLE)
        parent, _ = rng.choice(front_of(sample, self._budget_ms))
        return admit(changed(self._space, parent, rng), rng)

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Take a child into the population."""
        if scores is not None:
            self._population.append((genes, scores))


class LocalSearcher:
    """Pareto local search: the untried neighbours of the front, then a new start.

    For one objective this is the local search of arXiv 2004.08996.
    """

    def __init__(self, space: Space[Any], *, budget_ms: float | None, seed: int) -> None:
        self._space = space
        self._budget_ms = budget_ms
        self._seed = seed
        self._asked: set[Genes] = set()
        self._known: list[tuple[Genes, Scores]] = []

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Propose a neighbour of a member of the front."""
        rng = generator(self._seed, number)
        proposal = self._space.random_genes(rng) if number < START else self._neighbour(rng)
        admitted = admit(proposal, rng)
        if admitted is not None:
            self._asked.add(admitted)
        return admitted

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Remember what may be on the front."""
        if scores is not None:
            self._known = front_of([*self._known, (genes, scores)], self._budget_ms)

    def _neighbour(self, rng: Random) -> Genes:
        for genes, _ in rng.sample(self._known, len(self._known)):
            untried = [n for n in neighbours(self._space, genes) if n not in self._asked]
            if untried:
                return rng.choice(untried)
        return self._space.random_genes(rng)


def front_of(
    known: list[tuple[Genes, Scores]], budget_ms: float | None
) -> list[tuple[Genes, Scores]]:
    """Return what no other beats; where none meets the budget, the fastest."""
    if budget_ms is not None:
        within = [pair for pair in known if pair[1].upper_ms <= budget_ms]
        known = within or sorted(known, key=lambda pair: pair[1].upper_ms)[:1]
    return [
        (genes, scores)
        for genes, scores in known
        if not any(dominates(other, scores) for _, other in known)
    ]


SearcherName = Literal[
    "guided", "nsga2", "nsga3", "tpe", "gp", "evolution", "local", "random", "nni-evolution"
]


def open_searcher(
    name: str,
    space: Space[Any],
    *,
    budget_ms: float | None,
    seed: int,
    predict_latency: "PredictLatency | None",
    prior: AccuracyPrior | None = None,
) -> Searcher:
    """Return a new searcher by name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name == "random":
        return RandomSearcher(space, seed)
    if name == "guided":
        return GuidedSearcher(
            space, budget_ms=budget_ms, seed=seed, predict_latency=predict_latency, prior=prior
        )
    if name == "evolution":
        return EvolutionSearcher(space, budget_ms=budget_ms, seed=seed)
    if name == "local":
        return LocalSearcher(space, budget_ms=budget_ms, seed=seed)
    if name in SAMPLERS:
        return OptunaSearcher(space, SAMPLERS[name], budget_ms=budget_ms, seed=seed)
    if name == "nni-evolution":
        return _nni(space, budget_ms, seed)
    raise ValueError(
        f"`searcher` must be one of {', '.join(get_args(SearcherName))}, but got {name!r}."
    )


def _nni(space: Space[Any], budget_ms: float | None, seed: int) -> Searcher:
    try:
        from nas.search.nni import NniSearcher
    except ModuleNotFoundError as error:
        raise ValueError(
            "`searcher` nni-evolution must find nni, which is not installed. pip install "
            "'fasternas[nni]'"
        ) from error
    return NniSearcher(space, budget_ms=budget_ms, seed=seed)


class RandomSearcher:
    """Draws uniformly."""

    def __init__(self, space: Space[Any], seed: int) -> None:
        self._space = space
        self._seed = seed

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Draw a proposal."""
        rng = generator(self._seed, number)
        return admit(self._space.random_genes(rng), rng)

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Random search learns nothing."""
