"""In eight bits a network computes much the same, and all of it is in eight bits."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import pytest
from networks import FAMILY, IRREGULAR, TINY

from predictors.backends import onnx_export
from predictors.backends.agreement import refuse_correlation
from predictors.backends.model import Model, config_model
from predictors.backends.onnx_export import quantized, write_onnx
from predictors.backends.table import find_runtime


def _optimized(content: bytes, folder: Path) -> list[str]:
    """The operators that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def test_every_convolution_is_quantized_where_weights_are_equal(tmp_path: Path) -> None:
    fp32 = write_onnx(config_model(IRREGULAR), tmp_path / "fp32").read_bytes()
    network = onnx.load_model_from_string(fp32)
    convolutions = sum(node.op_type == "Conv" for node in network.graph.node)
    assert any(node.op_type == "Identity" for node in network.graph.node)  # equal biases, shared

    kinds = _optimized(quantized(fp32, (3, 48, 48)), tmp_path)
    assert "Conv" not in kinds
    assert kinds.count("QLinearConv") == convolutions


def test_of_every_ingredient_only_the_activations_that_have_no_eight_bits_stay(
    tmp_path: Path,
) -> None:
    fp32 = write_onnx(config_model(FAMILY), tmp_path / "fp32").read_bytes()
    given = [node.op_type for node in onnx.load_model_from_string(fp32).graph.node]
    kinds = _optimized(quantized(fp32, (3, 48, 48)), tmp_path)
    assert not {"Conv", "MatMul", "FusedMatMul", "Softmax", "Concat", "Gemm"} & set(kinds)
    assert kinds.count("QLinearConv") == given.count("Conv")
    assert kinds.count("QLinearMatMul") == given.count("MatMul") == 4
    assert kinds.count("QLinearMul") == given.count("Mul") == 4  # of three gates and a star
    gates, hardswishes = given.count("HardSigmoid"), given.count("HardSwish")
    assert kinds.count("HardSigmoid") == gates + hardswishes  # a hardswish is taken apart
    assert kinds.count("Mul") == hardswishes
    assert kinds.count("Gelu") == given.count("Gelu") == 2


def test_a_network_that_came_as_a_file_is_quantized_too(tmp_path: Path) -> None:
    file = write_onnx(config_model(TINY), tmp_path / "theirs")
    model = Model(name="theirs", identity="theirs", shape=(3, 32, 32), file=file)
    for name in ("onnxruntime", "openvino"):
        runtime = find_runtime(name, "int8")
        found = runtime.deploy(model, tmp_path / name).read_bytes()
        assert found == quantized(file.read_bytes(), model.shape)


def test_what_is_quantized_already_stays_as_it_is(tmp_path: Path) -> None:
    fp32 = write_onnx(config_model(TINY), tmp_path / "fp32").read_bytes()
    int8 = quantized(fp32, (3, 32, 32))
    assert quantized(int8, (3, 32, 32)) == int8 != fp32


def test_quantizing_leaves_the_logs_alone(tmp_path: Path) -> None:
    program = (
        "import logging, sys; from pathlib import Path\n"
        "from predictors.backends.onnx_export import quantized\n"
        "quantized(Path(sys.argv[1]).read_bytes(), (3, 32, 32)); print(logging.root.handlers)\n"
        "logging.warning('heard')"
    )
    file = write_onnx(config_model(TINY), tmp_path / "network")
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == "WARNING:root:heard\n"


@pytest.mark.parametrize("correlation", [-0.99, 0.89, float("nan")])
def test_int8_that_has_nothing_to_do_with_fp32_is_refused(correlation: float) -> None:
    with pytest.raises(RuntimeError, match=r"n\.onnx must compute in int8 much the same .* not"):
        refuse_correlation(correlation, Path("n.onnx"))
    refuse_correlation(0.91, Path("n.onnx"))


def test_int8_whose_scales_are_wrong_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: bytes, shape: Sequence[int], *, images: None) -> bytes:
        network = onnx.load_model_from_string(quantized(model, shape))
        for initializer in network.graph.initializer:
            if initializer.name.endswith("_scale") and "classifier" not in initializer.name:
                values = onnx.numpy_helper.to_array(initializer) / 100
                initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
        return bytes(network.SerializeToString())

    monkeypatch.setattr(onnx_export, "quantized", wrong)
    with pytest.raises(RuntimeError, match=r"must compute in int8 much the same as in fp32"):
        find_runtime("onnxruntime", "int8").deploy(config_model(IRREGULAR), tmp_path / "network")
