"""What is installed on a board: whole, for the Python that is there, new enough, in its time."""

import platform
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from loopback_sshd import Server

from nas.cli.main import main
from predictors.backends.onnx_export import OPSET
from predictors.backends.table import find_runtime
from predictors.devices.agent.agent import Agent
from predictors.devices.agent.host import abi, architecture, facts
from predictors.devices.boards import (
    Board,
    _send_wheels,
    is_arm,
    load_boards,
    platform_tags,
    survey,
)
from predictors.devices.connection import SITE, Connection
from predictors.devices.timed import Host, TimedDevice
from predictors.measurement import Backend

Streams = pytest.CaptureFixture[str]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only packages that pip finds, here and on the board."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version in {"numpy": "2.0.0", "onnxruntime": "1.20.0"}.items():
        _wheel(folder, name, version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _wheel(folder: Path, name: str, version: str) -> Path:
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for path, text in _files(name, version).items():
            wheel.writestr(path, text)
    return file


def _files(name: str, version: str) -> dict[str, str]:
    described = f"{name}-{version}.dist-info"
    return {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{described}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{described}/RECORD": "",
    }


@pytest.fixture
def bare(server: Server, index: Path) -> Callable[[str], None]:
    """A board whose Python has no packages; call it to change what the shell there sets."""
    bin_folder = server.folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "python3").write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 "$@"\n')
    (bin_folder / "python3").chmod(0o755)

    def change(more: str) -> None:
        pip = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={index} {more}"
        server.becomes(f'export PATH="{bin_folder}:$PATH" {pip}\n')

    change("")
    return change


def _site(server: Server) -> Path:
    return server.folder / "home" / SITE.removeprefix("~/") / abi()


def _put(site: Path, name: str, version: str) -> None:
    for path, text in _files(name, version).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


# The user's pip may be set to what does not go with a folder, or have no index at all.
@pytest.mark.parametrize("setting", ["PIP_USER=1 PIP_REQUIRE_VIRTUALENV=1", "PIP_FIND_LINKS="])
def test_what_is_missing_goes_into_a_folder_for_this_python(
    server: Server, bare: Callable[[str], None], setting: str
) -> None:
    bare(setting)
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert load_boards()["pi"].version == "1.20.0"
    names = {path.name for path in _site(server).iterdir()}
    assert names == {
        "numpy",
        "numpy-2.0.0.dist-info",
        "onnxruntime",
        "onnxruntime-1.20.0.dist-info",
    }
    assert [path.name for path in _site(server).parent.iterdir()] == [abi()]
    assert server.left() == []


@pytest.mark.usefixtures("bare")
def test_a_runtime_that_is_too_old_makes_way_for_a_newer_one(server: Server) -> None:
    _put(_site(server), "onnxruntime", "1.16.3")
    assert survey(Board(name="pi", ssh=server.address)).version == "1.16.3"
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert load_boards()["pi"].version == "1.20.0"
    found = [path.name for path in _site(server).glob("onnxruntime*.dist-info")]
    assert found == ["onnxruntime-1.20.0.dist-info"]


@pytest.mark.usefixtures("bare")
def test_a_runtime_that_does_not_load_makes_way_for_one_that_does(server: Server) -> None:
    _put(_site(server), "onnxruntime", "1.19.0")
    (_site(server) / "onnxruntime/__init__.py").write_text("raise ImportError('numpy 2')")
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert load_boards()["pi"].version == "1.20.0"


def test_a_runtime_that_stays_too_old_is_one_line(
    server: Server, bare: Callable[[str], None], index: Path, capsys: Streams
) -> None:
    (index / "onnxruntime-1.20.0-py3-none-any.whl").unlink()
    _wheel(index, "onnxruntime", "1.16.3")
    bare("")
    _put(_site(server), "onnxruntime", "1.16.3")
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 2
    said = capsys.readouterr().err
    assert "onnxruntime must be 1.17 or newer on pi, but is 1.16.3. It cannot be replaced" in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("bare")
def test_a_board_whose_python_was_upgraded_mends_itself(server: Server, capsys: Streams) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    site = _site(server)
    site.rename(site.with_name("cpython-39-x86_64-linux-gnu"))  # that of the Python before
    assert survey(Board(name="pi", ssh=server.address)).version == ""
    assert main(["devices", "check", "pi"]) == 0
    assert "onnxruntime 1.20.0" in capsys.readouterr().out.splitlines()[-1]
    assert len(list(site.parent.iterdir())) == 2


