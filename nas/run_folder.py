"""Run folders: begun, gone on with, given up."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.devices import Devices, device_facts, open_devices, recorded_devices, remarks
from nas.estimators import CHECKPOINTS, SUPERNET_FILE as SUPERNET
from nas.pipeline import Run
from nas.study import journal
from nas.study.file_accuracies import RECORD
from nas.study.options import SearchOptions
from nas.study.store import MEASUREMENTS, RUN, TRIALS, hold, read_run, write_run
from nas.study.trainings import TRAININGS
from search_spaces.io import make_folders, remove_empty

NOTHING = 2  # timings with which a run finds that its budget is out of reach


def start_run(folder: Path, options: SearchOptions, *, fresh: bool = False) -> Run:
    """Begin a study in a new folder, or in one without a study; nothing is left if that fails.

    What was measured before is not timed again, unless it is to be `fresh`.

    Raises:
        ValueError: if an option is wrong or the folder holds a study.
        OSError: if the folder cannot be written.
    """
    devices = open_devices(options.devices, fresh=fresh)
    options.open_space()  # refuses wrong fields before anything is written
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
        if (folder / SUPERNET).exists():
            raise ValueError(f"`out` must be a new folder, but {folder} holds the {SUPERNET} of "
                             "another study. Remove it or name another folder.")  # fmt: skip
        write_run(folder, {"options": options.as_json(), "machine": machine_facts(devices)})
        run = Run(folder, options, devices, lock=lock)
    except (OSError, RuntimeError, ValueError):
        if new and lock is not None:  # then they are ours
            for name in (RUN, TRIALS):
                (folder / name).unlink(missing_ok=True)
        remove_empty(made)
        if lock is not None:
            lock.close()
        raise
    run.made, run.begun = made, True
    return run


def _has_trials(folder: Path) -> bool:
    """A journal without any may be left of a command that was killed before it had begun."""
    return (folder / TRIALS).exists() and (folder / TRIALS).stat().st_size > 0


def resume_run(
    folder: Path, options: SearchOptions | None = None, *, repair: bool = False, fresh: bool = False
) -> Run:
    """Go on with the study of a folder; more `trials` than it was begun with extend it.

    `options`, if given, must otherwise be its own. `repair` drops last lines that were cut off.

    Raises:
        ValueError: if the folder holds no study, another one, one of another device, or a corrupt
            file.
        RuntimeError: if another process works on it.
    """
    stored = read_run(folder)
    kept = SearchOptions.from_json(stored["options"])
    extended = _extended(kept, options or kept, folder)
    devices = open_devices(extended.devices, fresh=fresh)
    _check_same(devices, stored, folder)
    lock = hold(folder)
    try:
        if repair:
            repair_run(folder)
        if extended != kept:
            write_run(folder, {**stored, "options": extended.as_json()})
        return Run(folder, extended, devices, lock=lock)
    except BaseException:
        lock.close()
        raise


def read_only_run(folder: Path, *, repair: bool = False) -> Run:
    """Open the study of a folder to look at it, also while a search goes on, or elsewhere.

    Raises:
        ValueError: if the folder holds no study or a corrupt file.
        RuntimeError: if it is to be repaired while another process works on it.
    """
    stored = read_run(folder)
    options = SearchOptions.from_json(stored["options"])
    if repair:
        with hold(folder):
            repair_run(folder)
    devices = recorded_devices(options.devices, facts_of(stored))
    return Run(folder, options, devices, reading=True)


def _extended(kept: SearchOptions, options: SearchOptions, folder: Path) -> SearchOptions:
    """The options of the study with as many trials as are asked for."""
    for name, value in kept.as_json().items():
        given = options.as_json()[name]
        if name != "trials" and given != value:
            raise ValueError(f"`out` must hold this study, but the one in {folder} has {name} "
                             f"{value}, not {given}. Only --trials may change, to more of them: "
                             "name another folder.")  # fmt: skip
    if options.trials < kept.trials:
        raise ValueError(f"`trials` must be at least the {kept.trials} that the study in {folder} "
                         f"has, but got {options.trials}. Leave it out.")  # fmt: skip
    return options


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
        "devices": device_facts(devices), "platform": platform.platform(),
        "python": platform.python_version(), "cores": os.cpu_count(),
        "versions": {package: version(package) for package in packages},
    }  # fmt: skip


def keep_remarks(run: Run) -> None:
    """Write what the device had to say beside the facts of the machine; of resumed runs too."""
    stored = read_run(run.folder)
    known = list(dict.fromkeys([*stored.get("remarks", []), *remarks(run.devices)]))
    if known:
        write_run(run.folder, {**stored, "remarks": known})


def give_up(run: Run) -> None:
    """Remove the files of a run that this command began and that found nothing, and its folders."""
    found = run.study.outcomes() or len(run.study.measurements) > NOTHING
    trained = any((run.folder / name).exists() for name in (SUPERNET, CHECKPOINTS))
    if found or trained or not run.begun:
        return
    for name in (RUN, TRIALS, MEASUREMENTS):
        (run.folder / name).unlink(missing_ok=True)
    remove_empty(run.made)
