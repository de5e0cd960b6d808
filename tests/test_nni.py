"""NNI's strategies on our spaces, and our spaces in NNI's own engine."""

from importlib.util import find_spec
from random import Random
from statistics import fmean

import pytest
import torch

import fasternas as fn
from nas.search.feasibility import Bounds
from nas.search.searchers import open_searcher

if find_spec("nni") is None:
    pytest.skip("nni is not installed", allow_module_level=True)

from nas.search.nni import NniSearcher, NniSpace
from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import Genes

SPACE = fn.SPACES["fasternet-32"]


def scores(config: FasterNetConfig) -> fn.Scores:
    macs = fn.cost(config).macs / 1e6
    return fn.Scores(accuracy=60 + macs**0.5 - 0.02 * macs, latency_ms=macs / 10)


def test_a_space_has_a_choice_for_each_gene() -> None:
    choices = NniSpace(SPACE).simplify()
    assert list(choices) == list(SPACE.names)
    assert [tuple(choice.values) for choice in choices.values()] == [
        gene.choices for gene in SPACE.genes
    ]


def test_a_frozen_space_is_its_configs_network() -> None:
    config = SPACE.decode([0] * len(SPACE.genes))
    sample = {name: gene.choices[0] for name, gene in zip(SPACE.names, SPACE.genes, strict=True)}
    network = NniSpace(SPACE, fn.build).freeze(sample)
    assert network.config == config
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    weights = sum(weight.numel() for weight in network.parameters())
    assert weights == fn.cost(config).params


def test_a_whole_space_is_no_network() -> None:
    with pytest.raises(RuntimeError, match="`forward` must be called on a network that NNI has"):
        NniSpace(SPACE, fn.build)(torch.zeros(1, 3, 32, 32))


def test_a_sample_of_another_space_is_refused() -> None:
    from nni.mutable import SampleValidationError

    with pytest.raises(SampleValidationError):
        NniSpace(SPACE).freeze({"widths[0]": 7})


def test_nnis_own_engine_explores_a_space_by_our_evaluators() -> None:
    import nni
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import SimplifiedModelSpace
    from nni.nas.strategy import Random

    seen: list[FasterNetConfig] = []

    def evaluate(network: NniSpace) -> None:
        seen.append(network.config)
        nni.report_final_result(scores(network.config).accuracy)

    engine = SequentialExecutionEngine(max_model_count=5)
    space = SimplifiedModelSpace.from_model(NniSpace(SPACE), FunctionalEvaluator(evaluate))
    Random(seed=3)(space, engine)
    assert [model.metric for model in engine.list_models()] == [
        pytest.approx(scores(config).accuracy) for config in seen
    ]
    assert len(set(seen)) == 5


def test_evolution_learns_from_the_trials() -> None:
    trials = list(fn.search(SPACE, scores, trials=150, seed=1, searcher="nni-evolution"))
    accuracies = [trial.scores.accuracy for trial in trials if trial.scores]
    assert fmean(accuracies[-40:]) > fmean(accuracies[:20]) + 2
    assert len({trial.config for trial in trials}) == 150


def test_evolution_learns_what_the_budget_allows() -> None:
    trials = list(
        fn.search(SPACE, scores, trials=150, budget_ms=1.0, seed=1, searcher="nni-evolution")
    )
    feasible = [trial.feasible for trial in trials]
    assert fmean(feasible[-40:]) > 2 * fmean(feasible[:20])


def test_a_space_is_gone_through_to_its_end() -> None:
    small = SPACE.replace(
        **{
            name: SPACE.decode([0] * len(SPACE.genes)).__dict__[name]
            for name in ("widths", "depths", "partial_ratios", "expansions")
        }
    )
    trials = list(fn.search(small, scores, trials=50, searcher="nni-evolution"))
    assert len(trials) == small.size == 4


def anything(genes: Genes, _: Random, /, *, risked: bool = False) -> Genes:
    """Admit every proposal as it is."""
    del risked
    return genes


def test_a_failed_trial_is_no_parent() -> None:
    searcher = open_searcher("nni-evolution", SPACE, bounds=Bounds(), seed=0)
    for number in range(30):
        genes = searcher.ask(number, anything)
        assert genes is not None
        searcher.tell(genes, None if number % 3 else scores(SPACE.decode(genes)).objectives(None))


def test_more_are_asked_for_at_once_than_a_generation_has() -> None:
    searcher = open_searcher("nni-evolution", SPACE, bounds=Bounds(), seed=0)
    asked = [searcher.ask(number, anything) for number in range(64)]
    for genes in asked:
        assert genes is not None
        searcher.tell(genes, scores(SPACE.decode(genes)).objectives(None))
    assert searcher.ask(64, anything) is not None


def test_a_strategy_that_fails_ends_the_search_in_one_line() -> None:
    from nni.nas.strategy import Strategy

    class Broken(Strategy):  # type: ignore[misc]
        def _run(self) -> None:
            self.wait_for_resource()
            raise ZeroDivisionError("by nothing")

        def _cleanup(self) -> None:
            pass

    searcher = NniSearcher(SPACE, seed=0, strategy=Broken())
    with pytest.raises(RuntimeError, match="NNI's strategy must go on, but failed: by nothing"):
        searcher.ask(0, anything)
