"""Every searcher keeps the promises of `search()`, on a space that is not FasterNet's."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import islice
from random import Random
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from records import Memory

from nas.search.feasibility import Bounds, all_genes, as_ratios
from nas.search.loop import IN_FLIGHT, Proposer, search
from nas.search.pareto import hypervolume
from nas.search.searchers import SearcherName
from nas.search.trial import (
    Admit,
    InProcess,
    Objectives,
    Outcome,
    Scores,
    Trial,
    evaluated,
    generator,
)
from predictors.prediction import Prediction, PredictLatency
from search_spaces.space import Genes, Space, each, oneof


@dataclass(frozen=True)
class Cell:
    """A config with ordered and unordered fields, of which the code knows nothing."""

    op: str
    depth: int
    widths: tuple[int, ...]
    residual: bool = True


SPACE: Space[Cell] = Space(
    Cell,
    op=oneof("conv", "pool", "skip"),
    depth=oneof(1, 2, 3, 4, 6, 8),
    widths=each(oneof(8, 16, 24, 32, 48, 64), oneof(8, 16, 32, 64, 96), oneof(16, 32, 64, 128)),
    residual=oneof(*(False, True)),
)
SMALL: Space[Cell] = Space(
    Cell,
    op=oneof("conv", "pool"),
    depth=oneof(2, 3, 4, 6, 8),
    widths=each(oneof(24), oneof(16, 64)),
)
BUDGET_MS = 8.0
FACTORS = {"conv": (1.0, 1.0), "pool": (0.45, 0.8), "skip": (0.2, 0.5)}  # of time, of accuracy

# Enough for each to propose from what it has learned, which with a pool is IN_FLIGHT trials late.
TRIALS: dict[SearcherName, int] = {
    "guided": 22,
    "nsga2": 34,
    "nsga3": 34,
    "tpe": 22,
    "gp": 19,
    "evolution": 34,
    "local": 22,
    "random": 22,
    "nni-evolution": 34,
}
INSTALLED = [name for name in get_args(SearcherName) if find_spec("nni") or "nni" not in name]
MODES = [(name, known) for name in INSTALLED for known in (True, False)]
every_searcher = pytest.mark.parametrize(
    ("searcher", "known"), MODES, ids=[f"{s}-{'known' if k else 'learned'}" for s, k in MODES]
)


def latency_ms(cell: Cell) -> float:
    return 0.3 + cell.depth * sum(cell.widths) * FACTORS[cell.op][0] / 40


def evaluate(cell: Cell) -> Scores:
    a, b, c = cell.widths
    capacity = math.log(a * b**1.5 * c) + math.log(cell.depth) * (2 if cell.residual else 1)
    lopsided = 0.3 * (math.log2(b / a) - 1) ** 2 + 0.2 * (math.log2(c / b) - 1) ** 2
    too_deep = 0 if cell.residual else 0.08 * cell.depth**2
    accuracy = 60 + 2 * FACTORS[cell.op][1] * capacity - lopsided - too_deep
    return Scores(accuracy=accuracy, latency_ms=latency_ms(cell))


def predict(cells: Any) -> Prediction:
    mean = np.array([latency_ms(cell) for cell in cells])
    return Prediction(mean, 0.97 * mean, 1.03 * mean)


class ShuffledPool:
    """Hands outcomes back in any order, as a cluster does."""

    def __init__(self, evaluate: Callable[[Any], Scores], seed: int) -> None:
        self._evaluate = evaluate
        self._rng = Random(seed)
        self._waiting: list[tuple[int, Any]] = []

    def submit(self, number: int, config: Any) -> None:
        self._waiting.append((number, config))

    def next_finished(self) -> Outcome[Any]:
        waiting = self._waiting.pop(self._rng.randrange(len(self._waiting)))
        return evaluated(self._evaluate, *waiting)


class Counted:
    """Evaluates and counts."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []

    def __call__(self, cell: Cell) -> Scores:
        self.cells.append(cell)
        return evaluate(cell)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Optuna's Gaussian process is small: more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def start(
    searcher: SearcherName,
    *,
    known: bool,
    evaluate: Callable[[Any], Any] = evaluate,
    **options: Any,
) -> Iterator[Trial[Cell]]:
    options = {"trials": TRIALS[searcher], "budget_ms": BUDGET_MS, **options}
    predict_latency: PredictLatency | None = predict if known else None
    return search(
        options.pop("space", SPACE),
        evaluate,
        searcher=searcher,
        predict_latency=predict_latency,
        **options,
    )


