"""Files that are whole or not there."""

import os
from pathlib import Path


def written(content: bytes, path: Path) -> Path:
    """Write beside and rename.

    Raises:
        OSError: if the file cannot be written; then nothing is left behind.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
