"""Packages of others, as an installer leaves them, and what is said of them."""

from pathlib import Path

import pytest

from nas.study.options import SearchOptions
from predictors.devices.device import DeviceSpec

Streams = pytest.CaptureFixture[str]
ON_CPU = SearchOptions(devices=(DeviceSpec(name="cpu", budget_ms=9.0),))
ON_ARM = ("search", "--device", "arm", "--budget", "9ms", "--parallel", "1", "--out", "run")


def register(site: Path, package: str, entries: dict[str, str]) -> None:
    """Write what an installer writes about a package and its entry points."""
    info = site / f"{package}-2.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.0\n"
    (info / "METADATA").write_text(metadata)
    groups = [f"[fasternas.{group}]\n{line}\n" for group, line in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))


def error_of(streams: Streams) -> str:
    (line,) = [line for line in streams.readouterr().err.splitlines() if "error: " in line]
    return line
