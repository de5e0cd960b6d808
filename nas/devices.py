"""The devices of a study, opened, by name: timed one after the other, and predicted."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from predictors.calibration import worst_ratios
from predictors.devices import registry
from predictors.devices.cache import RecordedDevice
from predictors.devices.device import Device, DeviceSpec, Network
from predictors.latency import (
    FEWEST,
    FEWEST_RELATED,
    NORMAL,
    LatencyPredictor,
    Prediction,
    RatioPrediction,
    Relative,
)
from predictors.measurement import Backend, Latencies, Latency, TimingProtocol
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import short_repr
from search_spaces.space import Space

Devices = Mapping[str, Device]
Timed = Sequence[tuple[FasterNetConfig, Latencies]]


def open_devices(
    specs: Sequence[DeviceSpec], *, fresh: bool = False, protocol: TimingProtocol | None = None
) -> dict[str, Device]:
    """Open the devices; what they timed before is not timed again, unless `fresh`."""
    protocol = replace(protocol or registry.PROTOCOL, reuse=not fresh)
    return {spec.name: registry.open_spec(spec, protocol=protocol) for spec in specs}


def recorded_devices(
    specs: Sequence[DeviceSpec], facts: Mapping[str, Mapping[str, str]]
) -> dict[str, Device]:
    """Return what stands for the devices of a study: of those with a clock, their record."""
    return {spec.name: _recorded(spec, facts.get(spec.name, {})) for spec in specs}


def _recorded(spec: DeviceSpec, facts: Mapping[str, str]) -> Device:
    if facts.get("source") != "measured":
        return registry.open_spec(spec)
    description = str(facts.get("description"))
    return RecordedDevice(name=spec.name, description=description, backends=spec.backends)


def device_facts(devices: Devices) -> dict[str, dict[str, str]]:
    """Return what is needed to know the devices again, as `recorded_devices` takes it."""
    return {
        name: {"description": device.description, "source": device.source}
        for name, device in devices.items()
    }


def descriptions(devices: Devices) -> list[str]:
    """Return what the devices are, one line each; with their names, if there are several."""
    several = len(devices) > 1
    return [f"{n}: {d.description}" if several else d.description for n, d in devices.items()]


def remarks(devices: Devices) -> list[str]:
    """Return what went otherwise than expected on the devices."""
    return [remark for device in devices.values() for remark in device.remarks]


def have_clock(devices: Devices) -> bool:
    """Whether one of the devices has a clock; else all latencies are predicted."""
    return any(device.source == "measured" for device in devices.values())


def file_name(device: str) -> str:
    """Return a device's name as it can be that of a file."""
    return re.sub(r"[^\w.@-]+", "-", device.replace("ssh://", "")).strip("-.")[:100]


def measure_each(
    devices: Devices, networks: Sequence[Network], *, repeats: int | None = None
) -> Iterator[Latencies]:
    """Yield the latencies of each network, in order; one device times at a time."""
    size = registry.PROTOCOL.turn
    for start in range(0, len(networks), size):
        turn = networks[start : start + size]
        # Whole lists: two names may stand for one machine, and exporting for one slows another.
        columns = [_measured(name, device, turn, repeats) for name, device in devices.items()]
        for row in zip(*columns, strict=True):
            yield Latencies(dict(zip(devices, row, strict=True)))


def _measured(
    name: str, device: Device, networks: Sequence[Network], repeats: int | None
) -> list[Latency]:
    """What a device measured; that of another package may give anything."""
    found = list(device.measure_each(networks, repeats=repeats))
    if len(found) != len(networks) or not all(isinstance(one, Latency) for one in found):
        raise RuntimeError(
            f"`measure_each` of {name} must give a latency for each of {len(networks)} networks, "
            f"but gave {len(found)}: {short_repr(found)}. Mend that device."
        )
    for one in found:
        sides = (one.low_ms, one.median_ms, one.high_ms)
        if not all(0 < side < math.inf for side in sides):
            low, median, high = (f"{side:g}" for side in sides)
            raise RuntimeError(
                f"`measure_each` of {name} must give positive milliseconds, but gave {median} "
                f"[{low}, {high}]. Mend that device."
            )
    return found


