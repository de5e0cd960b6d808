"""Benchmarks refuse to go on with what another device or protocol timed; files have plain names."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nas.bench_report import plain_name
from predictors.devices.registry import open_device

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KEPT = BENCHMARKS / "results" / "repeatability-cpu" / "runs.jsonl"


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs_of_another_protocol_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repeatability = _benchmark("repeatability")
    file = tmp_path / "repeatability-cpu" / "runs.jsonl"
    file.parent.mkdir()
    monkeypatch.setattr(sys, "argv", ["repeatability", "--runs", "10", "--out", str(tmp_path)])
    made_by = repeatability._made_by(open_device("cpu"))
    runs = [json.loads(line) for line in KEPT.read_text().splitlines()[:10]]

    def keep(last: object) -> None:
        lines = [{**run, "made_by": made_by} for run in runs]
        lines[-1]["made_by"] = last
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    for other in (None, {**made_by, "protocol": "0"}, {**made_by, "device": "another"}):
        keep(other)
        with pytest.raises(SystemExit, match="2"):
            repeatability.main()
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{file} must hold runs of this device and protocol, but holds others. " in said
    keep(made_by)
    repeatability.main()
    assert json.loads((tmp_path / "repeatability-cpu.json").read_text())["runs"] == 10


def test_results_of_an_address_have_a_plain_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain_name("paper_ratios", "ssh://me@host:22") == "paper_ratios-ssh-me-host-22"
    paper_ratios = _benchmark("paper_ratios")
    monkeypatch.setattr(paper_ratios, "RESULTS", tmp_path)
    monkeypatch.setattr(paper_ratios, "_row", lambda *_: {})
    monkeypatch.setattr(paper_ratios, "timm_model", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["paper_ratios", "--device", "ssh://me@host:22"])
    paper_ratios.main()
    assert [path.name for path in tmp_path.iterdir()] == ["paper_ratios-ssh-me-host-22.json"]
