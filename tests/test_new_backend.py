"""A new runtime is one file and one line of the table; then all commands have it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from networks import TINY

from nas.cli.main import main
from predictors.backends import table
from predictors.backends.table import BackendModule, Runtime
from search_spaces.formats import save_config

Streams = pytest.CaptureFixture[str]
FILE = '''\
"""ONNX Runtime without optimisation of the graph."""

from __future__ import annotations

PACKAGES = ("onnxruntime",)
EXTRA = ""


def write(model, stem, runtime):
    from predictors.backends.onnx_export import write_onnx

    return write_onnx(model, stem.with_name(f"{stem.name}.plain"))


def run(model, file, runtime):
    from predictors.backends.onnxruntime import outputs_of

    return outputs_of(str(file))


def code(model, file, runtime):
    return f'onnxruntime.InferenceSession("{file}")'


def load(start):
    import numpy
    import onnxruntime

    def inference(path, shape):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = start["threads"]
        session = onnxruntime.InferenceSession(path, options)
        feed = {"image": numpy.zeros(shape, numpy.float32)}
        return lambda: session.run(None, feed)

    return list(map(inference, start["models"], start["shapes"]))
'''


@pytest.fixture(autouse=True)
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a runtime that a new file and a new line have added."""
    file = tmp_path / "onnxruntime_plain.py"
    file.write_text(FILE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("onnxruntime_plain", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "onnxruntime_plain", module)
    line = Runtime("onnxruntime-plain", "fp32", "onnx-plain", _as_backend(module))
    monkeypatch.setattr(table, "TABLE", (*table.TABLE, line))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_config(TINY, tmp_path / "tiny.yaml")
    return line.name


def _as_backend(module: object) -> BackendModule:
    return module  # type: ignore[return-value]


def test_measure_times_in_it(plain: str, capsys: Streams) -> None:
    options = ["--runtime", plain, "--repeats", "1", "--json"]
    assert main(["measure", "tiny.yaml", *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["runtime"] == plain
    assert row["median_ms"] > 0


def test_export_writes_it(capsys: Streams) -> None:
    assert main(["export", "tiny.yaml", "--to", "onnx-plain", "--out", "out"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["tiny.plain.onnx"]
    assert "load tiny.plain.onnx: onnxruntime.InferenceSession(" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("measure", "or onnxruntime-plain"),
        ("search", "or onnxruntime-plain"),
        ("export", "onnx-plain"),
    ],
)
def test_the_help_names_it(command: str, name: str, capsys: Streams) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert name in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("without_ray")
def test_a_search_times_in_it(plain: str) -> None:
    options = ["--space", "fasternet-32", "--budget", "2ms", "--trials", "4", "--out", "run"]
    assert main(["search", "--device", "cpu", "--runtime", plain, *options]) == 0
    assert plain in Path("run/measurements.jsonl").read_text()
