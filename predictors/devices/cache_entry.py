"""A latency as it is cached and handed on: of which network, on what and when; also as JSON."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from predictors.backends.model import identity
from predictors.devices.device import threads_of
from predictors.measurement import Backend, Latency
from search_spaces.io import atomic_write, check_replaced, short_repr

_ARTIFACT = re.compile(r"[0-9a-f]{64}")
_LONGEST = 400  # characters of a line of text
_MOST_THREADS = 2**16
_SKEW = timedelta(days=1)  # by which the clocks of two machines may differ


@dataclass(frozen=True, kw_only=True)
class Setting:
    """On what and in which backend networks were timed; only latencies of one setting compare."""

    backend: Backend
    version: str  # of the runtime
    machine: str  # one line on the hardware
    address: str = ""  # of a board behind SSH; empty: the machine that keeps the cache
    emulated: bool = False
    cores: str = ""  # to which it was pinned, such as 4,5; empty: the agent chose

    @classmethod
    def of(cls, latency: Latency) -> "Setting":
        """Return the one in which a latency was measured."""
        context = latency.context
        assert latency.backend is not None  # of a measurement it is known
        return cls(
            backend=latency.backend,
            version=context.runtime_version,
            machine=context.machine,
            address=context.address,
            emulated=context.emulated,
            cores=context.cores,
        )

    @property
    def description(self) -> str:
        """One line on the processor and the runtime."""
        backend = self.backend
        emulated = " (emulated: no latencies of the real processor)" if self.emulated else ""
        precision = "" if backend.precision == "fp32" else f", {backend.precision}"
        return (
            f"{self.machine}{emulated}, {backend.runtime} {self.version}{precision}, "
            f"{threads_of(backend.threads)}"
        )


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """A measured latency and the network that it is of.

    It is found by the deployed file, `artifact`, and the setting, both of which the latency's
    context tells. An `alias` was given to measurements of another machine; then that is the
    device's name, and they do not count as measured by this machine.
    """

    latency: Latency
    network: str  # the identity of its `Model`
    description: str  # of the device, one line
    taken_at: str = field(default_factory=lambda: in_utc(datetime.now(UTC)))
    alias: str = ""

    def __post_init__(self) -> None:
        context = self.latency.context
        for name in ("artifact", "machine", "runtime_version"):
            if not getattr(context, name):
                raise ValueError(f"`{name}` must be told by a measurement, but is not.")

    @property
    def device(self) -> str:
        """The name by which the device was opened."""
        return self.alias or self.latency.device

    @property
    def artifact(self) -> str:
        """The deployed file's SHA-256 in hex."""
        return self.latency.context.artifact

    @property
    def setting(self) -> Setting:
        """On what it was measured."""
        return Setting.of(self.latency)

    @property
    def repeats(self) -> int:
        """How many fresh processes timed it."""
        return max(len(self.latency.samples_ms), 1)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the alias."""
        return {
            "network": json.loads(self.network),
            "description": self.description,
            "taken_at": self.taken_at,
            "latency": self.latency.as_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CacheEntry":
        """Return the entry that `as_json` spelled, whoever wrote it."""
        _check_texts(values)
        record = _converted(values)
        if not isinstance(record.network.get("class"), str):
            raise _wrong("network", "an object with its `class`", record.network)
        if record.taken_at > datetime.now(UTC) + _SKEW:
            raise _wrong("taken_at", "in the past", values["taken_at"])
        unknown = set(values["latency"]) - {f.name for f in fields(Latency)}
        if unknown:
            raise ValueError(
                f"`latency` must have the fields of a latency, but got {short_repr(min(unknown))}."
            )
        _check_measured(record.latency)
        json.dumps(record.network, allow_nan=False)  # no network is of infinite size
        return cls(
            latency=record.latency,
            network=identity(record.network["class"], record.network),
            description=record.description,
            taken_at=in_utc(record.taken_at),
        )


class _Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What JSON spells of an entry."""

    network: dict[str, Any]
    description: str
    taken_at: Annotated[datetime, msgspec.Meta(tz=True)]
    latency: Latency


def _converted(values: object) -> _Record:
    """Convert JSON values; the error names the field first, as all of ours do."""
    try:
        return msgspec.convert(values, _Record)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        if what.startswith("Expected ") and path:
            what = f"`{path.removesuffix('`')}` must be {what.removeprefix('Expected ')}"
        elif path:
            what = f"`{path.removesuffix('`')}` is wrong: {what}"
        raise ValueError(f"{what}.") from None
    except OverflowError as error:
        raise ValueError(f"{error}.") from None


def measured_latency(text: str) -> Latency:
    """Return the measured latency that JSON text spells."""
    latency = Latency.from_json(json.loads(text))
    _check_measured(latency)
    return latency


