"""With which runtime, precision and threads: as given, as registered, or what is fastest."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nas.quantities import format_ms
from predictors.backends.model import Model
from predictors.devices.device import Device
from predictors.devices.registry import backend_of, open_device
from predictors.measurement import Backend
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import one_line

Network = FasterNetConfig | Model


def wanted_by(
    arguments: argparse.Namespace, networks: Sequence[Network], *, run: Path | None = None
) -> Backend:
    """Return how the device is to time.

    The runtime `auto` is that of the run to go on with, or else the one in which the networks are
    fastest. Several runtimes or precisions stay as they are.
    """
    runtime, precision = arguments.runtime, arguments.precision
    if "," in f"{runtime}{precision}":
        wanted = backend_of(arguments.device, threads=arguments.threads)
        return replace(wanted, runtime=runtime or wanted.runtime,
                       precision=precision or wanted.precision)  # fmt: skip
    wanted = backend_of(arguments.device, runtime=runtime, threads=arguments.threads,
                       precision=precision)  # fmt: skip
    if wanted.runtime != "auto":
        return wanted
    if run is not None:
        return replace(wanted, runtime=_runtime_of(run, arguments.device))
    return replace(wanted, runtime=_fastest(arguments.device, networks, wanted))


def open_wanted(arguments: argparse.Namespace, networks: Sequence[Network]) -> Device:
    """Open the device as the arguments want it."""
    wanted = wanted_by(arguments, networks)
    return open_device(arguments.device, runtime=wanted.runtime, threads=wanted.threads,
                       precision=wanted.precision)  # fmt: skip


def _runtime_of(run: Path, device: str) -> str:
    """The runtime of a run on one of its devices."""
    from nas.study.options import SearchOptions
    from nas.study.store import read_run

    targets = SearchOptions.from_json(read_run(run)["options"]).targets
    return next((t for t in targets if t.device == device), targets[0]).runtime


def _fastest(name: str, networks: Sequence[Network], wanted: Backend) -> str:
    from predictors.devices.registry import fastest_runtime

    choice = fastest_runtime(name, networks, threads=wanted.threads, precision=wanted.precision)
    for runtime, reason in choice.refusals.items():
        print(f"without {runtime}: {one_line(reason)}", file=sys.stderr)
    timed = (f"{runtime} {format_ms(ms)} ms" for runtime, ms in choice.latencies_ms.items())
    print(
        f"runtimes: {', '.join(timed)}; took {choice.device.backends[0].runtime}", file=sys.stderr
    )
    return choice.device.backends[0].runtime
