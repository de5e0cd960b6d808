"""Run folders: begun, gone on with, given up."""

import os
import platform
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.options import SearchOptions
from nas.run import Run
from nas.study import MEASUREMENTS, RUN, TRIALS, read_run, write_run
from predictors.devices.device import Device
from predictors.devices.registry import open_device

NOTHING = 2  # timings with which a run finds that its budget is out of reach


def start_run(folder: Path, options: SearchOptions) -> Run:
    """Begin a study in a new folder, or in one without a study; nothing is left if that fails.

    Raises:
        ValueError: if an option is wrong or the folder holds a study.
        OSError: if the folder cannot be written.
    """
    device = _device_of(options)
    options.open_space()  # refuses wrong fields before anything is written
    if (folder / TRIALS).exists():
        raise ValueError(
            f"`out` must be a new folder, but {folder} holds a study. "
            "Continue that one with --resume or name another folder."
        )
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_run(folder, {"options": options.as_json(), "machine": machine_facts(device)})
        run = Run(folder, options, device)
        run.made = made
    except OSError:
        (folder / TRIALS).unlink(missing_ok=True)
        for path in made:
            if path.exists():
                path.rmdir()
        raise
    return run


def resume_run(folder: Path, options: SearchOptions | None = None) -> Run:
    """Go on with the study of a folder; more `trials` than it was begun with extend it.

    `options`, if given, must otherwise be its own.

    Raises:
        ValueError: if the folder holds no study, another one, or a corrupt file.
    """
    stored = read_run(folder)
    kept = SearchOptions.from_json(stored["options"])
    options = options or kept
    for name, value in kept.as_json().items():
        given = options.as_json()[name]
        if name != "trials" and given != value:
            raise ValueError(f"`out` must hold this study, but the one in {folder} has {name} "
                             f"{value}, not {given}. Name another folder.")  # fmt: skip
    extended = replace(kept, trials=max(kept.trials, options.trials))
    if extended != kept:
        write_run(folder, {**stored, "options": extended.as_json()})
    return Run(folder, extended, _device_of(extended))


def read_only_run(folder: Path) -> Run:
    """Open the study of a folder to look at it, also while a search goes on.

    Raises:
        ValueError: if the folder holds no study or a corrupt file.
    """
    options = SearchOptions.from_json(read_run(folder)["options"])
    return Run(folder, options, _device_of(options), reading=True)


def _device_of(options: SearchOptions) -> Device:
    return open_device(options.device, runtime=options.runtime, threads=options.threads)


def machine_facts(device: Device) -> dict[str, Any]:
    """Return what is needed to know the machine and the software again."""
    packages = ("fasternas", "torch", "onnxruntime", "optuna", "ray", "numpy")
    return {
        "device": device.description, "platform": platform.platform(),
        "python": platform.python_version(), "cores": os.cpu_count(),
        "versions": {package: version(package) for package in packages},
    }  # fmt: skip


def give_up(run: Run) -> None:
    """Remove the files of a run that found nothing, and the folders that were made for it."""
    if run.study.outcomes() or len(run.study.measurements) > NOTHING:
        return
    for name in (RUN, TRIALS, MEASUREMENTS):
        (run.folder / name).unlink(missing_ok=True)
    for path in run.made:
        with suppress(OSError):  # somebody else's files stay
            path.rmdir()
