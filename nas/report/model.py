"""Everything that the tables, the figures and the page show of a run, computed once.

Only this module knows how a run and its networks keep what is shown.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from nas.devices import LatencyModels, descriptions, file_name, fit_models, have_clock
from nas.estimators import CHECKPOINTS, estimated_scores
from nas.pipeline import Run
from nas.quantities import format_ms, limit_words
from nas.report.figures import (
    CalibrationView,
    ProgressCurve,
    calibration_figure,
    compared,
    progress_curve,
)
from nas.report.front import FrontView, front_figure, view_of
from nas.report.importance import (
    AccuracyModels,
    ImportanceTable,
    rank_choices,
    without_tenths,
)
from nas.report.ingredients import EffectTable, effects_of
from nas.report.sheet import save
from nas.report.tables import (
    NUMBER,
    Network,
    Unit,
    config_comment,
    csv_text,
    network_of,
    on_devices,
)
from nas.study.journal import longest
from nas.study.store import FRONT, read_run
from predictors.accuracy import AccuracyKind
from predictors.devices.device import HOW_TO_ATTACH, DeviceSpec
from predictors.measurement import worst_ratio
from predictors.training.estimators import SMALL_BATCHES
from predictors.training.evaluate import ValidationSplit, chance_of_best
from predictors.training.recipe import rungs
from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import save_config
from search_spaces.io import atomic_write, listed

_MOST_NAMED = 12  # failures


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Trials, or longer trainings, that failed for one reason."""

    reason: str
    what: str
    names: list[str]

    @property
    def which(self) -> str:
        rest = len(self.names) - _MOST_NAMED
        return ", ".join(self.names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


class ReportModel:
    """What is shown of a run, finished or not; each part is computed when it is first asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.folder = run.folder
        self.options = run.options
        budgets_ms = list(run.budgets_ms.values())
        self.unit: Unit = "ms" if len(budgets_ms) == 1 else "ratio"
        self.budget = budgets_ms[0] if len(budgets_ms) == 1 else 1.0  # in `unit`
        self.kind: AccuracyKind = run.estimator.kind

    @cached_property
    def networks(self) -> list[Network]:
        """Every network with scores and a latency, the fastest first."""
        return [network_of(one, self.validation) for one in self._run.candidates()]

    @property
    def validation(self) -> ValidationSplit | None:
        """What judges trained networks, if it was kept."""
        known = self._record.get("validation")
        return None if known is None or self.kind != "trained" else ValidationSplit(**known)

    @cached_property
    def front(self) -> list[Network]:
        return [network for network in self.networks if network.on_front]

    @cached_property
    def named(self) -> list[Network]:
        """FasterNet T0 to L on the same device."""
        return [network_of(candidate) for candidate in self._run.named()]

    @cached_property
    def view(self) -> FrontView:
        view = view_of(self.networks, self.named, self.budget, self.unit)
        return replace(view, limits=self.options.limits)

    @property
    def devices(self) -> list[str]:
        return list(self._run.devices)

    @property
    def title(self) -> str:
        pairs = self._run.budgets_ms.items()
        bounds = [f"{format_ms(budget_ms)} ms on {name}" for name, budget_ms in pairs]
        bounds += [limit_words(self.options.limits)] * bool(self.options.limits.given)
        return f"Networks within {' and '.join(bounds)}"

    @property
    def description(self) -> str:
        return "; ".join(descriptions(self._run.devices))

    @property
    def device_lines(self) -> str:
        """What the devices are; of two, one a line."""
        lines = descriptions(self._run.devices)
        return ("\n" if len(lines) == 2 else "; ").join(lines)

    @property
    def predicted(self) -> bool:
        """Whether latencies of a device come from a profile."""
        return any(device.source == "predicted" for device in self._run.devices.values())

    @property
    def state(self) -> str:
        done, total = len(self._run.study.outcomes()), self.options.trials
        if self._run.study.growing:
            return f"{done} of {total} trials are done; the run is still going."
        if done < total and self._record.get("exhausted") == total:
            return f"{done} of {total} trials are done: the space has no more networks for them."
        if done < total:
            return f"{done} of {total} trials are done; `fasternas search --resume` goes on."
        return f"All {total} trials are done."

    @cached_property
    def calibrations(self) -> list[CalibrationView]:
        """The predictor held against the clock, on each device that has one."""
        views = []
        for c in self._run.calibrations():
            rows = compared(c.prediction, c.measured)
            views.append(CalibrationView(device=c.device, description=c.description, rows=rows))
        return views

    @cached_property
    def progress(self) -> ProgressCurve:
        outcomes = [outcome for _, outcome in self._run.study.outcomes()]
        budgets_ms = self._run.budgets_ms
        seen = {o.number: o.scores.objectives(budgets_ms) if o.scores else None for o in outcomes}
        return progress_curve(seen)

    @property
    def progress_words(self) -> str:
        """When most of the hypervolume was reached; nothing if nothing was."""
        one = f"{format_ms(self.budget)} ms"
        return self.progress.words(self.kind, one if self.unit == "ms" else "every budget")

    @cached_property
    def importance(self) -> ImportanceTable:
        """What each choice buys, by the accuracies after equal trainings: those of the trials."""
        models, ranked = self._accuracies, []
        latencies = self._run.models(len(self._run.study.measurements))
        if models and latencies:
            predict = partial(self._predict, latencies)
            ranked = rank_choices(self._run.space, models, predict, bases=self._bases)
        return ImportanceTable(
            choices=ranked,
            kind=self.kind,
            trials=len(models.trials) if models else 0,
            unit=self.unit,
        )

    @cached_property
    def ingredients(self) -> EffectTable:
        """What the ingredients of the blocks change, by the same accuracies."""
        run, models, found = self._run, self._accuracies, []
        blind = self.kind == "estimated"
        timed = list(run.study.measurements.items()) * have_clock(run.devices)
        if models and (whole := run.models(len(run.study.measurements))):
            parts = (
                fit_models(run.space, run.devices, run.budgets_ms, part)
                for part in without_tenths(timed)
                if timed
            )
            predict = [partial(self._predict, one) for one in (whole, *parts) if one]
            found = effects_of(run.space, models, predict, bases=self._bases, blind=blind)
        return EffectTable(
            effects=found,
            kind=self.kind,
            trials=len(models.trials) if models else 0,
            timed=len(timed),
            unit=self.unit,
        )

    @property
    def _bases(self) -> list[FasterNetConfig]:
        return [network.config for network in self.front]

    @cached_property
    def _accuracies(self) -> AccuracyModels[FasterNetConfig] | None:
        """Models of the trials' accuracies, all after the same training."""
        outcomes = self._run.study.outcomes()
        trials = [(config, o.scores.accuracy) for config, o in outcomes if o.scores]
        scores = estimated_scores(self._run.options)
        return AccuracyModels.fit(self._run.space, trials, scores=scores)

    def _predict(self, models: LatencyModels, configs: Sequence[FasterNetConfig]) -> list[float]:
        """The predicted latencies or, of several devices, worst ratios."""
        latencies = models.latencies(configs)
        if self.unit == "ms":
            return [one.median_ms for each in latencies for one in each.by_device.values()]
        return [worst_ratio(each, self._run.budgets_ms).median for each in latencies]

    @cached_property
    def failures(self) -> list[Failure]:
        """What failed, the most frequent reason first."""
        by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
        numbers = {}
        for config, outcome in self._run.study.outcomes():
            numbers[config] = outcome.number
            if outcome.scores is None:
                by_reason["trial", outcome.error or "unknown"].append(str(outcome.number))
        for config, trainings in self._run.study.trainings.items():
            for epochs, training in trainings.items():
                if training.accuracy is None:
                    name = f"{numbers.get(config, '?')} at {epochs} epochs"
                    by_reason["longer training", training.error or "unknown"].append(name)
        failures = [Failure(what=what, reason=why, names=n) for (what, why), n in by_reason.items()]
        return sorted(failures, key=lambda failure: -len(failure.names))

    @cached_property
    def remarks(self) -> list[str]:
        measured = self._run.study.measurements.values()
        unstable = sum(m.unstable for m in measured)
        words = (
            f"{unstable} of {len(measured)} timings stayed unstable: their intervals are wider "
            "than \u00b12 %, or processes contradicted one another."
        )
        return [words] * bool(unstable) + list(self._record.get("remarks", []))

    @cached_property
    def machine(self) -> dict[str, object]:
        machine = dict(self._record.get("machine", {}))
        devices = machine.pop("devices", {}).items()
        described = {name: facts["description"] for name, facts in devices}
        return {**described, **machine, **machine.pop("versions", {})}

    @cached_property
    def _record(self) -> dict[str, Any]:
        return dict(read_run(self.folder))

    @cached_property
    def notes(self) -> list[str]:
        """What is to be said under the table of the front."""
        lines = [HOW_TO_ATTACH] * self.predicted
        latencies = self._run.study.measurements.values()
        each = [m for one in latencies for m in one.by_device.values()]
        timed = [m for m in each if m.source == "measured"]
        cached = sum(m.context.cached for m in timed)
        if cached:
            lines.append(
                f"{cached} of {len(timed)} latencies were measured by earlier runs; --fresh "
                "times them again."
            )
        lines += [*self._backend_notes(), *self._memory_notes(), *self._limit_notes()]
        if failed := self._run.failed():
            trials = f"{len(failed)} of {self.options.trials}"
            lines.append(f"{trials} trials failed; the first: {failed[0]}")
        lines += self._missing_notes()
        lines += self._guess_notes()
        if self.front and self.kind == "estimated":
            how = "--accuracy train" if self.options.data else "--data"
            lines.append(
                "Accuracies are ImageNet-1k top-1, estimated and not trained; networks are ranked "
                f"by the lower ends of their 90 % intervals. With {how} they are trained."
            )
        if self.front and self.kind == "score":
            whose = self.options.accuracy
            lines.append(f"The score is training-free (by {whose}): it ranks, it is no accuracy.")
        return lines

    def _limit_notes(self) -> list[str]:
        """What the networks keep beside the budget, and how that is known."""
        limits = self.options.limits
        known = {
            "file_bytes": f"file sizes are estimates, of ONNX in {limits.precision}",
            "memory_bytes": "memory is that of activations in fp32, computed",
        }
        how = [words for name, words in known.items() if name in limits.given]
        words = f"Every network keeps the limits: at most {limit_words(limits)}"
        return ["; ".join([words, *how]) + "."] if limits.given else []

    def _guess_notes(self) -> list[str]:
        if self.validation is None or not self.front:
            return []
        known = self.validation.largest_class
        words = f"Always guessing the largest class gets {known:.2f} % of the validation images"
        best = max(network.accuracy for network in self.front)
        count = len(self.progress.numbers)
        least, _ = self.validation.interval(best, among=max(count, 1))
        if best <= known:
            words += "; no network here does better"
        elif least <= known:
            words += f"; the best of {count} networks may do better by chance alone"
        return [
            f"{words}.",
            *self._certainty_notes(self.validation.images),
            *self._length_notes(),
        ]

    def _length_notes(self) -> list[str]:
        """Which networks of the front were trained less than others, and so are less accurate."""
        if self.options.accuracy != "train":
            return []
        first, whole = rungs(self.options.epochs)[0], self.options.epochs
        names = defaultdict[int, list[str]](list)
        for network in self.front:
            further = longest(self._run.study.trainings.get(network.config, {}))
            names[further.epochs if further else first].append(network.name)
        return [
            f"{listed(shorter)} had {epochs} of {whole} epochs, and may well be more accurate "
            "after all of them."
            for epochs, shorter in sorted(names.items())
            if epochs < max(names)
        ]

    def _certainty_notes(self, images: int) -> list[str]:
        """How sure it is that the best of the front is the best, as far as the images tell."""
        if len(self.front) < 2:
            return []
        best = max(self.front, key=lambda network: network.accuracy)
        sure = chance_of_best([network.accuracy for network in self.front], images)
        return [
            f"{best.name} is the most accurate of the front with a probability of {sure:.0%}, as "
            f"far as {images:,} validation images tell; another seed may change that."
        ]

    def _missing_notes(self) -> list[str]:
        """What ended without a result; what a search that goes on has yet to do is not missing."""
        run, numbers = self._run, self.progress.numbers
        gaps = 0 if run.study.growing else max(numbers, default=-1) + 1 - len(numbers)
        trials = max(run.lost, gaps)
        missing = [f"{trials} of {self.options.trials} trials"] * bool(trials)
        missing += [f"{run.lost_trainings} longer trainings"] * bool(run.lost_trainings)
        why = (
            f" (the first: {run.lost_because})"
            if run.lost_because
            else ", as a worker, a disk or a package failed, or the search was ended"
        )
        return [f"{what} have no result{why}; --resume tries them again." for what in missing]

    def _backend_notes(self) -> list[str]:
        """What is to be known where there is more than fp32, or a choice."""
        lines = [
            f"Each network is in the fastest of {_backend_words(device)}."
            for device in self.options.devices
            if len(device.backends) > 1
        ]
        lower = [c for c in self.front if _lower_precisions(c)]
        if not lower:
            return lines
        precisions = " and ".join(sorted(set().union(*map(_lower_precisions, lower))))
        if self.kind != "trained":
            return [
                *lines,
                f"The {NUMBER[self.kind]} is that of fp32; what {precisions} costs is not known "
                "before `fasternas train` or `fasternas export --data` has measured it.",
            ]
        lost = sorted(c.fp32_accuracy - c.accuracy for c in lower)
        lines.append(
            f"Accuracies in {precisions} are those of the files, which are {-lost[-1]:+.2f} to "
            f"{-lost[0]:+.2f} points from fp32."
        )
        files = [self._run.study.files.get(c.config, {}).values() for c in lower]
        errors = [file.error for each in files for file in each if file.error]
        if errors:
            lines.append(
                f"{len(errors)} of these files could not be evaluated here and count as in fp32; "
                f"the first: {errors[0]}"
            )
        return lines

    def _memory_notes(self) -> list[str]:
        try:
            smallest = (self.folder / CHECKPOINTS / SMALL_BATCHES).read_text().strip()
        except OSError:
            return []
        words = "Memory was short: batches were taken in pieces, of {} images at the least."
        return [words.format(smallest)]


def _backend_words(device: DeviceSpec) -> str:
    runtimes = dict.fromkeys(backend.runtime for backend in device.backends)
    precisions = dict.fromkeys(backend.precision for backend in device.backends)
    return f"{', '.join(runtimes)} at {', '.join(precisions)}"


def _lower_precisions(network: Network) -> set[str]:
    """The precisions below fp32 in which a network was timed."""
    timed = [one for one in on_devices(network.readings) if one.source == "measured"]
    return {one.run_in.precision for one in timed if one.run_in} - {"fp32"}


def write_report(model: ReportModel) -> None:
    """Write pareto.csv, pareto.png, calibration.png and configs/ into the run's folder."""
    folder = model.folder / "configs"
    folder.mkdir(exist_ok=True)
    paths = {folder / f"{network.name}.yaml": network for network in model.front}
    for path, network in paths.items():
        save_config(network.config, path, comment=config_comment(network))
    atomic_write(model.folder / FRONT, csv_text(model.front, model.devices))
    for stale in set(folder.glob("trial-*.yaml")) - set(paths):
        stale.unlink()  # the table of before spoke of it
    save(front_figure(model.view, device=model.device_lines), model.folder / "pareto.png")
    for view in model.calibrations:
        device = "" if len(model.devices) == 1 else f"-{file_name(view.device)}"
        save(calibration_figure(view), model.folder / f"calibration{device}.png")


def closing_words(model: ReportModel) -> list[str]:
    """Return what is to be said under the table."""
    return [f"{model.folder}/pareto.png, pareto.csv and configs/ hold the front.", *model.notes]
