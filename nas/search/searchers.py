"""The searchers by name: evolution, local search and Optuna's samplers beside the guided one."""

import logging
import warnings
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Literal, get_args

from nas.search.feasibility import Bounds, changed, neighbours
from nas.search.guided import AccuracyPrior, GuidedSearcher
from nas.search.pareto import dominates
from nas.search.trial import Admit, Objectives, Searcher, generator
from search_spaces.extensions import (
    call_extension,
    extension_names,
    extension_source,
    load_extension,
)
from search_spaces.space import AnySpace, Genes, OneOf

if TYPE_CHECKING:
    import optuna

SearcherName = Literal[
    "guided", "nsga2", "nsga3", "tpe", "gp", "evolution", "local", "random", "nni-evolution"
]


@dataclass(frozen=True, kw_only=True)
class SearchProblem:
    """What a searcher of another package is opened with.

    `bounds` is what a config must keep, `prior` what is known of accuracies before there is one.
    """

    space: AnySpace
    seed: int
    bounds: Bounds
    prior: AccuracyPrior | None = None


def searcher_names() -> tuple[str, ...]:
    """Return the names of the searchers: ours, and those that other packages have registered."""
    ours: tuple[str, ...] = get_args(SearcherName)
    return (*ours, *(name for name in extension_names("searchers") if name not in ours))


def check_searcher(name: str) -> None:
    """Refuse a searcher of another package that cannot be loaded, before anything is spent."""
    if name not in get_args(SearcherName):
        _load(name)


def _load(name: str) -> Callable[[SearchProblem], object]:
    """What another package has registered: what opens a searcher for a problem."""
    wanted = "what opens a searcher for a SearchProblem"
    found: Callable[[SearchProblem], object] = load_extension(
        "searchers", name, accepts=callable, wanted=wanted
    )
    return found


def open_searcher(
    name: str,
    space: AnySpace,
    *,
    bounds: Bounds,
    seed: int,
    prior: AccuracyPrior | None = None,
) -> Searcher:
    """Return a new searcher by name.

    Raises:
        ValueError: if there is none of that name.
        RuntimeError: if that of another package cannot be opened.
    """
    match name:
        case "guided":
            return GuidedSearcher(space, bounds=bounds, seed=seed, prior=prior)
        case "nsga2" | "nsga3" | "tpe" | "gp":
            return OptunaSearcher(space, name, seed=seed)
        case "evolution":
            return EvolutionSearcher(space, seed=seed)
        case "local":
            return LocalSearcher(space, seed=seed)
        case "random":
            return RandomSearcher(space, seed=seed)
        case "nni-evolution":
            return _nni(space, seed)
    if name in extension_names("searchers"):
        return _foreign(name, SearchProblem(space=space, seed=seed, bounds=bounds, prior=prior))
    raise ValueError(f"`searcher` must be one of {', '.join(searcher_names())}, but got {name!r}.")


def _foreign(name: str, problem: SearchProblem) -> Searcher:
    """A searcher of another package."""
    open_it = _load(name)
    found = call_extension("searchers", name, lambda: open_it(problem))
    if not isinstance(found, Searcher):
        raise RuntimeError(
            f"`searcher` {name} must have ask(number, admit) and tell(genes, found), but "
            f"{extension_source('searchers', name)} gave {found!r}."
        )
    return found


def _nni(space: AnySpace, seed: int) -> Searcher:
    try:
        from nas.search.nni import NniSearcher
    except ModuleNotFoundError as error:
        raise ValueError(
            "`searcher` nni-evolution must find nni, which is not installed. "
            "pip install 'fasternas[nni]'"
        ) from error
    return NniSearcher(space, seed=seed)


SamplerName = Literal["nsga2", "nsga3", "tpe", "gp"]


class OptunaSearcher:
    """One of Optuna's samplers, with accuracy up, ratio down and the budget as a constraint."""

    def __init__(self, space: AnySpace, name: SamplerName, *, seed: int) -> None:
        import optuna

        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._name = name
        self._seed = seed
        self._distributions = distributions(space)
        self._study = optuna.create_study(directions=["maximize", "minimize"])
        # System attributes of proposals, by what was admitted: twice where a record has it twice.
        self._asked: defaultdict[Genes, deque[dict[str, object]]] = defaultdict(deque)

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Ask the sampler; it is told what was admitted in place of its proposal."""
        import optuna

        rng = generator(self._seed, number)
        self._study.sampler = _sampler(self._name, rng.randrange(2**31))
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        attributes = self._study.trials[trial.number].system_attrs
        genes = admit(tuple(int(trial.params[name]) for name in self._distributions), rng)
        if genes is not None:
            self._asked[genes].append(attributes)
        return genes

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Tell the sampler."""
        import optuna

        attributes = self._asked[genes].popleft()
        if found is None:
            return
        trial = optuna.trial.create_trial(
            values=[float(found.accuracy), float(found.ratio)],
            params=dict(zip(self._distributions, genes, strict=True)),
            distributions=self._distributions,
            system_attrs=attributes,
            constraints={"budget": found.excess},
        )
        self._study.add_trial(trial)


