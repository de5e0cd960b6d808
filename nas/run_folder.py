"""Run folders: begun, gone on with, given up."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from nas.devices import Devices, device_facts, open_devices, recorded_devices, remarks
from nas.estimators import CHECKPOINTS, check_counts
from nas.pipeline import TUNE, Run
from nas.relatives import RECORD as CALIBRATION, read_record, write_record
from nas.search.feasibility import check_limits
from nas.search.searchers import check_searcher
from nas.study import journal
from nas.study.journal import RECORD, TRAININGS, Entry
from nas.study.options import SearchOptions
from nas.study.store import (
    MEASUREMENTS,
    RUN,
    TRIALS,
    Study,
    check_trials,
    from_optuna,
    hold,
    read_run,
    write_run,
)
from predictors.data.datasets import DataCounts, is_path_of_data, is_set_name, located
from predictors.training.evaluate import ValidationSplit
from search_spaces.fasternet import SPACES
from search_spaces.io import make_folders, remove_empty, shown
from search_spaces.space import Genes

NOTHING = 2  # timings with which a run finds that its budget is out of reach


def start_run(
    folder: Path,
    options: SearchOptions,
    *,
    fresh: bool = False,
    validation: ValidationSplit | None = None,
    counts: DataCounts | None = None,
) -> Run:
    """Begin a study in a new folder, or in one without a study; nothing is left if that fails.

    What was measured before is not timed again, unless it is to be `fresh`. `validation` is
    what judges trained networks; `counts` are those of the data, by which they are known again.
    """
    devices = open_devices(options.devices, fresh=fresh)
    _refuse_wrong(options)
    new = not (folder / RUN).exists() and not _has_trials(folder)
    made = make_folders(folder)
    lock = None
    try:
        lock = hold(folder)
        if not new:
            raise ValueError(
                f"`out` must be a new folder, but {folder} holds a study. "
                "Continue that one with --resume or name another folder."
            )
        write_run(
            folder,
            {
                "options": options.as_json(),
                "machine": machine_facts(devices),
                "validation": None if validation is None else asdict(validation),
                "data": None if counts is None else asdict(counts),
                **places(folder, options),
                **_choices(options),
            },
        )
        run = Run(folder, options, devices, lock=lock)
    except BaseException:
        if new and lock is not None:  # then they are ours
            for name in (RUN, TRIALS):
                (folder / name).unlink(missing_ok=True)
        remove_empty(made)
        if lock is not None:
            lock.close()
        raise
    run.made, run.begun = made, True
    return run


def _refuse_wrong(options: SearchOptions) -> None:
    """Refuse wrong fields, limits and searchers, before anything is written."""
    check_limits(options.open_space(), options.limits, options.seed)
    check_searcher(options.searcher)


def _has_trials(folder: Path) -> bool:
    """A journal without any may be left of a command that was killed before it had begun."""
    return (folder / TRIALS).exists() and (folder / TRIALS).stat().st_size > 0


def resume_run(
    folder: Path, options: SearchOptions | None = None, *, repair: bool = False, fresh: bool = False
) -> Run:
    """Go on with the study of a folder; more `trials` than it was begun with extend it.

    `options`, if given, must otherwise be its own, and so must the data of a study that trains.
    `repair` drops last lines that were cut off.
    """
    stored = read_run(folder)
    kept = SearchOptions.from_json(stored["options"])
    _check_space(kept, stored, folder)
    check_trials(folder)
    asked = options or kept
    extended = _extended(kept, asked, folder)
    moved = located(asked.data) if _is_moved(kept, asked) else ""
    if extended.accuracy != "estimate" and (counts := stored.get("data")):
        check_counts(moved or place_of_data(folder), DataCounts(**counts))
    devices = open_devices(extended.devices, fresh=fresh)
    _check_same(devices, stored, folder)
    lock = hold(folder)
    try:
        if repair:
            repair_run(folder)
        if moved:
            stored = {**stored, "folder": str(folder.absolute()), "paths": {"data": moved}}
            write_run(folder, {**stored, "options": extended.as_json()})
        elif extended != kept:
            write_run(folder, {**stored, "options": extended.as_json()})
        return Run(folder, _with_place(folder, extended), devices, lock=lock)
    except BaseException:
        lock.close()
        raise


def read_only_run(folder: Path, *, repair: bool = False) -> Run:
    """Open the study of a folder to look at it, also while a search goes on, or elsewhere."""
    stored = read_run(folder)
    options = SearchOptions.from_json(stored["options"])
    _check_space(options, stored, folder)
    check_trials(folder)
    if repair:
        with hold(folder):
            repair_run(folder)
    devices = recorded_devices(options.devices, facts_of(stored))
    return Run(folder, options, devices, reading=True)


def _choices(options: SearchOptions) -> dict[str, str]:
    """What run.json keeps of a space that is not ours: trials are numbers of its choices."""
    return {} if options.space in SPACES else {"choices": repr(options.open_space())}


def _check_space(options: SearchOptions, stored: Entry, folder: Path) -> None:
    """Refuse a space that is not as it was when the study began."""
    if "choices" in stored and stored["choices"] != repr(options.open_space()):
        raise ValueError(
            f"`space` must be as it was when the study in {folder} began, but {options.space} has "
            "changed since. Restore it, or begin another study."
        )


def places(folder: Path, options: SearchOptions) -> dict[str, object]:
    """Return where a run and its data lie: run.json keeps it beside the path as typed."""
    paths = {"data": located(options.data)} if options.data else {}
    return {"folder": str(folder.absolute()), "paths": paths}


def _with_place(folder: Path, options: SearchOptions) -> SearchOptions:
    """Return the options of a run with the path at which its data lie now."""
    return replace(options, data=options.data and place_of_data(folder))


def place_of_data(folder: Path) -> str:
    """Return where the data of a run lie; a set's name as it is, "" if it has none.

    That is where they lay or, where the run was moved, what lies so to it as they did; a run of
    before has the path only as it was typed.
    """
    stored = read_run(folder)
    typed, kept = str(stored["options"].get("data") or ""), stored.get("paths", {}).get("data")
    if not typed or is_set_name(typed) or (kept and not Path(kept).is_absolute()):
        return str(kept or located(typed))
    tried = [Path(kept)] if kept else []
    if kept and (before := stored.get("folder")):
        tried.append(Path(os.path.normpath(folder.absolute() / os.path.relpath(kept, before))))
    tried += [around / typed for around in (Path.cwd(), *folder.absolute().parents[:3])]
    found = next((place for place in tried if is_path_of_data(place)), None)
    if found is None:
        looked = ", ".join(dict.fromkeys(map(shown, tried)))
        raise ValueError(
            f"`data` of the run in {shown(folder)} must be where it was, but is not at {looked}. "
            "Move it back, or say where it is: --data PATH."
        )
    return str(found)


def _extended(kept: SearchOptions, options: SearchOptions, folder: Path) -> SearchOptions:
    """The options of the study with as many trials as are asked for."""
    for name, value in kept.spelled.items():
        given = options.spelled[name]
        if name == "data" and given and given != value:  # it may be typed in another way
            same = _is_moved(kept, options) or located(str(given)) == place_of_data(folder)
            given = value if same else given
        if name != "trials" and given != value:
            raise ValueError(
                f"`out` must hold this study, but the one in {folder} has {name} {value}, not "
                f"{given}. Only --trials may change, to more of them: name another folder."
            )
    if options.trials < kept.trials:
        raise ValueError(
            f"`trials` must be at least the {kept.trials} that the study in {folder} "
            f"has, but got {options.trials}. Leave it out."
        )
    return replace(kept, trials=options.trials)


def _is_moved(kept: SearchOptions, options: SearchOptions) -> bool:
    """Whether data are said to be at another place, under the name that they had."""
    before, now = Path(kept.data), Path(options.data)
    named = is_set_name(kept.data) or is_set_name(options.data)
    return not named and before != now and before.name == now.name and is_path_of_data(now)


def facts_of(stored: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the facts of the devices, by name, that a run's record holds."""
    facts: dict[str, dict[str, str]] = stored.get("machine", {}).get("devices", {})
    return facts