def standard_error(latency: Latency) -> float:
    """Return the standard error of a measured latency as a part of it, by its 95 % interval."""
    return math.log(latency.high_ms / latency.low_ms) / (2 * 1.96)


@dataclass(frozen=True, kw_only=True)
class LatencyModels:
    """A predictor for each device of a study; its backend is None where there are several."""

    by_device: Mapping[str, Relative]
    backends: Mapping[str, Backend | None]
    budgets_ms: Mapping[str, float]

    def predict(self, configs: Sequence[FasterNetConfig]) -> dict[str, Prediction]:
        return {name: one.predict(configs) for name, one in self.by_device.items()}

    @property
    def weights(self) -> list[tuple[float, ...]]:
        """How far relatives are believed, on each device of which a predictor was fitted."""
        return [p.weights for p in self.by_device.values() if isinstance(p, LatencyPredictor)]

    def ratios(self, configs: Sequence[FasterNetConfig]) -> RatioPrediction:
        """Return the worst ratio of each config over the devices.

        Where all were fitted to what a clock said, it tells how far they may be wrong: what they
        miss the budget by may be measured.
        """
        found = worst_ratios(self.predict(configs), self.budgets_ms)
        if len(self.weights) < len(self.by_device):
            return found
        return replace(found, log_std=np.log(found.high / found.mean) / NORMAL)

    def latencies(self, configs: Sequence[FasterNetConfig]) -> list[Latencies]:
        """Return the latencies of each config, marked predicted."""
        columns = [self._column(name, found) for name, found in self.predict(configs).items()]
        rows = zip(*columns, strict=True)
        return [Latencies(dict(zip(self.by_device, row, strict=True))) for row in rows]

    def _column(self, device: str, found: Prediction) -> list[Latency]:
        rows = zip(found.mean_ms, found.low_ms, found.high_ms, strict=True)
        return [
            Latency(
                median_ms=float(mean),
                low_ms=float(low),
                high_ms=float(high),
                source="predicted",
                device=device,
                backend=self.backends[device],
            )
            for mean, low, high in rows
        ]


def fit_models(
    space: Space[FasterNetConfig],
    devices: Devices,
    budgets_ms: Mapping[str, float],
    timed: Timed,
    *,
    relatives: Sequence[Relative] = (),
) -> LatencyModels | None:
    """Return a predictor for each device; None where one has a clock and too few are timed."""
    if have_clock(devices) and len(timed) < (FEWEST_RELATED if relatives else FEWEST):
        return None
    configs = [config for config, _ in timed]
    fitted: dict[str, Relative] = {}
    for name, device in devices.items():
        if device.source == "predicted":
            fitted[name] = device
            continue
        found = [latencies.by_device[name] for _, latencies in timed]
        fitted[name] = LatencyPredictor.fit(
            space,
            configs,
            [one.median_ms for one in found],
            errors=[standard_error(one) for one in found],
            relatives=relatives,
        )
    backends = {
        name: device.backends[0] if len(device.backends) == 1 else None
        for name, device in devices.items()
    }
    return LatencyModels(by_device=fitted, backends=backends, budgets_ms=budgets_ms)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was predicted and what was timed, of networks that the predictor had not seen."""

    device: str
    description: str
    prediction: Prediction
    measured: Sequence[Latency]


def calibrations(models: LatencyModels, devices: Devices, later: Timed) -> list[Calibration]:
    """Compare the predictors with what was timed later, on each device that has a clock."""
    if not later:
        return []
    predictions = models.predict([config for config, _ in later])
    return [
        Calibration(
            device=name,
            description=device.description,
            prediction=predictions[name],
            measured=[latencies.by_device[name] for _, latencies in later],
        )
        for name, device in devices.items()
        if device.source == "measured"
    ]
