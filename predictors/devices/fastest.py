"""Which of its runtimes is the fastest on a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from predictors.backends.model import Model
from predictors.backends.table import runtimes_with
from predictors.devices.device import Device
from predictors.devices.recall import now_ms
from predictors.devices.registry import open_device
from search_spaces.fasternet import FasterNetConfig


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
    for runtime in (r.name for r in runtimes_with(precision)):
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
