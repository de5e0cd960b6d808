"""Boards behind a real sshd on this machine: registered, timed, lost, and telling nonsense."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.cli import main
from predictors.devices.boards import load_boards
from predictors.devices.registry import device_names, open_device
from search_spaces.fasternet import FasterNetConfig

TINY = FasterNetConfig(
    widths=(8, 16), depths=(1, 1), partial_ratios=(0.5, 0.25), expansions=(2.0, 2.0),
    resolution=32, head_width=32, classes=10,
)  # fmt: skip
LARGER = FasterNetConfig(
    widths=(64, 128), depths=(4, 4), partial_ratios=(1.0, 1.0), expansions=(4.0, 4.0),
    resolution=32, head_width=32, classes=10, stem_stride=2,
)  # fmt: skip
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
Streams = pytest.CaptureFixture[str]


class Server:
    """An sshd on loopback whose every command runs in a small world of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = folder / "world.sh"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"ssh://{os.environ.get('USER', 'root')}@127.0.0.1:{self.port}"
        for name in ("host", "key", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                           check=True)  # fmt: skip
        (folder / "home").mkdir()
        (folder / "tmp").mkdir()
        self.becomes(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
        self._configure()

    def becomes(self, setting: str, command: str = 'exec sh -c "$SSH_ORIGINAL_COMMAND"') -> None:
        """Run commands after this setting, or another command in their place."""
        home = f"export HOME={self.folder}/home TMPDIR={self.folder}/tmp\n"
        self.world.write_text(f"#!/bin/sh\n{home}{setting}{command}\n")
        self.world.chmod(0o755)

    def left(self) -> list[Path]:
        """What lies in its folder for temporary files."""
        return list((self.folder / "tmp").iterdir())

    def keepers(self) -> list[int]:
        """The keepers and timers that run in this world."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                own = f"{self.folder}/tmp".encode() in (process / "environ").read_bytes()
                if own and b"python" in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found

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


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, and a home, a cache and a configuration that are this test's own."""
    if SSHD is None or os.getuid() != 0:
        pytest.skip("OpenSSH's sshd is not installed here, or this is not root.")
    Path("/run/sshd").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="sshd-"))
    server = Server(folder)
    monkeypatch.setenv("FASTERNAS_SSH", f"ssh -F {folder}/ssh_config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("predictors.devices.timed.ROUNDS", (8, 8))
    monkeypatch.setattr("predictors.devices.timed.PAUSE_S", 0.1)
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"],
                               stderr=subprocess.DEVNULL)  # fmt: skip
    _until(lambda: _listens(server.port))
    yield server
    process.terminate()
    process.wait()
    shutil.rmtree(folder)


def _until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_board_is_added_listed_checked_timed_and_removed(server: Server, capsys: Streams) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address, "--cores", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("pi: ")
    assert "onnxruntime" in said
    assert said.count("\n") == 1
    (board,) = load_boards().values()
    assert (board.name, board.ssh, board.cores, board.emulated) == (
        "pi",
        server.address,
        (0,),
        False,
    )
    assert board.version
    assert main(["devices", "check", "pi"]) == 0
    assert main(["devices", "list"]) == 0
    assert "pi " in capsys.readouterr().out

    device = open_device("pi")
    larger, tiny = device.measure_each([LARGER, TINY], processes=2)
    assert larger.median_ms > 3 * tiny.median_ms
    assert (tiny.source, tiny.device, tiny.threads) == ("measured", "pi", 1)
    assert server.left() == []
    _until(lambda: server.keepers() == [])

    assert main(["devices", "remove", "pi"]) == 0
    assert load_boards() == {}
    assert "pi" not in device_names()


def test_an_address_is_a_device(server: Server) -> None:
    device = open_device(server.address)
    (measured,) = device.measure_each([TINY], processes=1)
    assert measured.device == server.address


def test_an_arm_board_is_arm(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert open_device("arm").source == "predicted"
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "fasternas" / "devices.toml"
    file.write_text(file.read_text().replace("x86_64", "aarch64"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert open_device("arm").source == "measured"


def _kill(one: Callable[[], list[int]]) -> threading.Thread:
    """Kill the first process that comes up, a moment later."""

    def wait_and_kill() -> None:
        _until(one)
        time.sleep(0.7)
        for pid in one()[:1]:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def _clients() -> list[int]:
    """The ssh clients that this process started."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh"]


@pytest.mark.parametrize("end", ["client", "board"])
def test_a_connection_that_is_lost_is_made_again(server: Server, end: str) -> None:
    device = open_device(server.address)
    killer = _kill(_clients if end == "client" else server.keepers)
    tiny, larger = device.measure_each([TINY, LARGER], processes=2)
    killer.join()
    assert larger.median_ms > 3 * tiny.median_ms
    _until(lambda: server.keepers() == [])
    open_device(server.address)  # the next keeper removes what a killed one left
    _until(lambda: server.left() == [])


def _refuse(server: Server, message: str, capsys: Streams) -> None:
    for arguments in (["devices", "add", "pi", "--ssh"], ["measure", "t0", "--device"]):
        assert main([*arguments, server.address]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert load_boards() == {}
    assert server.left() == []


def test_a_wrong_port_is_one_line(server: Server, capsys: Streams) -> None:
    server.address = "ssh://127.0.0.1:1"
    _refuse(server, "Connection refused. Is sshd running on that port?", capsys)


def test_an_unknown_host_key_is_one_line(server: Server, capsys: Streams) -> None:
    server.trusts(key="key", known="nobody")
    _refuse(server, "Host key verification failed. Connect to it once with `ssh`", capsys)


def test_a_key_that_is_refused_is_one_line(server: Server, capsys: Streams) -> None:
    server.trusts(key="stranger", known="known")
    _refuse(server, "Permission denied (publickey). Add your public key to it", capsys)


def test_a_board_without_python_is_one_line(server: Server, capsys: Streams) -> None:
    bin_folder = server.folder / "bin"
    bin_folder.mkdir()
    for tool in ("sh", "env", "timeout"):
        (bin_folder / tool).symlink_to(shutil.which(tool) or "/bin/sh")
    server.becomes(f"export PATH={bin_folder}\n")
    _refuse(server, "Install Python 3.9 or newer on it.", capsys)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo Welcome!", "it answered no JSON object: 'Welcome!'"),
        ("echo '[1]'", "it answered no JSON object: '[1]'"),
        ("head -c 10000000 /dev/zero", "it answered more than 1000000 bytes"),
        ("echo '{\"facts\": 7}'", "answered something else"),
        ("exit 7", "it ended with status 7"),
        ("printf '\\033[2J{'", "or half a line"),
    ],
)
def test_a_board_that_talks_nonsense_is_one_line(
    server: Server, capsys: Streams, command: str, message: str
) -> None:
    server.becomes("", command)
    _refuse(server, message, capsys)


def test_a_full_disk_there_is_one_line(server: Server, capsys: Streams) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    small = server.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here.")
    capsys.readouterr()
    try:
        server.becomes(f'export PATH="{Path(sys.executable).parent}:$PATH" TMPDIR={small}\n')
        assert main(["measure", "t0", "--device", "pi"]) == 2
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", ["pi", "[pi]", "pi = 3", '[pi]\nssh = "x"\ncolour = 3', "\0"])
def test_a_spoilt_list_of_boards_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, capsys: Streams
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "fasternas").mkdir()
    (tmp_path / "fasternas" / "devices.toml").write_text(content)
    assert main(["devices"]) == 2
    said = capsys.readouterr().err
    assert "devices.toml must list boards" in said
    assert said.count("\n") == 1
