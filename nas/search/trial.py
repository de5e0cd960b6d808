"""Trials, their scores and how they are evaluated; the protocols of searchers and pools.

Every proposal is drawn from a generator seeded by (seed, number), so that a resumed search, which
tells the searcher the same results in the same order, proposes the same.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from predictors.measurement import Latencies, worst_ratio
from search_spaces.io import named_reason
from search_spaces.space import Genes

C = TypeVar("C")
S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What a search trades off: accuracy (up) and the latency/budget ratio (down).

    The ratio is dimensionless and the worst over the devices. `excess` says how far its upper end
    is over 1.0: a config is feasible with 0 at most. Without a budget the ratio is that to 1 ms,
    and `excess` is 0.
    """

    accuracy: float
    ratio: float
    excess: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether every budget is met."""
        return self.excess <= 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a user's evaluation found, of one device.

    `accuracy` is any number of which more is better. `latency_high_ms` is the upper end of the
    latency's interval where it has one; a budget is compared with that.
    """

    accuracy: float
    latency_ms: float
    latency_high_ms: float | None = None

    @property
    def upper_ms(self) -> float:
        """The latency that must meet the budget."""
        return self.latency_ms if self.latency_high_ms is None else self.latency_high_ms

    @property
    def valid(self) -> bool:
        """Whether all numbers are finite, the latency positive and its upper end not below it."""
        numbers = (self.accuracy, self.latency_ms, self.upper_ms)
        return all(map(math.isfinite, numbers)) and 0 < self.latency_ms <= self.upper_ms

    def as_floats(self) -> "Scores":
        """Return the same in Python's floats, whatever counts as a number: truth values too."""
        high_ms = None if self.latency_high_ms is None else float(self.latency_high_ms)
        return Scores(
            accuracy=float(self.accuracy),
            latency_ms=float(self.latency_ms),
            latency_high_ms=high_ms,
        )

    def objectives(self, budget_ms: float | None) -> Objectives:
        """Return what a search under that budget, or none, trades off."""
        if budget_ms is None:
            return Objectives(accuracy=self.accuracy, ratio=self.latency_ms)
        return Objectives(
            accuracy=self.accuracy,
            ratio=self.latency_ms / budget_ms,
            excess=self.upper_ms / budget_ms - 1,
        )


@dataclass(frozen=True, kw_only=True)
class NetworkScores:
    """What a study's evaluation found: an accuracy, and the predicted latency on each device."""

    accuracy: float
    latencies: Latencies

    @property
    def valid(self) -> bool:
        """Whether all numbers are finite and the latencies positive intervals."""
        latencies = self.latencies.by_device.values()
        return math.isfinite(self.accuracy) and all(
            math.isfinite(m.high_ms) and 0 < m.median_ms <= m.high_ms for m in latencies
        )

    def as_floats(self) -> "NetworkScores":
        """Return the same with the accuracy as Python's float."""
        return replace(self, accuracy=float(self.accuracy))

    def objectives(self, budgets_ms: Mapping[str, float]) -> Objectives:
        """Return what a search under these budgets trades off."""
        ratio = worst_ratio(self.latencies, budgets_ms)
        return Objectives(accuracy=self.accuracy, ratio=ratio.median, excess=ratio.high - 1)


@dataclass(frozen=True, kw_only=True)
class Trial(Generic[C]):
    """One proposal and its scores; `error` says why a trial without scores has none."""

    number: int
    config: C
    scores: Scores | None
    feasible: bool
    error: str | None = None


class Admit(Protocol):
    """Turns a proposal into a new one within the bounds near it; None where there is none left."""

    def __call__(self, genes: Genes, rng: Random, /, *, risked: bool = False) -> Genes | None:
        """Admit a proposal; what is `risked` may miss the budget, if that is less likely."""


@runtime_checkable
class Searcher(Protocol):
    """Proposes what to evaluate next: a choice of each gene, as the space has them."""

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Return the proposal of that number as it was admitted; None ends the search.

        `admit(genes, rng)` gives new genes within the bounds near those proposed. Numbers count
        from 0; with `generator(seed, number)` for all chance a resumed search proposes the same.
        """

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Take in what the evaluation of admitted genes found, in any order; None: it failed."""


def generator(seed: int, number: int) -> Random:
    """Return the generator of one proposal."""
    return Random(f"{seed}/{number}")


Evaluate = Callable[[Any], S]


@dataclass(frozen=True)
class Outcome(Generic[S]):
    """What came of one evaluation: scores, or the error in one line.

    `lost` says that the error was the cluster's, or of a disk, and not the config's: trying again
    may end otherwise.
    """

    number: int
    scores: S | None
    error: str | None = None
    lost: bool = False


class Pool(Protocol[S]):
    """Takes evaluations and hands their outcomes back as they finish."""

    def submit(self, number: int, config: Any) -> None:
        """Start evaluating a config."""

    def next_finished(self) -> Outcome[S]:
        """Wait for some submitted evaluation to finish."""


class InProcess(Generic[S]):
    """Evaluates in this process, one after another."""

    def __init__(self, evaluate: Evaluate[S]) -> None:
        self._evaluate = evaluate
        self._waiting: deque[tuple[int, object]] = deque()

    def submit(self, number: int, config: object) -> None:
        """Put the config in the queue."""
        self._waiting.append((number, config))

    def next_finished(self) -> Outcome[S]:
        """Evaluate the next config in the queue."""
        number, config = self._waiting.popleft()
        return evaluated(self._evaluate, number, config)


def evaluated(evaluate: Evaluate[Any], number: int, config: object) -> Outcome[Any]:
    """Evaluate a config; an error becomes part of the outcome, and so do scores that are none."""
    try:
        scores = evaluate(config)
        valid = isinstance(scores, Scores | NetworkScores) and scores.valid
    except Exception as error:  # whatever a user's function raises ends its trial, not the search
        return Outcome(number, None, named_reason(error), lost=isinstance(error, OSError))
    if not isinstance(scores, Scores | NetworkScores):
        return Outcome(number, None, f"`evaluate` must return Scores, but returned {scores!r}.")
    if not valid:
        return Outcome(number, None, f"The scores must be finite and positive, but got {scores}.")
    return Outcome(number, scores.as_floats())  # searchers subtract them, which no bool can do
