"""Folders made for results, and removed again where nothing came to lie in them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; return those that were not there, the innermost first.

    Raises:
        ValueError: if one of them is a link that leads nowhere.
        OSError: if it cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    dangling = next((path for path in made if path.is_symlink()), None)
    if dangling is not None:
        raise ValueError(f"`out` must be a folder, but {dangling} is a link to "
                         f"{dangling.readlink()}, which is not there. Make that or remove the "
                         "link.")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders in which there is nothing, the innermost first."""
    for path in folders:
        with suppress(OSError):  # something is in it
            path.rmdir()