def _check_measured(latency: Latency) -> None:
    """Refuse what no clock gave, or the cache cannot keep apart from others."""
    ends = [latency.low_ms, latency.median_ms, latency.high_ms]
    if ends != sorted(ends):
        raise _wrong("low_ms`, `median_ms` and `high_ms", "in this order", ends)
    if latency.source != "measured":
        raise _wrong("source", "measured", latency.source)
    backend = latency.backend
    if backend is None:
        raise _wrong("backend", "that in which it was measured", backend)
    for name, text in (("device", latency.device), ("runtime", backend.runtime)):
        if not text:
            raise _wrong(name, "a line of text", text)
    if not 0 < backend.threads <= _MOST_THREADS:
        raise _wrong("threads", "a positive whole number", backend.threads)
    if not _ARTIFACT.fullmatch(latency.context.artifact):
        raise _wrong("artifact", "a SHA-256 in lower-case hex", latency.context.artifact)


def in_utc(moment: datetime) -> str:
    """Return a moment as ISO text in UTC, to the second; later texts sort after earlier ones."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _check_texts(values: object, name: str = "") -> None:
    """Refuse text that is no line, or a long one: what is shown must not steer the terminal."""
    if isinstance(values, str) and not (values.isprintable() and len(values) <= _LONGEST):
        raise _wrong(name, "a line of text", values)
    children = values.items() if isinstance(values, dict) else ()
    for key, value in children:
        _check_texts(key, name)
        _check_texts(value, str(key))
    for value in values if isinstance(values, list) else ():
        _check_texts(value, name)


def _wrong(name: str, what: str, value: object) -> ValueError:
    return ValueError(f"`{name}` must be {what}, but got {short_repr(value)}.")


FORMAT = 1
_HEADER = "fasternas_measurements"
_LONGEST_LINE = 2**20  # bytes
_LARGEST = 2**28  # bytes, unpacked: what a small file can be packed from has no other limit
_GZIP = b"\x1f\x8b"


def write_entries(path: Path, entries: Sequence[CacheEntry]) -> None:
    """Write the file; it appears under its name when it is whole.

    What is there must be such a file.
    """
    target = check_replaced(path, _is_export, name="file", what="an export")
    header = {_HEADER: FORMAT, "fasternas": version("fasternas"), "entries": len(entries)}
    lines = [
        json.dumps(line, separators=(",", ":"), sort_keys=number > 0)
        for number, line in enumerate([header, *(e.as_json() for e in entries)])
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # the same measurements give the same file
    atomic_write(target, content)


def _is_export(path: Path) -> bool:
    """Whether a file begins as `write_entries` begins it."""
    try:
        with path.open("rb") as raw, closing(_unpacked(raw)) as file:
            return _HEADER.encode() in file.read(len(_HEADER) + 2)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False


def read_entries(path: Path) -> list[CacheEntry]:
    """Read the file whoever wrote it."""
    found: list[CacheEntry] = []
    lines = _lines(path)
    expected = _expected(path, next(lines, b""))
    for number, line in enumerate(lines, start=2):
        try:
            found.append(CacheEntry.from_json(_object(line)))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"Line {number} of {path} must be a measurement: {error} Nothing was imported."
            ) from None
    if len(found) != expected:
        raise ValueError(
            f"{path} must hold {expected} measurements after its header, but line {len(found) + 1} "
            "is the last. Copy the file again."
        )
    return found


def _expected(path: Path, line: bytes) -> int:
    """How many measurements the header promises."""
    try:
        header = _object(line)
        form, count = header[_HEADER], header["entries"]
    except (ValueError, KeyError, RecursionError):
        form = count = None
    if type(form) is not int or type(count) is not int or form < 1:
        raise ValueError(
            f"Line 1 of {path} must be the header of measurements that `fasternas measurements "
            f"export` wrote, but is {short_repr(line[:60])}."
        )
    if form > FORMAT:
        raise ValueError(
            f"Line 1 of {path} must name format {FORMAT} at most, but names {short_repr(form)}. "
            "Update fasternas."
        )
    return count


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines; a file that is packed wrongly, or too large, is no text."""
    size, number = 0, 0
    with path.open("rb") as raw, closing(_unpacked(raw)) as file:
        while line := _line(file, path, number := number + 1):
            size += len(line)
            if len(line) > _LONGEST_LINE or size > _LARGEST:
                raise ValueError(
                    f"Line {number} of {path} must be a measurement, but is too long for one, or "
                    "the file is. Nothing was imported."
                )
            yield line


def _line(file: IO[bytes], path: Path, number: int) -> bytes:
    try:
        return file.readline(_LONGEST_LINE + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"Line {number} of {path} must be readable, but the file is damaged: {error}. Copy it "
            "again."
        ) from None


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    return gzip.open(raw) if packed else raw  # type: ignore[return-value]


def _object(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"it must be a JSON object, but is {short_repr(line[:60])}.")
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON.")
