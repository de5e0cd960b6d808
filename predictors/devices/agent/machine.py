"""What a machine is and has, and how hot it is."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


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
