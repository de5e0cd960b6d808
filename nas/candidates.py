"""The networks of a study with everything that is known of them, and their fronts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas.quantities import format_ms
from nas.search.pareto import non_dominated
from nas.study.journal import FileAccuracies, FileAccuracy, deployed_accuracy
from predictors.accuracy import AccuracyKind
from predictors.cost import NO_LIMITS, Limits, costs
from predictors.measurement import Backend, Latencies, Ratio, worst_ratio
from predictors.top1 import estimate_top1
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.space import Space
from search_spaces.spaces import resolutions_of

APART = 0.07  # the width of a measured interval


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A config, its accuracy, its latency on each device, and its cost.

    The accuracy, in percent, has the ends of its interval where it is estimated. Candidates are
    ranked by `cautious`, the lower end then: what is little known does not win.

    `ratio` is the worst latency/budget ratio. The accuracy is that of the file that was timed,
    if it is not in fp32 and has been evaluated; `fp32_accuracy` is that of the weights. `on_front`
    marks the networks that the study recommends, `feasible` those whose intervals' upper ends meet
    every budget and which keep the limits. `file_bytes` is estimated.
    """

    name: str
    config: FasterNetConfig
    accuracy: float
    accuracy_kind: AccuracyKind
    latencies: Latencies
    ratio: Ratio
    feasible: bool
    macs: int = 0
    params: int = 0
    file_bytes: int = 0
    memory_bytes: int = 0  # of activations, at the peak
    on_front: bool = False
    fp32_accuracy: float | None = None
    accuracy_ends: tuple[float, float] | None = None

    @property
    def cautious(self) -> float:
        """The accuracy that is compared."""
        return self.accuracy if self.accuracy_ends is None else self.accuracy_ends[0]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A network's name in a study and its accuracy."""

    name: str
    config: FasterNetConfig
    accuracy: float


def candidate_of(
    scored: Scored, latencies: Latencies, kind: AccuracyKind, budgets_ms: Mapping[str, float]
) -> Candidate:
    """Return a network with its latencies held against the budgets; its cost is left out."""
    return Candidate(
        name=scored.name,
        config=scored.config,
        accuracy=scored.accuracy,
        accuracy_kind=kind,
        latencies=latencies,
        ratio=worst_ratio(latencies, budgets_ms),
        feasible=latencies.meet(budgets_ms),
    )


def with_costs(candidates: Sequence[Candidate], limits: Limits = NO_LIMITS) -> list[Candidate]:
    """Return the candidates with their costs; one that breaks a limit is not feasible."""
    configs = [candidate.config for candidate in candidates]
    total, kept = costs(configs), limits.ratios(configs) <= 1
    files = total.int8_file_bytes if limits.precision == "int8" else total.file_bytes
    columns = map(np.asarray, (total.macs, total.params, files, total.peak_memory_bytes))
    return [
        replace(
            candidate,
            macs=int(macs),
            params=int(params),
            file_bytes=int(file),
            memory_bytes=int(memory),
            feasible=candidate.feasible and bool(keeps),
        )
        for candidate, keeps, macs, params, file, memory in zip(
            candidates, kept, *columns, strict=True
        )
    ]


def candidates_of(
    scored: Sequence[Scored],
    latencies: Mapping[FasterNetConfig, Latencies],
    files: FileAccuracies,
    *,
    kind: AccuracyKind,
    budgets_ms: Mapping[str, float],
    limits: Limits = NO_LIMITS,
) -> list[Candidate]:
    """Return every network with a latency, the lowest ratio first.

    One whose fastest file loses accuracy is there once more in each slower backend that loses less.
    """
    found: list[Candidate] = []
    for one in scored:
        if one.config not in latencies:
            continue
        ways = _in_backends(one.accuracy, latencies[one.config], files.get(one.config, {}))
        for suffix, accuracy, in_backend in ways:
            named = Scored(name=f"{one.name}{suffix}", config=one.config, accuracy=accuracy)
            candidate = candidate_of(named, in_backend, kind, budgets_ms)
            found.append(replace(candidate, fp32_accuracy=one.accuracy))
    return sorted(with_costs(found, limits), key=lambda candidate: candidate.ratio.median)


