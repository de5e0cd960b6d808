"""What is known of latency before a new device is timed: other devices in the store, a profile.

A run keeps them in calibration.json with how many networks it timed to know its own devices, so
that it goes on with the same predictions wherever the store has grown meanwhile.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from nas.devices import Devices
from predictors.backends.model import config_identity
from predictors.devices.cache import Cache, CacheSummary
from predictors.devices.profiled import ProfiledDevice
from predictors.latency import LatencyPredictor, Relative
from predictors.measurement import Backend
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import atomic_write
from search_spaces.space import Space

RECORD = "calibration.json"
FEWEST = 20  # networks measured on a device that may tell of another
MOST_NETWORKS = 150  # of each
MOST_DEVICES = 3
_PROFILE = "the profile of a Raspberry Pi 5"


@dataclass(frozen=True, kw_only=True)
class MeasuredRelative:
    """A device with the latencies of some networks, in ms."""

    name: str
    networks: tuple[FasterNetConfig, ...]
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """What a run's devices were calibrated with, beside the bundled profile.

    `networks` is how many were timed; None while more may be.
    """

    relatives: tuple[MeasuredRelative, ...]
    networks: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the relatives are, in words."""
        return (_PROFILE, *(relative.name for relative in self.relatives))

    def open(self, space: Space[FasterNetConfig]) -> tuple[Relative, ...]:
        """Return what predicts the relatives' latencies, in the order of their names."""
        fitted = (
            LatencyPredictor.fit(space, one.networks, one.latencies_ms, folds=0)
            for one in self.relatives
        )
        return (ProfiledDevice("arm", Backend()), *fitted)

    def ended(self, networks: int) -> "CalibrationRecord":
        """Return it once so many networks were found to be enough."""
        return replace(self, networks=networks)


def write_record(folder: Path, record: CalibrationRecord) -> None:
    """Write calibration.json."""
    atomic_write(folder / RECORD, json.dumps(msgspec.to_builtins(record)) + "\n")


def read_record(folder: Path) -> CalibrationRecord | None:
    """Return what calibration.json says; None of a run that knows no relatives.

    Raises:
        ValueError: if it is not as a search wrote it.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=CalibrationRecord)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(
            f"{file} must be as a search wrote it, but: {error}. Restore the file."
        ) from None


def find_relatives(devices: Devices) -> CalibrationRecord:
    """Return the devices in the store of which enough networks were measured.

    Those of this machine come first, then those with the most. A store that cannot be read is
    none.
    """
    found: list[MeasuredRelative] = []
    with suppress(RuntimeError, ValueError):
        cache = Cache()
        own = [(name, b) for name, device in devices.items() for b in device.backends]
        summaries = [
            s
            for s in cache.summaries()
            if s.count >= FEWEST
            and not s.setting.emulated
            and (s.device, s.setting.backend) not in own  # what it took itself is asked for anyway
        ]
        here = [device.description for device in devices.values()]
        summaries.sort(key=lambda s: (not any(s.setting.machine in d for d in here), -s.count))
        for summary in summaries:
            relative = _measured(cache, summary)
            if len(relative.networks) >= FEWEST and len(found) < MOST_DEVICES:
                found.append(relative)
    return CalibrationRecord(relatives=tuple(found))


def _measured(cache: Cache, summary: CacheSummary) -> MeasuredRelative:
    """The newest latencies of configs in one setting."""
    entries = [e for e in cache.entries(summary.device) if e.setting == summary.setting]
    latencies: Mapping[FasterNetConfig, float] = {
        config: entry.latency.median_ms
        for entry in entries
        if (config := _config(entry.network)) is not None
    }
    kept = list(latencies.items())[-MOST_NETWORKS:]
    backend = summary.setting.backend
    words = f"{summary.device} ({backend.runtime} {backend.precision}, {backend.threads} threads)"
    return MeasuredRelative(
        name=words.replace("1 threads", "one thread"),
        networks=tuple(config for config, _ in kept),
        latencies_ms=tuple(ms for _, ms in kept),
    )


def _config(network: str) -> FasterNetConfig | None:
    """The config of a network's identity, if it is one of ours."""
    try:
        config = msgspec.json.decode(network, type=FasterNetConfig)
    except (msgspec.DecodeError, ValueError):
        return None
    return config if config_identity(config) == network else None


def opened(record: CalibrationRecord | None, space: Space[FasterNetConfig]) -> tuple[Relative, ...]:
    """Return what predicts the latencies of the relatives; nothing without a record."""
    return () if record is None else record.open(space)


def calibration_words(
    record: CalibrationRecord | None, weights: Sequence[Sequence[float]], margin: float
) -> str:
    """Say in a line what latency is known from, by the weights of the relatives on each device."""
    believed: dict[str, float] = defaultdict(float)
    for of_device in weights:
        for name, weight in zip(record.names if record else (), of_device, strict=False):
            believed[name] = max(believed[name], weight)
    names = [name for name, weight in believed.items() if weight >= 0.1]
    known = f"beside {' and '.join(names)}" if names else "by these alone"
    return f"{known}; upper ends are {margin:.0%} above the predictions"
