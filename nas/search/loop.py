"""The search loop: ask, check the latency, evaluate, tell, yield."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from operator import index
from typing import Generic, Protocol, SupportsIndex, TypeVar

from nas.search.correction import CorrectedRatios
from nas.search.feasibility import (
    Admission,
    Bounds,
    End,
    PredictRatio,
    as_ratios,
    check_limits,
    end_within,
    whole_numbers,
)
from nas.search.guided import AccuracyPrior
from nas.search.searchers import open_searcher
from nas.search.trial import (
    Evaluate,
    InProcess,
    Objectives,
    Outcome,
    Pool,
    Scores,
    Searcher,
    Trial,
)
from predictors.cost import NO_LIMITS, Limits
from predictors.prediction import PredictLatency, checked_predictor
from search_spaces.space import AnySpace, Genes, Space

C = TypeVar("C")
S = TypeVar("S")

# Trial n is proposed knowing exactly trials 0..n-IN_FLIGHT, however long each takes and however
# many a pool runs at once: so one seed gives one result on any number of machines. Without a pool
# each is proposed knowing all before it.
IN_FLIGHT = 8


class Record(Protocol[S]):
    """Where outcomes are kept, so that a later run need not repeat them."""

    def recall(self, number: int) -> tuple[Genes, Outcome[S]] | None:
        """Return what was evaluated as this trial and its outcome, if any was kept."""

    def keep(self, genes: Genes, outcome: Outcome[S]) -> None:
        """Keep an outcome."""


def search(  # noqa: PLR0913 - the one public entry, all options keyword-only
    space: Space[C],
    evaluate: Evaluate[Scores],
    *,
    trials: int = 200,
    budget_ms: float | None = None,
    limits: Limits = NO_LIMITS,
    seed: int = 0,
    predict_latency: PredictLatency | None = None,
    prior: AccuracyPrior | None = None,
    searcher: str | Searcher = "guided",
    pool: Pool[Scores] | None = None,
    parallel: int = IN_FLIGHT,
    record: Record[Scores] | None = None,
) -> Iterator[Trial[C]]:
    """Search a space; return an iterator over the trials, in order. Stop with `break`.

    Args:
        space: the configs to choose from.
        evaluate: `evaluate(config) -> Scores`; what it raises ends that trial as failed.
        trials: how many configs to evaluate; fewer are where no more are found.
        budget_ms: the latency that the upper end of a config's interval must meet.
        limits: the most that it may cost besides; what breaks one never is evaluated.
        seed: the same seed gives the same trials.
        predict_latency: `predict_latency(configs) -> Prediction`, asked for thousands before one
            is evaluated. Trials that find otherwise correct it; None is learned from them alone.
        prior: what is known of accuracies before there is one; the guided searcher uses it.
        searcher: its name (guided, nsga2, tpe, random, ...), or an object with `ask` and `tell`.
        pool: where evaluations run; None: in this process.
        parallel: how many a pool has at once; other numbers give other trials.
        record: outcomes of an earlier run, which are used instead of evaluating again.

    Raises:
        TypeError: if `predict_latency` or `searcher` is none, or limited configs lack `layers()`.
        ValueError: if an argument or a predicted latency is wrong, or no config keeps the bounds.
    """
    parallel, seed = _positive(parallel, "parallel"), _whole(seed, "seed", "a whole number")
    exploration = Exploration(
        space=space,
        rate=lambda scores: scores.objectives(budget_ms),
        bounds=bounds_of(space, predict_latency, budget_ms, limits, seed),
        trials=_positive(trials, "trials"),
        seed=seed,
        searcher=searcher,
        prior=prior,
        record=record,
        in_flight=parallel if pool else 1,
    )
    found = exploration.run(pool or InProcess(evaluate))
    return (_trial(*pair, budget_ms, limits) for pair in found)


def bounds_of(
    space: AnySpace,
    predict_latency: PredictLatency | None,
    budget_ms: float | None,
    limits: Limits,
    seed: int,
) -> Bounds:
    """Return what is to be kept, checked: budget and limits are within reach of the space."""
    _check_budget_ms(budget_ms)
    if not isinstance(space, Space):
        raise TypeError(f"`space` must be a Space, but got {space!r}. Write Space(Config, ...).")
    if not isinstance(limits, Limits):
        raise TypeError(
            f"`limits` must be Limits, but got {limits!r}. Write Limits(params=4_000_000)."
        )
    check_limits(space, limits, seed)
    predict: PredictRatio | None = None
    if predict_latency is not None:
        known = checked_predictor(predict_latency, space)
        upper: End = "high_ms" if budget_ms is None else end_within(space, known, budget_ms, seed)
        predict = as_ratios(known, budget_ms, upper=upper)
    return Bounds(predict=predict, budget=budget_ms is not None, limits=limits)


def _trial(
    config: C, outcome: Outcome[Scores], budget_ms: float | None, limits: Limits
) -> Trial[C]:
    scores = outcome.scores
    feasible = scores is not None and (budget_ms is None or scores.upper_ms <= budget_ms)
    return Trial(
        number=outcome.number,
        config=config,
        scores=scores,
        feasible=feasible and limits.keeps(config),
        error=outcome.error,
    )


class Proposer:
    """A searcher whose proposals are new and within the bounds; predictions learn from results.

    Raises:
        TypeError: if `searcher` is neither a name nor has `ask` and `tell`.
        ValueError: if there is no searcher of that name.
    """

    def __init__(
        self,
        space: AnySpace,
        searcher: str | Searcher,
        *,
        bounds: Bounds,
        seed: int,
        prior: AccuracyPrior | None = None,
    ) -> None:
        told = bounds.predict
        ratios = None if told is None else CorrectedRatios(space, told)
        bounds = replace(bounds, predict=ratios)
        if isinstance(searcher, str):
            searcher = open_searcher(searcher, space, bounds=bounds, seed=seed, prior=prior)
        elif not isinstance(searcher, Searcher):
            raise TypeError(
                "`searcher` must be a name or an object with ask(number, admit) and tell(genes, "
                f"found), but got {searcher!r}."
            )
        self._searcher: Searcher = searcher
        self._ratios = ratios
        self._admission = Admission(space, bounds)

    def ask(self, number: int, *, kept: Genes | None = None) -> Genes | None:
        """Return the proposal of that number, or what an earlier run `kept`; None at the end."""
        admission = self._admission
        admit = admission.admit if kept is None else admission.admits(kept)
        genes = self._searcher.ask(number, admit)
        return None if genes is None else whole_numbers(genes)

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Take in what an evaluation found; None where it failed."""
        if self._ratios is not None:
            self._ratios.tell(genes, found)
        self._admission.tell(found)
        self._searcher.tell(genes, found)


