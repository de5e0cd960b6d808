"""A real sshd on loopback, and what the tests of boards do to it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from predictors.devices.agent.host import MARKER

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))


class Server:
    """An sshd on loopback whose every command runs in a small world of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sshd: subprocess.Popen[bytes] | None = None
        self.world = folder / "world.sh"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"ssh://{os.environ.get('USER', 'root')}@127.0.0.1:{self.port}"
        for name in ("host", "key", "stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        (folder / "home").mkdir()
        (folder / "tmp").mkdir()
        self.becomes(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
        self._configure()

    def becomes(self, setting: str, command: str = 'exec sh -c "$SSH_ORIGINAL_COMMAND"') -> None:
        """Run commands after this setting, or another command in their place."""
        home = f"export HOME={self.folder}/home TMPDIR={self.folder}/tmp\n"
        self.world.write_text(f"#!/bin/sh\n{home}{setting}{command}\n")
        self.world.chmod(0o755)

    def answers(self, text: str) -> None:
        """Say this, once, where an agent would answer."""
        self.becomes("", f"echo '{MARKER} 3.11.2'\necho '{text}'")

    def left(self) -> list[Path]:
        """What lies in its folder for temporary files."""
        return list((self.folder / "tmp").iterdir())

    def agents(self) -> list[int]:
        """The agents and timers that run in this world."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                own = f"{self.folder}/tmp".encode() in (process / "environ").read_bytes()
                if own and b"python" in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def dies(self) -> None:
        """End the sshd and what runs in its world, as if it had been switched off."""
        assert self.sshd is not None
        self.sshd.kill()
        self.sshd.wait()
        for pid in self.agents():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _configure(self) -> None:
        f = self.folder
        (f / "authorized").write_text((f / "key.pub").read_text())
        (f / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {f}/host\nUsePAM no\n"
            f"AuthorizedKeysFile {f}/authorized\nPasswordAuthentication no\nStrictModes no\n"
            f"KbdInteractiveAuthentication no\nPidFile none\nForceCommand {self.world}\n"
        )
        host_key = " ".join((f / "host.pub").read_text().split()[:2])
        (f / "known").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        self.trusts(key="key", known="known")

    def trusts(self, *, key: str, known: str) -> None:
        """Let the client use this key and believe these host keys."""
        (self.folder / "ssh_config").write_text(
            f"Host *\nIdentityFile {self.folder}/{key}\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {self.folder}/{known}\nGlobalKnownHostsFile /dev/null\n"
        )


@contextmanager
def running_sshd() -> Iterator[Server]:
    """A server with keys of its own, until the end of the block."""
    assert SSHD is not None
    Path("/run/sshd").mkdir(exist_ok=True)
    server = Server(Path(tempfile.mkdtemp(prefix="sshd-")))
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", server.folder / "sshd_config"], stderr=subprocess.DEVNULL
    )
    server.sshd = process
    try:
        until(lambda: _listens(server.port))
        yield server
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(server.folder)


def client_of(servers: Sequence[Server], file: Path) -> str:
    """Write a configuration with which ssh reaches them all; return the command that uses it."""
    keys = "".join(f"IdentityFile {server.folder}/key\n" for server in servers)
    known = " ".join(f"{server.folder}/known" for server in servers)
    file.write_text(
        f"Host *\n{keys}IdentitiesOnly yes\nUserKnownHostsFile {known}\n"
        "GlobalKnownHostsFile /dev/null\n"
    )
    return f"ssh -F {file}"


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill_first(one: Callable[[], list[int]]) -> threading.Thread:
    """Kill the first process that comes up, a moment later."""

    def wait_and_kill() -> None:
        until(one)
        time.sleep(0.7)
        for pid in one()[:1]:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def ssh_clients() -> list[int]:
    """The ssh clients that this process started."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh"]
