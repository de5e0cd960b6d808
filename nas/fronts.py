"""What a study knows of its networks: the trials' scores joined with the latest latencies."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nas.candidate import Candidate
from nas.gauge import share_words
from nas.quantities import format_score
from nas.search.pareto import pareto_front
from nas.search.trial import Outcome, Scores, Trial
from nas.study.file_accuracies import FileAccuracies, FileAccuracy, Form, deployed_accuracy
from predictors.accuracy import AccuracyKind
from predictors.cost import costs
from predictors.measurement import Latency
from search_spaces.fasternet import FasterNetConfig

APART = 0.07  # the width of a measured interval


def candidates_of(
    outcomes: Sequence[tuple[FasterNetConfig, Outcome]],
    latencies: Mapping[FasterNetConfig, Latency],
    files: FileAccuracies,
    *,
    budget_ms: float,
    accuracy_kind: AccuracyKind,
    measured_only: bool,
) -> list[Candidate]:
    """Return every network with scores and a latency, the fastest first, the front marked.

    One whose fastest file loses accuracy is there once more in each slower form that loses less.
    The front is thinned: of networks that are closer in latency than a measurement can tell apart,
    the most accurate stays. With `measured_only`, none on it has been predicted on a device with a
    clock.
    """
    scored = [(config, o) for config, o in outcomes if o.scores and config in latencies]
    total = costs([config for config, _ in scored])
    found = [
        Candidate(
            name=f"trial-{outcome.number:04d}{suffix}", config=config,
            accuracy=accuracy, accuracy_kind=accuracy_kind,
            fp32_accuracy=outcome.scores.accuracy,
            latency=latency, feasible=latency.meets(budget_ms),
            macs=int(total.macs[i]), params=int(total.params[i]),  # type: ignore[index]
        )
        for i, (config, outcome) in enumerate(scored) if outcome.scores
        for suffix, accuracy, latency in _forms(
            outcome.scores.accuracy, latencies[config], files.get(config, {}))
    ]  # fmt: skip
    eligible = [c for c in found if c.latency.timed or not measured_only]
    trials = [as_trial(number, c) for number, c in enumerate(eligible)]
    on_front = {eligible[trial.number].name for trial in thinned(pareto_front(trials))}
    marked = [replace(c, on_front=c.name in on_front) for c in found]
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
    score = best.accuracy_kind == "proxy"
    number = format_score(best.accuracy) if score else f"{best.accuracy:.4g}"
    return (f"{len(front)} on the front, best {number} in "
            f"{share_words(best.latency)}")  # fmt: skip


def _forms(
    accuracy: float, latency: Latency, files: Mapping[Form, FileAccuracy]
) -> Iterator[tuple[str, float, Latency]]:
    """A network's fastest form, and the slower ones that are more accurate: name, both figures."""
    best = -math.inf
    for form in (latency, *latency.slower):
        deployed = deployed_accuracy(accuracy, form, files)
        if form is latency or deployed > best:
            suffix = "" if form is latency else f"-{form.backend.runtime}-{form.backend.precision}"
            yield suffix, deployed, form
            best = deployed


def as_trial(number: int, candidate: Candidate) -> Trial[FasterNetConfig]:
    """Return the candidate as that trial of a search, so that it can be ranked as one."""
    scores = Scores(accuracy=candidate.accuracy, latency_ms=candidate.latency.median_ms)
    return Trial(number=number, config=candidate.config, scores=scores, feasible=candidate.feasible)
