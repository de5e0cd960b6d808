"""Trainings go on by Pareto rank."""

import random

from nas.search.pareto import by_pareto_rank, promoted
from nas.search.trial import Objectives


def _scores(accuracy: float, ratio: float) -> Objectives:
    return Objectives(accuracy=accuracy, ratio=ratio)


def test_layers_come_in_order_and_the_ends_of_each_first() -> None:
    front = [_scores(50, 1), _scores(60, 2), _scores(61, 2.1), _scores(80, 8)]
    behind = [_scores(40, 1.5), _scores(59, 4)]
    ranked = by_pareto_rank([*behind, *front])
    assert set(ranked[:4]) == {2, 3, 4, 5}
    assert set(ranked[:2]) == {2, 5}  # the ends of the front
    assert set(ranked[4:]) == {0, 1}


def test_every_index_comes_once_also_of_equal_ones() -> None:
    rng = random.Random(0)
    scores = [_scores(rng.randint(0, 3), rng.randint(1, 3)) for _ in range(40)]
    assert sorted(by_pareto_rank(scores)) == list(range(40))
    assert by_pareto_rank([]) == []


def test_a_third_goes_on_rounded_up_and_of_few_the_best() -> None:
    scores = {"slow": _scores(50, 9), "weak": _scores(40, 3), "good": _scores(60, 2)}
    assert promoted(scores) == ["good"]
    assert promoted({"only": _scores(50, 9), "worse": _scores(40, 10)}) == ["only"]
    assert promoted({}) == []
    assert [len(promoted({i: _scores(50, 9) for i in range(n)})) for n in (1, 3, 4, 30, 36)] == [
        1,
        1,
        2,
        10,
        12,
    ]


def test_the_fast_go_on_beside_the_accurate() -> None:
    """By accuracy alone the small networks would all stop."""
    went_on = promoted({trial: _scores(40 + trial, 1 + trial) for trial in range(12)})
    assert len(went_on) == 4
    assert {0, 11} <= set(went_on)
