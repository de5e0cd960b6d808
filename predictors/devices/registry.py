"""How a device is found by its name."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import geometric_mean
from typing import Any

from predictors.backends.model import Model
from predictors.backends.table import runtimes
from predictors.devices.boards import Board, is_arm, load_boards, survey
from predictors.devices.cache import Holding, Store, now_ms
from predictors.devices.device import Device, Wanted
from predictors.devices.pool import check_alike, open_pool
from predictors.devices.recorded import open_recorded
from predictors.devices.several import MultiBackendDevice, forms_of
from search_spaces.fasternet import FasterNetConfig


def open_device(
    name: str, *, runtime: str | None = None, threads: int | None = None,
    precision: str | None = None, reuse: bool = False,
) -> Device:  # fmt: skip
    """Open a device by name.

    `cpu` is this machine, `cuda` its NVIDIA GPU. `arm` is this machine where it is an ARM one,
    else the first registered board that is, else a bundled profile of the Raspberry Pi 5, whose
    latencies are predicted. Other names are those of registered boards; `ssh://user@host:port` is
    one that is not. Several boards of one kind, with commas between them, are one device: they
    share the networks. What is none of these is opened from stored measurements of a device of
    that name.

    What is not given is as registered, or as in most of the stored measurements, or ONNX Runtime
    in fp32 on one thread. Several runtimes or precisions, with commas between them, are all tried,
    and each network counts in the fastest. With `reuse`, what was measured before is not timed
    again.

    Raises:
        ValueError: if there is no such device, or it has no such runtime, precision or number of
            threads.
        RuntimeError: if an address does not answer, the runtime is not installed, or stored
            measurements cannot be read.
    """
    if "," in f"{runtime}{precision}":
        return _open_alternatives(name, runtime, precision, threads=threads, reuse=reuse)
    wanted = replace(wanted_of(name, runtime=runtime, threads=threads, precision=precision),
                     reuse=reuse)  # fmt: skip
    recorded = None
    if not _is_live(name):
        recorded = open_recorded(name, runtime=runtime, threads=threads, precision=precision)
    if recorded is not None:
        return recorded
    if len(_parts(name)) > 1:
        parts = _parts(name)
        return open_pool(",".join(parts), [_board_of_pool(p, wanted) for p in parts], wanted)
    board = _board(name, wanted)
    if board is not None:
        return board.open(name, wanted)
    if name not in _OPENERS:
        raise _unknown(name)
    return _OPENERS[name](name, wanted)


def _open_alternatives(
    name: str, runtime: str | None, precision: str | None, *, threads: int | None, reuse: bool
) -> Device:
    known = wanted_of(name, threads=threads)
    pairs = forms_of(runtime or known.runtime, precision or known.precision)
    forms = [open_device(name, runtime=r, precision=p, threads=threads, reuse=reuse)
             for r, p in pairs]  # fmt: skip
    return forms[0] if len(forms) == 1 else MultiBackendDevice(name, forms)


def wanted_of(
    name: str, *, runtime: str | None = None, threads: int | None = None,
    precision: str | None = None,
) -> Wanted:  # fmt: skip
    """How a device is opened: as told, else as registered, else as in most stored measurements.

    Raises:
        ValueError: if boards with commas between them are registered differently, nothing is stored
            of a device with those, or `threads` is no positive whole number.
    """
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"`threads` must be a positive whole number, but got {threads!r}.")
    told = {"runtime": runtime, "threads": threads, "precision": precision}
    changes: dict[str, Any] = {key: value for key, value in told.items() if value is not None}
    known = _boards()
    boards = [replace(known[part], **changes) for part in _parts(name) if part in known]
    if boards:
        check_alike(boards)
        return boards[0].wanted
    if not _is_live(name) and runtime != "auto":
        recorded = open_recorded(name, runtime=runtime, threads=threads, precision=precision)
        if recorded is not None:
            return Wanted(runtime=recorded.runtime, threads=recorded.threads,
                          precision=recorded.precision)  # fmt: skip
    return replace(Wanted(), **changes)


def device_names() -> tuple[str, ...]:
    """The names of this machine, of its GPU, if it has one, and of the boards."""
    from predictors.devices.local import gpu_name

    here = [name for name in _OPENERS if name != "cuda" or gpu_name()]
    return (*here, *(name for name in _boards() if name not in _OPENERS))


def stored_devices() -> list[Holding]:
    """The stored measurements that `open_device` opens, for each device the most first.

    Raises:
        RuntimeError: if they cannot be read.
    """
    return [holding for holding in Store().holdings() if not _is_live(holding.device)]


def _is_live(name: str) -> bool:
    return all(part.startswith("ssh://") or part in device_names() for part in _parts(name))


def _parts(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _board(name: str, wanted: Wanted) -> Board | None:
    """A registered board, or the one at an address; None where the name is neither."""
    if name.startswith("ssh://"):
        return survey(Board(name=name, ssh=name, runtime=wanted.runtime,
                            precision=wanted.precision, threads=wanted.threads))  # fmt: skip
    return _boards().get(name)


def _board_of_pool(name: str, wanted: Wanted) -> Board:
    board = _board(name, wanted)
    if board is None and name in _OPENERS:
        raise ValueError(f"`device` must name boards where it names several, but {name} is none. "
                         "Name it alone.")  # fmt: skip
    if board is None:
        raise _unknown(name)
    return board


def _unknown(name: str) -> ValueError:
    names = dict.fromkeys((*device_names(), *(holding.device for holding in stored_devices())))
    return ValueError(f"`device` must be one of {', '.join(names)}, but got {name!r}. "
                      "`fasternas devices` describes them.")  # fmt: skip


def _boards() -> dict[str, Board]:
    """The registered boards; the first ARM one is `arm` too, unless this machine is one."""
    boards = load_boards()
    arm = next((board for board in boards.values() if is_arm(board)), None)
    return {**boards, "arm": arm} if arm and not _here_is_arm() else boards


def _here_is_arm() -> bool:
    return platform.machine() in ("aarch64", "arm64")


def _open_local(name: str, wanted: Wanted) -> Device:
    from predictors.devices.local import open_local

    return open_local(name, wanted)


def _open_cuda(name: str, wanted: Wanted) -> Device:
    from predictors.devices.local import open_cuda

    return open_cuda(name, wanted)


def _open_arm(name: str, wanted: Wanted) -> Device:
    if _here_is_arm():
        return _open_local(name, wanted)
    from predictors.devices.profiled import ProfiledDevice

    return ProfiledDevice(name, runtime=wanted.runtime, threads=wanted.threads,
                          precision=wanted.precision)  # fmt: skip


_OPENERS: dict[str, Callable[[str, Wanted], Device]] = {
    "cpu": _open_local, "cuda": _open_cuda, "arm": _open_arm,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The device in its fastest runtime, and what was found of each runtime.

    `latencies_ms` are geometric means over the networks by the clock, not by the references, which
    differ from runtime to runtime; by runtime, the fastest first. `refusals`
    say why the other runtimes were left out.
    """

    device: Device
    latencies_ms: dict[str, float]
    refusals: dict[str, str]


def fastest_runtime(
    name: str, networks: Sequence[FasterNetConfig | Model], *, threads: int | None = None,
    precision: str = "fp32",
) -> Choice:  # fmt: skip
    """Time the networks in each runtime that the device has at that precision.

    A runtime that cannot run all of them is left out.

    Raises:
        ValueError: if there is no such device or precision, or no runtime runs the networks.
        RuntimeError: if the device cannot be reached, or no runtime runs the networks.
    """
    found: list[tuple[float, str, Device]] = []
    errors: dict[str, ValueError | RuntimeError] = {}
    for runtime in (r.name for r in runtimes(precision=precision)):
        try:
            device = open_device(name, runtime=runtime, threads=threads, precision=precision)
            measured = [now_ms(m) for m in device.measure_each(networks, processes=1)]
            found.append((geometric_mean(measured), runtime, device))
        except (ValueError, RuntimeError) as error:
            errors[runtime] = error
    if not found:
        raise next(iter(errors.values()))
    found.sort(key=lambda entry: entry[0])
    return Choice(
        device=found[0][2], latencies_ms={runtime: ms for ms, runtime, _ in found},
        refusals={runtime: str(error) for runtime, error in errors.items()},
    )  # fmt: skip
