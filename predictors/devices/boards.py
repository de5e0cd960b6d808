"""The boards that the user has registered: what they are, and putting a runtime on them.

They are listed in `~/.config/fasternas/devices.toml`. A runtime goes into a folder that is
fasternas's own on the board, one for each kind of Python there.
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
from functools import partial
from pathlib import Path
from typing import Any

from predictors.backends.table import find_runtime
from predictors.devices.connection import (
    INSTALL_S,
    SCRIPT,
    Address,
    Connection,
    ConnectionLostError,
    number,
    remedy,
)
from predictors.devices.device import ONNXRUNTIME, check_cores
from predictors.devices.timed import Host, TimedDevice
from predictors.measurement import Backend, TimingProtocol
from search_spaces.io import atomic_write, config_folder, locked, short_repr

_NAME = re.compile(r"[A-Za-z][\w-]{0,40}", re.ASCII)
_KINDS: dict[str, tuple[type, ...]] = {  # of what is no text
    "threads": (int,),
    "number_of_cores": (int,),
    "online_cores": (int,),
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
    number_of_cores: int = 1  # that the system gives to whoever names none
    online_cores: int = 0  # with those that it keeps back, such as isolated ones; 0: not known
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

    def check_fits(self, there: "Board") -> None:
        """Refuse threads and cores that the board, as it was surveyed, does not have."""
        named = there.online_cores if self.cores else 0
        most = max(there.number_of_cores, named)
        check_cores(self.cores, self.backend.threads, most, machine=self.name)

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
        board.check_fits(self)
        host = Host(
            command=Address.parse(self.ssh).command(),
            address=self.ssh,
            machine=self.machine or self.architecture or self.name,
            cores=self.cores,
            emulated=self.emulated,
        )
        repair = partial(with_runtime, board, exactly=board.version)
        return TimedDevice(
            name, host, backend, version=board.version, protocol=protocol, repair=repair
        )


def survey(board: Board) -> Board:
    """Connect to a board and return it with what it says of itself."""
    return _survey(board)[0]


def _survey(board: Board, *, load: bool = False) -> tuple[Board, str]:
    """Return a board with what it says of itself, and what is the matter with its runtime.

    `load` has the board load its runtime once, if that is there: what is installed may not work.
    """
    request = {"facts": board.package, **({"load": True} if load else {})}
    try:
        with _connect(board) as connection:
            facts = connection.ask(request)["facts"]
        found, trouble = _with_facts(board, facts), _word(facts.get("trouble"), longest=300)
    except ConnectionLostError as error:
        raise RuntimeError(
            f"The board must be within reach, but {board.ssh} is not: {error}. {remedy(str(error))}"
        ) from None
    except RuntimeError as error:
        raise RuntimeError(
            f"The board must be fit to time networks, but {board.ssh} is not: {error}."
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RuntimeError(
            f"The board must say what it is, but {board.ssh} answered something else. Is it one "
            "that runs Linux?"
        ) from None
    if trouble:
        trouble = (
            f"{board.backend.runtime} must load on {board.name}, but {found.version} there does "
            f"not: {trouble.rstrip('.')}"
        )
    return found, trouble or _outdated(found)


def _connect(board: Board) -> Connection:
    return Connection(Address.parse(board.ssh).command(), script=SCRIPT)


def _outdated(board: Board) -> str:
    """Say that the runtime is too old, if it is."""
    runtime = find_runtime(board.backend.runtime, board.backend.precision)
    if not board.version or runtime.reads_ours(board.version):
        return ""
    return (
        f"{runtime.name} must be {runtime.oldest} or newer on {board.name}, but is {board.version}"
    )


def _with_facts(board: Board, facts: Mapping[str, Any]) -> Board:
    architecture, kernel = _word(facts["machine"]), _word(facts.get("kernel"))
    return replace(
        board,
        architecture=architecture,
        machine=_word(facts["processor"]),
        version=_word(facts["runtime_version"]),
        python=_word(facts["python"]),
        number_of_cores=_count(facts["cores"]),
        online_cores=_count(facts.get("online") or facts["cores"]),
        governor=_word(facts.get("governor")),
        celsius=number(facts, "celsius"),
        emulated=bool(kernel)
        and _family(kernel) not in (_family(architecture), _WIDE.get(architecture)),
    )


def _word(value: object, *, longest: int = 100) -> str:
    return "".join(c for c in str(value or "") if c.isprintable())[:longest]


def _count(value: object) -> int:
    if type(value) is not int or not 0 < value < 2**16:
        raise ValueError(f"it has {str(value)[:20]} cores")
    return value


_WIDE = {"armv7l": "aarch64", "armv8l": "aarch64", "i686": "x86_64"}  # what runs it natively, too


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


def with_runtime(board: Board, *, exactly: str = "") -> Board:
    """Return the board as surveyed, with a runtime that works, of exactly that version if asked.

    Where it is missing, does not load or is too old, it is installed into a folder that is ours.
    The board's own package index is tried first; where it has none, the wheels are fetched here
    and sent over. Nothing else on the board is touched.
    """
    found, trouble = _survey(board, load=True)
    if found.version and not trouble:
        return found
    oldest = find_runtime(board.backend.runtime, board.backend.precision).oldest
    version = f"=={exactly}" if exactly else f">={oldest}" if oldest else ""
    try:
        _install(found, ["numpy", f"{board.package}{version}"])
    except RuntimeError as error:
        if not trouble:
            raise
        raise RuntimeError(f"{trouble}. It cannot be replaced, either: {error}") from None
    installed, trouble = _survey(board, load=True)
    if not installed.version or trouble:
        what = trouble or f"The board must have {board.backend.runtime}, but it is not there"
        raise RuntimeError(f"{what}, though it was just installed. Install it by hand.")
    return installed


def _install(board: Board, wanted: Sequence[str]) -> None:
    """Install packages into our folder on the board, from its index or from here."""
    try:
        with _connect(board) as connection:
            try:
                # pip has less time than its answer, so that it is pip that is given up
                pip_s = 0.9 * INSTALL_S
                connection.ask({"install": wanted, "within_s": pip_s}, within_s=INSTALL_S)
            except ConnectionLostError:
                raise
            except RuntimeError as error:
                _send_wheels(connection, board, wanted, reason=str(error))
    except ConnectionLostError as error:
        raise RuntimeError(
            f"The board must stay reachable, but {board.ssh} was lost while installing: {error}. "
            f"{remedy(str(error))}"
        ) from None


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
        failed = _failure([*command, *wanted])
        if failed:
            narrow = " Its Python is one of 32 bits." if board.architecture in _WIDE else ""
            raise RuntimeError(
                f"The board must have {board.backend.runtime}, but its own package index failed "
                f"({reason}) and here no wheels for it were found ({failed}).{narrow} Install it "
                "by hand."
            )
        for number, wheel in enumerate(sorted(Path(folder).glob("*.whl"))):
            name = connection.keep(wheel, f"wheel-{number}", within_s=INSTALL_S)
            connection.ask({"unpack": name}, within_s=INSTALL_S)


def _failure(command: Sequence[str]) -> str:
    """Run a command; return its last words if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_S
        )
    except subprocess.TimeoutExpired:
        return f"pip took over {INSTALL_S:g} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]


def platform_tags(architecture: str, libc: object) -> list[str]:
    """Return the tags of wheels that a machine takes, the newest first.

    `libc` is what it says of its C library, such as "2.36"; glibc 2.28 where that makes no sense.
    """
    if libc == "musl":
        return [f"musllinux_1_{minor}_{architecture}" for minor in (2, 1)]
    major, _, minor = str(libc).partition(".")
    known = major == "2" and minor.isascii() and minor.isdigit() and len(minor) == 2
    minors = range(int(minor) if known else 28, 16, -1)
    newer = [f"manylinux_2_{minor}_{architecture}" for minor in minors]
    return [*newer, f"manylinux2014_{architecture}"]
