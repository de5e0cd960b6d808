"""The searchers that can be chosen by name."""

from typing import TYPE_CHECKING, Any, Literal, get_args

from nas.searching.evolution import EvolutionSearcher, LocalSearcher
from nas.searching.guided import GuidedSearcher
from nas.searching.prior import AccuracyPrior
from nas.searching.samplers import SAMPLERS, OptunaSearcher
from nas.searching.searcher import Admit, Searcher, generator
from nas.searching.trial import Scores
from search_spaces.space import Genes, Space

if TYPE_CHECKING:
    from nas.searching.feasible import PredictLatency

SearcherName = Literal[
    "guided", "nsga2", "nsga3", "tpe", "gp", "evolution", "local", "random", "nni-evolution"
]


def open_searcher(
    name: str, space: Space[Any], *, budget_ms: float | None, seed: int,
    predict_latency: "PredictLatency | None", prior: AccuracyPrior | None = None,
) -> Searcher:  # fmt: skip
    """Return a new searcher by name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name == "random":
        return RandomSearcher(space, seed)
    if name == "guided":
        return GuidedSearcher(
            space, budget_ms=budget_ms, seed=seed, predict_latency=predict_latency,
            prior=prior,
        )  # fmt: skip
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
        from nas.searching.nni_bridge import NniSearcher
    except ModuleNotFoundError as error:
        raise ValueError("`searcher` nni-evolution must find nni, which is not installed. "
                         "pip install 'fasternas[nni]'") from error  # fmt: skip
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
