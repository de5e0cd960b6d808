"""Putting the runtime on a board, into a folder that is fasternas's own there."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from predictors.backends.table import find_runtime
from predictors.devices.boards import Board, survey
from predictors.devices.connection import Connection, ConnectionLostError
from predictors.devices.ssh import SITE, Address, remedy


def with_runtime(board: Board) -> Board:
    """Return the board as surveyed, its runtime installed where it was missing.

    The board's own package index is tried first; where it has none, the wheels are fetched here
    and sent over. Nothing outside `SITE` is touched.

    Raises:
        RuntimeError: if the board is out of reach, neither way works, or the runtime does not load.
    """
    found = survey(board, load=True)
    if found.version:
        return found
    wanted = list(find_runtime(board.runtime, board.precision).board_packages)
    try:
        with Connection(Address.parse(board.ssh).command()) as connection:
            try:
                connection.ask({"install": wanted, "into": SITE})
            except ConnectionLostError:
                raise
            except RuntimeError as error:
                _send_wheels(connection, found, wanted, reason=str(error))
    except ConnectionLostError as error:
        raise RuntimeError(f"The board must stay reachable, but {board.ssh} was lost while "
                           f"installing: {error}. {remedy(str(error))}") from None  # fmt: skip
    installed = survey(board, load=True)
    if not installed.version:
        raise RuntimeError(f"The board must have {board.runtime}, but what was installed there "
                           "does not load. Install it by hand.")  # fmt: skip
    return installed


def _send_wheels(
    connection: Connection, board: Board, wanted: Sequence[str], *, reason: str
) -> None:
    """Fetch the wheels of the wanted packages for that machine here and unpack them over there."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        facts = connection.ask({"facts": board.package}).get("facts")
        libc = facts.get("libc") if isinstance(facts, dict) else None
        command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:",
                   "--disable-pip-version-check", "--python-version", board.python,
                   "-d", folder]  # fmt: skip
        for tag in platform_tags(board.architecture, libc):
            command += ["--platform", tag]
        done = subprocess.run([*command, *wanted], capture_output=True, text=True,
                              check=False)  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
            raise RuntimeError(
                f"The board must have {board.runtime}, but its own package index failed ({reason}) "
                f"and here no wheels for it were found ({said[0]}). Install it by hand."
            )
        for number, wheel in enumerate(sorted(Path(folder).glob("*.whl"))):
            name = connection.keep(wheel, f"wheel-{number}")
            connection.ask({"unpack": name, "into": SITE})


def platform_tags(architecture: str, libc: object) -> list[str]:
    """Return the tags of wheels that a machine takes, the newest first.

    `libc` is what it says of its C library, such as "2.36"; glibc 2.28 where that makes no sense.
    """
    major, _, minor = str(libc).partition(".")
    known = major == "2" and minor.isascii() and minor.isdigit() and len(minor) == 2
    minors = range(int(minor) if known else 28, 16, -1)
    return [*(f"manylinux_2_{minor}_{architecture}" for minor in minors),
            f"manylinux2014_{architecture}"]  # fmt: skip
