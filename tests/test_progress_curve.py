"""The hypervolume after each trial is that of the trials so far."""

from random import Random

import numpy as np
import pytest

from nas.report.figures import progress_curve, progress_figure
from nas.report.sheet import NARROW, WIDE, Sheet
from nas.search.pareto import hypervolume
from nas.search.trial import Objectives, Scores, Trial

BUDGET_MS = 8.0


def _scores(count: int) -> list[Scores | None]:
    rng = Random(0)
    found: list[Scores | None] = []
    for number in range(count):
        ms = rng.uniform(1, 10)
        accuracy = 60 + ms + rng.gauss(0, 3)
        scores = Scores(accuracy=accuracy, latency_ms=ms, latency_high_ms=1.05 * ms)
        found.append(None if number == 4 else scores)
    return found


def _seen(scores: list[Scores | None]) -> dict[int, Objectives | None]:
    return {i: s.objectives(BUDGET_MS) if s else None for i, s in enumerate(scores)}


def test_it_is_the_hypervolume_of_the_trials_so_far() -> None:
    scores = _scores(40)
    curve = progress_curve(dict(reversed(_seen(scores).items())))
    assert curve.numbers == tuple(range(40))
    lowest = min(s.accuracy for s in scores if s)
    assert curve.reference == (lowest, 1.0)
    for done, area in enumerate(curve.areas, start=1):
        trials = [
            Trial(number=i, config=i, scores=s, feasible=s is not None and s.upper_ms <= BUDGET_MS)
            for i, s in enumerate(scores[:done])
        ]
        assert area == pytest.approx(hypervolume(trials, (lowest, BUDGET_MS)) / BUDGET_MS)
    assert list(curve.areas) == sorted(curve.areas)


def test_how_many_trials_a_share_took() -> None:
    found = [Scores(accuracy=a, latency_ms=4.0) for a in (50.0, 51.0, 60.0, 55.0)]
    curve = progress_curve(_seen([*found]))
    assert curve.areas == (0.0, 0.5, 5.0, 5.0)
    assert (curve.reached(0.1), curve.reached(0.11), curve.reached(1.0)) == (2, 3, 3)


def test_a_search_that_found_nothing_has_reached_nothing() -> None:
    late = Scores(accuracy=50.0, latency_ms=9.0)
    assert progress_curve(_seen([late, None])).reached(0.5) is None
    assert progress_curve({}).areas == ()


@pytest.mark.parametrize("sheet", [WIDE, NARROW])
def test_the_figure_rises_after_the_trial_that_gained(sheet: Sheet) -> None:
    found = [Scores(accuracy=a, latency_ms=4.0) for a in (50.0, 51.0, 60.0, 55.0)]
    curve = progress_curve(_seen([*found]))
    (axes,) = progress_figure(curve, trials=8, sheet=sheet).axes
    (line,) = axes.lines
    assert np.asarray(line.get_xydata()).tolist() == [[0, 0], [1, 0], [2, 10], [3, 100], [4, 100]]
    assert line.get_drawstyle() == "steps-post"
    assert axes.get_xlim() == (0, 8)
