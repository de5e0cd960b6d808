"""The boards that the user has registered: what they are, and putting a runtime on them.

They are listed in `~/.config/fasternas/devices.toml`. A runtime goes into a folder that is
fasternas's own on the board.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from predictors.backends.table import find_runtime
from predictors.devices.connection import (
    SITE,
    Address,
    Connection,
    ConnectionLostError,
    number,
    remedy,
)
from predictors.devices.device import ONNXRUNTIME
from predictors.devices.timed import Host, TimedDevice
from predictors.measurement import Backend, TimingProtocol
from search_spaces.io import atomic_write, config_folder, locked, short_repr

_NAME = re.compile(r"[A-Za-z][\w-]{0,40}")
_KINDS: dict[str, tuple[type, ...]] = {  # of what is no text
    "threads": (int,),
    "number_of_cores": (int,),
    "cores": (list,),
    "celsius": (int, float),
    "emulated": (bool,),
}


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board: where it is, how networks are timed on it, and what it said that it is."""

    name: str
    ssh: str
    backend: Backend = ONNXRUNTIME
    cores: tuple[int, ...] = ()  # to pin to; empty: the agent chooses
    architecture: str = ""
    machine: str = ""
    version: str = ""  # of the runtime; empty: it is not there
    python: str = ""
    number_of_cores: int = 1
    governor: str = ""
    celsius: float | None = None
    emulated: bool = False

    @property
    def description(self) -> str:
        """One line on what it is."""
        emulated = " (emulated)" if self.emulated else ""
        heat = f", {self.celsius:.0f} \u00b0C" if self.celsius is not None else ""
        governor = f", governor {self.governor}" if self.governor else ""
        backend = self.backend
        precision = "" if backend.precision == "fp32" else f", {backend.precision}"
        runtime = f"{backend.runtime} {self.version}" if self.version else f"no {backend.runtime}"
        return (
            f"{self.machine or self.architecture}{emulated}, {self.architecture}, "
            f"{self.number_of_cores} cores, Python {self.python}, {runtime}"
            f"{precision}{governor}{heat}"
        )

    @property
    def package(self) -> str:
        """The package that executes networks on it."""
        return find_runtime(self.backend.runtime, self.backend.precision).package

    def check_fits(self, number_of_cores: int) -> None:
        """Refuse threads and cores that a machine with so many cores does not have."""
        beyond = [core for core in self.cores if core >= number_of_cores]
        threads = self.backend.threads
        if threads > number_of_cores or beyond:
            raise ValueError(
                f"`threads` and `cores` must be among the {number_of_cores} cores of {self.name}, "
                f"but got {max([threads, *beyond])}."
            )

    def open(self, name: str, backend: Backend, protocol: TimingProtocol) -> TimedDevice:
        """Return it as a device."""
        board = replace(self, backend=backend)
        if board.package != self.package:
            board = survey(board)
        if not board.version:
            raise ValueError(
                f"`runtime` must be installed on {self.name}, but {backend.runtime} is not. "
                "Install it by `fasternas devices add NAME "
                f"--ssh {self.ssh} --runtime {backend.runtime}`."
            )
        board.check_fits(self.number_of_cores)
        host = Host(
            command=Address.parse(self.ssh).command(),
            address=self.ssh,
            machine=self.machine or self.architecture,
            cores=self.cores,
            emulated=self.emulated,
        )
        return TimedDevice(name, host, backend, version=board.version, protocol=protocol)


def survey(board: Board, *, load: bool = False) -> Board:
    """Connect to a board and return it with what it says of itself.

    `load` has the board load its runtime once, if that is there: what is installed may not work.
    """
    request = {"facts": board.package, **({"load": True} if load else {})}
    try:
        with Connection(Address.parse(board.ssh).command()) as connection:
            facts = connection.ask(request)["facts"]
        found, trouble = _with_facts(board, facts), _word(facts.get("trouble"), longest=300)
    except ConnectionLostError as error:
        raise RuntimeError(
            f"The board must be within reach, but {board.ssh} is not: {error}. {remedy(str(error))}"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RuntimeError(
            f"The board must say what it is, but {board.ssh} answered something else. Is its "
            "Python 3.9 or newer?"
        ) from None
    if trouble:
        raise RuntimeError(
            f"{board.backend.runtime} must load on {board.name}, but {found.version} there does "
            f"not: {trouble.rstrip('.')}. Install it there anew."
        )
    return found


def _with_facts(board: Board, facts: Mapping[str, Any]) -> Board:
    architecture, kernel = _word(facts["machine"]), _word(facts.get("kernel"))
    return replace(
        board,
        architecture=architecture,
        machine=_word(facts["processor"]),
        version=_word(facts["runtime_version"]),
        python=_word(facts["python"]),
        number_of_cores=_count(facts["cores"]),
        governor=_word(facts.get("governor")),
        celsius=number(facts, "celsius"),
        emulated=bool(kernel) and _family(kernel) != _family(architecture),
    )


def _word(value: object, *, longest: int = 100) -> str:
    return "".join(c for c in str(value or "") if c.isprintable())[:longest]


def _count(value: object) -> int:
    if type(value) is not int or not 0 < value < 2**16:
        raise ValueError(f"it has {str(value)[:20]} cores")
    return value


def _family(machine: str) -> str:
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)


