"""The devices of a search, each with its budget and with how it times, from its arguments."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.cli.runtime import wanted_by
from nas.study.targets import Target, file_name
from search_spaces.fasternet import FASTERNET


def targets_of(arguments: argparse.Namespace, *, run: Path | None) -> list[Target]:
    """Return the devices as asked; `run` is the one to go on with.

    Raises:
        ValueError: if budgets and devices do not fit together, or a device is not known.
        RuntimeError: if a device does not answer.
    """
    devices: Sequence[str] = arguments.device or ["cpu"]
    budgets = _budgets(arguments.budget, devices)
    return [_target(arguments, device, budgets[device], run) for device in devices]


def folder_name(arguments: argparse.Namespace) -> str:
    """Return what a run is called unless told: by its devices and budgets."""
    devices: Sequence[str] = arguments.device or ["cpu"]
    budgets = _budgets(arguments.budget, devices)
    return "-".join(f"{file_name(device)}-{budgets[device]:g}ms" for device in devices)[:200]


def _target(
    arguments: argparse.Namespace, device: str, budget_ms: float, run: Path | None
) -> Target:
    told = {name: _told(getattr(arguments, name), arguments, name, device)
            for name in ("runtime", "precision", "threads")}  # fmt: skip
    wanted = wanted_by(argparse.Namespace(device=device, **told), [FASTERNET["t0"]], run=run)
    return Target(device=device, budget_ms=budget_ms, runtime=wanted.runtime,
                  precision=wanted.precision, threads=wanted.threads)  # fmt: skip


def _budgets(told: float | Mapping[str, float], devices: Sequence[str]) -> Mapping[str, float]:
    by_name = told if isinstance(told, Mapping) else dict.fromkeys(devices[:1], told)
    _check_names("budget", by_name, devices)
    if missing := [device for device in devices if device not in by_name]:
        form = ",".join(f"{device}={by_name.get(device, 10.0):g}ms" for device in devices)
        got = f"is not for {', '.join(missing)}" if by_name is told else f"is {told:g} ms for all"
        raise ValueError(f"`budget` must be given for each device, but {got}. Say --budget "
                         f"{form}.")  # fmt: skip
    return by_name


def _told(told: Any, arguments: argparse.Namespace, option: str, device: str) -> Any:
    """What was told of a device: for it by name, or for all."""
    if not isinstance(told, Mapping):
        return told
    _check_names(option, told, arguments.device or ["cpu"])
    return told.get(device)


def _check_names(option: str, told: Mapping[str, Any], devices: Sequence[str]) -> None:
    unknown = [name for name in told if name not in devices]
    if unknown:
        raise ValueError(f"`{option}` must name devices of the search ({', '.join(devices)}), but "
                         f"names {unknown[0]}. Give --device {unknown[0]} too, or leave it "
                         "out.")  # fmt: skip