@cache
def undisturbed(searcher: SearcherName, *, known: bool) -> list[Trial[Cell]]:
    return list(start(searcher, known=known, pool=InProcess(evaluate)))


@every_searcher
def test_trials_are_numbered_new_scored_and_judged(searcher: SearcherName, *, known: bool) -> None:
    trials = undisturbed(searcher, known=known)
    assert [trial.number for trial in trials] == list(range(TRIALS[searcher]))
    assert len({trial.config for trial in trials}) == len(trials)
    for trial in trials:
        assert trial.config in SPACE
        assert trial.scores == evaluate(trial.config)
        assert trial.error is None
        assert trial.feasible == (latency_ms(trial.config) <= BUDGET_MS)
        assert not known or latency_ms(trial.config) * 1.03 <= BUDGET_MS


@every_searcher
def test_one_seed_gives_one_result_in_whatever_order_evaluations_end(
    searcher: SearcherName, *, known: bool
) -> None:
    pool = ShuffledPool(evaluate, seed=5)
    assert list(start(searcher, known=known, pool=pool)) == undisturbed(searcher, known=known)


@every_searcher
def test_results_are_learned_in_whatever_order_they_come(
    searcher: SearcherName, *, known: bool
) -> None:
    told = as_ratios(predict, BUDGET_MS) if known else None
    proposer = Proposer(SPACE, searcher, bounds=Bounds(predict=told, budget=True), seed=0)
    running: list[Genes] = []
    proposed = []
    for number in range(TRIALS[searcher]):
        genes = proposer.ask(number)
        assert genes is not None
        running.append(genes)
        proposed.append(genes)
        if len(running) == 4:  # the latest is told first, and one of three has failed
            done = running.pop(-1 if number % 2 else 0)
            scores = evaluate(SPACE.decode(done))
            proposer.tell(done, scores.objectives(BUDGET_MS) if number % 3 else None)
    assert len(set(proposed)) == TRIALS[searcher]


class Countdown:
    """A searcher of somebody else's: the last choices first."""

    def __init__(self) -> None:
        self.told: list[Objectives | None] = []

    def ask(self, number: int, admit: Admit) -> Genes | None:
        rng = generator(0, number)
        return admit(tuple(n - 1 for n in SPACE.cardinalities), rng) if number < 5 else None

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        self.told.append(found)


def test_a_searcher_may_be_an_object() -> None:
    own = Countdown()
    trials = list(
        search(SPACE, evaluate, budget_ms=BUDGET_MS, predict_latency=predict, searcher=own)
    )
    assert len({trial.config for trial in trials}) == 5
    assert all(trial.feasible for trial in trials)
    assert own.told == [t.scores.objectives(BUDGET_MS) for t in trials if t.scores]


class Drawn(Countdown):
    """Gives what numpy draws, or something else."""

    def __init__(self, genes: Any) -> None:
        super().__init__()
        self.genes = genes

    def ask(self, number: int, admit: Admit) -> Genes | None:
        return admit(self.genes, generator(0, number)) if number < 3 else None


def test_genes_are_whole_numbers_of_any_kind() -> None:
    genes = np.zeros(len(SPACE.genes), int)
    found = list(search(SPACE, evaluate, searcher=Drawn(genes)))
    assert len({trial.config for trial in found}) == 3
    for wrong in (np.zeros(len(SPACE.genes)), None):
        with pytest.raises(TypeError, match="`genes` of a searcher must be whole numbers, but"):
            list(search(SPACE, evaluate, searcher=Drawn(wrong)))
    with pytest.raises(TypeError, match=r"`space` must be a Space, but got \{'a': 1\}"):
        search({"a": 1}, evaluate)  # type: ignore[arg-type]


