"""A conversation with the agent on some machine: requests, answers, and what can go wrong."""

import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING

from predictors.devices.agent.host import BOOTSTRAP
from search_spaces.io import reason

if TYPE_CHECKING:
    from predictors.devices.agent.host import Message

LONGEST_ANSWER = 1_000_000  # bytes
_LONGEST_WORDS = 10_000  # of what is shown the beginning and the end of


def program(*names: str, backend: str = "") -> str:
    """Return modules of the agent as the line of text that `BOOTSTRAP` reads, last what runs.

    `backend` is the name of the module that loads what the timer times.
    """
    modules = [f"predictors.devices.agent.{name}" for name in names]
    modules[-1:-1] = [backend] if backend else []
    return json.dumps([(name, getsource(import_module(name))) for name in modules])


AGENT = program("host", "agent")


class ConnectionLostError(RuntimeError):
    """The other side is gone, or what it says makes no sense; a new connection may do better."""


class TimerDiedError(ConnectionLostError):
    """The process that times is gone, its machine is not: a network may have been too much."""


class DeviceLostError(RuntimeError):
    """A machine stays out of reach; another one may do what it was to do."""


class OverwhelmedError(DeviceLostError):
    """A machine is there, but its timers keep dying: other networks may do better."""


class Connection:
    """A running agent (see `agent/`), started by a command; ends with the `with` block.

    Its answers are JSON and nothing else: whatever a hostile machine says, it runs no code here.
    `answer_s` is the longest that a machine may take over one request.
    """

    def __init__(self, command: Sequence[str], *, answer_s: float = 300.0) -> None:
        self._answer_s = answer_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is for us; the agent ends with its input
            )
        except OSError as error:
            raise ConnectionLostError(f"{command[0]}: {error.strerror}") from None
        self._late = False
        self._sent: set[str] = set()
        self._greeting = AGENT.encode() + b"\n"

    def ask(self, request: Mapping[str, object], *, more: bytes = b"") -> "Message":
        """Send a request, and the bytes that belong to it; return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = b""
        with self._deadline(), suppress(OSError):  # it is gone: the missing answer says so
            self._process.stdin.write(self._greeting + json.dumps(request).encode() + b"\n")
            self._process.stdin.write(more)
            self._process.stdin.flush()
            self._greeting = b""
            line = self._process.stdout.readline(LONGEST_ANSWER)
        return self._understood(line)

    def keep(self, file: Path, digest: str) -> str:
        """Send a file unless this connection has; return the name that it has over there."""
        name = digest + file.suffix
        if name not in self._sent:
            data = file.read_bytes()
            self.ask({"keep": name, "bytes": len(data)}, more=data)
            self._sent.add(name)
        return name

    def close(self) -> None:
        """End the agent, which ends its timer and removes what it kept."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):  # what was not sent is of no use to a process that is gone
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """Kill the process where it takes too long, so that reading from it ends."""

        def end() -> None:
            self._late = True
            self._process.kill()

        timer = threading.Timer(self._answer_s, end)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _understood(self, line: bytes) -> "Message":
        if not line:
            raise ConnectionLostError(self._last_words())
        if not line.endswith(b"\n"):
            self._process.kill()
            raise ConnectionLostError(
                f"it answered more than {LONGEST_ANSWER} bytes, or half a line"
            )
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self._process.kill()
            raise ConnectionLostError(f"it answered no JSON object: {_printable(line)!r}")
        if "died" in answer:
            how = _printable(str(answer["died"]).encode())
            raise TimerDiedError(f"the process that times the networks died ({how})")
        if "error" in answer:
            raise RuntimeError(_printable(str(answer["error"]).encode()))
        return answer

    def _last_words(self) -> str:
        if self._late:
            return f"it did not answer within {self._answer_s:g} s"
        code = self._process.wait()
        self._errors.seek(0)
        said = [_printable(line) for line in self._errors.read(100_000).splitlines()]
        words = [line for line in said if line]
        return words[-1] if words else f"it ended with status {code}"


def times_ms(answer: Mapping[str, object], clock: str) -> list[float]:
    """Return the times of a block, which a machine may have got wrong."""
    values = answer.get(clock)
    if not isinstance(values, list) or not values or not all(_is_time(v) for v in values):
        raise ConnectionLostError(f"it answered no times in {clock}: {str(values)[:80]!r}")
    return [float(value) for value in values]


def flags(answer: Mapping[str, object], name: str, count: int) -> list[bool]:
    """Return what is said of each of so many samples; False of all where it makes no sense."""
    values = answer.get(name)
    if not isinstance(values, list) or len(values) != count:
        return [False] * count
    return [value == 1 for value in values]


def number(answer: Mapping[str, object], name: str) -> float | None:
    """Return a positive number, or None where there is none."""
    value = answer.get(name)
    return float(value) if _is_time(value) else None  # type: ignore[arg-type]


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 1e-6 < value < 1e9  # type: ignore[operator]


def _printable(line: bytes) -> str:
    return reason(line[:_LONGEST_WORDS].decode(errors="replace"))


SITE = "~/.local/share/fasternas/site"  # on the board: what was installed for us
PORT = 22  # where none is named
LONGEST_S = 6 * 3600  # what a connection may take; where it is lost unseen, the agent ends by then
# An unknown host key, or a changed one, ends the connection; no password is asked for.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
_ADDRESS = re.compile(
    r"(?:ssh://)?(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.:-]+?|\[[\w.:%]+\])(?::(?P<port>\d{1,5}))?/?"
)
_REMEDIES = {
    "host key verification failed": "Connect to it once with `ssh` and compare the key",
    "permission denied": "Add your public key to it with `ssh-copy-id`",
    "connection refused": "Is sshd running on that port",
    "timed out": "Is it switched on, and the address right",
    "could not resolve": "Is the name right",
    "no such file": "Install Python 3.9 or newer on it",
    "not found": "Install Python 3.9 or newer on it",
    "died": "Is there enough memory for them",
    "no space": "Make room in its folder for temporary files",
}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a board is."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `user@host`, `host:port` or `ssh://user@host:port`; `ssh_config` names are hosts."""
        match = _ADDRESS.fullmatch(text)
        if match is None or match["host"].startswith("-") or int(match["port"] or 1) > 65535:
            raise ValueError(
                f"`ssh` must be an address such as ssh://pi@10.0.0.3:22, but got {text!r}."
            )
        port = int(match["port"]) if match["port"] else None
        return cls(host=match["host"].strip("[]"), user=match["user"], port=port)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    def command(self) -> tuple[str, ...]:
        """Return the command that starts an agent there.

        The environment variable FASTERNAS_SSH replaces `ssh`, as in `ssh -F my_config`.
        """
        options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        remote = (
            f"exec timeout -k 5 {LONGEST_S} env PYTHONPATH={SITE.replace('~', '$HOME')} "
            f"python3 -uc {shlex.quote(BOOTSTRAP)}"
        )
        ssh = shlex.split(os.environ.get("FASTERNAS_SSH", "ssh"))
        return (*ssh, *options, *port, *user, "--", self.host, remote)


def remedy(said: str) -> str:
    """Say what to do about what ssh said."""
    found = [text for sign, text in _REMEDIES.items() if sign in said.lower()]
    advice = next(iter(found), "Is it overloaded, or was it restarted")
    return advice + ("?" if advice.startswith("Is ") else ".")