def _check_same(devices: Devices, stored: Mapping[str, Any], folder: Path) -> None:
    """Refuse to mix latencies of two machines, or of two versions of a runtime."""
    for name, facts in facts_of(stored).items():
        device, before = devices[name], facts["description"]
        if device.source == "measured" and before != device.description:
            raise ValueError(
                f"`device` must be the one that the study in {folder} was timed on ({before}), "
                f"but is {device.description}. Begin another."
            )


def repair_run(folder: Path) -> None:
    """Drop last lines that were cut off; who calls holds the folder."""
    for name in (TRIALS, MEASUREMENTS, TRAININGS, RECORD):
        journal.repair(folder / name)


def machine_facts(devices: Devices) -> dict[str, Any]:
    """Return what is needed to know the machine and the software again."""
    packages = ("fasternas", "torch", "onnxruntime", "optuna", "ray", "numpy")
    return {
        "devices": device_facts(devices),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "versions": {package: version(package) for package in packages},
    }


def keep_remarks(run: Run) -> None:
    """Write what the device had to say beside the facts of the machine; of resumed runs too.

    So is of a search that is over what trials it was asked for, if the space has fewer networks.
    """
    stored, trials = read_run(run.folder), run.options.trials
    known = list(dict.fromkeys([*stored.get("remarks", []), *remarks(run.devices)]))
    facts: dict[str, object] = {"remarks": known} if known else {}
    if len(run.study.outcomes()) < trials and not run.lost:
        facts["exhausted"] = trials
    if facts:
        write_run(run.folder, {**stored, **facts})


