"""What the other side answers is checked, and addresses are those of ssh."""

import sys
from typing import Any

import pytest

from predictors.devices.agent import host
from predictors.devices.agent.host import BOOTSTRAP
from predictors.devices.connection import (
    Address,
    Connection,
    ConnectionLostError,
    program,
    remedy,
    times_ms,
)

HERE = (sys.executable, "-uc", BOOTSTRAP)


def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    with (
        Connection(["sleep", "60"], answer_s=0.3) as silent,
        pytest.raises(ConnectionLostError, match=r"did not answer within 0\.3 s"),
    ):
        silent.ask({"facts": "onnxruntime"})


def test_what_a_runtime_says_is_one_line() -> None:
    start = {
        "module": "predictors.backends.onnxruntime",
        "models": ["gone.onnx"],
        "shapes": [[3, 8, 8]],
        "processor": "cpu",
        "threads": 1,
    }
    timer = program("host", "timer", backend="predictors.backends.onnxruntime")
    with (
        Connection(HERE) as agent,
        pytest.raises(RuntimeError, match="File doesn't exist") as caught,
    ):
        agent.ask({"start": start, "program": timer})
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ConnectionLostError)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"cpu_ms": []},
        {"cpu_ms": 3},
        {"cpu_ms": [1.0, "2"]},
        {"cpu_ms": [0.0]},
        {"cpu_ms": [1.0, -5.0]},
        {"cpu_ms": [float("nan")]},
        {"cpu_ms": [float("inf")]},
    ],
)
def test_times_of_a_clock_that_jumps_are_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ConnectionLostError, match="it answered no times in cpu_ms"):
        times_ms(answer, "cpu_ms")


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("pi", ["--", "pi"]),
        ("me@10.0.0.3", ["-l", "me", "--", "10.0.0.3"]),
        ("ssh://me@pi.local:2222", ["-p", "2222", "-l", "me", "--", "pi.local"]),
        ("me@[fe80::1]:22", ["-p", "22", "-l", "me", "--", "fe80::1"]),
        ("me@fd00::12", ["-l", "me", "--", "fd00::12"]),
        ("ssh://2001:db8::5", ["--", "2001:db8::5"]),
        ("fe80::1%eth0", ["--", "fe80::1%eth0"]),
    ],
)
def test_addresses_are_those_of_ssh(text: str, command: list[str]) -> None:
    address = Address.parse(text)
    found = list(address.command())
    assert [word for word in found if not word.startswith("-o")][1:-1] == command
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "a b", "me@-x", "http://x", "x:99999", "x;reboot", "a@b@c"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`ssh` must be an address such as"):
        Address.parse(text)


def test_it_is_said_where_the_client_is_missing() -> None:
    with pytest.raises(ConnectionLostError) as caught, Connection(["ssh-that-is-not-there"]):
        pass
    assert str(caught.value) == "ssh-that-is-not-there: No such file or directory"
    assert remedy("ssh: No such file or directory") == "Install an SSH client here."


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name\t: AMD EPYC\nCPU part : 1\n", "AMD EPYC"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd40\n", "aarch64 0x41 0xd40"),
    ],
)
def test_a_processor_without_a_name_is_told_by_its_numbers(
    cpuinfo: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As servers with ARM's processors are: others would have their measurements."""
    monkeypatch.setattr(host, "_text", lambda path: cpuinfo if path == "/proc/cpuinfo" else None)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert host.processor() == name
