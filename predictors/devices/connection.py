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

from predictors.devices.agent.host import BOOTSTRAP, LOADER, MARKER, OLDEST
from search_spaces.io import reason

if TYPE_CHECKING:
    from predictors.devices.agent.host import Message

LONGEST_ANSWER = 1_000_000  # bytes
_LONGEST_WORDS = 10_000  # of what is shown the beginning and the end of
START_S = 45.0  # the longest that it may take until Python runs there
INSTALL_S = 1800.0  # the longest that installing or sending packages may take


def program(*names: str, backend: str = "") -> str:
    """Return modules of the agent as the line of text that `BOOTSTRAP` reads, last what runs.

    `backend` is the name of the module that loads what the timer times.
    """
    modules = [f"predictors.devices.agent.{name}" for name in names]
    modules[-1:-1] = [backend] if backend else []
    texts = [(name, getsource(import_module(name))) for name in modules]
    return json.dumps([LOADER, texts])


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

    `script` is what a shell that the command starts is told. Whatever is said before the agent
    says that it is there is passed over, since login shells greet. Its answers are JSON and nothing
    else: whatever a hostile machine says, it runs no code here. `answer_s` is the longest that a
    machine may take over one request.
    """

    def __init__(
        self, command: Sequence[str], *, script: str = "", answer_s: float = 300.0
    ) -> None:
        self._script = script
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
            self._errors.close()
            raise ConnectionLostError(f"{command[0]}: {error.strerror}") from None
        self._begun = False
        self._late_s = 0.0  # after which it was given up
        self._said = b""  # the last that was no answer
        self._sent: set[str] = set()

    def ask(
        self, request: Mapping[str, object], *, more: bytes = b"", within_s: float | None = None
    ) -> "Message":
        """Send a request, and the bytes that belong to it; return the answer."""
        if not self._begun:
            self._begin()
        with self._deadline(within_s or self._answer_s):
            self._send(json.dumps(request).encode() + b"\n" + more)
            for line in self._lines():
                answer = _as_object(line)
                if answer is not None:
                    return self._understood(answer)
        raise ConnectionLostError(self._last_words())

    def _begin(self) -> None:
        """Start the agent once the Python over there has said that it runs, and which it is."""
        with self._deadline(min(START_S, self._answer_s)):
            self._send(self._script.encode())
            for line in self._lines():
                if found := _PYTHON.search(line):
                    break
            else:
                raise ConnectionLostError(self._last_words())
        version = tuple(map(int, found.groups()))
        if version < OLDEST:
            self._process.kill()
            raise RuntimeError(
                f"its Python must be {_dotted(OLDEST)} or newer, but is {_dotted(version)}; "
                "install a newer one beside it, such as python3.11, which is found by that name"
            )
        self._send(AGENT.encode() + b"\n")
        self._begun = True

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone: the missing answer says so
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _lines(self) -> Iterator[bytes]:
        """Yield what it says, line by line, but for empty ones; remember the last."""
        assert self._process.stdout is not None
        size, self._said = 0, b""
        while line := self._process.stdout.readline(LONGEST_ANSWER):
            size += len(line)
            if size >= LONGEST_ANSWER:
                self._process.kill()
                raise ConnectionLostError(f"it answered more than {LONGEST_ANSWER} bytes")
            if line.strip():
                self._said = line
                yield line

    def keep(self, file: Path, digest: str, *, within_s: float | None = None) -> str:
        """Send a file unless this connection has; return the name that it has over there."""
        name = digest + file.suffix
        if name not in self._sent:
            data = file.read_bytes()
            self.ask({"keep": name, "bytes": len(data)}, more=data, within_s=within_s)
            self._sent.add(name)
        return name

    def close(self) -> None:
        """End the agent, which ends its timer and removes what it kept."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._begun:
            self._send(b'{"end": true}\n')  # behind a terminal the end of the input is not seen
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
    def _deadline(self, within_s: float) -> Iterator[None]:
        """Kill the process where it takes too long, so that reading from it ends."""

        def end() -> None:
            self._late_s = within_s
            self._process.kill()

        timer = threading.Timer(within_s, end)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _understood(self, answer: "Message") -> "Message":
        if "died" in answer:
            how = _printable(str(answer["died"]).encode())
            raise TimerDiedError(f"the process that times the networks died ({how})")
        if "error" in answer:
            raise RuntimeError(_printable(str(answer["error"]).encode()))
        return answer

    def _last_words(self) -> str:
        """Why there is no answer: what it said instead, on either stream."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = [_printable(line) for line in self._errors.read(100_000).splitlines()]
        lines = [line for line in lines if line]
        error = next(reversed(lines), "")
        if _ONLY_ENDS.search(error):
            error = ": ".join(lines[-3:])
        said = _printable(self._said)
        if self._late_s:
            error = f"it did not answer within {self._late_s:g} s"
        if not error:
            return (
                f"it answered no JSON object: {said!r}" if said else f"it ended with status {code}"
            )
        return f"{error}, after it said {said!r}" if said else error


def _as_object(line: bytes) -> "Message | None":
    """The JSON object that a line is, or None."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


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
_PYTHON = re.compile(MARKER.encode() + rb" (\d{1,3})\.(\d{1,3})\.(\d{1,3})\s*$")
# An unknown host key, or a changed one, ends the connection; no password is asked for. What the
# user has set for sessions of their own (a terminal, a command, forwarded ports) is not for us.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "INFO",
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "IgnoreUnknown": "*",  # options newer than ssh, and the user's own list of such
    "SessionType": "default",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
}
# The user's shell is told one word, and that shell one line: whatever the first one is, it passes
# the word on. The empty line is for a greeting that waits for a key. A terminal, where one is
# forced on us, must pass on what is sent as it is. Where `python3` is too old, it leaves to the
# first other one that is not, or to one without a site, which says how old it is.
SHELL = "sh"
_NEWEST_FIRST = " ".join(f"python3.{minor}" for minor in range(20, OLDEST[1] - 1, -1))
_NEWER = (
    f"for python in {_NEWEST_FIRST}; do "
    f'"$python" -Ec "import sys;sys.exit(sys.version_info<{OLDEST})" </dev/null >/dev/null 2>&1 '
    '&& exec "$python" -Euc "$run" "$site"; done; '
    "for python in python3 python; do command -v $python >/dev/null 2>&1 "
    '&& exec $python -Euc "$run"; done; exec python3'
)
SCRIPT = (
    f"\n[ -t 0 ] && stty raw -echo; run='{BOOTSTRAP}'; newer='{_NEWER}'; "
    f"site=$HOME/{SITE.removeprefix('~/')}; export run newer site; "
    'command -v python3 >/dev/null 2>&1 && exec python3 -Euc "$run" "$site"; exec sh -c "$newer"\n'
)
_ADDRESS = re.compile(
    r"(?:ssh://)?(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.:-]+?|\[[\w.:%]+\])(?::(?P<port>\d{1,5}))?/?"
)
# What ssh says last where the lines before have the reason.
_ONLY_ENDS = re.compile(r"terminating, \d+ bad|Connection closed by UNKNOWN|banner exchange")
_REMEDIES = {  # by what is found in the reason
    "^ssh: no such file": "Install an SSH client here",
    "host key verification failed": "Connect to it once with `ssh` and compare the key",
    "permission denied": "Add your public key to it with `ssh-copy-id`",
    "connection refused": "Is sshd running on that port",
    "timed out": "Is it switched on, and the address right",
    "could not resolve": "Is the name right",
    r"python.*(no such file|not found)": "Install Python 3.9 or newer on it",
    "did not answer": "Is it busy, or does its shell wait for a key",
    "no json object|after it said": "Does `ssh` to it, with `sh` as the command, start a shell",
    "died": "Is there enough memory for them",
    "bad configuration|closed by unknown": "Does `ssh` to it connect",
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
        user, at, place = text.removeprefix("ssh://").rpartition("@")
        bare = place.count(":") > 1 and "[" not in place  # an address of IPv6
        match = _ADDRESS.fullmatch(f"{user}{at}[{place}]" if bare else text)
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
        """Return the command that starts a shell there, which `SCRIPT` has start an agent.

        The environment variable FASTERNAS_SSH replaces `ssh`, as in `ssh -F my_config`.
        """
        options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        ssh = shlex.split(os.environ.get("FASTERNAS_SSH", "ssh"))
        return (*ssh, *options, *port, *user, "--", self.host, SHELL)


def remedy(said: str) -> str:
    """Say what to do about what ssh said."""
    found = [text for sign, text in _REMEDIES.items() if re.search(sign, said.lower())]
    advice = next(iter(found), "Is it overloaded, or was it restarted")
    return advice + ("?" if advice.startswith(("Is ", "Does ")) else ".")
