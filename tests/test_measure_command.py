"""What `fasternas measure` says on a terminal."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.cli.main import main
from predictors.backends.onnx_file import onnx_model
from predictors.devices.cache import RecordedDevice
from predictors.measurement import Backend, Latency


def test_an_error_on_a_terminal_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> Latency:
        if not done:
            done.append(1)
            return Latency(
                median_ms=2.0,
                low_ms=1.9,
                high_ms=2.1,
                source="measured",
                device="lab",
                backend=Backend("onnxruntime"),
            )
        raise RuntimeError("it broke")

    done: list[int] = []
    device = RecordedDevice(name="lab", description="a lab", backends=(Backend(),), find=broken)
    monkeypatch.setattr("nas.cli.measure.open_asked", lambda *_: device)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["measure", "t0", "t1"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("2 of 2\na lab\nfasternas: error: t1: it broke.\n")


def test_macs_that_a_file_does_not_tell_are_those_of_the_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph computes the size of the map that is convolved; ONNX's own inference does not."""
    nodes = [
        helper.make_node("Shape", ["x"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scales"], ["more"]),
        helper.make_node("Cast", ["more"], ["size"], to=TensorProto.INT64),
        helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="nearest"),
        helper.make_node("Conv", ["y", "w"], ["z"], pads=[1] * 4),
        helper.make_node("Conv", ["z", "w"], ["out"], pads=[1] * 4),
    ]
    numbers = {
        "scales": np.array([1, 1, 2, 3], np.float32),
        "w": np.ones((8, 8, 3, 3), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in numbers.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    file = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), file)
    assert onnx_model(file).macs is None
    assert main(["measure", str(file), "--device", "arm", "--layers", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["macs"] == sum(part["macs"] for part in record["layers"])
    assert record["macs"] == 2 * 8 * 8 * 9 * 32 * 48
    assert record["gflops"] == pytest.approx(2e-6 * record["macs"] / record["median_ms"])
    assert main(["measure", str(file), "--device", "arm"]) == 0
    assert " 1.77 M " in capsys.readouterr().out