def give_up(run: Run) -> None:
    """Remove the files of a run that this command began and that found nothing, and its folders."""
    found = run.study.outcomes() or len(run.study.measurements) > NOTHING
    if found or (run.folder / CHECKPOINTS).exists() or not run.begun:
        return
    for name in (RUN, TRIALS, MEASUREMENTS, CALIBRATION):
        (run.folder / name).unlink(missing_ok=True)
    shutil.rmtree(run.folder / TUNE, ignore_errors=True)
    remove_empty(run.made)


# In which the runs may differ. To a training the seed is one of the things left to chance.
FREE = ("trials", "seed", "searcher")


@dataclass(frozen=True, kw_only=True)
class MergedRuns:
    """What a merged study holds; `repeated` trials were of a config that another one has."""

    trials: int
    repeated: int
    measurements: int


@dataclass(frozen=True, kw_only=True)
class _Source:
    folder: Path
    stored: Entry  # run.json
    options: SearchOptions
    study: Study


def merge_runs(folders: Sequence[Path], out: Path, *, repair: bool = False) -> MergedRuns:
    """Write the study of all these runs into a new folder; the runs stay as they are.

    Trials are numbered anew in the order of the runs. A config that several tried is kept once, and
    so are its scores and its latency: those of the first run that has them. The options are the
    first run's. `repair` drops last lines of the runs that were cut off.
    """
    _check_folders(folders, out)
    with ExitStack() as stack:
        sources = [_opened(folder, stack, repair=repair) for folder in folders]
        for source in sources[1:]:
            _check_alike(sources[0], source)
        with _new_folder(out) as unfinished:
            return _write(sources, unfinished)


def _check_folders(folders: Sequence[Path], out: Path) -> None:
    if len({folder.resolve() for folder in folders}) < max(len(folders), 2):
        raise ValueError(
            "`runs` must be two folders or more, each once, but got "
            f"{', '.join(map(str, folders))}."
        )
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise ValueError(f"`out` must be a new folder, but {out} is there. Name another.")


def _opened(folder: Path, stack: ExitStack, *, repair: bool) -> _Source:
    """Read a run, which nobody changes before the stack is left."""
    stored = read_run(folder)
    options = SearchOptions.from_json(stored["options"])
    check_trials(folder)
    if repair:
        with hold(folder):
            repair_run(folder)
    stack.enter_context(hold(folder, reading=True))
    _check_space(options, stored, folder)
    study = Study(folder, options.open_space(), options.budgets_ms, reading=True)
    return _Source(folder=folder, stored=stored, options=options, study=study)


