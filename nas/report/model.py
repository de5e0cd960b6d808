"""Everything that the tables, the figures and the page show of a run, computed once.

Only this module knows how a run and its networks keep what is shown.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any

from nas.estimators import CHECKPOINTS
from nas.quantities import format_ms
from nas.report.front import FrontView, Network, network_of, view_of
from nas.report.importance import MOST, ImportanceTable, rank_choices, step_for
from nas.report.words import (
    NUMBER,
    Reading,
    Unit,
    accuracy_number,
    on_devices,
    readings_of,
)
from nas.run import Run
from nas.search.pareto import area
from nas.search.trial import Outcome
from nas.study.store import read_run
from predictors.accuracy import AccuracyKind, proxy_scores
from predictors.devices.device import HOW_TO_ATTACH
from predictors.devices.joint import places_of
from predictors.latency import COVERAGE, Prediction
from predictors.measurement import Latency
from predictors.training.short_training import SMALL_BATCHES

_ENOUGH = 0.99  # of the last hypervolume
_MOST_NAMED = 12  # failures


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A network's measured latency and what was predicted, in ms."""

    measured: Reading
    mean: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """How far the prediction is from the measured median, as a share of it."""
        return self.mean / self.measured.median - 1

    @property
    def words(self) -> str:
        """Both."""
        interval = f"[{format_ms(self.low)} to {format_ms(self.high)}]"
        return f"measured {self.measured.words}\npredicted {format_ms(self.mean)} ms {interval}"


@dataclass(frozen=True, kw_only=True)
class CalibrationView:
    """The networks that the predictor had not seen and a clock has timed, the fastest first."""

    device: str
    description: str
    rows: list[Compared]

    @property
    def error(self) -> float:
        """The median absolute error in per cent."""
        return 100 * median(abs(row.error) for row in self.rows)

    @property
    def covered(self) -> float:
        """How many per cent of the measured medians the predicted intervals hold."""
        return 100 * fmean(row.low <= row.measured.median <= row.high for row in self.rows)

    @property
    def title(self) -> str:
        """The finding in one line."""
        if not self.rows:
            return "No prediction has met a measurement yet"
        return f"Half of the predicted latencies are within {self.error:.1f} %"

    @property
    def words(self) -> str:
        """The finding with what it rests on."""
        return (
            f"{self.title}: {len(self.rows)} networks that the predictor had not seen; its "
            f"{100 * COVERAGE:.0f} % interval holds {self.covered:.0f} % of the measured medians."
        )


def compared(prediction: Prediction, measured: Sequence[Latency]) -> list[Compared]:
    """Return what was predicted beside what was measured, the fastest network first."""
    ends = (prediction.mean_ms, prediction.low_ms, prediction.high_ms)
    rows = [
        Compared(measured=readings_of(m)[0], mean=float(mean), low=float(low), high=float(high))
        for m, mean, low, high in zip(measured, *ends, strict=True)
    ]
    return sorted(rows, key=lambda row: row.measured.median)


