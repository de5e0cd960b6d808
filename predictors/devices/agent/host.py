"""What both programs have in common: how they come to run, what a machine is and how hot it is."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO


def facts(package: str) -> dict[str, object]:
    """What the machine is and has, the package's version included; None where it does not tell."""
    return {
        "machine": platform.machine(),
        "kernel": _line("/proc/sys/kernel/arch"),  # not the machine's: that one is emulated
        "processor": processor(),
        "libc": platform.libc_ver()[1],  # which wheels run here depends on it
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "runtime_version": _version(package),
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        **heat(),
    }


def heat() -> dict[str, float | None]:
    """The lowest frequency of our cores, the first zone's temperature; None where not known."""
    cores = Path("/sys/devices/system/cpu")
    files = [cores / f"cpu{n}/cpufreq/scaling_cur_freq" for n in os.sched_getaffinity(0)]
    kilohertz = min(filter(None, map(_number, files)), default=None)
    millidegrees = _number(Path("/sys/class/thermal/thermal_zone0/temp"))
    return {
        "mhz": None if kilohertz is None else kilohertz / 1e3,
        "celsius": None if millidegrees is None else millidegrees / 1e3,
    }


def processor() -> str:
    """Return the board's or the processor's name."""
    board = (_text("/proc/device-tree/model") or "").strip(" \0\n")
    lines = (_text("/proc/cpuinfo") or "").splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return board or next(names, "") or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _number(file: Path) -> float | None:
    try:
        return float(_line(file) or "")
    except ValueError:
        return None


def _line(file: Path | str) -> str | None:
    return (_text(file) or "").strip() or None


def _text(file: Path | str) -> str | None:
    try:
        return Path(file).read_text()
    except (OSError, ValueError):
        return None


if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]  # a request or an answer

# Run by the other side's Python. The first line of its input holds modules by name, as text, each
# of which imports only earlier ones; the last one's main() is what runs.
BOOTSTRAP = """\
import json, sys, types
for name, text in json.loads(sys.stdin.buffer.readline()):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""


def serve(answer: Callable[[Message, BinaryIO], Message]) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not mix with the answers
    for line in iter(sys.stdin.buffer.readline, b""):
        try:
            reply = answer(json.loads(line), sys.stdin.buffer)
        except Exception as error:  # whatever it is, it is told to the other side
            said = " ".join(f"{type(error).__name__}: {error}".split())
            reply = {"error": said if len(said) <= 4000 else f"{said[:1000]} ... {said[-3000:]}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