class Told:
    """An agent whose runtime has these versions, one after the other."""

    def __init__(self, *versions: str | None) -> None:
        self._versions = list(versions)

    def ask(self, _: object) -> dict[str, Any]:
        return {"facts": {"runtime_version": self._versions.pop(0)}}


def _check(versions: tuple[str | None, ...], registered: str) -> list[str]:
    repaired: list[str] = []
    device = TimedDevice(
        "pi",
        Host(command=("false",), address="ssh://pi", machine="m"),
        Backend(),
        version=registered,
        repair=lambda: repaired.append(registered),
    )
    device._check_version(cast(Connection, Told(*versions)))
    return repaired


def test_a_runtime_that_is_gone_when_it_is_to_time_is_brought_back() -> None:
    assert _check(("1.20.0",), "1.20.0") == []
    assert _check((None, "1.20.0"), "1.20.0") == ["1.20.0"]
    with pytest.raises(RuntimeError, match=r"is 1\.21\.0 now and was 1\.20\.0 when the board was"):
        _check((None, "1.21.0"), "1.20.0")
    with pytest.raises(RuntimeError, match=r"must be 1\.17 or newer, but is 1\.16\.3: `fasternas"):
        _check(("1.16.3",), "1.16.3")


@pytest.mark.parametrize("version", ["1.17.0", "1.17", "1.20.1+cu12", "2.0rc1"])
def test_versions_are_compared_as_numbers(version: str) -> None:
    assert OPSET == 20  # of which 1.17 was the first
    runtime = find_runtime("onnxruntime")
    assert runtime.reads_ours(version)
    assert not any(map(runtime.reads_ours, ("1.16.3", "1.9", "0.99", "unknown")))
    assert find_runtime("ncnn").reads_ours("1.0.20230517")


def test_installing_ends_at_its_own_deadline_and_leaves_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path, site=tmp_path / "site" / "abi")
    found = agent.answer({"install": ["numpy"], "within_s": 0.01}, BytesIO())
    assert found == {"error": "pip took over 0.01 s"}
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["abi"]
    assert list((tmp_path / "site" / "abi").iterdir()) == []
    with pytest.raises(ValueError, match="nothing is installed on this machine itself"):
        Agent(tmp_path).answer({"install": ["numpy"], "within_s": 1}, BytesIO())


def test_what_a_killed_agent_was_installing_is_removed(tmp_path: Path, index: Path) -> None:
    site = tmp_path / "site" / "abi"
    left = site.parent / f"new-{platform.node()}-999999999-abc"
    of_another = site.parent / "new-another-999999999-abc"  # boards may share a home
    for folder in (left, of_another):
        folder.mkdir(parents=True)
    agent = Agent(tmp_path, site=site)
    (tmp_path / "wheel").write_bytes((index / "numpy-2.0.0-py3-none-any.whl").read_bytes())
    assert agent.answer({"unpack": "wheel"}, BytesIO()) == {"installed": str(site)}
    assert {path.name for path in site.parent.iterdir()} == {"abi", of_another.name}


@pytest.mark.parametrize(
    ("kernel", "narrow"), [("aarch64", "armv7l"), ("x86_64", "i686"), ("riscv64", "riscv64")]
)
def test_a_userland_of_32_bits_is_not_taken_for_its_kernel(
    monkeypatch: pytest.MonkeyPatch, kernel: str, narrow: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: kernel)
    assert architecture() == kernel
    monkeypatch.setattr("sys.maxsize", 2**31 - 1)
    assert facts("numpy")["machine"] == narrow


def test_a_board_of_32_bits_is_no_arm_board_and_not_emulated(server: Server, index: Path) -> None:
    (index / "onnxruntime-1.20.0-py3-none-any.whl").unlink()
    server.answers(
        '{"facts": {"machine": "armv7l", "kernel": "aarch64", "processor": "Pi 3", "cores": 4, '
        '"python": "3.11.2", "runtime_version": null}}'
    )
    found = survey(Board(name="pi", ssh=server.address))
    assert not is_arm(found)
    assert not found.emulated
    with pytest.raises(RuntimeError, match=r"here no wheels .* Its Python is one of 32 bits"):
        _send_wheels(cast(Connection, Told(None)), found, ["onnxruntime"], reason="no index")


def test_wheels_are_those_of_its_c_library() -> None:
    assert platform_tags("aarch64", "musl") == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"]
