"""What a study knows of its networks: the trials' scores joined with the latest latencies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nas.candidate import Candidate
from nas.cluster import Outcome
from nas.gauge import quantity
from nas.pareto import pareto_front
from nas.trial import Scores, Trial
from predictors.accuracy import AccuracyKind
from predictors.cost import costs
from predictors.timing import Measurement
from search_spaces.fasternet import FasterNetConfig

APART = 0.07  # the width of a measured interval


def candidates_of(
    outcomes: Sequence[tuple[FasterNetConfig, Outcome]],
    latencies: Mapping[FasterNetConfig, Measurement],
    *,
    budget_ms: float,
    accuracy_kind: AccuracyKind,
    measured_only: bool,
) -> list[Candidate]:
    """Return every network with scores and a latency, the fastest first, the front marked.

    The front is thinned: of networks that are closer in latency than a measurement can tell apart,
    the most accurate stays. With `measured_only`, none on it has been predicted on a device with a
    clock.
    """
    scored = [(config, o) for config, o in outcomes if o.scores and config in latencies]
    total = costs([config for config, _ in scored])
    found = [
        Candidate(
            name=f"trial-{outcome.number:04d}", config=config,
            accuracy=outcome.scores.accuracy, accuracy_kind=accuracy_kind,
            latency=latencies[config], feasible=latencies[config].meets(budget_ms),
            macs=int(total.macs[i]), params=int(total.params[i]),  # type: ignore[index]
        )
        for i, (config, outcome) in enumerate(scored) if outcome.scores
    ]  # fmt: skip
    eligible = [c for c in found if c.latency.timed or not measured_only]
    on_front = {trial.config for trial in thinned(pareto_front(map(_as_trial, eligible)))}
    marked = [replace(c, on_front=c.config in on_front) for c in found]
    return sorted(marked, key=lambda c: c.latency.median_ms)


def thinned(front: Sequence[Trial[FasterNetConfig]]) -> list[Trial[FasterNetConfig]]:
    """Return the members of a front that are at least `APART` faster than the next one kept."""
    kept: list[Trial[FasterNetConfig]] = []
    for trial in reversed(front):
        assert trial.scores is not None
        limit = kept[-1].scores.latency_ms if kept and kept[-1].scores else math.inf
        if trial.scores.latency_ms <= limit / (1 + APART):
            kept.append(trial)
    return kept[::-1]


def best_of(candidates: Sequence[Candidate]) -> str:
    """Say in a few words what has been found."""
    front = [c for c in candidates if c.on_front]
    if not front:
        return "nothing within the budget yet"
    best = front[-1]
    return (f"{len(front)} on the front, best {best.accuracy:.4g} in "
            f"{quantity(best.latency)}")  # fmt: skip


def _as_trial(candidate: Candidate) -> Trial[FasterNetConfig]:
    scores = Scores(accuracy=candidate.accuracy, latency_ms=candidate.latency.median_ms)
    return Trial(number=0, config=candidate.config, scores=scores, feasible=candidate.feasible)
