"""Trainings go on by Pareto rank."""

import random

import pytest

from nas.promotion import Promotion, by_pareto_rank
from nas.trial import Scores


def _scores(accuracy: float, latency_ms: float) -> Scores:
    return Scores(accuracy=accuracy, latency_ms=latency_ms)


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


def test_a_third_goes_on_once_there_are_three() -> None:
    promotion = Promotion[str](rungs=3)
    promotion.report("slow", 0, _scores(50, 9))
    promotion.report("weak", 0, _scores(40, 3))
    assert promotion.next() is None
    promotion.report("good", 0, _scores(60, 2))
    assert promotion.next() == ("good", 1)
    assert promotion.next() is None


def test_the_highest_rung_goes_first_and_the_last_one_nowhere() -> None:
    promotion = Promotion[int](rungs=3, reduction=2)
    for trial in range(4):
        promotion.report(trial, 0, _scores(50 + trial, 1))
    assert [promotion.next(), promotion.next()] == [(3, 1), (2, 1)]
    for trial in (3, 2):
        promotion.report(trial, 1, _scores(60 + trial, 1))
    promotion.report(9, 0, _scores(99, 1))
    promotion.report(8, 0, _scores(98, 1))
    assert promotion.next() == (3, 2)
    promotion.report(3, 2, _scores(70, 1))
    assert promotion.next() == (9, 1)


def test_the_fast_go_on_beside_the_accurate() -> None:
    """By accuracy alone the small networks would all stop."""
    promotion = Promotion[int](rungs=2, reduction=4)
    for trial in range(16):
        promotion.report(trial, 0, _scores(40 + trial, 1 + trial))  # all on the front
    went_on = {found[0] for _ in range(4) if (found := promotion.next())}
    assert {0, 15} <= went_on


@pytest.mark.parametrize(("rungs", "reduction"), [(0, 3), (2, 1)])
def test_what_cannot_be_halved_is_refused(rungs: int, reduction: int) -> None:
    with pytest.raises(ValueError, match="`rungs` must be 1 or more and `reduction` 2 or more"):
        Promotion[int](rungs=rungs, reduction=reduction)
