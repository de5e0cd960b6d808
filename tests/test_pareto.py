"""Fronts and hypervolumes, checked against the definition by brute force."""

from random import Random

import pytest

from nas.search.pareto import area, dominates, hypervolume, pareto_front
from nas.search.trial import Objectives, Scores, Trial

WORST = (0.0, 10.0)


def _trial(number: int, accuracy: float, latency_ms: float, *, feasible: bool = True) -> Trial[int]:
    scores = Scores(accuracy=accuracy, latency_ms=latency_ms)
    return Trial(number=number, config=number, scores=scores, feasible=feasible)


def _random_trials(seed: int, *, steps: int, n: int = 40) -> list[Trial[int]]:
    """Points on a grid of `steps` by `steps`, a third of them infeasible."""
    rng = Random(seed)
    return [
        _trial(i, rng.randrange(1, steps), rng.randrange(1, steps), feasible=rng.random() < 2 / 3)
        for i in range(n)
    ]


def _numbers(trials: list[Trial[int]]) -> list[int]:
    return [trial.number for trial in trials]


def _scores(trial: Trial[int]) -> Objectives:
    assert trial.scores is not None
    return trial.scores.objectives(None)


def test_the_front_is_what_nothing_beats_fastest_first() -> None:
    trials = [_trial(0, 70, 5), _trial(1, 60, 2), _trial(2, 65, 6), _trial(3, 80, 9)]
    assert _numbers(pareto_front(trials)) == [1, 0, 3]


@pytest.mark.parametrize("steps", [4, 12, 1000], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_that_of_the_definition(seed: int, steps: int) -> None:
    trials = _random_trials(seed, steps=steps)
    feasible = [t for t in trials if t.feasible]
    front = pareto_front(trials)
    for t in front:
        assert t.feasible
        assert not any(dominates(_scores(other), _scores(t)) for other in feasible)
    assert len({(_scores(t).accuracy, _scores(t).ratio) for t in front}) == len(front)
    shown = [_scores(t) for t in front]
    for t in feasible:
        assert any(_scores(t) == s or dominates(s, _scores(t)) for s in shown)
    assert [s.ratio for s in shown] == sorted(s.ratio for s in shown)


def test_the_front_does_not_depend_on_the_order_of_the_trials() -> None:
    trials = _random_trials(1, steps=6)
    expected = _numbers(pareto_front(trials))
    for seed in range(5):
        shuffled = Random(seed).sample(trials, len(trials))
        assert _numbers(pareto_front(shuffled)) == expected


def test_of_equal_points_the_earliest_stays() -> None:
    assert _numbers(pareto_front([_trial(3, 70, 5), _trial(1, 70, 5), _trial(2, 70, 5)])) == [1]


def test_of_equal_latencies_the_best_stays_and_of_equal_accuracies_the_fastest() -> None:
    assert _numbers(pareto_front([_trial(0, 70, 5), _trial(1, 71, 5)])) == [1]
    assert _numbers(pareto_front([_trial(0, 70, 5), _trial(1, 70, 4)])) == [1]


def test_infeasible_and_failed_trials_are_on_no_front() -> None:
    failed: Trial[int] = Trial(number=1, config=1, scores=None, feasible=False, error="no")
    trials = [_trial(0, 90, 1, feasible=False), failed]
    assert pareto_front(trials) == []
    assert hypervolume(trials, reference=WORST) == 0
    assert _numbers(pareto_front([*trials, _trial(2, 50, 9)])) == [2]


def test_no_trials_have_an_empty_front() -> None:
    assert pareto_front([]) == []
    assert hypervolume(iter([]), reference=WORST) == 0


@pytest.mark.parametrize("steps", [4, 11])
@pytest.mark.parametrize("seed", range(10))
def test_the_hypervolume_is_the_number_of_unit_cells_dominated(seed: int, steps: int) -> None:
    trials = _random_trials(seed, steps=steps)
    floor, limit = 2, 9
    cells = sum(
        any(_scores(t).accuracy >= a + 1 and _scores(t).ratio <= ms for t in trials if t.feasible)
        for a in range(floor, steps)
        for ms in range(limit)
    )
    assert hypervolume(trials, reference=(floor, limit)) == pytest.approx(cells)


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_agrees_with_monte_carlo(seed: int) -> None:
    rng = Random(seed)
    points = [(rng.uniform(-5, 5), rng.uniform(0, 10)) for _ in range(12)]
    throws = [(rng.uniform(-5, 5), rng.uniform(0, 10)) for _ in range(20_000)]
    hits = sum(any(a >= x and ms <= y for a, ms in points) for x, y in throws)
    assert area(points, (-5.0, 10.0)) == pytest.approx(100 * hits / len(throws), abs=2)


@pytest.mark.parametrize(("accuracy", "latency_ms"), [(0, 5), (-1, 5), (5, 10), (5, 11)], ids=str)
def test_what_does_not_beat_the_reference_in_both_counts_nothing(
    accuracy: float, latency_ms: float
) -> None:
    assert hypervolume([_trial(0, accuracy, latency_ms)], reference=WORST) == 0
    both = [_trial(0, accuracy, latency_ms), _trial(1, 2, 7)]
    assert hypervolume(both, reference=WORST) == pytest.approx(2 * 3)


def test_more_trials_never_lessen_the_hypervolume() -> None:
    trials = _random_trials(3, steps=50)
    volumes = [hypervolume(trials[:n], reference=(0, 50)) for n in range(len(trials))]
    assert volumes == sorted(volumes)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((2, 1), (1, 2), True),
        ((2, 1), (2, 2), True),
        ((2, 1), (1, 1), True),
        ((2, 1), (2, 1), False),
        ((2, 2), (1, 1), False),
        ((1, 2), (2, 1), False),
    ],
)
def test_to_dominate_is_to_be_no_worse_in_both_and_better_in_one(
    a: tuple[float, float], b: tuple[float, float], *, expected: bool
) -> None:
    scores = [Objectives(accuracy=accuracy, ratio=ratio) for accuracy, ratio in (a, b)]
    assert dominates(*scores) is expected
