"""Ray Tune, both ways: our searchers and spaces for a `Tuner`, Tune's searchers for `search()`.

from ray import tune
import fasternas as fn
from fasternas.tune import FasternasSearch, config_of

def train(params):
    config = config_of(space, params)
    ...
    tune.report({"accuracy": 91.5, "latency_ms": 3.2})

search = FasternasSearch(space, budget_ms=5.0)
tune.Tuner(train, tune_config=tune.TuneConfig(search_alg=search, num_samples=50)).fit()
"""

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from ray import tune
from ray.tune.search import Searcher as RaySearcher
from ray.tune.search.sample import Domain

from nas.search.guided import AccuracyPrior
from nas.search.loop import Proposer, bounds_of
from nas.search.trial import Admit, Objectives, Scores, Searcher, generator
from predictors.cost import NO_LIMITS, Limits
from predictors.prediction import PredictLatency
from search_spaces.io import atomic_write
from search_spaces.space import AnySpace, Genes, Space

C = TypeVar("C")
_FINISHED: dict[str, Any] = cast("Any", RaySearcher.FINISHED)  # in the place of parameters
MISS = 100.0  # points of accuracy that a budget missed by its whole costs in `score`


def param_space(space: AnySpace) -> dict[str, Domain]:
    """Return a space as Tune has it: a choice for each gene, under the gene's name."""
    pairs = zip(space.names, space.genes, strict=True)
    return {name: tune.choice(list(gene.choices)) for name, gene in pairs}


def config_of(space: Space[C], params: Mapping[str, Any]) -> C:
    """Return the config of what Tune has chosen; other parameters beside it are passed over.

    Raises:
        ValueError: if a choice is missing, or is none of the space's.
    """
    return space.decode(_genes(space, params))


def _genes(space: AnySpace, params: Mapping[str, Any]) -> Genes:
    missing = [name for name in space.names if name not in params]
    if missing:
        raise ValueError(
            f"`params` must have a choice for each of {', '.join(space.names)}, but "
            f"{missing[0]} is missing."
        )
    found = []
    for name, gene in zip(space.names, space.genes, strict=True):
        value = params[name]
        value = tuple(value) if isinstance(value, list) else value
        if value not in gene.choices:
            raise ValueError(f"`{name}` must be one of {gene.choices}, but got {value!r}.")
        found.append(gene.choices.index(value))
    return tuple(found)


