"""A measurement as it is kept and handed on: of which network, on what and when; also as JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from predictors.backends.model import identity
from predictors.devices.device import threads_of
from predictors.measurement import Backend, Latency
from search_spaces.io import short_repr

_ARTIFACT = re.compile(r"[0-9a-f]{64}")
_LONGEST = 400  # characters of a line of text
_SLOWEST_MS = 1e9
_MOST_THREADS = 2**16
_LATENCIES = ("low_ms", "median_ms", "high_ms")
_SKEW = timedelta(days=1)  # by which the clocks of two machines may differ


@dataclass(frozen=True, kw_only=True)
class Setting:
    """On what and how networks were timed; only latencies of one setting compare."""

    runtime: str
    version: str  # of the runtime
    threads: int
    machine: str  # one line on the hardware
    address: str = ""  # of a board behind SSH; empty: the machine that keeps the store
    emulated: bool = False
    cores: str = ""  # to which it was pinned, such as 4,5; empty: the runner chose
    precision: str = "fp32"  # of the deployed file: fp32, int8, bf16

    @property
    def description(self) -> str:
        """One line on the processor and the runtime."""
        emulated = " (emulated: no latencies of the real processor)" if self.emulated else ""
        precision = "" if self.precision == "fp32" else f", {self.precision}"
        return (f"{self.machine}{emulated}, {self.runtime} {self.version}{precision}, "
                f"{threads_of(self.threads)}")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a measurement is found by: the deployed file's SHA-256 in hex, and the setting."""

    artifact: str
    setting: Setting


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One measurement with its key.

    `device` is the name by which it was opened. An `alias` was given to measurements of another
    machine; then it is their device's name too, and no clock of this machine stands for them.
    """

    key: Key
    device: str
    network: str  # the identity of its `Model`
    description: str  # of the device, one line
    measurement: Latency
    taken_at: str = field(default_factory=lambda: in_utc(datetime.now(UTC)))
    alias: str = ""

    @property
    def processes(self) -> int:
        """How many fresh processes timed it."""
        return max(len(self.measurement.samples_ms), 1)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the alias."""
        return {
            "artifact": self.key.artifact, **asdict(self.key.setting), "device": self.device,
            "network": json.loads(self.network), "description": self.description,
            "taken_at": self.taken_at, "measurement": self.measurement.as_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Entry":
        """Return the entry that `as_json` spelled, whoever wrote it.

        Raises:
            ValueError: if a value is missing, of another kind or out of range.
        """
        setting = Setting(
            runtime=_text(values, "runtime"), version=_text(values, "version"),
            threads=_threads(values), machine=_text(values, "machine"),
            address=_text(values, "address", may_be_empty=True),
            emulated=_flag(values, "emulated"), precision=_text(values, "precision"),
            cores=_text({"cores": "", **values}, "cores", may_be_empty=True),
        )  # fmt: skip
        artifact, measurement = _text(values, "artifact"), measurement_of(values.get("measurement"))
        if not _ARTIFACT.fullmatch(artifact):
            raise _wrong("artifact", "a SHA-256 in lower-case hex", artifact)
        own = measurement.backend
        if own != Backend(setting.runtime, setting.precision, setting.threads):
            raise _wrong("measurement", "of the same runtime, precision and threads", astuple(own))
        return cls(
            key=Key(artifact=artifact, setting=setting), device=_text(values, "device"),
            network=_network(values.get("network")), measurement=measurement,
            description=_text(values, "description", may_be_empty=True), taken_at=_time(values),
        )  # fmt: skip


def measurement_of(values: Any) -> Latency:
    """Return the measurement that JSON spells.

    Raises:
        ValueError: if it is none that a clock gave.
    """
    known = {f.name for f in fields(Latency)} - {"parts"}
    if not isinstance(values, dict) or not values.keys() <= known:
        raise _wrong("measurement", "an object with the fields of a measurement", values)
    latencies: list[Any] = [values.get(name) for name in _LATENCIES]
    if not _are_latencies(latencies) or latencies != sorted(latencies):
        raise ValueError("`low_ms`, `median_ms` and `high_ms` must be positive numbers in this "
                         f"order, but got {short_repr(latencies)}.")  # fmt: skip
    samples = values.get("samples_ms", [])
    if not isinstance(samples, list) or not all(map(_are_latencies, samples)):
        raise _wrong("samples_ms", "a list of lists of positive numbers", samples)
    if values.get("source") != "measured":
        raise _wrong("source", "measured", values.get("source"))
    _check_context(values.get("context", {}))
    _text(values, "device")
    _flag({"unstable": False, **values}, "unstable")
    backend = _backend(values.get("backend"))
    return Latency(**{**values, "backend": backend, "samples_ms": tuple(map(tuple, samples))})


def _backend(values: Any) -> Backend:
    if not isinstance(values, dict) or values.keys() != {f.name for f in fields(Backend)}:
        raise _wrong("backend", "an object with runtime, precision and threads", values)
    return Backend(_text(values, "runtime"), _text(values, "precision"), _threads(values))


def _check_context(context: Any) -> None:
    """Refuse a context whose entries, where there are any, are not what others rely on."""
    if not isinstance(context, dict):
        raise _wrong("context", "an object", context)
    json.dumps(context, allow_nan=False)
    references = context.get("references", {})
    timed = references.values() if isinstance(references, dict) else [None]
    counts = context.get("counts", {})
    near = context.get("nearness", 0)
    right = {
        "references": all(isinstance(one, dict) and one.keys() >= {"kept_ms", "now_ms"}
                          and _are_latencies(list(one.values())) for one in timed),
        "counts": isinstance(counts, dict) and all(type(n) is int for n in counts.values()),
        "nearness": type(near) in (int, float) and 0 <= near <= 1,
        "session": isinstance(context.get("session", ""), str),
    }  # fmt: skip
    for name, fits in right.items():
        if not fits:
            raise _wrong(name, "as a measurement has it", context[name])


def in_utc(moment: datetime) -> str:
    """Return a moment as ISO text in UTC, to the second; later texts sort after earlier ones."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _network(values: Any) -> str:
    if not isinstance(values, dict) or not isinstance(values.get("class"), str):
        raise _wrong("network", "an object with its `class`", values)
    return identity(values["class"], values)


def _are_latencies(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(ms) in (int, float) and 0 < ms < _SLOWEST_MS for ms in values
    )


def _text(values: Mapping[str, Any], name: str, *, may_be_empty: bool = False) -> str:
    value = values.get(name)
    # What is shown must not steer the terminal.
    whole = isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST
    if not whole or not (value or may_be_empty):
        raise _wrong(name, "a line of text", value)
    return str(value)


def _threads(values: Mapping[str, Any]) -> int:
    value = values.get("threads")
    if type(value) is not int or not 0 < value <= _MOST_THREADS:
        raise _wrong("threads", "a positive whole number", value)
    return value


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _time(values: Mapping[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(_text(values, "taken_at"))
        written = in_utc(moment)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _wrong("taken_at", "an ISO time with its zone", values.get("taken_at"))
    if moment > datetime.now(UTC) + _SKEW:
        raise _wrong("taken_at", "in the past", values["taken_at"])
    return written


def _wrong(name: str, what: str, value: object) -> ValueError:
    return ValueError(f"`{name}` must be {what}, but got {short_repr(value)}.")
