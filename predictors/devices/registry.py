"""How a device is found by its name."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import geometric_mean

from predictors.backends.table import foreign_runtimes, runtimes
from predictors.devices.boards import Board, is_arm, load_boards, survey
from predictors.devices.cache import Cache, CacheSummary, open_recorded
from predictors.devices.device import ONNXRUNTIME, Device, DeviceSpec, Measures, Network
from predictors.devices.local import gpu_name, is_arm_machine, on_cores, open_cpu, open_cuda
from predictors.devices.pool import PooledDevice, check_alike, open_pool
from predictors.devices.profiled import open_arm
from predictors.devices.several import MultiBackendDevice
from predictors.devices.timed import TimedDevice
from predictors.measurement import Backend, TimingProtocol
from search_spaces.extensions import (
    call_extension,
    check_free,
    extension_names,
    extension_source,
    load_extension,
)
from search_spaces.io import short_repr

PROTOCOL = TimingProtocol()  # where none is given
_MEMBERS = ("name", "description", "remarks", "backends", "measure", "measure_each")  # of a device


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of device that needs no registration: how it is opened, and whether it is here."""

    open: Callable[[str, Backend, TimingProtocol], Device]
    is_here: Callable[[], object] = lambda: True


KINDS = {
    "cpu": Kind(open=open_cpu),
    "cuda": Kind(open=open_cuda, is_here=gpu_name),
    "arm": Kind(open=open_arm),
}


def open_device(
    name: str,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    reuse: bool = False,
    protocol: TimingProtocol | None = None,
) -> Device:
    """Open a device by name.

    `cpu` is this machine, `cuda` its NVIDIA GPU. `arm` is this machine where it is an ARM one,
    else the first registered board that is, else a bundled profile of the Raspberry Pi 5, whose
    latencies are predicted. Other names are those of registered boards; `ssh://user@host:port` is
    one that is not. Several boards of one kind, with commas between them, are one device: they
    share the networks. What is none of these is opened from cached measurements of a device of
    that name.

    What is not given is as registered, or as in most of the cached measurements, or ONNX Runtime
    in fp32 on one thread. With `reuse`, what was measured before is not timed again.

    Raises:
        ValueError: if there is no such device, or it has no such runtime, precision or number of
            threads.
        RuntimeError: if an address does not answer, the runtime is not installed, or cached
            measurements cannot be read.
    """
    backend = backend_of(name, runtime=runtime, threads=threads, precision=precision)
    spec = DeviceSpec(name=name, backends=(backend,))
    return open_spec(spec, protocol=replace(protocol or PROTOCOL, reuse=reuse))


def open_spec(spec: DeviceSpec, *, protocol: TimingProtocol | None = None) -> Device:
    """Open a device in the backends that are specified, of which the fastest counts."""
    protocol = protocol or PROTOCOL
    devices = [_open(spec.name, backend, protocol, spec.cores) for backend in spec.backends]
    if len(devices) == 1:
        return devices[0]
    return MultiBackendDevice(spec.name, [_timed(device) for device in devices], protocol)


def _timed(device: Device) -> Measures:
    if device.source == "predicted":
        raise ValueError(
            f"`runtime` and `precision` must be one each for a profile, but {device.name} was "
            "given several. Leave them out."
        )
    return device


def forget_references(device: Device) -> None:
    """Let the references that are timed next be kept: from them all milliseconds follow."""
    if isinstance(device, MultiBackendDevice):
        for one in device.devices:
            forget_references(one)
    elif isinstance(device, TimedDevice | PooledDevice):
        device.forget_references()


def _open(name: str, backend: Backend, protocol: TimingProtocol, cores: tuple[int, ...]) -> Device:
    recorded = None if _is_live(name) else open_recorded(name, **asdict(backend))
    if recorded is not None:
        return _on_cores(recorded, cores)
    parts = _parts(name)
    if len(parts) > 1:
        boards = [_pinned(_board_of_pool(part, backend), cores) for part in parts]
        return open_pool(",".join(parts), boards, backend, protocol)
    board = _board(name, backend)
    if board is not None:
        return _pinned(board, cores).open(name, backend, protocol)
    if name in KINDS:
        check_free("devices", name)
        return _on_cores(KINDS[name].open(name, backend, protocol), cores)
    if name in extension_names("devices"):
        return _on_cores(_foreign(name, backend, protocol), cores)
    raise _unknown(name)


def _foreign(name: str, backend: Backend, protocol: TimingProtocol) -> Device:
    """A device of another package, which registers what opens one, as `Kind.open` does."""
    wanted = "what opens a device by name, backend and protocol"
    open_it = load_extension("devices", name, accepts=callable, wanted=wanted)
    found: Device = call_extension("devices", name, lambda: open_it(name, backend, protocol))
    if getattr(found, "source", None) not in ("measured", "predicted"):
        raise RuntimeError(
            f"`device` {name} must be one that Measures or Predicts, but "
            f"{extension_source('devices', name)} gave {short_repr(found)}, whose source is "
            "neither."
        )
    members = (*_MEMBERS, "predict") if found.source == "predicted" else _MEMBERS
    if lacks := [member for member in members if getattr(found, member, None) is None]:
        raise RuntimeError(
            f"`device` {name} must have {', '.join(members)}, but {short_repr(found)}, "
            f"which {extension_source('devices', name)} gave, lacks {', '.join(lacks)}."
        )
    return found


