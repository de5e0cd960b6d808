"""Append-only files of one JSON object a line, which a full disk or a kill cannot spoil."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from search_spaces.fasternet import FasterNetConfig

R = TypeVar("R")


def append(path: Path, entries: list[dict[str, Any]]) -> None:
    """Append entries, all of them or none, and wait until they are on the disk.

    Raises:
        OSError: if they cannot be written; the file then ends where it did before.
    """
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


def read(path: Path, *, growing: bool = False) -> list[dict[str, Any]]:
    """Return all entries; none where there is no file.

    While another process appends to it (`growing`), a last line may be half there: it is left out.

    Raises:
        ValueError: if a line is cut off or is not a JSON object; the message says which.
        OSError: if the file cannot be read.
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
    path: Path, parse: Callable[[dict[str, Any]], R], *, what: str, growing: bool = False
) -> list[tuple[FasterNetConfig, R]]:
    """Return the configs of all entries, each with what `parse` makes of the rest of its entry.

    Raises:
        ValueError: if a line is no such record; the message says which.
        OSError: if the file cannot be read.
    """
    found = []
    for number, entry in enumerate(read(path, growing=growing), start=1):
        try:
            found.append((take_config(entry), parse(entry)))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise ValueError(
                f"Line {number} of {path} must hold a config and {what}. Restore the file, or "
                "delete that line to lose that entry only."
            ) from None
    return found


def take_config(entry: dict[str, Any]) -> FasterNetConfig:
    """Take the config out of an entry.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: if there is none.
    """
    return FasterNetConfig(**{k: _tuples(v) for k, v in entry.pop("config").items()})


def repair(path: Path) -> None:
    """Drop a last line that was cut off."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
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


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
