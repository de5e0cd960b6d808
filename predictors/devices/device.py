"""What every device can do, and how a device is found by its name."""

import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from predictors.latency import Prediction
from predictors.timing import Measurement, Source
from search_spaces.fasternet import FasterNetConfig

HOW_TO_ATTACH = (
    "These latencies are predicted from a profile, not measured. To measure, run the same command "
    "on the board itself: on an ARM machine `--device arm` times that machine."
)


class Device(Protocol):
    """A place where latency is known: a clock or, for a profile, a model of one."""

    @property
    def name(self) -> str:
        """The name by which it was opened."""

    @property
    def description(self) -> str:
        """One line: the hardware, the runtime and how far its latencies can be trusted."""

    @property
    def source(self) -> Source:
        """Whether its latencies are measured or predicted."""

    @property
    def runtime(self) -> str:
        """The runtime that executes the networks."""

    @property
    def threads(self) -> int:
        """The number of threads of one inference."""

    def measure(self, config: FasterNetConfig) -> Measurement:
        """Return the latency of one network."""

    def measure_each(
        self, configs: Sequence[FasterNetConfig], *, processes: int = 3
    ) -> Iterator[Measurement]:
        """Yield the latency of each network, in order, timed beside one another in groups.

        `processes` fresh processes time each group; more make the interval narrower.
        """

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return latencies without timing anything.

        Raises:
            RuntimeError: if the device knows none: its source is "measured".
        """


def open_device(name: str, *, runtime: str = "onnxruntime", threads: int = 1) -> Device:
    """Open a device by name.

    `cpu` is this machine. `arm` is this machine where it is an ARM one, and otherwise a bundled
    profile of the Raspberry Pi 5, whose latencies are predicted.

    Raises:
        ValueError: if there is no such device, runtime or number of threads on it.
    """
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"`threads` must be a positive whole number, but got {threads!r}.")
    if name not in _OPENERS:
        raise ValueError(
            f"`device` must be one of {', '.join(_OPENERS)}, but got {name!r}. "
            "`fasternas devices` describes them."
        )
    return _OPENERS[name](name, runtime, threads)


def threads_of(threads: int) -> str:
    """Say how many threads."""
    return "one thread" if threads == 1 else f"{threads} threads"


def device_names() -> tuple[str, ...]:
    """The names that `open_device` knows."""
    return tuple(_OPENERS)


def _open_local(name: str, runtime: str, threads: int) -> Device:
    from predictors.devices.local import LocalDevice

    return LocalDevice(name, runtime=runtime, threads=threads)


def _open_arm(name: str, runtime: str, threads: int) -> Device:
    if platform.machine() in ("aarch64", "arm64"):
        return _open_local(name, runtime, threads)
    from predictors.devices.profiled import ProfiledDevice

    return ProfiledDevice(name, runtime=runtime, threads=threads)


_OPENERS: dict[str, Callable[[str, str, int], Device]] = {"cpu": _open_local, "arm": _open_arm}
