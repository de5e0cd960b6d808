"""`--runtime auto` times in every runtime that there is and takes the fastest."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from networks import TINY

from nas.cli.main import main
from predictors.backends import table
from predictors.backends.table import find_runtime
from predictors.devices import registry
from predictors.devices.cache import RecordedDevice
from predictors.devices.device import Device
from predictors.devices.registry import device_names, fastest_runtime, open_device
from predictors.measurement import Backend, TimingProtocol
from search_spaces.formats import save_config

Streams = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache and a folder of this test's own, fewer runtimes: OpenVINO is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    few = [find_runtime(name) for name in ("torch", "onnxruntime", "openvino")]
    monkeypatch.setattr("predictors.devices.registry.runtimes", lambda **_: few)
    found = table.installed_version
    monkeypatch.setattr(
        table, "installed_version", lambda name: "" if name == "openvino" else found(name)
    )


def test_the_fastest_runtime_is_the_one_that_takes_the_least_time() -> None:
    choice = fastest_runtime("cpu", [TINY])
    (first, least), *others = choice.latencies_ms.items()
    assert choice.device.backends[0].runtime == first
    assert all(least <= ms for _, ms in others)
    assert sorted(choice.latencies_ms) == ["onnxruntime", "torch"]
    assert "`runtime` openvino must be installed here" in choice.refusals["openvino"]


def test_of_a_profile_the_only_runtime_is_the_fastest() -> None:
    choice = fastest_runtime("arm", [TINY])
    assert choice.device.source == "predicted"
    assert list(choice.latencies_ms) == ["onnxruntime"]


def test_where_no_runtime_runs_the_first_error_is_told() -> None:
    with pytest.raises(ValueError, match=r"`device` must be one of cpu, arm, but got 'gpu'"):
        fastest_runtime("gpu", [TINY])


def test_measure_says_what_each_runtime_takes(tmp_path: Path, capsys: Streams) -> None:
    save_config(TINY, tmp_path / "tiny.yaml")
    assert main(["measure", "tiny.yaml", "--runtime", "auto", "--repeats", "1", "--json"]) == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    lines = said.err.splitlines()
    assert lines[0].startswith("without openvino: `runtime` openvino must be installed here")
    assert lines[1].startswith(f"runtimes: {row['runtime']} ")
    assert lines[1].endswith(f" ms; took {row['runtime']}")
    assert row["precision"] == "fp32"


@pytest.mark.usefixtures("without_ray")
def test_a_search_keeps_the_runtime_that_was_chosen(tmp_path: Path, capsys: Streams) -> None:
    search = [
        "search",
        "--device",
        "arm",
        "--budget",
        "10ms",
        "--trials",
        "2",
        "--out",
        "run",
        "--runtime",
        "auto",
    ]
    assert main(search) == 0
    assert "took onnxruntime" in capsys.readouterr().err
    options = json.loads((tmp_path / "run" / "run.json").read_text())["options"]
    (device,) = options["devices"]
    assert device["backends"] == [{"runtime": "onnxruntime", "precision": "fp32", "threads": 1}]
    assert main([*search, "--resume"]) == 0
    assert "took" not in capsys.readouterr().err


def test_a_kind_of_device_is_one_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_fast(name: str, backend: Backend, protocol: TimingProtocol) -> Device:
        return replace(stand_in_record, name=name, backends=(backend,))

    stand_in_record = RecordedDevice(name="", description="a lab: measured", backends=())
    monkeypatch.setitem(registry.KINDS, "lab", registry.Kind(open=open_fast))
    monkeypatch.setitem(
        registry.KINDS, "gone", registry.Kind(open=open_fast, is_here=lambda: False)
    )
    assert device_names() == ("cpu", "arm", "lab")
    device = open_device("lab", threads=2)
    assert (device.name, device.backends) == ("lab", (Backend(threads=2),))
    with pytest.raises(ValueError, match="must be one of cpu, arm, lab, but got 'labs'"):
        open_device("labs")
