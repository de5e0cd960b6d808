"""Checkpoints of a training: the last and the one before, never half a file under its name."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAST, BEFORE = "last.pt", "last-1.pt"


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A checkpoint, and what is to be said of how it was found."""

    content: dict[str, Any]
    remark: str = ""


def keep(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `last.pt` beside and rename it; what it was becomes `last-1.pt`.

    Raises:
        OSError: if it cannot be written whole; then both files are as they were.
    """
    import torch

    saved = io.BytesIO()  # torch cannot be trusted with a full disk
    torch.save(dict(content), saved)
    last, unfinished = folder / LAST, folder / f".{LAST}.{os.getpid()}"
    try:
        with unfinished.open("wb", buffering=0) as file:
            _write(file.fileno(), saved.getbuffer(), last)
        if last.exists():
            last.replace(folder / BEFORE)
        unfinished.replace(last)
    finally:
        unfinished.unlink(missing_ok=True)


def newest(folder: Path) -> Kept | None:
    """Return the newest checkpoint that can be read; None where there was none yet.

    Raises:
        ValueError: if there are checkpoints, but none can be read.
    """
    broken: list[str] = []
    for name in (LAST, BEFORE):
        file = folder / name
        if not file.exists():  # killed between the two renames: the one before is whole
            continue
        content = _read(file)
        if content is not None:
            said = f"{broken[0]} cannot be read; the one before, {name}, is used." if broken else ""
            return Kept(content=content, remark=said)
        broken.append(str(file))
    if broken:
        raise ValueError(f"`out` must hold a checkpoint that can be read, but {broken[-1]} cannot. "
                         "Remove it to begin again.")  # fmt: skip
    return None


def _read(file: Path) -> dict[str, Any] | None:
    import torch

    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # unpickling raises whatever it likes
        return None
    return content


def _write(descriptor: int, content: memoryview, path: Path) -> None:
    try:
        rest = content
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)  # else a power cut leaves an empty file under the new name
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