def test_an_object_that_is_no_searcher_is_refused_at_the_call() -> None:
    message = r"`searcher` must be a name or an object with ask\(number, admit\) and .* got 7\."
    with pytest.raises(TypeError, match=message):
        search(SPACE, evaluate, searcher=7)  # type: ignore[arg-type]


@every_searcher
def test_another_seed_gives_another_result(searcher: SearcherName, *, known: bool) -> None:
    trials = list(start(searcher, known=known, seed=1, trials=5))
    assert trials != undisturbed(searcher, known=known)[:5]


@every_searcher
def test_what_is_on_record_is_not_evaluated_again(searcher: SearcherName, *, known: bool) -> None:
    record, counted, half = Memory(), Counted(), TRIALS[searcher] - 11
    pool = ShuffledPool(evaluate, seed=7)
    broken_off = list(islice(start(searcher, known=known, pool=pool, record=record), half))
    resumed = list(start(searcher, known=known, record=record, pool=InProcess(counted)))
    assert resumed == undisturbed(searcher, known=known)
    assert resumed[:half] == broken_off
    assert len(record.kept) == len(resumed)
    assert len(counted.cells) <= 11
    again = Counted()
    rest = list(start(searcher, known=known, record=record, pool=InProcess(again)))
    assert rest == resumed
    assert again.cells == []


NOTHING: Any = None
FAULTS: dict[int, Any] = {  # by the first width
    8: None,
    16: 7.0,
    24: Scores(accuracy=NOTHING, latency_ms=1),
    32: Scores(accuracy=math.nan, latency_ms=1),
    48: Scores(accuracy=1, latency_ms=0),
    64: Scores(accuracy=1, latency_ms=1, latency_high_ms=math.inf),
}


@every_searcher
def test_a_failed_evaluation_ends_its_trial_and_not_the_search(
    searcher: SearcherName, *, known: bool
) -> None:
    def fragile(cell: Cell) -> Any:
        if cell.op == "conv":
            raise LookupError("no such\nlayer")
        return FAULTS[cell.widths[0]] if cell.op == "pool" else evaluate(cell)

    trials = list(start(searcher, known=known, evaluate=fragile))
    assert len({trial.config for trial in trials}) == len(trials) == TRIALS[searcher]
    for trial in trials:
        failed = trial.config.op != "skip"
        assert (trial.scores is None) == (trial.error is not None) == failed
        assert trial.config.op != "conv" or trial.error == "LookupError: no such layer"
        assert "\n" not in (trial.error or "")
        assert not (failed and trial.feasible)


@every_searcher
def test_a_search_in_which_everything_fails_ends(searcher: SearcherName, *, known: bool) -> None:
    trials = list(start(searcher, known=known, evaluate=lambda _: 1 / 0))
    assert {trial.error for trial in trials} == {"ZeroDivisionError: division by zero"}
    assert len(trials) == TRIALS[searcher]


@every_searcher
def test_a_small_space_is_searched_to_its_last_config(
    searcher: SearcherName, *, known: bool
) -> None:
    trials = list(start(searcher, known=known, space=SMALL, trials=500))
    possible = {SMALL.decode(genes) for genes in all_genes(SMALL)}
    if known:
        possible = {cell for cell in possible if latency_ms(cell) * 1.03 <= BUDGET_MS}
    assert 10 < len(possible) <= 20
    assert {trial.config for trial in trials} == possible
    assert len(trials) == len(possible)


