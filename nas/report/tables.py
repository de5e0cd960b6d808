"""What a run hands over: the table, the configs and the plots in its folder."""

import csv
import io
from collections.abc import Sequence

from nas.candidate import Candidate
from nas.estimating import CHECKPOINTS
from nas.quantities import format_count
from nas.report.figures import plot_calibration, plot_front
from nas.report.words import (
    accuracy_number,
    cells,
    columns,
    forms_differ,
    headings,
    number_of,
    sentence,
    values,
)
from nas.run import Run
from nas.study.file_accuracies import lower_forms
from nas.study.targets import file_name
from predictors.devices.device import HOW_TO_ATTACH
from predictors.devices.joint import places_of
from predictors.training.short_training import SMALL_BATCHES
from search_spaces.formats import save_config
from search_spaces.io import atomic_write

HEADINGS = {"proxy": "score", "trained": "accuracy %", "supernet": "shared-weights likelihood %"}
_WORDS = {"proxy": "training-free score", "trained": "accuracy",
          "supernet": "likelihood of the labels in % with shared weights"}  # fmt: skip


def write_report(run: Run) -> list[Candidate]:
    """Write pareto.csv, pareto.png, calibration.png and configs/ and return the front.

    Raises:
        OSError: if a file cannot be written; the files of before are then as they were.
    """
    candidates = run.candidates()
    front = [c for c in candidates if c.on_front]
    folder = run.folder / "configs"
    folder.mkdir(exist_ok=True)
    for candidate in front:
        save_config(candidate.config, folder / f"{candidate.name}.yaml",
                    comment=_sentence(candidate))  # fmt: skip
    devices = [target.device for target in run.options.targets]
    atomic_write(run.folder / "pareto.csv", _csv(front, devices))
    for stale in set(folder.glob("trial-*.yaml")) - {folder / f"{c.name}.yaml" for c in front}:
        stale.unlink()  # the table of before spoke of it
    plot_front(run.folder / "pareto.png", candidates, named=run.named(),
               budget_ms=run.options.limit, device=_lines(run), unit=run.options.unit)  # fmt: skip
    for found in run.calibrations():
        plot_calibration(run.folder / _calibration_file(found.device, devices), found.prediction,
                         found.measured, device=found.description)  # fmt: skip
    return front


def rows(candidates: Sequence[Candidate]) -> list[dict[str, str | float | int | bool]]:
    """Return the candidates as flat records, for JSON and CSV."""
    return [
        {"config": f"configs/{c.name}.yaml", "accuracy": c.accuracy,
         "accuracy_kind": c.accuracy_kind, "fp32_accuracy": _fp32(c), **values(c.latency),
         "macs": c.macs, "params": c.params}
        for c in candidates
    ]  # fmt: skip


def table(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read."""
    kinds = {c.accuracy_kind for c in candidates} or {"proxy"}
    told = [c.latency for c in candidates]
    header = ["config", HEADINGS[kinds.pop()], *headings(told), "MACs", "params"]
    lines = [
        [c.name, accuracy_number(c.accuracy, c.accuracy_kind),
         *cells(c.latency, tell_form=forms_differ(told)), format_count(c.macs),
         format_count(c.params)]
        for c in candidates
    ]  # fmt: skip
    return header, lines


def closing_words(run: Run, front: Sequence[Candidate]) -> list[str]:
    """Return what is to be said under the table."""
    lines = [f"{run.folder}/pareto.png, pareto.csv and configs/ hold the front."]
    if any(place.source == "predicted" for place in places_of(run.device)):
        lines.append(HOW_TO_ATTACH)
    timed = [m for each in run.study.measurements.values() for _, m in each.on_each
             if m.source == "measured"]  # fmt: skip
    recalled = sum("recalled" in m.context for m in timed)
    if recalled:
        lines.append(f"{recalled} of {len(timed)} latencies were measured by earlier runs; "
                     "--fresh times them again.")  # fmt: skip
    lines += [*_forms(run, front), *_memory(run)]
    if failed := run.failed():
        lines.append(f"{len(failed)} of {run.options.trials} trials failed; the first: {failed[0]}")
    lines += _missing(run)
    if any(c.accuracy_kind == "proxy" for c in front):
        lines.append(
            "The score is training-free (T0 has 100, T2 200): it ranks, it is no accuracy."
        )
    return lines


def _missing(run: Run) -> list[str]:
    """What ended without a result; what a search that goes on has not got to yet is not missing."""
    numbers = {outcome.number for _, outcome in run.study.outcomes()}
    gaps = 0 if run.study.growing else max(numbers, default=-1) + 1 - len(numbers)
    told = {f"{max(run.lost, gaps)} of {run.options.trials} trials": max(run.lost, gaps),
            f"{run.lost_trainings} longer trainings": run.lost_trainings}  # fmt: skip
    return [f"{what} have no result, as their workers were lost or the search was ended; --resume "
            "tries them again." for what, count in told.items() if count]  # fmt: skip


def _forms(run: Run, front: Sequence[Candidate]) -> list[str]:
    """What is to be known where there is more than fp32, or a choice."""
    lines = []
    if "," in run.options.runtime + run.options.precision:
        lines.append(f"Each network is in the fastest of {run.options.runtime} at "
                     f"{run.options.precision}.")  # fmt: skip
    lower = [c for c in front if lower_forms(c.latency)]
    if not lower:
        return lines
    words = " and ".join(sorted({form[1] for c in lower for form in lower_forms(c.latency)}))
    kind = lower[0].accuracy_kind
    if kind != "trained":
        return [
            *lines,
            f"The {number_of(kind)} is that of fp32; what {words} costs is not known before "
            "`fasternas train` or `fasternas export --data` has measured it.",
        ]
    lost = sorted(_fp32(c) - c.accuracy for c in lower)
    lines.append(f"Accuracies in {words} are those of the files, which are {-lost[-1]:+.2f} to "
                 f"{-lost[0]:+.2f} points from fp32.")  # fmt: skip
    errors = [found.error for c in lower for found in run.study.files.get(c.config, {}).values()
              if found.error]  # fmt: skip
    if errors:
        lines.append(f"{len(errors)} of these files could not be judged here and count as in fp32; "
                     f"the first: {errors[0]}")  # fmt: skip
    return lines


def _fp32(candidate: Candidate) -> float:
    known = candidate.fp32_accuracy
    return candidate.accuracy if known is None else known


def _memory(run: Run) -> list[str]:
    try:
        piece = (run.folder / CHECKPOINTS / SMALL_BATCHES).read_text().strip()
    except OSError:
        return []
    return [f"Memory was short: batches were taken in pieces, of {piece} images at the least."]


def _sentence(c: Candidate) -> str:
    number = accuracy_number(c.accuracy, c.accuracy_kind)
    return f"{_WORDS[c.accuracy_kind]} {number}; {sentence(c.latency)}"


def _lines(run: Run) -> str:
    """What the devices are; of two, one a line."""
    places = places_of(run.device)
    if len(places) != 2:
        return run.device.description
    return "\n".join(f"{place.name}: {place.description}" for place in places)


def _calibration_file(device: str, devices: Sequence[str]) -> str:
    """Where the predictor's plot goes: of several devices each has its own."""
    return "calibration.png" if len(devices) == 1 else f"calibration-{file_name(device)}.png"


def _csv(front: Sequence[Candidate], devices: Sequence[str]) -> str:
    text = io.StringIO()
    names = (
        "config",
        "accuracy",
        "accuracy_kind",
        "fp32_accuracy",
        *columns(devices),
        "macs",
        "params",
    )
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(front))
    return text.getvalue()
