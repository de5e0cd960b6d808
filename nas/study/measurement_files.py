"""Measurements as a file to hand on: JSON lines, a header first, gzipped if named *.gz."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO

from nas.study.store import MEASUREMENTS, read_measurements, read_run
from predictors.backends.model import config_identity
from predictors.devices.cache_entry import CacheEntry, in_utc
from search_spaces.io import atomic_write, short_repr

FORMAT = 1
_HEADER = "fasternas_measurements"
_LONGEST_LINE = 2**20  # bytes
_LARGEST = 2**28  # bytes, unpacked: what a small file can be packed from has no other limit
_GZIP = b"\x1f\x8b"


def write_entries(path: Path, entries: Sequence[CacheEntry]) -> None:
    """Write the file; it appears under its name when it is whole."""
    header = {_HEADER: FORMAT, "fasternas": version("fasternas"), "entries": len(entries)}
    lines = [
        json.dumps(line, separators=(",", ":"), sort_keys=number > 0)
        for number, line in enumerate([header, *(e.as_json() for e in entries)])
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # the same measurements give the same file
    atomic_write(path, content)


def read_entries(path: Path) -> list[CacheEntry]:
    """Read the file whoever wrote it.

    Raises:
        ValueError: if it holds anything but measurements, or was cut off; the message names the
            line.
    """
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


def entries_of_run(folder: Path) -> list[CacheEntry]:
    """Return the measurements of a run folder, as of the time when the last was written.

    Raises:
        ValueError: if the folder holds no study or none with measurements, or a corrupt file.
    """
    run = read_run(folder)
    measured = [
        (config, latency)
        for config, latencies in read_measurements(folder, growing=True).items()
        for latency in latencies.by_device.values()
        if latency.source == "measured"
    ]
    if not measured:
        raise ValueError(
            f"`run` must be a folder with measurements, but {folder} has none. Name the run of a "
            "device that was timed."
        )
    written = datetime.fromtimestamp((folder / MEASUREMENTS).stat().st_mtime, UTC)
    facts = run.get("machine", {}).get("devices", {})
    try:
        return [
            CacheEntry(
                latency=latency,
                network=config_identity(config),
                description=str(facts.get(latency.device, {}).get("description", "")),
                taken_at=in_utc(written),
            )
            for config, latency in measured
        ]
    except ValueError as error:
        raise ValueError(
            f"The measurements of {folder} must say where they were timed, but: {error} Measure "
            "again."
        ) from None


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
