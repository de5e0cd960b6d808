"""Putting the runtime on a board, into a folder that is fasternas's own there."""

import subprocess
import sys
import tempfile
from pathlib import Path

from predictors.devices.boards import Board, survey
from predictors.devices.connection import Connection, ConnectionLostError
from predictors.devices.ssh import SITE, Address, remedy


def with_runtime(board: Board) -> Board:
    """Return the board as surveyed, its runtime installed where it was missing.

    The board's own package index is tried first; where it has none, the wheels are fetched here
    and sent over. Nothing outside `SITE` is touched.

    Raises:
        RuntimeError: if the board is out of reach or neither way works.
    """
    found = survey(board)
    if found.version:
        return found
    try:
        with Connection(Address.parse(board.ssh).command()) as connection:
            try:
                connection.ask({"install": ["numpy", board.runtime], "into": SITE})
            except ConnectionLostError:
                raise
            except RuntimeError as error:
                _send_wheels(connection, found, reason=str(error))
    except ConnectionLostError as error:
        raise RuntimeError(f"The board must stay reachable, but {board.ssh} was lost while "
                           f"installing: {error}. {remedy(str(error))}") from None  # fmt: skip
    installed = survey(board)
    if not installed.version:
        raise RuntimeError(f"The board must have {board.runtime}, but what was installed there "
                           "does not load. Install it by hand.")  # fmt: skip
    return installed


def _send_wheels(connection: Connection, board: Board, *, reason: str) -> None:
    """Fetch the wheels for that machine here and unpack them over there."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        platforms = [f"manylinux_2_{minor}_{board.architecture}" for minor in (28, 27, 17)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:",
                   "--disable-pip-version-check", "--python-version", board.python,
                   "-d", folder]  # fmt: skip
        for tag in (*platforms, f"manylinux2014_{board.architecture}"):
            command += ["--platform", tag]
        done = subprocess.run([*command, "numpy", board.runtime], capture_output=True, text=True,
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