def is_arm(board: Board) -> bool:
    """Whether its processor is a 64-bit ARM one."""
    return _family(board.architecture) == "aarch64"


def load_boards() -> dict[str, Board]:
    """Return the registered boards by name."""
    file = _file()
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return {name: _board(name, table) for name, table in tables.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} must list boards as `fasternas devices add` writes them, but "
            f"{str(error).rstrip('.')}. Mend or delete it."
        ) from None


@contextmanager
def boards_to_change() -> Iterator[dict[str, Board]]:
    """Yield the registered boards, and write them at the end of the block as they are then.

    Other processes wait meanwhile, so that none writes over what another has added.
    """
    folder = _file().parent
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with suppress(OSError):  # some network disks lock no folders
            stack.enter_context(locked(folder, wait=True))
        boards = load_boards()
        yield boards
        save_boards(boards)


def _board(name: str, table: dict[str, Any]) -> Board:
    Address.parse(table.get("ssh", ""))
    cores = table.get("cores", [])
    for key, value in table.items():
        if type(value) not in _KINDS.get(key, (str,)):
            raise ValueError(f"{key} of {short_repr(name)} is {short_repr(value)}")
    if not _NAME.fullmatch(name) or not all(type(core) is int and core >= 0 for core in cores):
        raise ValueError(f"{short_repr(name)} is no name, or {short_repr(cores)} are no cores")
    options = {key: table.pop(key) for key in ("runtime", "precision", "threads") if key in table}
    backend = Backend(**{"runtime": "onnxruntime", **options})
    return Board(name=name, **{**table, "backend": backend, "cores": tuple(cores)})


def save_boards(boards: Mapping[str, Board]) -> None:
    """Write the boards; the file is replaced as a whole."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, "\n".join(map(_table, boards.values())))


def _table(board: Board) -> str:
    values = {**asdict(board), **asdict(board.backend)}
    del values["name"], values["backend"]
    values = {k: v for k, v in values.items() if v not in (None, "", ())}
    # JSON spells strings, numbers, booleans and lists as TOML does
    lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in values.items()]
    return "\n".join([f"[{board.name}]", *lines, ""])


def check_name(name: str, taken: Mapping[str, object] | tuple[str, ...]) -> None:
    """Refuse a name that no board can have."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"`name` must be a word of letters, digits, - and _, but got {name!r}.")
    if name in taken:
        raise ValueError(f"`name` must be new, but got {name!r}, which is a device already.")


def _file() -> Path:
    return config_folder() / "devices.toml"


def with_runtime(board: Board) -> Board:
    """Return the board as surveyed, its runtime installed where it was missing.

    The board's own package index is tried first; where it has none, the wheels are fetched here
    and sent over. Nothing outside `SITE` is touched.
    """
    found = survey(board, load=True)
    if found.version:
        return found
    wanted = ["numpy", board.package]
    try:
        with Connection(Address.parse(board.ssh).command()) as connection:
            try:
                connection.ask({"install": wanted, "into": SITE})
            except ConnectionLostError:
                raise
            except RuntimeError as error:
                _send_wheels(connection, found, wanted, reason=str(error))
    except ConnectionLostError as error:
        raise RuntimeError(
            f"The board must stay reachable, but {board.ssh} was lost while installing: {error}. "
            f"{remedy(str(error))}"
        ) from None
    installed = survey(board, load=True)
    if not installed.version:
        raise RuntimeError(
            f"The board must have {board.backend.runtime}, but what was installed there does not "
            "load. Install it by hand."
        )
    return installed


def _send_wheels(
    connection: Connection, board: Board, wanted: Sequence[str], *, reason: str
) -> None:
    """Fetch the wheels of the wanted packages for that machine here and unpack them over there."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        facts = connection.ask({"facts": board.package}).get("facts")
        libc = facts.get("libc") if isinstance(facts, dict) else None
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        command = [*pip, "download", "-q", "--only-binary=:all:", "-d", folder]
        command += ["--python-version", board.python]
        for tag in platform_tags(board.architecture, libc):
            command += ["--platform", tag]
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
            raise RuntimeError(
                f"The board must have {board.backend.runtime}, but its own package index failed "
                f"({reason}) and here no wheels for it were found ({said[0]}). Install it by hand."
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
    newer = [f"manylinux_2_{minor}_{architecture}" for minor in minors]
    return [*newer, f"manylinux2014_{architecture}"]
