"""Searchers propose genes and are told what became of them. Optuna's are here, ours in guided.py.

Every proposal is drawn from a generator seeded by (seed, number), so that a resumed search, which
tells the searcher the same results in the same order, proposes the same.
"""

import logging
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from nas.trial import Scores
from search_spaces.space import Genes, OneOf, Space

if TYPE_CHECKING:
    import optuna

    from nas.feasible import PredictLatency

SearcherName = Literal["guided", "nsga2", "tpe", "gp", "random"]
Admit = Callable[[Genes, Random], Genes | None]
"""Turns a proposal into a new one within the budget near it; None where there is none left."""


class Searcher(Protocol):
    """Proposes what to evaluate next."""

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Return the proposal of that number as it was admitted; None ends the search."""

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Take in what an evaluation found, in the order of asking; None where it failed."""


def open_searcher(
    name: str, space: Space[Any], *, budget_ms: float | None, seed: int,
    predict_latency: "PredictLatency | None",
) -> Searcher:  # fmt: skip
    """Return a new searcher by name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name == "random":
        return RandomSearcher(space, seed)
    if name == "guided":
        from nas.guided import GuidedSearcher

        return GuidedSearcher(
            space, budget_ms=budget_ms, seed=seed, predict_latency=predict_latency
        )
    if name in _SAMPLERS:
        return OptunaSearcher(space, _SAMPLERS[name], budget_ms=budget_ms, seed=seed)
    raise ValueError(
        f"`searcher` must be one of {', '.join(get_args(SearcherName))}, but got {name!r}."
    )


def generator(seed: int, number: int) -> Random:
    """Return the generator of one proposal."""
    return Random(f"{seed}/{number}")


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


class OptunaSearcher:
    """One of Optuna's samplers, with accuracy up, latency down and the budget as a constraint."""

    def __init__(
        self, space: Space[Any], make_sampler: Callable[[int], "optuna.samplers.BaseSampler"],
        *, budget_ms: float | None, seed: int,
    ) -> None:  # fmt: skip
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
        self._study.add_trial(optuna.trial.create_trial(
            values=[scores.accuracy, scores.latency_ms],
            params=dict(zip(self._distributions, genes, strict=True)),
            distributions=self._distributions, system_attrs=attributes,
            constraints={"budget": excess},
        ))  # fmt: skip


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


def _tpe(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.TPESampler(seed=seed)


def _gp(seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    return optuna.samplers.GPSampler(seed=seed)


_SAMPLERS: dict[str, Callable[[int], "optuna.samplers.BaseSampler"]] = {
    "nsga2": _nsga2, "tpe": _tpe, "gp": _gp,
}  # fmt: skip
