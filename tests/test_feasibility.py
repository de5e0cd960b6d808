"""The gate before an evaluation: what it lets through, and what it makes of nonsense."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from points import PLANE, Point, scores_of
from records import Memory

from nas.search.loop import search
from nas.search.searchers import SearcherName
from nas.search.trial import Outcome, Scores, evaluated
from predictors.latency import Prediction
from search_spaces.space import Space, each, oneof


@pytest.mark.parametrize("searcher", ["guided", "nsga2", "tpe", "random"])
def test_recorded_trials_hold_though_others_would_be_proposed(searcher: SearcherName) -> None:
    record = Memory()
    once = list(search(PLANE, scores_of, searcher=searcher, record=record, seed=1, trials=15))
    twice = list(search(PLANE, scores_of, searcher=searcher, record=record, seed=2, trials=20))
    assert twice[:15] == once
    assert sorted(record.kept) == list(range(20))
    assert len({trial.config for trial in twice}) == 20


def test_what_the_cluster_lost_is_not_recorded() -> None:
    class Flaky:
        """Loses its first task, as a node that dies does."""

        def __init__(self) -> None:
            self._waiting: list[tuple[int, Point]] = []

        def submit(self, number: int, config: Point) -> None:
            self._waiting.append((number, config))

        def next_finished(self) -> Outcome[Any]:
            number, config = self._waiting.pop(0)
            if number == 0:
                return Outcome(number, None, "the node died", lost=True)
            return Outcome(number, scores_of(config))

    record = Memory()
    trials = list(search(PLANE, scores_of, trials=5, record=record, pool=Flaky()))
    assert trials[0].error == "the node died"
    assert sorted(record.kept) == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_prediction_that_is_no_number_is_refused(number: float) -> None:
    def predict(points: Sequence[Point]) -> Prediction:
        return Prediction(*[np.full(len(points), number)] * 3)

    message = f"`predict_latency` must return finite latencies above 0, but got {number} ms"
    with pytest.raises(ValueError, match=message):
        list(search(PLANE, scores_of, trials=5, budget_ms=5.0, predict_latency=predict))


@pytest.mark.parametrize(
    "scores",
    [
        Scores(accuracy=1.0, latency_ms=float("inf"), latency_high_ms=3.0),
        Scores(accuracy=1.0, latency_ms=10.0, latency_high_ms=-3.0),
        Scores(accuracy=1.0, latency_ms=2.0, latency_high_ms=1.0),
    ],
)
def test_scores_that_contradict_themselves_fail_their_trial(scores: Scores) -> None:
    (trial,) = search(PLANE, lambda _: scores, trials=1, budget_ms=5.0)
    assert trial.scores is None
    assert not trial.feasible
    assert "must be finite and positive" in str(trial.error)


def test_an_error_without_text_fails_its_trial_only() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def evaluate(_: Point) -> Scores:
        raise SilentError

    (trial,) = search(PLANE, evaluate, trials=1)
    assert trial.error == "SilentError"


def test_an_error_of_a_disk_is_no_fault_of_the_config() -> None:
    def broken(point: Point) -> Any:
        raise OSError(28, "No space left on device")

    assert evaluated(broken, 3, Point(0, 0)).lost
    record = Memory()
    trials = list(search(PLANE, broken, trials=3, record=record))
    assert [trial.error for trial in trials] == ["OSError: [Errno 28] No space left on device"] * 3
    assert record.kept == {}  # it is tried again where the search goes on


@dataclass(frozen=True)
class Stages:
    """A network of ten stages, of which the slowest counts."""

    blocks: tuple[int, ...] = ()


STAGES = Space(Stages, blocks=each(*[oneof(*range(1, 9))] * 10))


def _slowest(configs: Sequence[Stages]) -> Prediction:
    slowest = np.array([max(config.blocks) for config in configs], dtype=float)
    return Prediction(slowest, 0.9 * slowest, 1.05 * slowest)


def _stages(config: Stages) -> Scores:
    return Scores(accuracy=float(sum(config.blocks)), latency_ms=float(max(config.blocks)))


@pytest.mark.parametrize("searcher", ["guided", "nsga2", "tpe", "random"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_budget_is_met_where_no_single_change_is_faster(
    searcher: SearcherName, seed: int
) -> None:
    """Most configs have several stages that are the slowest; 1 of 18,000 keeps the budget."""
    trials = list(
        search(
            STAGES,
            _stages,
            trials=20,
            budget_ms=3.2,
            predict_latency=_slowest,
            searcher=searcher,
            seed=seed,
        )
    )
    assert len(trials) == 20
    assert all(trial.feasible for trial in trials)


def test_a_budget_that_one_config_meets_is_not_refused() -> None:
    (trial,) = search(STAGES, _stages, trials=5, budget_ms=1.1, predict_latency=_slowest)
    assert trial.config.blocks == (1,) * 10


def test_a_budget_is_tried_that_only_means_meet() -> None:
    """A predictor fitted to few networks has wide intervals; trials tell better."""

    def total_ms(config: Stages) -> float:
        return 1.0 + sum(config.blocks) / 10

    def unsure(configs: Sequence[Stages]) -> Prediction:
        total = np.array([total_ms(config) for config in configs])
        return Prediction(total, total / 9, 9 * total)

    def evaluate(config: Stages) -> Scores:
        return Scores(accuracy=float(sum(config.blocks)), latency_ms=1.05 * total_ms(config))

    trials = list(search(STAGES, evaluate, trials=30, budget_ms=4.0, predict_latency=unsure))
    assert len(trials) == 30
    assert np.mean([trial.feasible for trial in trials[12:]]) > 0.7
    with pytest.raises(ValueError, match=r"the fastest config takes 2 ms \[0\.222, 18\]"):
        search(STAGES, evaluate, budget_ms=0.2, predict_latency=unsure)


@dataclass(frozen=True)
class Dropping(Stages):
    """A network of which one choice does not change the latency."""

    drop: int = 0


def test_a_search_begins_where_batches_of_other_sizes_are_rounded_otherwise() -> None:
    """So a choice without any effect looks faster, by the last digit, again and again."""
    space = Space(Dropping, blocks=each(*[oneof(*range(1, 5))] * 12), drop=oneof(*range(6)))
    weights = np.abs(np.random.default_rng(0).normal(size=(12, 64)))

    def predict(configs: Sequence[Dropping]) -> Prediction:
        blocks = np.array([config.blocks for config in configs], dtype=float)
        ms = 1 + np.maximum(blocks @ weights, 0) @ weights[0]
        return Prediction(ms, 0.9 * ms, 1.05 * ms)

    budget_ms = 1.2 * float(predict([Dropping(blocks=(1,) * 12)]).high_ms[0])
    for seed in range(6):
        trials = search(
            space, _stages, trials=2, budget_ms=budget_ms, predict_latency=predict, seed=seed
        )
        assert len(list(trials)) == 2


@pytest.mark.parametrize("searcher", ["guided", "random"])
def test_a_prediction_is_never_asked_of_nothing(searcher: SearcherName) -> None:
    def predict(configs: Sequence[Stages]) -> Prediction:
        assert configs
        return _slowest(configs)

    found = search(
        STAGES, _stages, trials=12, budget_ms=3.2, predict_latency=predict, searcher=searcher
    )
    assert len(list(found)) == 12


@pytest.mark.parametrize("searcher", ["random", "nsga2"])
def test_a_search_that_goes_on_proposes_the_same_on_plateaus(searcher: SearcherName) -> None:
    """What it took choices over from is sought by what is known at that trial alone."""

    def evaluate(config: Stages) -> Scores:
        told = _stages(config)
        return replace(told, latency_ms=told.latency_ms * (1 + 0.05 * config.blocks[0]))

    def found(record: Memory) -> list[Stages]:
        trials = search(
            STAGES,
            evaluate,
            trials=30,
            budget_ms=3.9,
            predict_latency=_slowest,
            searcher=searcher,
            record=record,
        )
        return [trial.config for trial in trials]

    whole, part = Memory(), Memory()
    configs = found(whole)
    part.kept = {number: kept for number, kept in whole.kept.items() if number < 13}
    assert found(part) == configs


@dataclass(frozen=True)
class Wide:
    """A network of which few keep the budget."""

    depths: tuple[int, ...] = ()
    width: int = 16
    kernels: tuple[int, ...] = ()


WIDE = Space(
    Wide,
    depths=each(*[oneof(1, 2, 3, 4)] * 4),
    width=oneof(16, 24, 32, 48, 64),
    kernels=each(*[oneof(3, 5, 7)] * 2),
)


def _wide(config: Wide) -> Scores:
    taps = sum(kernel**2 for kernel in config.kernels)
    latency_ms = 0.5 + sum(config.depths) * config.width / 16 * taps / 18
    return Scores(accuracy=float(np.log(latency_ms)), latency_ms=latency_ms)


@pytest.mark.parametrize("searcher", ["guided", "random"])
def test_a_search_goes_on_where_nothing_seems_to_keep_the_budget(searcher: SearcherName) -> None:
    """It was told that everything does; the first trials miss it so far that nothing would."""

    def predict(configs: Sequence[Wide]) -> Prediction:
        mean = np.full(len(configs), 8.0)
        return Prediction(mean, 0.9 * mean, 1.1 * mean)

    def found(record: Memory) -> list[tuple[Wide, bool]]:
        trials = search(
            WIDE,
            _wide,
            trials=24,
            budget_ms=8.0,
            predict_latency=predict,
            searcher=searcher,
            record=record,
        )
        return [(trial.config, trial.feasible) for trial in trials]

    whole, part = Memory(), Memory()
    trials = found(whole)
    assert not any(feasible for _, feasible in trials[:8])
    assert sum(feasible for _, feasible in trials) > 8
    part.kept = {number: kept for number, kept in whole.kept.items() if number < 12}
    assert found(part) == trials


def test_a_search_ends_some_trials_after_the_last_that_kept_the_budget() -> None:
    """A space small enough to be searched to its end, told a third too little."""
    space: Space[Wide] = WIDE.replace(kernels=(3, 3), width=16)

    def predict(configs: Sequence[Wide]) -> Prediction:
        mean = np.array([0.6 * _wide(config).latency_ms for config in configs])
        return Prediction(mean, 0.99 * mean, 1.01 * mean)

    trials = list(search(space, _wide, trials=100, budget_ms=5.6, predict_latency=predict))
    kept = [trial.number for trial in trials if trial.feasible]
    assert len(kept) == 5  # all that there are: each depth 1, and one of them 2
    assert len(trials) <= 5 + 8 + 8


def test_a_search_ends_where_no_trial_keeps_the_budget() -> None:
    """Everything was said to keep a budget that nothing does."""

    def predict(configs: Sequence[Wide]) -> Prediction:
        mean = np.full(len(configs), 1.0)
        return Prediction(mean, 0.9 * mean, 1.1 * mean)

    trials = list(
        search(WIDE, _wide, trials=100, budget_ms=1.2, predict_latency=predict, searcher="random")
    )
    assert not any(trial.feasible for trial in trials)
    assert len(trials) == 8 + 24