def _pinned(board: Board, cores: tuple[int, ...]) -> Board:
    return replace(board, cores=cores or board.cores)


def _on_cores(device: Device, cores: tuple[int, ...]) -> Device:
    """Have this machine's processor time on these cores, if any were asked for."""
    if isinstance(device, TimedDevice) and device.host.processor == "cpu":
        return replace(device, host=on_cores(device.host, cores, device.backend.threads))
    if cores:
        raise ValueError(
            f"`cores` must be left out for {device.name}, which is no processor that is timed now."
        )
    return device


def backend_of(
    name: str,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
) -> Backend:
    """The backend of a device: as given, as registered, or as in most cached measurements."""
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"`threads` must be a positive whole number, but got {threads!r}.")

    def changed(backend: Backend) -> Backend:
        return Backend(
            runtime or backend.runtime, precision or backend.precision, threads or backend.threads
        )

    known = _boards()
    boards = [known[part] for part in _parts(name) if part in known]
    if boards:
        boards = [replace(board, backend=changed(board.backend)) for board in boards]
        check_alike(boards)
        return boards[0].backend
    if not _is_live(name) and runtime != "auto":
        recorded = open_recorded(name, runtime=runtime, threads=threads, precision=precision)
        if recorded is not None:
            return recorded.backends[0]
    return changed(ONNXRUNTIME)


def device_names() -> tuple[str, ...]:
    """The names of this machine, of its GPU, if it has one, of boards and of other packages."""
    here = [name for name, kind in KINDS.items() if kind.is_here()]
    others = [name for name in (*_boards(), *extension_names("devices")) if name not in KINDS]
    return tuple(dict.fromkeys([*here, *others]))


def foreign_devices() -> dict[str, str]:
    """The devices of other packages that are called by these names, and the packages."""
    ours = {*KINDS, *_boards()}
    names = [name for name in extension_names("devices") if name not in ours]
    return {name: extension_source("devices", name) for name in names}


def cached_devices() -> list[CacheSummary]:
    """The cached measurements that `open_device` opens, for each device the most first."""
    return [summary for summary in Cache().summaries() if not _is_live(summary.device)]


def _is_live(name: str) -> bool:
    known = {*KINDS, *device_names()}
    return all(part.startswith("ssh://") or part in known for part in _parts(name))


def _parts(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _board(name: str, backend: Backend) -> Board | None:
    """A registered board, or the one at an address; None where the name is neither."""
    if name.startswith("ssh://"):
        return survey(Board(name=name, ssh=name, backend=backend))
    return _boards().get(name)


def _board_of_pool(name: str, backend: Backend) -> Board:
    board = _board(name, backend)
    if board is None and (name in KINDS or name in extension_names("devices")):
        raise ValueError(
            f"`device` must name boards where it names several, but {name} is none. Name it alone."
        )
    if board is None:
        raise _unknown(name)
    return board


def _unknown(name: str) -> ValueError:
    names = dict.fromkeys((*device_names(), *(summary.device for summary in cached_devices())))
    return ValueError(
        f"`device` must be one of {', '.join(names)}, but got {name!r}. `fasternas devices` "
        "describes them. If a package adds it, install that."
    )


def _boards() -> dict[str, Board]:
    """The registered boards; the first ARM one is `arm` too, unless this machine is one."""
    boards = load_boards()
    arm = next((board for board in boards.values() if is_arm(board)), None)
    return {**boards, "arm": arm} if arm and not is_arm_machine() else boards


@dataclass(frozen=True, kw_only=True)
class RuntimeChoice:
    """The device in its fastest runtime, and what was found of each runtime.

    `latencies_ms` are geometric means over the networks by the clock, not by the references, which
    differ from runtime to runtime; by runtime, the fastest first. `refusals` say why the other
    runtimes were left out.
    """

    device: Device
    latencies_ms: dict[str, float]
    refusals: dict[str, str]


def fastest_runtime(
    name: str,
    networks: Sequence[Network],
    *,
    threads: int | None = None,
    precision: str = "fp32",
    protocol: TimingProtocol | None = None,
) -> RuntimeChoice:
    """Time the networks in each runtime that the device has at that precision.

    A runtime that cannot run all of them is left out.
    """
    found: list[tuple[float, str, Device]] = []
    errors: dict[str, ValueError | RuntimeError] = {}
    there = dict.fromkeys((*(r.name for r in runtimes(precision=precision)), *foreign_runtimes()))
    for runtime in there:
        try:
            device = open_device(
                name, runtime=runtime, threads=threads, precision=precision, protocol=protocol
            )
            measured = [one.now_ms() for one in device.measure_each(networks, repeats=1)]
            found.append((geometric_mean(measured), runtime, device))
        except (ValueError, RuntimeError) as error:
            errors[runtime] = error
    if not found:
        raise next(iter(errors.values()))
    found.sort(key=lambda entry: entry[0])
    return RuntimeChoice(
        device=found[0][2],
        latencies_ms={runtime: ms for ms, runtime, _ in found},
        refusals={runtime: str(error) for runtime, error in errors.items()},
    )
