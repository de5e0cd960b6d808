"""The devices of a study, each with the budget to keep on it and with how it times."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from predictors.devices.device import Device
from predictors.devices.joint import JointDevice, places_of
from predictors.devices.recorded import RecordedDevice
from predictors.devices.registry import open_device
from predictors.devices.several import backend_pairs


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device as it is opened, and the latency to keep on it."""

    device: str
    budget_ms: float
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1


def check_targets(targets: Sequence[Target]) -> None:
    """Refuse budgets that are none, and a device that is there twice.

    Raises:
        ValueError: naming it.
    """
    for i, target in enumerate(targets):
        if not target.budget_ms > 0:
            raise ValueError(f"`budget` must be positive, but got {target.budget_ms:g} ms.")
        if len(targets) > 1 and "," in target.runtime + target.precision:
            raise ValueError(f"`runtime` and `precision` must be one for each of several devices, "
                             f"but {target.device} has {target.runtime} at {target.precision}. "
                             "Choose one.")  # fmt: skip
        if target.device in [other.device for other in targets[:i]]:
            raise ValueError(f"`device` must name each device once, but names {target.device} "
                             "twice. Leave one out.")  # fmt: skip


def open_targets(targets: Sequence[Target], *, fresh: bool = False) -> Device:
    """Open the devices as one; what they timed before is not timed again, unless `fresh`.

    Raises:
        ValueError: if there is no such device, or not with that runtime, precision or threads.
        RuntimeError: if one does not answer.
    """
    return _as_one(targets, lambda target: open_device(
        target.device, runtime=target.runtime, precision=target.precision, threads=target.threads,
        reuse=not fresh,
    ))  # fmt: skip


def recorded_targets(targets: Sequence[Target], machine: Mapping[str, Any]) -> Device:
    """Return what stands for the devices of a study: of those with a clock, their record."""
    each: Sequence[Mapping[str, Any]] = machine.get("devices") or [machine]
    facts = iter(each)

    def recorded(target: Target) -> Device:
        known = next(facts, {})
        if known.get("source") != "measured":
            return open_targets([target])
        return RecordedDevice(
            name=target.device,
            description=str(known.get("device")),
            backends=backend_pairs(
                target.runtime.split(","), target.precision.split(","), target.threads
            ),
        )

    return _as_one(targets, recorded)


def device_facts(device: Device) -> dict[str, Any]:
    """Return what is needed to know the devices again, as `recorded_targets` takes it."""
    facts = {"device": device.description, "source": device.source}
    places = places_of(device)
    if len(places) == 1:
        return facts
    each = [{"name": p.name, "device": p.description, "source": p.source} for p in places]
    return {**facts, "devices": each}


def file_name(device: str) -> str:
    """Return a device's name as it can be that of a file."""
    return re.sub(r"[^\w.@-]+", "-", device.replace("ssh://", "")).strip("-.")[:100]


def _as_one(targets: Sequence[Target], opened: Callable[[Target], Device]) -> Device:
    places = tuple(opened(target) for target in targets)
    if len(places) == 1:
        return places[0]
    return JointDevice(places=places, budgets_ms=tuple(target.budget_ms for target in targets))