@dataclass(frozen=True, kw_only=True)
class Exploration(Generic[C, S]):
    """A search by ratios, whatever an evaluation finds.

    `rate` returns the objectives of that.
    """

    space: Space[C]
    rate: Callable[[S], Objectives]
    bounds: Bounds
    trials: int
    seed: int
    searcher: str | Searcher = "guided"
    prior: AccuracyPrior | None = None
    record: Record[S] | None = None
    in_flight: int = IN_FLIGHT
    goes_on: Callable[[int], bool] | None = None  # to so many trials

    def run(self, pool: Pool[S]) -> Iterator[tuple[C, Outcome[S]]]:
        """Return the configs and their outcomes, in order; the searcher is opened now.

        Raises:
            TypeError, ValueError: as `Proposer`.
        """
        proposer = Proposer(
            self.space, self.searcher, bounds=self.bounds, seed=self.seed, prior=self.prior
        )
        return self._outcomes(proposer, _Runner(self.space, pool, self.record))

    def _outcomes(
        self, proposer: Proposer, runner: "_Runner[C, S]"
    ) -> Iterator[tuple[C, Outcome[S]]]:
        asked: list[Genes] = []
        for number in range(self.trials + self.in_flight):
            if number < self.trials and len(asked) == number and self._goes_on(number + 1):
                known = runner.recall(number)
                genes = proposer.ask(number, kept=None if known is None else known[0])
                if genes is not None:
                    asked.append(genes)
                    runner.start(number, genes)
            done = number - self.in_flight + 1
            if 0 <= done < len(asked):
                config, outcome = runner.finish(done)
                found = None if outcome.scores is None else self.rate(outcome.scores)
                proposer.tell(asked[done], found)
                yield config, outcome

    def _goes_on(self, trials: int) -> bool:
        return self.goes_on is None or self.goes_on(trials)


class _Runner(Generic[C, S]):
    """Hands evaluations to the pool unless their outcome is on record; finishes them in order."""

    def __init__(self, space: Space[C], pool: Pool[S], record: Record[S] | None) -> None:
        self._space = space
        self._pool = pool
        self._record = record
        self._started: dict[int, tuple[Genes, C]] = {}
        self._finished: dict[int, Outcome[S]] = {}

    def recall(self, number: int) -> tuple[Genes, Outcome[S]] | None:
        return self._record.recall(number) if self._record else None

    def start(self, number: int, genes: Genes) -> None:
        config = self._space.decode(genes)
        self._started[number] = (genes, config)
        known = self.recall(number)
        if known is None:
            self._pool.submit(number, config)
        else:
            self._finished[number] = known[1]

    def finish(self, number: int) -> tuple[C, Outcome[S]]:
        while number not in self._finished:
            outcome = self._pool.next_finished()
            self._finished[outcome.number] = outcome
            if self._record and not outcome.lost:
                self._record.keep(self._started[outcome.number][0], outcome)
        return self._started.pop(number)[1], self._finished.pop(number)


def _positive(number: object, name: str) -> int:
    count = _whole(number, name, "a positive whole number")
    if count < 1:
        raise ValueError(f"`{name}` must be a positive whole number, but got {count}.")
    return count


def _whole(number: object, name: str, wanted: str) -> int:
    """Whatever counts as an integer, NumPy's too; a truth value counts as none."""
    if isinstance(number, bool) or not isinstance(number, SupportsIndex):
        raise ValueError(f"`{name}` must be {wanted}, but got {number!r}.")
    return index(number)


def _check_budget_ms(budget_ms: float | None) -> None:
    if budget_ms is None:
        return
    # Real takes NumPy's numbers too, and truth values, which are no latencies.
    if isinstance(budget_ms, bool) or not isinstance(budget_ms, float | Real):
        raise ValueError(
            f"`budget_ms` must be a number of milliseconds, but got {budget_ms!r}. Leave it out "
            "for no budget."
        )
    if not budget_ms > 0:
        raise ValueError(f"`budget_ms` must be positive, but got {budget_ms:g} ms.")
    if math.isinf(budget_ms):
        raise ValueError("`budget_ms` must be finite, but got inf ms. Leave it out for no budget.")
