"""Optuna's samplers as searchers."""

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.searching.searcher import Admit, generator
from nas.searching.trial import Scores
from search_spaces.space import Genes, OneOf, Space

if TYPE_CHECKING:
    import optuna


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
            values=[float(scores.accuracy), float(scores.latency_ms)],
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
    "nsga2": _nsga2, "nsga3": _nsga3, "tpe": _tpe, "gp": _gp,
}  # fmt: skip
