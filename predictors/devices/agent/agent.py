"""The process that holds the models on a machine, one timer at a time, and goes without a trace."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from predictors.devices.agent.host import BOOTSTRAP, abi, facts, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predictors.devices.agent.host import Message

PREFIX = "fasternas-agent-"  # of an agent's folder, before its process number
LONGEST_S = 6 * 3600  # that it runs on a board: where a connection is lost unseen, it ends by then
# The settings of this user's pip that do not go with a folder to install into.
PIP = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class Agent:
    """Keeps the models in a folder of its own and one timer at a time.

    `load_s` is the longest that importing a runtime may take, from the slowest card. `site` is
    where packages go that are installed for us: a folder for each kind of Python.
    """

    def __init__(self, folder: Path, *, load_s: float = 120, site: Path | None = None) -> None:
        self._folder = folder
        self._load_s = load_s
        self._site = site
        self._timer: subprocess.Popen[bytes] | None = None

    def answer(self, request: Message, more: BinaryIO) -> Message:
        """Answer one request; `more` holds the bytes that follow it."""
        if "facts" in request:
            return {"facts": self._facts(request["facts"], load=request.get("load", False))}
        if "keep" in request:
            return self._keep(request["keep"], request["bytes"], more)
        if "install" in request:
            return self._install(request["install"], request["within_s"])
        if "unpack" in request:
            return self._unpack(request["unpack"])
        if "start" in request:
            self.stop()
            self._start(request["program"])
            models = [str(self._folder / name) for name in request["start"]["models"]]
            request = {"start": {**request["start"], "models": models}}
        return self._ask(request)

    def stop(self) -> None:
        """End the timer, if one runs."""
        if self._timer is not None:
            self._timer.kill()
            self._timer.communicate()
            self._timer = None

    def _facts(self, package: str, *, load: bool) -> Message:
        """What the machine is; with `load` also `trouble`: why the package does not load."""
        found = facts(package)
        if load and found["runtime_version"]:
            found["trouble"] = self._trouble(package)
        return found

    def _trouble(self, package: str) -> str:
        """Import a package in a process of its own, which it may end; return what went wrong."""
        try:
            done = subprocess.run(
                [sys.executable, "-c", f"import {package}"],
                timeout=self._load_s,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment(),
                cwd=self._folder,  # what lies where it was started is not imported
            )
        except subprocess.TimeoutExpired:
            return f"it takes over {self._load_s:g} s"
        if done.returncode < 0:
            return signal.Signals(-done.returncode).name
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        return said[-1] if done.returncode else ""

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self._folder)}  # runtimes leave things there

    def _keep(self, name: str, size: int, more: BinaryIO) -> Message:
        data = more.read(size)  # even where it cannot be kept: the next request follows it
        file = self._folder / Path(name).name
        try:
            file.write_bytes(data)
        except OSError as error:
            file.unlink(missing_ok=True)
            return {"error": f"{file.parent}: {error.strerror}"}
        return {"kept": name}

    def _install(self, packages: list[str], within_s: float) -> Message:
        """Have pip install packages; what it has not finished by then is not there."""
        with self._incoming() as folder:
            command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:"]
            try:
                done = subprocess.run(
                    [*command, "--target", str(folder), *packages],
                    timeout=within_s,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    env={**self._environment(), **PIP},
                    cwd=self._folder,
                )
            except subprocess.TimeoutExpired:
                return {"error": f"pip took over {within_s:g} s"}
            if done.returncode:
                return {"error": _last_error(done.stderr)}
        return {"installed": str(self._site)}

    def _unpack(self, name: str) -> Message:
        """Unpack a kept wheel: a machine without network has no use for pip."""
        with self._incoming() as folder, zipfile.ZipFile(self._folder / name) as wheel:
            wheel.extractall(folder)
        (self._folder / name).unlink()
        return {"installed": str(self._site)}

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """Yield a folder whose packages, whole, replace those of the same names in our site."""
        if self._site is None:
            raise ValueError("nothing is installed on this machine itself")
        self._site.mkdir(parents=True, exist_ok=True)
        prefix = f"new-{platform.node()}-"  # boards may share a home
        _sweep(self._site.parent, prefix)
        with tempfile.TemporaryDirectory(
            prefix=f"{prefix}{os.getpid()}-", dir=self._site.parent
        ) as folder:
            yield Path(folder)
            for new in Path(folder).iterdir():
                for old in _versions_of(new.name, self._site):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
                new.replace(self._site / new.name)

    def _start(self, program: str) -> None:
        self._timer = subprocess.Popen(
            [sys.executable, "-uc", BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment(),
            cwd=self._folder,
        )
        assert self._timer.stdin is not None
        self._timer.stdin.write(program.encode() + b"\n")

    def _ask(self, request: Message) -> Message:
        if self._timer is None or self._timer.stdin is None or self._timer.stdout is None:
            return {"error": "no timer was started"}
        try:
            self._timer.stdin.write(json.dumps(request).encode() + b"\n")
            self._timer.stdin.flush()
        except OSError:
            return {"died": self._end()}
        for line in iter(self._timer.stdout.readline, b""):  # its first words are no answer
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if isinstance(answer, dict):
                return answer
        return {"died": self._end()}

    def _end(self) -> str:
        assert self._timer is not None
        code = self._timer.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _last_error(said: bytes) -> str:
    """The last error of pip's; what it says after that is advice."""
    lines = said.decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip said nothing"])[-1]


def _versions_of(name: str, site: Path) -> list[Path]:
    """What there is of that name; of a package's description, that of any version."""
    package, _, _ = name.partition("-")
    pattern = f"{package}-*.dist-info" if name.endswith(".dist-info") else name
    return [path for path in site.glob(pattern) if path.exists() or path.is_symlink()]


def _sweep(folder: Path, prefix: str) -> None:
    """Remove the folders of agents that were killed before they could."""
    for path in folder.glob(f"{prefix}*-*"):
        try:
            os.kill(int(path.name[len(prefix) :].split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, OSError):
            pass  # not ours


def _own_site() -> Path | None:
    """Make Python, and what it starts, look into our folder first; None where we have none.

    Only a board is told of one. Each kind of Python has its own there: what was installed for the
    one of yesterday does not load in the one that the board was upgraded to.
    """
    if len(sys.argv) < 2:
        return None
    signal.alarm(LONGEST_S)
    site = Path(sys.argv[1]).expanduser() / abi()
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]  # what the user's shell sets for other programs
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = str(site)
    return site


def _leave(*_: object) -> None:
    sys.exit(1)  # not at once: what was kept goes first


def main() -> None:
    """Be the agent until the input ends."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, _leave)
    _sweep(Path(tempfile.gettempdir()), PREFIX)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        agent = Agent(Path(folder), site=_own_site())
        try:
            serve(agent.answer)
        finally:
            agent.stop()
