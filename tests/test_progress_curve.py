"""The hypervolume after each trial is that of the trials so far."""

from random import Random

import numpy as np
import pytest

from nas.report.figures import progress_curve, progress_figure
from nas.report.sheet import NARROW, WIDE, Sheet
from nas.search.pareto import hypervolume
from nas.search.trial import Outcome, Scores, Trial

BUDGET_MS = 8.0


def _outcomes(count: int) -> list[Outcome]:
    rng = Random(0)
    found = []
    for number in range(count):
        ms = rng.uniform(1, 10)
        scores = Scores(accuracy=60 + ms + rng.gauss(0, 3), latency_ms=ms,
                        latency_high_ms=1.05 * ms)  # fmt: skip
        found.append(Outcome(number, None, "lost") if number == 4 else Outcome(number, scores))
    return found


def test_it_is_the_hypervolume_of_the_trials_so_far() -> None:
    outcomes = _outcomes(40)
    curve = progress_curve(outcomes[::-1], BUDGET_MS)
    assert curve.numbers == tuple(range(40))
    assert curve.reference == (min(o.scores.accuracy for o in outcomes if o.scores), BUDGET_MS)
    for done, area in enumerate(curve.areas, start=1):
        trials = [Trial(number=o.number, config=o.number, scores=o.scores,
                        feasible=o.scores is not None and o.scores.upper_ms <= BUDGET_MS)
                  for o in outcomes[:done]]  # fmt: skip
        assert area == pytest.approx(hypervolume(trials, curve.reference))
    assert list(curve.areas) == sorted(curve.areas)


def test_how_many_trials_a_share_took() -> None:
    scores = [Scores(accuracy=a, latency_ms=4.0) for a in (50.0, 51.0, 60.0, 55.0)]
    curve = progress_curve([Outcome(i, s) for i, s in enumerate(scores)], BUDGET_MS)
    assert curve.areas == (0.0, 4.0, 40.0, 40.0)
    assert (curve.reached(0.1), curve.reached(0.11), curve.reached(1.0)) == (2, 3, 3)


def test_a_search_that_found_nothing_has_reached_nothing() -> None:
    late = Outcome(0, Scores(accuracy=50.0, latency_ms=9.0))
    assert progress_curve([late, Outcome(1, None, "lost")], BUDGET_MS).reached(0.5) is None
    assert progress_curve([], BUDGET_MS).areas == ()


@pytest.mark.parametrize("sheet", [WIDE, NARROW])
def test_the_figure_rises_after_the_trial_that_gained(sheet: Sheet) -> None:
    scores = [Scores(accuracy=a, latency_ms=4.0) for a in (50.0, 51.0, 60.0, 55.0)]
    curve = progress_curve([Outcome(i, s) for i, s in enumerate(scores)], BUDGET_MS)
    (axes,) = progress_figure(curve, trials=8, sheet=sheet).axes
    (line,) = axes.lines
    assert np.asarray(line.get_xydata()).tolist() == [[0, 0], [1, 0], [2, 10], [3, 100], [4, 100]]
    assert line.get_drawstyle() == "steps-post"
    assert axes.get_xlim() == (0, 8)
