"""Networks of timm and ONNX files: what they take and cost, and that they compute the same."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nas.networks import find_network
from predictors.backends.model import Model, config_model, timm_model
from predictors.backends.onnx_export import folded
from predictors.backends.onnx_file import deployed_bytes, onnx_model
from predictors.backends.table import find_runtime
from predictors.cost import cost
from predictors.devices.profiled import ProfiledDevice
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET, FasterNetConfig

TINY = FasterNetConfig(
    widths=(8, 16),
    depths=(1, 1),
    partial_ratios=(0.5, 0.5),
    expansions=(2.0, 2.0),
    resolution=16,
    stem_stride=2,
    head_width=16,
    activation="relu",
    classes=5,
)


def test_timms_fasternet_costs_what_ours_does() -> None:
    theirs, ours = timm_model("fasternet_t0"), cost(FASTERNET["t0"])
    assert (theirs.shape, theirs.macs, theirs.params) == ((3, 224, 224), ours.macs, ours.params)


@pytest.mark.parametrize(
    ("name", "gmacs", "mparams"),
    [("mobilenetv2_100", 0.30, 3.50), ("mobilevit_xxs", 0.41, 1.27), ("repvit_m0_9", 0.816, 5.07)],
)
def test_costs_are_those_that_are_published(name: str, gmacs: float, mparams: float) -> None:
    model = timm_model(name)
    assert model.macs == pytest.approx(gmacs * 1e9, rel=0.02)
    assert model.params == pytest.approx(mparams * 1e6, rel=0.01)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050@64", "mobilevit_xxs@64", "resnet10t@64"])
def test_a_foreign_network_is_exported_as_it_computes(name: str, tmp_path: Path) -> None:
    model = timm_model(name)
    assert model.shape == (3, 64, 64)
    file = find_runtime("onnxruntime").deploy(model, tmp_path / "foreign")  # verifies itself
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(file).graph.node}
    again = onnx_model(file)
    assert again.shape == model.shape
    assert again.params == pytest.approx(model.params, rel=0.02)
    assert again.macs == pytest.approx(model.macs, rel=0.02)  # pooling and such aside


def test_a_norm_that_brings_an_activation_leaves_it_behind() -> None:
    model = timm_model("mobilenetv2_100@32")
    network, image = model.network(), model.image()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
    with torch.no_grad():
        torch.testing.assert_close(folded(network, image)(image), network(image))


@pytest.mark.parametrize("name", ["no_such_net", "resnet18@big", "t9", "", "t0@", "t0@big"])
def test_what_timm_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`network` must be a config, checkpoint or ONNX f"):
        find_network(name)


def test_a_named_size_takes_another_image_size() -> None:
    model = find_network("t0@192")
    assert (model.name, model.shape) == ("t0@192", (3, 192, 192))
    assert model.macs == cost(replace(FASTERNET["t0"], resolution=192)).macs
    with pytest.raises(ValueError, match="`resolution` must be at least the total stride of 32"):
        find_network("t0@10")


def test_an_image_size_that_a_network_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`network` must take images of 10x10 pixels, but v"):
        timm_model("vit_tiny_patch16_224@10")


def _export(path: Path, model: Model | None = None) -> Path:
    file = find_runtime("onnxruntime").deploy(model or config_model(TINY), path.with_suffix(""))
    return file.rename(path)


def test_an_onnx_file_is_counted_like_its_config(tmp_path: Path) -> None:
    model, ours = onnx_model(_export(tmp_path / "tiny.onnx")), cost(TINY)
    pooling = sum(layer.macs for layer in TINY.layers() if layer.op == "pool")
    assert (model.name, model.shape) == ("tiny.onnx", (3, 16, 16))
    assert model.macs == ours.macs - pooling
    weights = sum(layer.weights for layer in TINY.layers())
    assert model.params == pytest.approx(weights, rel=0.01)  # equal ones are stored once


def test_what_is_timed_of_a_file_is_the_file(tmp_path: Path) -> None:
    file = _export(tmp_path / "tiny.onnx")
    copy = _export(tmp_path / "copy.onnx", onnx_model(file))
    assert copy.read_bytes() == file.read_bytes()


def test_weights_that_lie_beside_a_file_come_along(tmp_path: Path) -> None:
    file = _export(tmp_path / "tiny.onnx")
    split = tmp_path / "split.onnx"
    onnx.save_model(
        onnx.load(file), split, save_as_external_data=True, location="weights", size_threshold=0
    )
    image = config_model(TINY).image().numpy()
    expected, found = (
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )[0]
        for content in (file.read_bytes(), deployed_bytes(onnx_model(split)))
    )
    np.testing.assert_array_equal(found, expected)
    assert onnx_model(split).macs == onnx_model(file).macs
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match=r"split\.onnx must have its weights whole in weights"):
        onnx_model(split)


@pytest.mark.parametrize("where", ["inside", "beside", "of a node", "an input too"])
def test_shapes_are_inferred_without_the_weights(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.onnx"
    network = onnx.load_model_from_string(_sized(of_node=where == "of a node"))
    if where == "an input too":
        network.graph.input.append(helper.make_tensor_value_info("w", 1, [16, 8, 3, 3]))
    beside = where == "beside"
    onnx.save(network, file, save_as_external_data=beside, location="w", convert_attribute=beside)
    seen, infer = [], onnx.shape_inference.infer_shapes

    def recorded(model: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(model.ByteSize())
        return infer(model)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", recorded)
    model = onnx_model(file)
    assert seen[0] < 1000 < 4 * 16 * 8 * 9 < len(deployed_bytes(model))
    assert model.macs == 16 * 8 * 9 * (32 * 48)  # of sides that small tensors say
    assert model.params == (4 if where == "of a node" else 4 + 16 * 8 * 9)
    assert not model.file_half


def _sized(*, of_node: bool) -> bytes:
    """A file that resizes a map and convolves it by a weight of 4.6 kB."""
    weight = numpy_helper.from_array(np.ones((16, 8, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Resize", ["in0", "", "scales"], ["big"], mode="nearest"),
        helper.make_node("Conv", ["big", "w"], ["out"], pads=[1] * 4),
    ]
    if of_node:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("in0", 1, ["n", 8, 16, 16])],
        [helper.make_tensor_value_info("out", 1, None)],
        [numpy_helper.from_array(np.array([1, 1, 2, 3], np.float32), "scales")]
        + [weight] * (not of_node),
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def _taking(*inputs: tuple[int, list[Any]]) -> bytes:
    """A file that adds one to its first input."""
    values = [
        helper.make_tensor_value_info(f"in{i}", kind, shape)
        for i, (kind, shape) in enumerate(inputs)
    ]
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    graph = helper.make_graph(
        [helper.make_node("Add", ["in0", "one"], ["out"])],
        "g",
        values,
        [helper.make_tensor_value_info("out", 1, None)],
        [one],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def test_a_side_below_zero_is_a_free_one(tmp_path: Path) -> None:
    network = onnx.load(_export(tmp_path / "tiny.onnx"))
    expected = onnx_model(tmp_path / "tiny.onnx").macs
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(network, tmp_path / "minus.onnx")
    model = onnx_model(tmp_path / "minus.onnx")
    assert (model.batch, model.macs) == ("dynamic", expected)


def test_free_channels_are_not_a_question_of_size(tmp_path: Path) -> None:
    (tmp_path / "free.onnx").write_bytes(_taking((1, [1, "c", "h", "w"])))
    with pytest.raises(
        ValueError, match=r"takes \['c', 'h', 'w'\]. Export it with its other sides"
    ):
        onnx_model(tmp_path / "free.onnx", size=(32, 32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, so run `git lfs"),
        (b"no protobuf at all", "must be an ONNX file, but cannot be read as one"),
        (b"", "must be an ONNX file|must take one input, of float32, .*, but takes none"),
        (
            _taking((TensorProto.INT64, [1, 3])),
            r"of float32, .*, but takes in0 \(int64\)",
        ),
        (
            _taking((1, [1, 3]), (1, [1, 3])),
            r"takes in0 \(float32\), in1 \(float32\)",
        ),
        (_taking((1, [8, 3, 32, 32])), "a batch of one or any, but takes 8"),
        (
            _taking((1, ["n", 3, "h", 32])),
            r"a fixed shape, or one whose .* takes \[3, 'h', 32",
        ),
    ],
    ids=["pointer", "garbage", "empty", "integers", "two", "batch", "size"],
)
def test_a_file_that_cannot_be_timed_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.onnx"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        find_network(str(file))
    assert "\n" not in str(caught.value)


def _graph(op: str, shape: list[Any], weight: list[int]) -> bytes:
    """A file of one operator with one weight."""
    graph = helper.make_graph(
        [helper.make_node(op, ["in0", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("in0", 1, shape)],
        [helper.make_tensor_value_info("out", 1, None)],
        [numpy_helper.from_array(np.ones(weight, np.float32), "w")],
    )
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize(
    ("op", "shape", "weight", "macs"),
    [
        ("Conv", ["n", 3, 8, 8], [4, 3, 3, 3], 4 * 27 * 36),
        ("ConvTranspose", [1, 3, 8, 8], [3, 4, 2, 2], 3 * 64 * 16),
        ("Gemm", [1, 5], [5, 7], 35),
        ("MatMul", [1, 6, 5], [5, 7], 6 * 35),
    ],
)
def test_operators_are_counted(
    op: str, shape: list[Any], weight: list[int], macs: int, tmp_path: Path
) -> None:
    (tmp_path / "one.onnx").write_bytes(_graph(op, shape, weight))
    assert onnx_model(tmp_path / "one.onnx").macs == macs


def test_what_cannot_be_counted_is_unknown(tmp_path: Path) -> None:
    """Integer convolutions are no zero."""
    file = _export(tmp_path / "tiny.onnx")
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("MatMulInteger", ["a", "b"], ["c"]))
    onnx.save_model(model, file)
    assert onnx_model(file).macs is None


def test_an_onnx_file_needs_a_runtime_that_takes_it(tmp_path: Path) -> None:
    model = onnx_model(_export(tmp_path / "tiny.onnx"))
    with pytest.raises(ValueError, match="one that takes ONNX files, since tiny"):
        find_runtime("torch").deploy(model, tmp_path / "program")


@pytest.mark.parametrize("name", ["gone.onnx", "gone.yaml", "folder/t0"])
def test_a_file_that_is_not_there_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be a file that exists, but got '{name}'"):
        find_network(name)


def test_finding_a_named_size_loads_no_timm() -> None:
    code = (
        "from nas.networks import find_network; find_network('t0'); import sys; "
        "print(sorted({'timm', 'torch', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("read", "half"), [("no", False), ("cast", False), ("as it is", True)])
def test_a_file_is_of_16_bits_if_it_computes_with_them(
    read: str, tmp_path: Path, *, half: bool
) -> None:
    """Weights may be stored so, and a graph have some that nothing reads."""
    weights = [numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float16), "half")]
    nodes = [helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT)]
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    if read == "no":
        weights.append(numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w"))
        nodes = []
    nodes.append(helper.make_node("Conv", ["x", "half" if half else "w"], ["out"]))
    taken, made = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in {"x": (1, 3, 8, 8), "out": (1, 8, 6, 6)}.items()
    )
    graph = helper.make_graph(nodes, "graph", [taken], [made], weights)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    network.ir_version = 9
    onnx.save(network, tmp_path / "network.onnx")
    model = onnx_model(tmp_path / "network.onnx")
    assert model.file_half is half
    if not half:
        assert ProfiledDevice("arm", Backend()).measure(model).median_ms > 0


@pytest.mark.parametrize("name", ["gone.onnx", "gone.safetensors@64", "gone.pth", "gone.tflite"])
def test_a_file_that_is_not_there_is_missed_without_timm(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.networks.timm_name", lambda _: pytest.fail("timm was asked"))
    with pytest.raises(ValueError, match=r"must be a file that exists, but got 'gone.*Check"):
        find_network(name)


def test_images_too_large_for_any_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "open.onnx").write_bytes(_taking((1, [1, 3, "h", "w"])))
    assert onnx_model(tmp_path / "open.onnx", size=(16, 24)).shape[1:] == (16, 24)
    with pytest.raises(ValueError, match=r"must take images of sides up to 8192, but .* of 8193"):
        onnx_model(tmp_path / "open.onnx", size=(16, 8193))


@pytest.mark.parametrize("left", [100, None], ids=["cut", "gone"])
def test_weights_that_are_not_whole_beside_a_file_are_named(
    left: int | None, tmp_path: Path
) -> None:
    file, beside = tmp_path / "network.onnx", tmp_path / "weights.bin"
    network = onnx.load_model_from_string(_sized(of_node=False))
    onnx.save(network, file, save_as_external_data=True, location=beside.name, size_threshold=0)
    beside.unlink() if left is None else beside.write_bytes(beside.read_bytes()[:left])
    with pytest.raises(
        ValueError, match=r"network\.onnx must have its weights whole in weights\.bin .* Copy "
    ):
        onnx_model(file)