def distributions(space: AnySpace) -> "dict[str, optuna.distributions.BaseDistribution]":
    """One Optuna distribution for each gene: ordered choices as integers, others categorical."""
    import optuna

    def distribution(gene: OneOf) -> "optuna.distributions.BaseDistribution":
        n = len(gene.choices)
        if gene.ordered:
            return optuna.distributions.IntDistribution(0, n - 1)
        return optuna.distributions.CategoricalDistribution(range(n))

    return {name: distribution(gene) for name, gene in zip(space.names, space.genes, strict=True)}


def _sampler(name: SamplerName, seed: int) -> "optuna.samplers.BaseSampler":
    from optuna import exceptions, samplers

    match name:
        case "nsga2":
            return samplers.NSGAIISampler(population_size=20, seed=seed)
        case "tpe":
            return samplers.TPESampler(seed=seed)
        case "gp":
            return samplers.GPSampler(seed=seed)
        case "nsga3":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
                return samplers.NSGAIIISampler(population_size=20, dividing_parameter=12, seed=seed)


POPULATION, SAMPLE = 20, 5
START = 8  # random configs before local search begins


@dataclass(eq=False)
class EvolutionSearcher:
    """Regularised evolution (arXiv 1802.01548): the best of a sample has a child, the oldest dies.

    Best is what no other of the sample beats in accuracy and ratio, within the budget first.
    """

    space: AnySpace
    _: KW_ONLY
    seed: int
    population: deque[tuple[Genes, Objectives]] = field(
        default_factory=lambda: deque(maxlen=POPULATION), init=False
    )

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Change one choice of a parent."""
        rng = generator(self.seed, number)
        if number < POPULATION or not self.population:
            return admit(self.space.random_genes(rng), rng)
        sample = rng.choices(self.population, k=SAMPLE)
        parent, _ = rng.choice(_front_of(sample))
        return admit(changed(self.space, parent, rng), rng)

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Take a child into the population."""
        if found is not None:
            self.population.append((genes, found))


@dataclass(eq=False)
class LocalSearcher:
    """Pareto local search: the untried neighbours of the front, then a new start.

    For one objective this is the local search of arXiv 2004.08996.
    """

    space: AnySpace
    _: KW_ONLY
    seed: int
    asked: set[Genes] = field(default_factory=set, init=False)
    front: list[tuple[Genes, Objectives]] = field(default_factory=list, init=False)

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Propose a neighbour of a member of the front."""
        rng = generator(self.seed, number)
        proposal = self.space.random_genes(rng) if number < START else self._neighbour(rng)
        admitted = admit(proposal, rng)
        if admitted is not None:
            self.asked.add(admitted)
        return admitted

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Remember what may be on the front."""
        if found is not None:
            self.front = _front_of([*self.front, (genes, found)])

    def _neighbour(self, rng: Random) -> Genes:
        for genes, _ in rng.sample(self.front, len(self.front)):
            untried = [n for n in neighbours(self.space, genes) if n not in self.asked]
            if untried:
                return rng.choice(untried)
        return self.space.random_genes(rng)


def _front_of(known: list[tuple[Genes, Objectives]]) -> list[tuple[Genes, Objectives]]:
    """What no other beats; where none meets the budget, the fastest."""
    within = [pair for pair in known if pair[1].feasible]
    known = within or sorted(known, key=lambda pair: pair[1].excess)[:1]
    return [pair for pair in known if not any(dominates(other, pair[1]) for _, other in known)]


@dataclass(eq=False)
class RandomSearcher:
    """Draws uniformly, and learns nothing."""

    space: AnySpace
    _: KW_ONLY
    seed: int

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Draw a proposal."""
        rng = generator(self.seed, number)
        return admit(self.space.random_genes(rng), rng)

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Learn nothing."""
