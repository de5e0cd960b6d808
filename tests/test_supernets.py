"""The networks that share a study's supernet."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Barrier

import numpy as np
import pytest
import torch
from specs import on

from nas.estimators import SAMPLE, supernet_training, within_bounds
from nas.search.feasibility import Bounds
from nas.study.options import SearchOptions
from predictors.cost import cost, costs
from predictors.latency import RatioPrediction
from predictors.training.checkpoint import check_agreed
from predictors.training.estimators import COST, Sandwich
from predictors.training.workers import Workers
from search_spaces.fasternet import SPACES, FasterNetConfig

SPACE = SPACES["fasternet-32"]
BUDGET_MS = 2.0
OPTIONS = SearchOptions(
    devices=on("cpu", BUDGET_MS), space="fasternet-32", accuracy="supernet", data="digits"
)


def _predict(configs: Sequence[FasterNetConfig]) -> RatioPrediction:
    """A millisecond for 10 MMACs."""
    ratio = np.asarray(costs(configs).macs, dtype=float) / 10e6 / BUDGET_MS
    return RatioPrediction(ratio, 1.1 * ratio)


BOUNDS = Bounds(predict=_predict, budget=True)


def test_they_are_within_the_budget_and_come_in_the_order_of_their_size() -> None:
    configs = within_bounds(SPACE, BOUNDS, seed=0)
    macs = [cost(config).macs for config in configs]
    assert len(set(configs)) == SAMPLE
    assert macs == sorted(macs)
    assert max(macs) <= BUDGET_MS * 10e6 / 1.1
    assert max(macs) > 0.8 * BUDGET_MS * 10e6 / 1.1  # the budget is used
    assert configs == within_bounds(SPACE, BOUNDS, seed=0)
    assert configs != within_bounds(SPACE, BOUNDS, seed=1)


def test_a_step_has_a_large_one_first_and_a_small_one() -> None:
    configs = within_bounds(SPACE, BOUNDS, seed=0)
    sandwich, rng = Sandwich(configs), Random(0)
    for _ in range(20):
        large, small, *others = (configs.index(config) for config in sandwich(rng))
        assert large >= SAMPLE - SAMPLE // 16
        assert small < SAMPLE // 16
        assert len(others) == 2
    assert sandwich(Random(1)) == sandwich(Random(1))


def test_it_costs_no_more_than_a_dozen_trainings() -> None:
    configs = within_bounds(SPACE, BOUNDS, seed=0)
    training = supernet_training(replace(OPTIONS, epochs=8), Path("run"), configs)
    sandwich, epochs = training.sandwich, training.total
    rng = Random(5)
    a_step = np.mean([sum(cost(c).macs for c in sandwich(rng)) for _ in range(500)])
    a_training = 8 * np.mean([cost(c).macs for c in sandwich.configs])
    assert 0.8 * COST < epochs * a_step / a_training < 1.05 * COST
    assert supernet_training(replace(OPTIONS, epochs=1), Path("run"), configs).total >= 1


@pytest.mark.parametrize(
    ("done", "refused"),
    [((2, 2, 2), False), ((0, 0, 0), False), ((1, 2, 3), True), ((5, 0, 0), True)],
)
def test_workers_that_find_different_files_all_say_so(
    done: tuple[int, ...], *, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, torch.Tensor] = {}
    all_here = Barrier(len(done), timeout=60)

    def summed(workers: Workers, values: torch.Tensor) -> torch.Tensor:
        given[workers.rank] = values
        all_here.wait()
        return torch.stack(list(given.values())).sum(0)

    def check(rank: int) -> None:
        message = "^`out` must be a folder that all nodes share, but not all find the same"
        with pytest.raises(ValueError, match=message) if refused else nullcontext():
            check_agreed(Workers(rank=rank, size=3), done[rank], torch.device("cpu"))

    monkeypatch.setattr(Workers, "sum", summed)
    with ThreadPoolExecutor(len(done)) as threads:
        list(threads.map(check, range(len(done))))