@pytest.mark.parametrize("searcher", INSTALLED)
def test_a_space_of_one_config_has_one_trial(searcher: SearcherName) -> None:
    fixed: Space[Cell] = Space(Cell, op="conv", depth=2, widths=(8, 8, 16))
    single: Space[Cell] = fixed.replace(depth=oneof(2))
    for space in (single, fixed):
        (trial,) = start(searcher, known=False, space=space)
        assert trial.config == Cell("conv", 2, (8, 8, 16))


@pytest.mark.parametrize("searcher", ["guided", "tpe"])
def test_results_without_any_differences_are_survived(searcher: SearcherName) -> None:
    same = Scores(accuracy=0.0, latency_ms=1.0)
    trials = list(start(searcher, known=False, evaluate=lambda _: same, budget_ms=None))
    assert len(trials) == TRIALS[searcher]
    assert all(trial.feasible for trial in trials)


def test_a_shorter_search_is_the_beginning_of_a_longer_one() -> None:
    shorter = list(start("guided", known=True, trials=18))
    assert shorter == list(start("guided", known=True, trials=24))[:18]


@pytest.mark.parametrize(("told", "at_once"), [({}, IN_FLIGHT), ({"parallel": 12}, 12)])
def test_breaking_off_evaluates_no_more_than_was_in_flight(told: Any, at_once: int) -> None:
    pool = Mock(wraps=InProcess(evaluate))
    for trial in start("random", known=True, pool=pool, **told):
        if trial.number == 3:
            break
    assert pool.submit.call_count == 3 + at_once


def test_breaking_off_evaluates_no_more_in_one_process() -> None:
    alone = Counted()
    next(start("random", known=True, evaluate=alone))
    assert len(alone.cells) == 1


def test_the_budget_is_compared_with_the_upper_end_of_the_interval() -> None:
    def uncertain(cell: Cell) -> Scores:
        return Scores(accuracy=1.0, latency_ms=0.1, latency_high_ms=latency_ms(cell))

    trials = list(start("random", known=False, evaluate=uncertain))
    assert {t.feasible for t in trials} == {True, False}
    assert all(t.feasible == (latency_ms(t.config) <= BUDGET_MS) for t in trials)


def test_guided_search_finds_what_random_search_misses() -> None:
    every = [evaluate(SPACE.decode(genes)) for genes in all_genes(SPACE)]
    space = [
        Trial(number=i, config=i, scores=s, feasible=s.latency_ms * 1.03 <= BUDGET_MS)
        for i, s in enumerate(every)
    ]
    reference = (60.0, BUDGET_MS)
    best = hypervolume(space, reference=reference)
    names: tuple[SearcherName, ...] = ("guided", "random")
    found = {
        searcher: hypervolume(start(searcher, known=True, trials=60), reference=reference) / best
        for searcher in names
    }
    assert found["guided"] > 0.97
    assert 1 - found["guided"] < (1 - found["random"]) / 4


def test_a_budget_out_of_reach_names_the_latency_of_the_fastest() -> None:
    message = r"`budget_ms` .* got 0\.4 ms: the fastest config takes .* ms \[.*, 0\.474\] .*Raise"
    with pytest.raises(ValueError, match=message):
        start("guided", known=True, budget_ms=0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parallel": 0}, r"`parallel` must be a positive whole number, but got 0\."),
        ({"trials": 0}, r"`trials` must be a positive whole number, but got 0\."),
        ({"trials": 2.5}, r"`trials` must be a positive whole number, but got 2\.5\."),
        ({"budget_ms": 0}, r"`budget_ms` must be positive, but got 0 ms\."),
        ({"budget_ms": -3}, r"`budget_ms` must be positive, but got -3 ms\."),
        ({"budget_ms": math.inf}, r"`budget_ms` must be finite, but got inf ms\. Leave it out"),
        ({"budget_ms": math.nan}, r"`budget_ms` must be positive, but got nan ms\."),
        ({"searcher": "tpa"}, r"`searcher` must be one of guided, .*evolution, but got 'tpa'\."),
    ],
)
def test_bad_arguments_are_refused_at_the_call(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(SPACE, evaluate, **options)