def _check_alike(first: _Source, other: _Source) -> None:
    ours, theirs = (_identity(source) for source in (first, other))
    for name, value in ours.items():
        if theirs.get(name, value) != value:
            raise ValueError(
                f"`runs` must agree in {name}, but {first.folder} has {value} and {other.folder} "
                f"{theirs[name]}. Only {', '.join(FREE)} may differ."
            )


def _identity(source: _Source) -> dict[str, object]:
    """What must be equal, by name; the device's description tells machine and versions."""
    options = {k: v for k, v in source.options.spelled.items() if k not in FREE}
    facts = facts_of(source.stored)
    found = {**options, "the machine": "; ".join(one["description"] for one in facts.values())}
    if counts := source.stored.get("data"):
        found["the images of its data"] = "{train:,} + {validation:,}".format(**counts)
    return found


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`, and make it `out` once everything is in it."""
    made = make_folders(out.absolute().parent)
    unfinished = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}")
    try:
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        remove_empty(made)
        raise


def _write(sources: Sequence[_Source], folder: Path) -> MergedRuns:
    first = sources[0]
    trials, repeated = _trials(sources)
    study = Study(folder, first.options.open_space(), first.options.budgets_ms)
    try:
        study.add(trials)
        for source in sources:
            _add_results(source, study)
            _carry_checkpoints(source.folder, folder)
    finally:
        study.close()
    calibration = read_record(first.folder)
    if calibration is not None:  # its measurements come first
        write_record(folder, calibration)
    options = replace(first.options, trials=max(len(trials), 1)).as_json()
    remarks = dict.fromkeys(line for s in sources for line in s.stored.get("remarks", []))
    run = {**first.stored, "options": options, "merged_from": _origins(sources)}
    run.pop("exhausted", None)
    write_run(folder, {**run, "remarks": list(remarks)} if remarks else run)
    return MergedRuns(trials=len(trials), repeated=repeated, measurements=len(study.measurements))


def _trials(sources: Sequence[_Source]) -> tuple[list[FrozenTrial], int]:
    """The trials of all, each config once and numbered anew, and how many that left out."""
    found: dict[Genes, FrozenTrial] = {}
    total = 0
    for source in sources:
        for trial in source.study.trials():
            genes, outcome = from_optuna(trial)
            known = found.get(genes)
            if known is None or (known.values is None and outcome.scores is not None):
                origin = [str(source.folder), outcome.number]
                trial.user_attrs = {**trial.user_attrs, "merged_from": origin}
                found[genes] = trial
            total += 1
    for number, trial in enumerate(found.values()):
        trial.user_attrs = {**trial.user_attrs, "number": number}
    return list(found.values()), total - len(found)


def _add_results(source: _Source, study: Study) -> None:
    """Add the latencies, longer trainings and files' accuracies that the study does not have."""
    for config, latencies in source.study.measurements.items():
        if config not in study.measurements:
            study.keep_measurement(config, latencies)
    for config, by_epochs in source.study.trainings.items():
        for epochs, training in sorted(by_epochs.items()):
            known = study.trainings.get(config, {}).get(epochs)
            if known is None or (known.accuracy is None and training.accuracy is not None):
                study.keep_training(config, training)
    for config, by_backend in source.study.files.items():
        known_files = study.files.get(config, {})
        for backend in [backend for backend in by_backend if backend not in known_files]:
            study.keep_file(config, backend, by_backend[backend])


def _carry_checkpoints(source: Path, folder: Path) -> None:
    """Give the folder the run's checkpoints, as links where the disk is the same.

    Both folders replace such a file and never change one, so a link is as good as a copy.
    """
    for file in sorted((source / CHECKPOINTS).glob("*")):
        target = folder / file.relative_to(source)
        if target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(file, target)
        except OSError:
            shutil.copy2(file, target)


def _origins(sources: Sequence[_Source]) -> list[Entry]:
    """Where the trials came from; of what was merged before, from where that did."""
    found: list[Entry] = []
    for source in sources:
        origin = {
            "folder": str(source.folder),
            "options": source.stored["options"],
            "machine": source.stored.get("machine", {}),
            "trials": len(source.study.trials()),
        }
        found += source.stored.get("merged_from") or [origin]
    return found
