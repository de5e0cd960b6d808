"""Boards behind a real sshd on this machine: registered, timed, lost, and telling nonsense."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import Server, kill_first, ssh_clients, until
from networks import LARGER, TINY

from nas.cli.main import main
from predictors.devices.agent.agent import Agent
from predictors.devices.agent.host import MARKER, abi
from predictors.devices.boards import load_boards, platform_tags, save_boards
from predictors.devices.connection import SITE
from predictors.devices.registry import device_names, open_device
from predictors.measurement import Backend

Streams = pytest.CaptureFixture[str]


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
    larger, tiny = device.measure_each([LARGER, TINY], repeats=2)
    assert larger.median_ms > 3 * tiny.median_ms
    assert (tiny.source, tiny.device, tiny.backend) == ("measured", "pi", Backend())
    assert server.left() == []
    until(lambda: server.agents() == [])

    assert main(["devices", "remove", "pi"]) == 0
    assert load_boards() == {}
    assert "pi" not in device_names()


def test_a_board_has_other_runtimes_too(
    server: Server, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ["devices", "add", "pi", "--ssh", server.address, "--precision", "int8"]
    assert main(add) == 0
    assert ", int8" in capsys.readouterr().out
    device = open_device("pi")
    assert device.backends == (Backend("onnxruntime", "int8"),)
    (measured,) = device.measure_each([TINY], repeats=1)
    assert measured.backend == Backend(precision="int8")
    other = open_device("pi", runtime="torch", precision="fp32")
    assert other.backends == (Backend("torch"),)
    assert version("torch") in other.description
    assert main(["measure", "t0", "--device", "pi", "--runtime", "ncnn"]) == 2
    assert (
        "`precision` must be one of fp32, bf16 in ncnn, but got 'int8'" in capsys.readouterr().err
    )

    facts = "predictors.devices.boards.Board.package"
    monkeypatch.setattr(facts, property(lambda board: f"no-{board.backend.runtime}"))
    with pytest.raises(ValueError, match="`runtime` must be installed on pi, but ncnn is not"):
        open_device("pi", runtime="ncnn", precision="fp32")


@pytest.mark.parametrize("libc", ["2.36", "2.28", None, "", "2.x", "2.999", "1.2", ["2"]])
def test_wheels_are_those_that_the_c_library_of_the_board_takes(libc: object) -> None:
    newest, *others = platform_tags("aarch64", libc)
    assert newest == f"manylinux_2_{36 if libc == '2.36' else 28}_aarch64"
    assert others[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]


def test_an_address_is_a_device(server: Server) -> None:
    device = open_device(server.address)
    (measured,) = device.measure_each([TINY], repeats=1)
    assert measured.device == server.address


def test_an_arm_board_is_arm(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert open_device("arm").source == "predicted"
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "fasternas" / "devices.toml"
    file.write_text(file.read_text().replace("x86_64", "aarch64"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert open_device("arm").source == "measured"


@pytest.mark.parametrize("end", ["client", "board"])
def test_a_connection_that_is_lost_is_made_again(server: Server, end: str) -> None:
    device = open_device(server.address)
    killer = kill_first(ssh_clients if end == "client" else server.agents)
    tiny, larger = device.measure_each([TINY, LARGER], repeats=2)
    killer.join()
    assert larger.median_ms > 3 * tiny.median_ms
    until(lambda: server.agents() == [])
    open_device(server.address)  # the next agent removes what a killed one left
    until(lambda: server.left() == [])


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
        (
            f"echo '{MARKER} 3.9.0'; yes $(seq -s. 300) | head -c 9999999",
            "it answered more than 1000000 bytes",
        ),
        (f"echo '{MARKER} 3.9.0'; echo '{{\"facts\": 7}}'", "answered something else"),
        (f"echo '{MARKER} 3.9.0'; echo '[[[[1]'; echo Bye", "it answered no JSON object: 'Bye'"),
        (f"echo '{MARKER} 99999.9.0'", "it answered no JSON object"),
        ("exit 7", "it ended with status 7"),
        ("printf '\\033[2J{'", "it answered no JSON object: '{'"),
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


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            "raise ImportError('libgomp.so.1: no\\033[2J such file')",
            "ImportError: libgomp.so.1: no[2J such file",
        ),
        ("import os\nos.kill(os.getpid(), 4)", "SIGILL"),
        ("raise SystemExit(3)", "it says nothing"),
    ],
    ids=["import", "signal", "exit"],
)
def test_a_runtime_that_is_there_but_does_not_load_is_one_line(
    server: Server, capsys: Streams, monkeypatch: pytest.MonkeyPatch, module: str, words: str
) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    before = load_boards()
    broken = server.folder / "home" / SITE.removeprefix("~/") / abi() / "onnxruntime.py"
    broken.parent.mkdir(parents=True)
    broken.write_text(module)
    server.becomes(f'export PATH="{Path(sys.executable).parent}:$PATH" PIP_NO_INDEX=1\n')
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    capsys.readouterr()
    commands = [["check", "pi"], ["add", "other", "--ssh", server.address]]
    for arguments in commands if "ImportError" in words else commands[:1]:
        assert main(["devices", *arguments]) == 2
        said = capsys.readouterr().err
        name, installed = arguments[1], version("onnxruntime")
        assert f"onnxruntime must load on {name}, but {installed} there does not: {words}." in said
        assert said.count("\n") == 1
    assert load_boards() == before
    assert open_device(server.address).source == "measured"  # facts alone load nothing


def test_a_runtime_that_takes_for_ever_to_load_is_trouble(
    tmp_path: Path,
) -> None:
    request = {"facts": "onnxruntime", "load": True}
    found = Agent(tmp_path, load_s=0).answer(request, BytesIO())
    assert found["facts"]["trouble"] == "it takes over 0 s"
    found = Agent(tmp_path).answer({"facts": "numpy", "load": True}, BytesIO())
    assert found["facts"]["trouble"] == ""


FACTS: dict[str, Any] = {
    "machine": "aarch64",
    "processor": "a board",
    "cores": 4,
    "python": "3.11",
    "runtime_version": "1.20",
    "celsius": 51.5,
}


@pytest.mark.parametrize("celsius", [float("nan"), float("inf"), "hot", None, 10**400])
def test_a_temperature_that_makes_no_sense_spoils_nothing(server: Server, celsius: object) -> None:
    answer = json.dumps({"facts": {**FACTS, "celsius": celsius}})
    server.answers(answer)
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert load_boards()["pi"].celsius is None
    assert main(["devices"]) == 0


@pytest.mark.parametrize("cores", ["Infinity", "1e999", "0", "true", "4.5", '"4"'])
def test_cores_that_make_no_sense_are_one_line(server: Server, capsys: Streams, cores: str) -> None:
    answer = json.dumps({"facts": {**FACTS, "cores": "CORES"}}).replace('"CORES"', cores)
    server.answers(answer)
    _refuse(server, "answered something else", capsys)


def test_a_runtime_that_was_upgraded_is_noticed(server: Server, capsys: Streams) -> None:
    """What is measured with one version must not be kept under another."""
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    boards = load_boards()
    save_boards({"pi": replace(boards["pi"], version="1.0.0")})
    with pytest.raises(
        RuntimeError, match=r"was 1\.0\.0 when the board was registered: `fasternas"
    ):
        open_device("pi").measure(TINY)
    assert main(["devices", "check", "pi"]) == 0
    assert load_boards() == boards