def with_estimates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return them with the estimated accuracies in place of what they have, and their ends."""
    found = estimate_top1([candidate.config for candidate in candidates])
    rows = zip(candidates, found.median, found.low, found.high, strict=True)
    return [
        replace(
            one,
            accuracy=float(median),
            accuracy_ends=(float(low), float(high)),
            fp32_accuracy=float(median),
        )
        for one, median, low, high in rows
    ]


def with_front(candidates: Sequence[Candidate], *, measured_only: bool) -> list[Candidate]:
    """Return the candidates with the front marked, thinned (see `thinned_front`).

    With `measured_only`, none on it has been predicted on every device.
    """
    eligible = [c for c in candidates if c.latencies.measured or not measured_only]
    on_front = {c.name for c in thinned_front(eligible)}
    return [replace(c, on_front=c.name in on_front) for c in candidates]


def well_timed(candidate: Candidate, repeats: int) -> bool:
    """Whether each device with a clock has timed it in so many processes, as a front is."""
    latencies = candidate.latencies.by_device.values()
    counts = [len(one.samples_ms) for one in latencies if one.source == "measured"]
    return bool(counts) and min(counts) >= repeats


def near_misses(candidates: Sequence[Candidate], limits: Limits, most: int) -> list[Candidate]:
    """Return networks that could be the best: more accurate than all that meet the budget.

    What is predicted of them meets it, and only the upper end does not: the clock may say so.
    """
    best = max((c.cautious for c in candidates if c.feasible), default=-math.inf)
    near = [
        c
        for c in candidates
        if c.ratio.median <= 1 < c.ratio.high
        and c.cautious > best
        and not c.latencies.measured
        and limits.keeps(c.config)
    ]
    return sorted(near, key=lambda c: -c.cautious)[:most]


def thinned_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the feasible candidates that no other one beats, the lowest ratio first.

    Of those that are closer in ratio than a measurement can tell apart, the most accurate stays.
    """
    feasible = [c for c in candidates if c.feasible]
    front = non_dominated([(c.cautious, c.ratio.median) for c in feasible])
    kept: list[Candidate] = []
    for candidate in (feasible[i] for i in reversed(front)):
        limit = kept[-1].ratio.median if kept else math.inf
        if candidate.ratio.median <= limit / (1 + APART):
            kept.append(candidate)
    return kept[::-1]


def non_dominated_sort(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the feasible candidates front by front (as the ranks of NSGA-II), each thinned.

    In each front the most accurate comes first.
    """
    left, ranked = list(candidates), []
    while front := thinned_front(left):
        ranked += front[::-1]
        left = [candidate for candidate in left if candidate not in front]
    return ranked


def best_of(candidates: Sequence[Candidate]) -> str:
    """Say in a few words what has been found."""
    front = [c for c in candidates if c.on_front]
    if not front:
        return "nothing within the budget yet"
    best = front[-1]
    unit = " % estimated" if best.accuracy_kind == "estimated" else " %"
    accuracy = max(best.accuracy, 0.0) if best.accuracy_kind == "estimated" else best.accuracy
    number = f"{accuracy:.3g}" if best.accuracy_kind == "score" else f"{accuracy:.1f}{unit}"
    return f"{len(front)} on the front, best {number} in {latency_words(best.latencies)}"


def latency_words(latencies: Latencies) -> str:
    """Return the latency; of several devices, that on each."""
    several = len(latencies.by_device) > 1
    return ", ".join(
        f"{format_ms(one.median_ms)} ms{f' on {name}' * several}"
        for name, one in latencies.by_device.items()
    )


def named_sizes(space: Space[Any]) -> dict[str, FasterNetConfig]:
    """Return T0 to L with the space's resolution, the largest of several, and its classes.

    None where the images are smaller than an element of their last map.
    """
    resolution = max(resolutions_of(space))
    if resolution < FASTERNET["t0"].total_stride:
        return {}
    classes = space.fields.get("classes", 1000)
    return {
        name: replace(config, resolution=resolution, classes=classes)
        for name, config in FASTERNET.items()
    }


def _in_backends(
    accuracy: float, latencies: Latencies, files: Mapping[Backend, FileAccuracy]
) -> Iterator[tuple[str, float, Latencies]]:
    """A network in its fastest backend, and in slower ones in which it is more accurate.

    Yields what to add to its name, its accuracy and its latencies.
    """
    best = deployed_accuracy(accuracy, latencies, files)
    yield "", best, latencies
    for device, fastest in latencies.by_device.items():
        for slower in fastest.slower:
            found = Latencies({**latencies.by_device, device: slower})
            deployed = deployed_accuracy(accuracy, found, files)
            if deployed > best and slower.backend is not None:
                yield f"-{slower.backend.runtime}-{slower.backend.precision}", deployed, found
                best = deployed