def _params(space: AnySpace, genes: Genes) -> dict[str, Any]:
    rows = zip(space.names, space.genes, genes, strict=True)
    return {name: gene.choices[i] for name, gene, i in rows}


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The names under which a trainable reports its scores; the upper end need not be there."""

    accuracy: str = "accuracy"
    latency_ms: str = "latency_ms"
    latency_high_ms: str = "latency_high_ms"

    def scores(self, result: Mapping[str, Any] | None) -> Scores | None:
        """Return the scores of a result; None where it has none that are valid."""
        if result is None or self.accuracy not in result or self.latency_ms not in result:
            return None
        found = Scores(
            accuracy=result[self.accuracy],
            latency_ms=result[self.latency_ms],
            latency_high_ms=result.get(self.latency_high_ms),
        )
        try:
            return found.as_floats() if found.valid else None
        except (TypeError, ValueError):  # what was reported is no number
            return None


class FasternasSearch(RaySearcher):
    """A searcher of fasternas as Tune's `search_alg`: accuracy up, latency down, the budget kept.

    A trial's parameters are the choices under the genes' names, which `config_of` makes a config
    of. The trainable reports `accuracy` and `latency_ms`; what a scheduler has stopped early is
    told as it was then. Results may come in any order.

    Args:
        space: the configs to choose from.
        searcher: as in `fasternas.search`: a name, or an object, of which a copy is used.
        budget_ms, limits, seed, predict_latency, prior: as in `fasternas.search`.
        metrics: the names of what is reported.

    Raises:
        TypeError, ValueError: as `fasternas.search` does.
    """

    def __init__(  # noqa: PLR0913 - as `search`
        self,
        space: AnySpace,
        *,
        searcher: str | Searcher = "guided",
        budget_ms: float | None = None,
        limits: Limits = NO_LIMITS,
        seed: int = 0,
        predict_latency: PredictLatency | None = None,
        prior: AccuracyPrior | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        names: Any = [self._metrics.accuracy, self._metrics.latency_ms]
        directions: Any = ["max", "min"]  # several are allowed, but for Ray's types
        super().__init__(metric=names, mode=directions)
        self._space = space
        self._searcher = searcher
        self._budget_ms = budget_ms
        self._seed = seed
        self._prior = prior
        self._bounds = bounds_of(space, predict_latency, budget_ms, limits, seed)
        self._events: list[dict[str, Any]] = []
        self._running: dict[str, Genes] = {}  # by trial
        self._latest: dict[str, dict[str, Any]] = {}  # what each of them reported last
        self._proposer: Proposer | None = self._opened()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the parameters of the next trial, or that there are no more."""
        genes = self._live().ask(self._asked)
        if genes is None:
            return _FINISHED
        self._events.append({"asked": trial_id, "genes": list(genes)})
        self._running[trial_id] = genes
        return _params(self._space, genes)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep what a trial reported: one that a scheduler ends is completed without a result."""
        if trial_id in self._running:
            self._latest[trial_id] = result

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - as Tune calls it
    ) -> None:
        """Learn from a trial's last result; one that failed or reported no scores is a failure."""
        if trial_id not in self._running:
            return
        latest = self._latest.pop(trial_id, None)
        scores = None if error else self._metrics.scores(result or latest)
        found = None if scores is None else scores.objectives(self._budget_ms)
        self._events.append({"told": trial_id, "found": found and asdict(found)})
        self._live().tell(self._running.pop(trial_id), found)

    def save(self, checkpoint_path: str) -> None:
        """Write all that was asked and told."""
        atomic_write(Path(checkpoint_path), json.dumps(self._events))

    def restore(self, checkpoint_path: str) -> None:
        """Ask and tell all of it again: what is proposed next is what would have been.

        Raises:
            ValueError: if the file is none that `save` wrote for such a space.
        """
        try:
            events = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
            self._events, self._running, self._proposer = [], {}, None
            for event in events:
                self._take(event)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{checkpoint_path} must be what a search of this space saved, but is not: "
                f"{error!r}. Restore the file."
            ) from None

    def _take(self, event: dict[str, Any]) -> None:
        """Take in an event of before."""
        if "asked" in event:
            genes = tuple(event["genes"])
            self._space.decode(genes)
            self._live().ask(self._asked, kept=genes)
            self._running[event["asked"]] = genes
        else:
            found = event["found"]
            genes = self._running.pop(event["told"])
            self._live().tell(genes, None if found is None else Objectives(**found))
        self._events.append(event)

    @property
    def _asked(self) -> int:
        """How many proposals there were."""
        return sum("asked" in event for event in self._events)

    def _live(self) -> Proposer:
        """What proposes; a copy that came from another process begins with what it was told."""
        if self._proposer is None:
            events, self._events, self._running = self._events, [], {}
            self._proposer = self._opened()
            for event in events:
                self._take(event)
        return self._proposer

    def _opened(self) -> Proposer:
        searcher = self._searcher if isinstance(self._searcher, str) else deepcopy(self._searcher)
        return Proposer(
            self._space, searcher, bounds=self._bounds, seed=self._seed, prior=self._prior
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what proposes, since not every searcher can be pickled."""
        return {**self.__dict__, "_proposer": None}


class TuneSearcher:
    """One of Tune's searchers as a searcher of ours: `fn.search(..., searcher=TuneSearcher(...))`.

    It is told `accuracy`, `ratio` (of latency to budget, or to 1 ms), `excess` (by how much the
    upper end misses the budget, as a ratio) and `score`: the accuracy, less a point for each
    per cent by which the budget is missed. Unless it has metrics of its own, it maximises `score`.
    Where the search admits another config near the one that was suggested, the searcher is told
    of that if it takes points from outside and has one metric, and else of none.

    Raises:
        ValueError: if it has a space of its own, or a metric that is none of these.
    """

    def __init__(self, searcher: RaySearcher, space: AnySpace, *, seed: int = 0) -> None:
        known, own = ("accuracy", "ratio", "excess", "score"), searcher.metric
        wrong = [name for name in _names(own) if name not in known]
        if wrong:
            raise ValueError(
                f"`searcher` must have a metric of {', '.join(known)}, but has {wrong[0]}. Leave "
                "it out for `score`."
            )
        metric, mode = (None, None) if own else ("score", "max")
        if not searcher.set_search_properties(metric, mode, param_space(space)):
            raise ValueError(
                f"`searcher` must have no space of its own, but {type(searcher).__name__} has. "
                "Leave it out."
            )
        self._searcher = searcher
        self._space = space
        self._seed = seed
        self._asked: defaultdict[Genes, deque[tuple[str, Genes | None]]] = defaultdict(deque)

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Take a suggestion; a config at random where Tune's searcher has none yet."""
        rng, trial_id = generator(self._seed, number), f"{number:08d}"
        params = self._searcher.suggest(trial_id)
        if params == _FINISHED:
            return None
        suggested = None if params is None else _genes(self._space, params)
        genes = admit(suggested or self._space.random_genes(rng), rng)
        if genes is not None:
            self._asked[genes].append((trial_id, suggested))
        elif suggested is not None:
            self._searcher.on_trial_complete(trial_id, error=True)
        return genes

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Tell Tune's searcher what it can be told."""
        trial_id, suggested = self._asked[genes].popleft()
        result = None if found is None else _result(found)
        if suggested == genes and result is not None:
            self._searcher.on_trial_complete(trial_id, result={**result, "done": True})
            return
        if suggested is not None:
            self._searcher.on_trial_complete(trial_id, error=True)
        metric = self._searcher.metric
        if result is not None and isinstance(metric, str):
            try:
                self._searcher.add_evaluated_point(_params(self._space, genes), result[metric])
            except NotImplementedError:
                return


def _names(metric: str | Sequence[str] | None) -> Sequence[str]:
    return [metric] if isinstance(metric, str) else metric or ()


def _result(found: Objectives) -> dict[str, float]:
    score = found.accuracy - MISS * max(found.excess, 0.0)
    return {**asdict(found), "score": score}
