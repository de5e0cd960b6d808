"""The devices of a command: the options that name them, and what follows from these."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, get_args

from nas.cli.arguments import by_device, cores, device, either, positive, words
from nas.devices import file_name
from nas.quantities import format_ms
from predictors.backends.table import Precision, runtime_names
from predictors.devices.device import Device, DeviceSpec, Network
from predictors.devices.registry import backend_of, open_spec
from predictors.devices.several import backend_pairs
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET
from search_spaces.io import one_line

T = TypeVar("T")

PRECISIONS = f"{either(get_args(Precision))}, what the runtime has"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add one device, and how it times."""
    text = "see `fasternas devices` (cpu); boards of one kind: pi1,pi2"
    parser.add_argument("--device", type=device, default="cpu", help=text)
    _add_how(parser, words, int, cores)


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add one device or, by naming the option again, several; and how each times."""
    text = (
        "see `fasternas devices` (cpu); boards of one kind: pi1,pi2; again for each further "
        "device, with a budget of its own"
    )
    parser.add_argument("--device", type=device, action="append", help=text)
    _add_how(parser, by_device(words), by_device(int), by_device(cores))


def _add_how(
    parser: argparse.ArgumentParser,
    names: Callable[[str], object],
    number: Callable[[str], object],
    numbers: Callable[[str], object],
) -> None:
    add = parser.add_argument
    text = (
        f"{either(runtime_names())}, or auto: what is fastest; of several with commas, each "
        "network's fastest (as registered, or onnxruntime)"
    )
    add("--runtime", type=names, help=text)
    add("--precision", type=names, help=f"{PRECISIONS}, or several (as registered, or fp32)")
    add("--threads", type=number, help="threads of one inference (as registered, or 1)")
    text = "the cores to run on (as registered, or fast ones, no two threads of one)"
    add("--cores", type=numbers, default=(), metavar="0-3", help=text)


def add_timing(parser: argparse.ArgumentParser) -> None:
    """Add how many images, and how many processes."""
    add = parser.add_argument
    text = "images that one inference takes (1)"
    add("--batch", type=positive, default=1, metavar="N", help=text)
    text = "fresh processes that time each network (7)"
    add("--repeats", type=positive, default=7, metavar="N", help=text)


def specs_of(arguments: argparse.Namespace, *, run: Path | None) -> tuple[DeviceSpec, ...]:
    """Return the devices of a search as asked; `run` is the one to go on with."""
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
        pinned = _own(arguments.cores, "cores", name, names) or ()
        found.append(replace(spec, budget_ms=budgets_ms[name], cores=pinned))
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
    fastest.
    """
    name, threads = arguments.device, arguments.threads
    runtimes: Sequence[str] = arguments.runtime or ()
    precisions: Sequence[str] = arguments.precision or ()
    if len(runtimes) > 1 and "auto" in runtimes:
        raise ValueError(
            f"`runtime` must be auto alone, or of {', '.join(runtime_names())}, but got "
            f"{','.join(runtimes)}. Leave out auto, or the others."
        )
    if "auto" in runtimes and len(precisions) > 1:
        raise ValueError(
            f"`precision` must be one where `runtime` is auto, but got {','.join(precisions)}. "
            "Name the runtimes."
        )
    if len(runtimes) > 1 or len(precisions) > 1:
        known = backend_of(name, threads=threads)
        pairs = (runtimes or [known.runtime], precisions or [known.precision])
        return DeviceSpec(name=name, backends=backend_pairs(*pairs, known.threads))
    runtime, precision = (next(iter(asked), None) for asked in (runtimes, precisions))
    wanted = backend_of(name, runtime=runtime, threads=threads, precision=precision)
    if wanted.runtime == "auto":
        known_runtime = None if run is None else _runtime_of(run, name)
        wanted = replace(wanted, runtime=known_runtime or _fastest(name, networks, wanted))
    return DeviceSpec(name=name, backends=(wanted,))


def open_asked(arguments: argparse.Namespace, networks: Sequence[Network]) -> Device:
    """Open the device that the arguments ask for."""
    return open_spec(replace(spec_of(arguments, networks), cores=arguments.cores))


def _runtime_of(run: Path, name: str) -> str:
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