@dataclass(frozen=True, kw_only=True)
class ProgressCurve:
    """The area dominated after each trial, failed ones included, up to `reference`.

    `reference` is (accuracy, latency): the lowest accuracy of any trial, and the budget.
    """

    numbers: tuple[int, ...]  # of the trials
    areas: tuple[float, ...]
    reference: tuple[float, float]

    def reached(self, share: float) -> int | None:
        """Return the number of trials after which this share of the last area was there."""
        if not self.areas or self.areas[-1] <= 0:
            return None
        enough = share * self.areas[-1] * (1 - 1e-12)
        return next(i for i, found in enumerate(self.areas, start=1) if found >= enough)

    @property
    def shares(self) -> list[float]:
        """The areas in per cent of the last one."""
        return [100 * found / self.areas[-1] for found in self.areas]

    @property
    def milestones(self) -> list[int]:
        """Numbers of trials by which to tell how it went: an eighth, a quarter, half and so on."""
        return sorted({max(len(self.areas) * k // 8, 1) for k in (1, 2, 4, 6, 8)})

    def words(self, kind: AccuracyKind, unit: Unit) -> str:
        """Say when most of it was reached, and what it is; nothing if nothing was reached."""
        enough = self.reached(_ENOUGH)
        if enough is None:
            return ""
        accuracy, budget = self.reference
        return (
            f"{100 * _ENOUGH:.0f} % were reached after {enough} of {len(self.areas)} trials. The "
            f"area is that above {accuracy_number(accuracy, kind)} (the lowest of any trial) and "
            f"below {format_ms(budget)} {unit}, by the latencies and accuracies that the search "
            "saw."
        )


def progress_curve(outcomes: Sequence[Outcome], budget: float) -> ProgressCurve:
    """Return the curve by the scores that the search saw; who misses the budget adds nothing."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.number)
    accuracies = [o.scores.accuracy for o in ordered if o.scores]
    reference = (min(accuracies, default=0.0), budget)
    front: list[tuple[float, float]] = []
    areas: list[float] = []
    for outcome in ordered:
        scores = outcome.scores
        if scores and scores.upper_ms <= budget:
            front = _kept(front, (scores.accuracy, scores.latency_ms))
        areas.append(area(front, reference))
    numbers = tuple(o.number for o in ordered)
    return ProgressCurve(numbers=numbers, areas=tuple(areas), reference=reference)


def _kept(front: list[tuple[float, float]], new: tuple[float, float]) -> list[tuple[float, float]]:
    """The points that no other one of them beats."""
    if any(accuracy >= new[0] and latency <= new[1] for accuracy, latency in front):
        return front
    return [new, *(point for point in front if point[0] > new[0] or point[1] < new[1])]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Trials, or longer trainings, that failed for one reason."""

    reason: str
    what: str
    names: list[str]

    @property
    def which(self) -> str:
        """The first of them."""
        rest = len(self.names) - _MOST_NAMED
        return ", ".join(self.names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


class ReportModel:
    """What is shown of a run, finished or not; each part is computed when it is first asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.folder = run.folder
        self.options = run.options
        self.budget = run.options.limit  # in `unit`
        self.unit: Unit = run.options.unit
        self.kind: AccuracyKind = run.estimator.kind

    @cached_property
    def networks(self) -> list[Network]:
        """Every network with scores and a latency, the fastest first."""
        return [network_of(candidate) for candidate in self._run.candidates()]

    @cached_property
    def front(self) -> list[Network]:
        """The networks that the run recommends."""
        return [network for network in self.networks if network.on_front]

    @cached_property
    def named(self) -> list[Network]:
        """FasterNet T0 to L on the same device."""
        return [network_of(candidate) for candidate in self._run.named()]

    @cached_property
    def view(self) -> FrontView:
        """What the figure of the front shows."""
        return view_of(self.networks, self.named, self.budget, self.unit)

    @property
    def devices(self) -> list[str]:
        """The names of the devices."""
        return [target.device for target in self.options.targets]

    @property
    def title(self) -> str:
        """What the run is about."""
        targets = self.options.targets
        budgets = [f"{format_ms(target.budget_ms)} ms on {target.device}" for target in targets]
        return f"Networks within {' and '.join(budgets)}"

    @property
    def description(self) -> str:
        """What the devices are."""
        return self._run.device.description

    @property
    def device_lines(self) -> str:
        """What the devices are; of two, one a line."""
        places = places_of(self._run.device)
        if len(places) != 2:
            return self.description
        return "\n".join(f"{place.name}: {place.description}" for place in places)

    @property
    def predicted(self) -> bool:
        """Whether latencies of a device come from a profile."""
        return any(place.source == "predicted" for place in places_of(self._run.device))

    @property
    def state(self) -> str:
        """How far the run is."""
        done, total = len(self._run.study.outcomes()), self.options.trials
        if self._run.study.growing:
            return f"{done} of {total} trials are done; the run is still going."
        if done < total:
            return f"{done} of {total} trials are done; `fasternas search --resume` goes on."
        return f"All {total} trials are done."

    @cached_property
    def calibrations(self) -> list[CalibrationView]:
        """The predictor held against the clock, on each device that has one."""
        return [
            CalibrationView(
                device=found.device,
                description=found.description,
                rows=compared(found.prediction, found.measured),
            )
            for found in self._run.calibrations()
        ]

    @cached_property
    def progress(self) -> ProgressCurve:
        """How the hypervolume grew."""
        outcomes = [outcome for _, outcome in self._run.study.outcomes()]
        return progress_curve(outcomes, self.budget)

    @property
    def progress_words(self) -> str:
        """When most of the hypervolume was reached; nothing if nothing was."""
        return self.progress.words(self.kind, self.unit)

    @cached_property
    def importance(self) -> ImportanceTable:
        """What each choice buys, by the accuracies after equal trainings: those of the trials."""
        run = self._run
        trials = [(config, o.scores.accuracy) for config, o in run.study.outcomes() if o.scores]
        bases = [network.config for network in self.front]
        ranked = []
        if run.predict_ms(bases) is not None:
            ranked = rank_choices(
                run.space,
                trials,
                lambda configs: run.predict_ms(configs) or [],
                bases=bases,
                scores=None if self.kind == "proxy" else proxy_scores,
            )
        return ImportanceTable(
            choices=ranked,
            kind=self.kind,
            step=step_for(self.budget),
            trials=min(len(trials), MOST),
            unit=self.unit,
        )

    @cached_property
    def failures(self) -> list[Failure]:
        """What failed, the most frequent reason first."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        numbers = {}
        for config, outcome in self._run.study.outcomes():
            numbers[config] = outcome.number
            if outcome.scores is None:
                found["trial", outcome.error or "unknown"].append(str(outcome.number))
        for config, trainings in self._run.study.trainings.items():
            for epochs, training in trainings.items():
                if training.accuracy is None:
                    name = f"{numbers.get(config, '?')} at {epochs} epochs"
                    found["longer training", training.error or "unknown"].append(name)
        ordered = sorted(found.items(), key=lambda item: -len(item[1]))
        return [Failure(what=what, reason=why, names=names) for (what, why), names in ordered]

    @cached_property
    def remarks(self) -> list[str]:
        """What else was not as expected."""
        measured = self._run.study.measurements.values()
        unstable = sum(m.unstable for m in measured)
        words = (
            f"{unstable} of {len(measured)} timings stayed unstable: their intervals are wider "
            "than \u00b12 %, or processes contradicted one another."
        )
        return [words] * bool(unstable) + list(self._record.get("remarks", []))

    @cached_property
    def machine(self) -> dict[str, object]:
        """Facts of the machine, and versions."""
        machine = dict(self._record.get("machine", {}))
        return {**machine, **machine.pop("versions", {})}

    @cached_property
    def _record(self) -> dict[str, Any]:
        return dict(read_run(self.folder))

    @cached_property
    def notes(self) -> list[str]:
        """What is to be said under the table of the front."""
        lines = [HOW_TO_ATTACH] * self.predicted
        latencies = self._run.study.measurements.values()
        timed = [m for latency in latencies for m in _on_clocks(latency)]
        cached = sum(m.context.cached for m in timed)
        if cached:
            lines.append(
                f"{cached} of {len(timed)} latencies were measured by earlier runs; --fresh "
                "times them again."
            )
        lines += [*self._backend_notes(), *self._memory_notes()]
        if failed := self._run.failed():
            trials = f"{len(failed)} of {self.options.trials}"
            lines.append(f"{trials} trials failed; the first: {failed[0]}")
        lines += self._missing_notes()
        if self.front and self.kind == "proxy":
            lines.append(
                "The score is training-free (T0 has 100, T2 200): it ranks, it is no accuracy."
            )
        return lines

    def _missing_notes(self) -> list[str]:
        """What ended without a result; what a search that goes on has yet to do is not missing."""
        run = self._run
        numbers = self.progress.numbers
        gaps = 0 if run.study.growing else max(numbers, default=-1) + 1 - len(numbers)
        trials = max(run.lost, gaps)
        lost = {
            f"{trials} of {self.options.trials} trials": trials,
            f"{run.lost_trainings} longer trainings": run.lost_trainings,
        }
        return [
            f"{what} have no result, as their workers were lost or the search was ended; --resume "
            "tries them again."
            for what, count in lost.items()
            if count
        ]

    def _backend_notes(self) -> list[str]:
        """What is to be known where there is more than fp32, or a choice."""
        runtime, precision = self.options.runtime, self.options.precision
        choice = "," in runtime + precision
        lines = [f"Each network is in the fastest of {runtime} at {precision}."] * choice
        lower = [(c, words) for c in self.front if (words := _lower_precisions(c))]
        if not lower:
            return lines
        precisions = " and ".join(sorted({word for _, words in lower for word in words}))
        if self.kind != "trained":
            return [
                *lines,
                f"The {NUMBER[self.kind]} is that of fp32; what {precisions} costs is not known "
                "before `fasternas train` or `fasternas export --data` has measured it.",
            ]
        lost = sorted(c.fp32_accuracy - c.accuracy for c, _ in lower)
        lines.append(
            f"Accuracies in {precisions} are those of the files, which are {-lost[-1]:+.2f} to "
            f"{-lost[0]:+.2f} points from fp32."
        )
        files = [self._run.study.files.get(c.config, {}).values() for c, _ in lower]
        errors = [found.error for each in files for found in each if found.error]
        if errors:
            lines.append(
                f"{len(errors)} of these files could not be judged here and count as in fp32; the "
                f"first: {errors[0]}"
            )
        return lines

    def _memory_notes(self) -> list[str]:
        try:
            piece = (self.folder / CHECKPOINTS / SMALL_BATCHES).read_text().strip()
        except OSError:
            return []
        return [f"Memory was short: batches were taken in pieces, of {piece} images at the least."]


def _on_clocks(latency: Latency) -> list[Latency]:
    return [one for _, one in latency.on_each if one.source == "measured"]


def _lower_precisions(network: Network) -> set[str]:
    """The precisions below fp32 in which a network was timed."""
    timed = [one for one in on_devices(network.readings) if one.source == "measured"]
    return {one.precision for one in timed} - {"fp32"}
