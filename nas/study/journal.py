"""Append-only files of one JSON object a line, which a full disk or a kill cannot spoil."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from search_spaces.fasternet import FasterNetConfig

Entry = dict[str, Any]  # a JSON object
R = TypeVar("R")


def append(path: Path, entries: Sequence[Mapping[str, object]]) -> None:
    """Append entries, all of them or none, and wait until they are on the disk."""
    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    rest = memoryview(text.encode())
    with path.open("ab", buffering=0) as file:  # a buffer would be written again on closing
        end = file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            raise OSError(error.errno, error.strerror, str(path)) from None


def append_record(path: Path, config: FasterNetConfig, record: Mapping[str, object]) -> None:
    """Append what is known of a network; errors are those of `append`."""
    append(path, [{"config": asdict(config), **record}])


def read(path: Path, *, growing: bool = False) -> list[Entry]:
    """Return all entries; none where there is no file.

    While another process appends to it (`growing`), a last line may be half there: it is left out.

    Raises:
        ValueError: if a line is cut off or is not a JSON object; the message says which.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    if lines[-1] and not growing:
        raise ValueError(
            f"{path} ends in the middle of line {len(lines)}. Every entry before it is whole: "
            "repeat with --repair, which `fasternas show` has too, to drop the cut line."
        )
    return [_parsed(line, path, number) for number, line in enumerate(lines[:-1], start=1)]


def read_records(
    path: Path, parse: Callable[[Entry], R], *, what: str, growing: bool = False
) -> list[tuple[FasterNetConfig, R]]:
    """Return the configs of all entries, each with what `parse` makes of the rest of its entry.

    Raises:
        ValueError: if a line is no such record; the message says which.
    """
    found = []
    for number, entry in enumerate(read(path, growing=growing), start=1):
        try:
            fields: Entry = {name: _tuples(v) for name, v in entry.pop("config").items()}
            found.append((FasterNetConfig(**fields), parse(entry)))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise ValueError(
                f"Line {number} of {path} must hold a config and {what}. Restore the file, or "
                "delete that line to lose that entry only."
            ) from None
    return found


def repair(path: Path) -> None:
    """Drop a last line that was cut off."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _parsed(line: bytes, path: Path, number: int) -> Entry:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise ValueError(
            f"Line {number} of {path} must be a JSON object, but is {line[:40]!r}. Restore the "
            "file, or delete that line to lose that entry only."
        )
    return entry


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
