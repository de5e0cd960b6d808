"""The process that holds the models on a machine, one timer at a time, and goes without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from predictors.devices.agent.host import BOOTSTRAP, facts, serve

if TYPE_CHECKING:
    from predictors.devices.agent.host import Message

PREFIX = "fasternas-agent-"  # of an agent's folder, before its process number


class Agent:
    """Keeps the models in a folder of its own and one timer at a time.

    `load_s` is the longest that importing a runtime may take, from the slowest card.
    """

    def __init__(self, folder: Path, *, load_s: float = 120) -> None:
        self._folder = folder
        self._load_s = load_s
        self._timer: subprocess.Popen[bytes] | None = None

    def answer(self, request: Message, more: BinaryIO) -> Message:
        """Answer one request; `more` holds the bytes that follow it."""
        if "facts" in request:
            return {"facts": self._facts(request["facts"], load=request.get("load", False))}
        if "keep" in request:
            return self._keep(request["keep"], request["bytes"], more)
        if "install" in request:
            return _install(request["install"], Path(request["into"]).expanduser())
        if "unpack" in request:
            return self._unpack(request["unpack"], Path(request["into"]).expanduser())
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

    def _unpack(self, name: str, into: Path) -> Message:
        """Unpack a kept wheel: a machine without network has no use for pip."""
        with zipfile.ZipFile(self._folder / name) as wheel:
            wheel.extractall(into)
        (self._folder / name).unlink()
        return {"installed": str(into)}

    def _start(self, program: str) -> None:
        self._timer = subprocess.Popen(
            [sys.executable, "-uc", BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment(),
        )
        assert self._timer.stdin is not None
        self._timer.stdin.write(program.encode() + b"\n")

    def _ask(self, request: Message) -> Message:
        if self._timer is None or self._timer.stdin is None or self._timer.stdout is None:
            return {"error": "no timer was started"}
        try:
            self._timer.stdin.write(json.dumps(request).encode() + b"\n")
            self._timer.stdin.flush()
            answer: Message = json.loads(self._timer.stdout.readline())
        except (OSError, ValueError):
            return {"died": self._end()}
        return answer

    def _end(self) -> str:
        assert self._timer is not None
        code = self._timer.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _install(packages: list[str], into: Path) -> Message:
    command = [sys.executable, "-m", "pip", "install", "-q", "--only-binary=:all:"]
    done = subprocess.run([*command, "--target", str(into), *packages], capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["pip said nothing"]
        return {"error": said[-1]}
    return {"installed": str(into)}


def _sweep() -> None:
    """Remove the folders of agents that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(folder.name[len(PREFIX) :].split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            pass  # not ours


def _leave(*_: object) -> None:
    sys.exit(1)  # not at once: what was kept goes first


def main() -> None:
    """Be the agent until the input ends."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        agent = Agent(Path(folder))
        try:
            serve(agent.answer)
        finally:
            agent.stop()
