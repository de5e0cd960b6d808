"""The devices of a command, each with its backends and its budget, from the arguments."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nas.devices import file_name
from nas.quantities import format_ms
from predictors.devices.device import Device, Network
from predictors.devices.registry import backend_of, open_spec
from predictors.devices.several import backend_pairs
from predictors.devices.spec import DeviceSpec
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET
from search_spaces.io import one_line

T = TypeVar("T")


def specs_of(arguments: argparse.Namespace, *, run: Path | None) -> tuple[DeviceSpec, ...]:
    """Return the devices of a search as asked; `run` is the one to go on with.

    Raises:
        ValueError: if budgets and devices do not fit together, or a device is not known.
        RuntimeError: if a device does not answer.
    """
    names: Sequence[str] = arguments.device or ["cpu"]
    budgets_ms = _budgets(arguments.budget, names)
    found = []
    for name in names:
        own = argparse.Namespace(
            device=name,
            runtime=_own(arguments.runtime, "runtime", name, names),
            precision=_own(arguments.precision, "precision", name, names),
            threads=_own(arguments.threads, "threads", name, names),
        )
        spec = spec_of(own, [FASTERNET["t0"]], run=run)
        found.append(replace(spec, budget_ms=budgets_ms[name]))
    return tuple(found)


def folder_name(arguments: argparse.Namespace) -> str:
    """Return what a run is called unless told: by its devices and budgets."""
    names: Sequence[str] = arguments.device or ["cpu"]
    budgets_ms = _budgets(arguments.budget, names)
    return "-".join(f"{file_name(name)}-{budgets_ms[name]:g}ms" for name in names)[:200]


def spec_of(
    arguments: argparse.Namespace, networks: Sequence[Network], *, run: Path | None = None
) -> DeviceSpec:
    """Return one device with the backends to time in: as given, as registered, or the fastest.

    The runtime `auto` is that of the run to go on with, or else the one in which the networks are
    fastest. Several runtimes or precisions have commas between them.

    Raises:
        ValueError, RuntimeError: as `specs_of`.
    """
    name, runtime, precision = arguments.device, arguments.runtime, arguments.precision
    if "," in f"{runtime}{precision}":
        known = backend_of(name, threads=arguments.threads)
        runtimes, precisions = (
            _parts(runtime or known.runtime),
            _parts(precision or known.precision),
        )
        return DeviceSpec(name=name, backends=backend_pairs(runtimes, precisions, known.threads))
    wanted = backend_of(name, runtime=runtime, threads=arguments.threads, precision=precision)
    if wanted.runtime == "auto":
        known_runtime = None if run is None else _runtime_of(run, name)
        wanted = replace(wanted, runtime=known_runtime or _fastest(name, networks, wanted))
    return DeviceSpec(name=name, backends=(wanted,))


def open_asked(arguments: argparse.Namespace, networks: Sequence[Network]) -> Device:
    """Open the device that the arguments ask for."""
    return open_spec(spec_of(arguments, networks))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _runtime_of(run: Path, name: str) -> str:
    """The runtime of a run on one of its devices."""
    from nas.study.options import SearchOptions
    from nas.study.store import read_run

    specs = SearchOptions.from_json(read_run(run)["options"]).devices
    return next((spec for spec in specs if spec.name == name), specs[0]).backends[0].runtime


def _fastest(name: str, networks: Sequence[Network], wanted: Backend) -> str:
    from predictors.devices.registry import fastest_runtime

    choice = fastest_runtime(name, networks, threads=wanted.threads, precision=wanted.precision)
    for runtime, reason in choice.refusals.items():
        print(f"without {runtime}: {one_line(reason)}", file=sys.stderr)
    timed = (f"{runtime} {format_ms(ms)} ms" for runtime, ms in choice.latencies_ms.items())
    took = choice.device.backends[0].runtime
    print(f"runtimes: {', '.join(timed)}; took {took}", file=sys.stderr)
    return took


def _budgets(asked: float | Mapping[str, float], names: Sequence[str]) -> Mapping[str, float]:
    by_name = asked if isinstance(asked, Mapping) else dict.fromkeys(names[:1], asked)
    _check_names("budget", by_name, names)
    if missing := [name for name in names if name not in by_name]:
        form = ",".join(f"{name}={by_name.get(name, 10.0):g}ms" for name in names)
        got = f"is not for {', '.join(missing)}" if by_name is asked else f"is {asked:g} ms for all"
        raise ValueError(f"`budget` must be given for each device, but {got}. Say --budget {form}.")
    return by_name


def _own(asked: T | Mapping[str, T], option: str, name: str, names: Sequence[str]) -> T | None:
    """What was asked of a device: for it by name, or for all."""
    if not isinstance(asked, Mapping):
        return asked
    _check_names(option, asked, names)
    return asked.get(name)


def _check_names(option: str, asked: Mapping[str, object], names: Sequence[str]) -> None:
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ValueError(
            f"`{option}` must name devices of the search ({', '.join(names)}), but names "
            f"{unknown[0]}. Give --device {unknown[0]} too, or leave it out."
        )
