"""A search that was told wrong learns it; one that was told nothing keeps its budget too."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np
import pytest

from nas.search.correction import CorrectedRatios
from nas.search.feasibility import all_genes
from nas.search.loop import search
from nas.search.searchers import SearcherName
from nas.search.trial import Objectives, Scores, Trial
from predictors.latency import Prediction, RatioPrediction
from search_spaces.space import Space, each, oneof


@dataclass(frozen=True)
class Net:
    """Six widths and what is between them."""

    widths: tuple[int, ...]
    activation: str = "relu"


NETS = Space(
    Net, widths=each(*[oneof(8, 16, 32, 64)] * 6), activation=oneof("relu", "gelu", "hardswish")
)
_FACTORS = {"relu": 1.0, "gelu": 2.0, "hardswish": 1.2}
BUDGET_MS = 20.0


def _told_ms(net: Net) -> float:
    return float(2 + np.dot(range(1, 7), net.widths) / 30)


def _ms(net: Net) -> float:
    """What it takes: the activation counts, of which `_predict` knows nothing."""
    return _told_ms(net) * _FACTORS[net.activation]


def _evaluate(net: Net) -> Scores:
    accuracy = sum(np.log2(width) for width in net.widths) + (net.activation != "relu")
    return Scores(accuracy=accuracy, latency_ms=_ms(net))


def _predict(nets: Sequence[Net]) -> Prediction:
    ms = np.array([_told_ms(net) for net in nets])
    return Prediction(ms, ms, ms)


def _over(trials: Sequence[Trial[Any]]) -> float:
    return float(np.mean([not trial.feasible for trial in trials]))


def _ratios(nets: Sequence[Net]) -> RatioPrediction:
    ms = _predict(nets).mean_ms / BUDGET_MS
    return RatioPrediction(ms, ms * 1.1)


def _told(count: int, *, wrong: bool) -> CorrectedRatios:
    """Ratios after so many trials, which found what was predicted or not."""
    corrected, rng = CorrectedRatios(NETS, _ratios), Random(0)
    for _ in range(count):
        net = NETS.sample(rng)
        ms = _ms(net) if wrong else _told_ms(net)
        found = Objectives(accuracy=1.0, ratio=ms / BUDGET_MS, excess=ms / BUDGET_MS - 1)
        corrected.tell(NETS.encode(net), found)
    return corrected


def test_ratios_are_as_predicted_until_eight_trials_and_where_they_are_right() -> None:
    nets = [Net(widths=(8,) * 6), Net(widths=(64,) * 6, activation="gelu")]
    for corrected in (_told(7, wrong=True), _told(30, wrong=False)):
        found = corrected(nets)
        assert np.array_equal(found.high, _ratios(nets).high)
        assert found.log_std is None


def test_a_factor_of_one_choice_is_learned_with_its_doubt() -> None:
    corrected = _told(24, wrong=True)
    nets = [Net(widths=(8, 16, 8, 64, 8, 32), activation=name) for name in _FACTORS]
    found = corrected(nets)
    truth = np.array([_ms(net) for net in nets]) / BUDGET_MS
    assert found.mean == pytest.approx(truth, rel=0.03)
    assert np.all(found.mean < found.high)
    assert np.all(found.high < 1.1 * found.mean)
    assert found.log_std is not None


def test_trials_that_failed_tell_nothing() -> None:
    corrected = _told(7, wrong=True)
    corrected.tell(NETS.encode(Net(widths=(8,) * 6)), None)
    assert corrected([Net(widths=(8,) * 6)]).log_std is None


@pytest.mark.parametrize("searcher", ["guided", "random"])
def test_a_search_that_was_told_wrong_keeps_the_budget_after_some_trials(searcher: Any) -> None:
    trials = list(
        search(
            NETS,
            _evaluate,
            trials=40,
            budget_ms=BUDGET_MS,
            predict_latency=_predict,
            searcher=searcher,
        )
    )
    assert _over(trials[:8]) >= 0.25
    assert _over(trials[16:]) <= 0.15


@pytest.mark.parametrize("seed", range(2))
def test_a_search_that_was_told_nothing_is_within_the_budget_for_the_most_part(seed: int) -> None:
    trials = list(search(NETS, _evaluate, trials=40, budget_ms=BUDGET_MS, seed=seed))
    assert _over(trials) <= 0.35


def test_a_config_that_misses_by_a_hair_is_evaluated_when_it_could_be_the_best() -> None:
    best = Net(widths=(64,) * 6)

    def evaluate(net: Net) -> Scores:
        noise = np.random.default_rng(NETS.encode(net)).normal(0, 0.03)
        return Scores(accuracy=float(sum(net.widths)), latency_ms=_told_ms(net) * np.exp(noise))

    space = NETS.replace(activation="relu")
    budget_ms = _told_ms(best) * 1.01  # its upper end is 10 % above
    trials = list(
        search(
            space,
            evaluate,
            trials=40,
            budget_ms=budget_ms,
            predict_latency=lambda nets: replace(
                _predict(nets), high_ms=1.1 * _predict(nets).mean_ms
            ),
        )
    )
    assert best in {trial.config for trial in trials}


@pytest.mark.parametrize("searcher", ["guided", "random"])
@pytest.mark.parametrize("times", [0.97, 1.001, 1.05])
def test_a_budget_at_the_least_upper_end_does_not_end_a_search(
    searcher: SearcherName, times: float
) -> None:
    """Where few upper ends keep the budget, trials tell what else does."""
    space = NETS.replace(activation="relu")

    def evaluate(net: Net) -> Scores:
        noise = np.random.default_rng(space.encode(net)).normal(0, 0.03)
        return Scores(accuracy=float(sum(net.widths)), latency_ms=_told_ms(net) * np.exp(noise))

    def predict(nets: Sequence[Net]) -> Prediction:
        mean = _predict(nets).mean_ms
        return Prediction(mean, 0.8 * mean, 1.2 * mean)

    least_ms = float(predict([space.decode((0,) * 6)]).high_ms[0])
    found = search(
        space,
        evaluate,
        trials=30,
        budget_ms=times * least_ms,
        predict_latency=predict,
        searcher=searcher,
    )
    kept = [trial for trial in found if trial.feasible]
    there = sum(
        evaluate(space.decode(genes)).latency_ms <= times * least_ms for genes in all_genes(space)
    )
    assert len(kept) > 0.5 * min(there, 30)


def test_a_budget_that_some_config_meets_is_accepted_though_the_fastest_is_uncertain() -> None:
    def predict(nets: Sequence[Net]) -> Prediction:
        gelu = np.array([net.activation == "gelu" for net in nets])
        mean = np.where(gelu, 1.0, 2.0)
        return Prediction(mean, mean / 2, np.where(gelu, 9.0, 3.0))

    scores = Scores(accuracy=1.0, latency_ms=2.0)
    (trial,) = search(NETS, lambda _: scores, trials=1, budget_ms=5.0, predict_latency=predict)
    assert trial.config.activation != "gelu"
    with pytest.raises(ValueError, match=r"must be within reach of the space, but got 0.4 ms: the"):
        search(NETS, lambda _: scores, trials=1, budget_ms=0.4, predict_latency=predict)


@dataclass(frozen=True)
class Odd:
    """Choices of which some have no hash, one is infinite, and some make equal configs."""

    width: int
    kernel: object
    clip: float
    note: int = field(compare=False)


def test_configs_without_a_hash_and_equal_ones_are_told_apart() -> None:
    space = Space(
        Odd,
        width=oneof(1, 2, 3, 4),
        kernel=oneof(None, [3, 3], [5, 5]),
        clip=oneof(1.0, 2.0, float("inf")),
        note=oneof(1, 5),
    )

    def latency_ms(odd: Odd) -> float:
        return odd.width * odd.note * (1 if odd.kernel is None else 2) + min(odd.clip, 9.0)

    def predict(odds: Sequence[Odd]) -> Prediction:
        mean = 1.2 * np.array([latency_ms(odd) for odd in odds])
        return Prediction(mean, 0.9 * mean, 1.1 * mean)

    def evaluate(odd: Odd) -> Scores:
        return Scores(accuracy=float(odd.width), latency_ms=latency_ms(odd))

    trials = list(search(space, evaluate, trials=24, budget_ms=12.0, predict_latency=predict))
    assert len(trials) == 24
    told = CorrectedRatios(space, lambda odds: RatioPrediction(predict(odds).mean_ms, np.ones(1)))
    told.tell((0, 0, 0, 0), Objectives(accuracy=1.0, ratio=2.4, excess=1.4))
    twin = space.decode((0, 0, 0, 1))
    assert told([twin]).mean == predict([twin]).mean_ms
