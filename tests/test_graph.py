"""Any ONNX graph: its nodes as they run on ARM, their instructions, and where those go."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fit_profile import read_table
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nas.cli.main import main
from predictors.aarch64.graph import graph_nodes
from predictors.aarch64.layers import count_instructions
from predictors.aarch64.node import Node
from predictors.aarch64.operators import count_node
from predictors.aarch64.parts import (
    Part,
    by_operator,
    costliest,
    graph_parts,
    layer_parts,
    macs,
)
from predictors.backends.model import as_model, config_model, timm_model
from predictors.backends.onnx_export import onnx_bytes, quantized
from predictors.backends.onnx_file import onnx_model
from predictors.devices.profiled import PROFILES, ProfiledDevice, load_profile
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET, SPACES
from search_spaces.layers import Layer

Streams = pytest.CaptureFixture[str]
Weights = dict[str, NDArray[Any]]
FORMS = load_profile("raspberry_pi_5").forms
NETWORKS = read_table(PROFILES / "raspberry_pi_5" / "networks.csv")
ARM = ProfiledDevice("arm", Backend())


@pytest.mark.parametrize("space", SPACES)
def test_layer_records_count_what_the_exported_graph_does(space: str) -> None:
    rng, small = Random(3), space.endswith("32")
    for drawn in [SPACES[space].sample(rng) for _ in range(3 if small else 1)]:
        config = drawn if small else replace(drawn, resolution=96)
        parts = graph_parts(graph_nodes(onnx_bytes(config_model(config))), FORMS)
        counted = count_instructions(config.layers(), FORMS)
        assert _sums(parts) == pytest.approx(counted, rel=1e-12), config
        assert _sums(layer_parts(config.layers(), FORMS)) == pytest.approx(counted, rel=1e-12)


@dataclass(frozen=True, kw_only=True)
class _Own:
    """A config of another space: a number of convolutions."""

    depth: int

    def layers(self) -> Sequence[Layer]:
        conv = Layer(name="conv", op="conv", c_in=8, c_out=8, height=7, width=7, kernel=3)
        return [replace(conv, repeat=self.depth)]


@dataclass(frozen=True, kw_only=True)
class _Built:
    """A config that knows no layers, but how its network is built."""

    width: int
    input_shape = (3, 32, 32)

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, self.width, 3, stride=2), nn.ReLU())


def test_a_config_that_can_be_built_is_predicted_from_its_graph(tmp_path: Path) -> None:
    configs = [_Built(width=8), _Built(width=64)]
    found = ARM.predict(configs)
    assert found.mean_ms[1] > 2 * found.mean_ms[0]
    for config, ms in zip(configs, found.mean_ms, strict=True):
        with torch.no_grad():
            file = tmp_path / f"{config.width}.onnx"
            file.write_bytes(onnx_bytes(as_model(config)))
        assert ARM.measure(onnx_model(file)).median_ms == pytest.approx(ms, rel=1e-9)
    with pytest.raises(TypeError, match=r"`network` must be a config that can be built, .* build"):
        ARM.predict([3])  # type: ignore[list-item]


def test_a_config_of_another_space_is_predicted_from_its_layers() -> None:
    start = FORMS["run"]["instructions"]["one"]
    one, three = (ARM.measure(_Own(depth=n)).context.instructions or 0 for n in (1, 3))
    assert three - start == pytest.approx(3 * (one - start), rel=1e-3)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "resnet18", "mobilevit_xxs"])
def test_a_network_of_timm_takes_the_instructions_that_were_executed(name: str) -> None:
    (row,) = np.flatnonzero(NETWORKS["name"] == name)
    total, fma = _sums(ARM.parts(timm_model(f"{name}@{NETWORKS['resolution'][row]:.0f}")))
    assert total == pytest.approx(NETWORKS["instructions"][row], rel=0.003)
    assert fma == pytest.approx(NETWORKS["fma_instructions"][row], rel=0.0002)


def test_a_convolution_with_a_bias_takes_in_sum_and_activation() -> None:
    conv = ("Conv", ["x", "w", "b"], ["y"], {"pads": [1] * 4})
    summed = [conv, ("Add", ["y", "x"], ["z"], {}), ("Relu", ["z"], ["out"], {})]
    (node,) = _nodes(summed, b=np.zeros(8, np.float32))
    assert (node.op, node.activation, node.summand) == ("Conv", "Relu", "given")
    before: Any = ("Sigmoid", ["x"], ["s"], {})
    summed[1] = ("Add", ["s", "y"], ["z"], {})
    first, node = _nodes([before, *summed], b=np.zeros(8, np.float32))
    assert (first.op, node.activation, node.summand) == ("Sigmoid", "Relu", "computed")


def test_a_constant_that_multiplies_a_transpose_has_the_rows_of_the_output() -> None:
    turned = [("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["t", "w"], ["out"], {})]
    (fused,) = _nodes(turned, shape=(1, 32, 16), w=np.ones((32, 8), np.float32))
    assert (fused.op, fused.attributes["transA"], macs(fused)) == ("FusedMatMul", 1, 16 * 32 * 8)
    counts = count_node(fused).counts
    assert counts["macs_4"] == 16 * 32 * 8


@pytest.mark.parametrize("why", ["no bias", "read again", "other shape", "an activation before"])
def test_other_sums_stay(why: str) -> None:
    conv: Any = ("Conv", ["x", "w", "b"], ["y"], {"pads": [1] * 4})
    add: Any = ("Add", ["y", "x"], ["out"], {})
    after: list[Any] = [add]
    given: Weights = {"b": np.zeros(8, np.float32)}
    if why == "no bias":
        conv, given = ("Conv", ["x", "w"], ["y"], {"pads": [1] * 4}), {}
    elif why == "read again":
        after = [("Add", ["y", "x"], ["z"], {}), ("Mul", ["z", "y"], ["out"], {})]
    elif why == "other shape":
        given["c"] = np.ones((1, 8, 1, 1), np.float32)
        after = [("Sigmoid", ["y"], ["s"], {}), ("Add", ["s", "c"], ["out"], {})]
    else:
        after = [("Relu", ["y"], ["r"], {}), ("Add", ["r", "x"], ["out"], {})]
    nodes = graph_nodes(_model([conv, *after], **given))  # type: ignore[arg-type]
    assert [node.op for node in nodes if node.op == "Add"] == ["Add"]
    assert all(node.summand == "" for node in nodes)


def test_a_gelu_in_pieces_and_a_hardswish_are_as_they_run() -> None:
    half, root, one = (np.array(x, np.float32) for x in (0.5, 2**0.5, 1.0))
    pieces: Any = [
        ("Div", ["x", "root"], ["a"], {}),
        ("Erf", ["a"], ["b"], {}),
        ("Add", ["b", "one"], ["c"], {}),
        ("Mul", ["x", "c"], ["d"], {}),
        ("Mul", ["d", "half"], ["e"], {}),
        ("HardSwish", ["e"], ["out"], {}),
    ]
    nodes = _nodes(pieces, half=half, root=root, one=one)
    assert [node.op for node in nodes] == ["Gelu", "HardSigmoid", "Mul"]


def test_same_padding_and_dilation_change_what_is_gathered() -> None:
    plain, same, dilated = (
        _sums(graph_parts(_nodes([("Conv", ["x", "w"], ["out"], given)]), FORMS))[0]
        for given in (
            {"pads": [1] * 4},
            {"auto_pad": "SAME_LOWER"},
            {"pads": [2] * 4, "dilations": [2, 2]},
        )
    )
    assert plain == same
    assert dilated > plain


def test_a_convolution_of_one_dimension_is_one_of_a_flat_map() -> None:
    x, w = (1, 4, 100), np.ones((4, 4, 3), np.float32)
    flat = _nodes([("Conv", ["x", "w"], ["out"], {"pads": [1, 1]})], shape=x, w=w)
    square = _nodes(
        [("Conv", ["x", "w"], ["out"], {"pads": [0, 1, 0, 1]})],
        shape=(1, 4, 1, 100),
        w=w.reshape(4, 4, 1, 3),
    )
    assert _sums(graph_parts(flat, FORMS)) == _sums(graph_parts(square, FORMS))


def test_an_average_pool_of_a_newer_opset_takes_the_slow_loop() -> None:
    pool = [("AveragePool", ["x"], ["out"], {"kernel_shape": [2, 2], "strides": [2, 2]})]
    old, new = (_sums(graph_parts(_nodes(pool, opset=n), FORMS))[0] for n in (18, 19))
    assert new - FORMS["run"]["instructions"]["one"] > 2.5 * (
        old - FORMS["run"]["instructions"]["one"]
    )


_GEMM: Any = [
    ("Squeeze", ["x", "first"], ["s"], {}),
    ("Reshape", ["s", "flat"], ["r"], {}),
    ("Gemm", ["r", "r"], ["out"], {"transB": 1}),
]
_CASTS: Any = [("Concat", ["x"] * 9, ["c"], {"axis": 1}), ("Cast", ["c"], ["i"], {"to": 6})]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([("Det", ["x"], ["out"], {})], r"the operator Det \(node 0\)"),
        ([("Selu", ["x"], ["out"], {})], r"the operator Selu \(node 0\)"),
        (
            [("Resize", ["x", "", "twos"], ["out"], {"mode": "linear", "antialias": 1})],
            "the antialias of Resize",
        ),
        ([("Resize", ["x", "", "twos"], ["out"], {"mode": "cubic"})], "the mode cubic of Resize"),
        ([("Pow", ["x", "half"], ["out"], {})], "the operator Pow by other than 2 and 3"),
        ([("Pow", ["x", "x"], ["out"], {})], "the operator Pow by other than 2 and 3"),
        ([("ReduceMax", ["x"], ["out"], {})], r"the operator ReduceMax \(node 0\) well enough"),
        ([("DepthToSpace", ["x"], ["out"], {"blocksize": 2})], "the operator DepthToSpace"),
        ([("ConvTranspose", ["x", "w"], ["out"], {})], "the operator ConvTranspose .* well enough"),
        ([("MatMul", ["x", "vector"], ["out"], {})], "the operator MatMul with a vector"),
        ([("MatMul", ["vector", "x"], ["out"], {})], "the operator MatMul with a vector"),
        (_GEMM, "the operator Gemm by a computed matrix .*inputs of the graph .*remove_init"),
        (
            [*_CASTS, ("Cast", ["i"], ["out"], {"to": TensorProto.FLOAT})],
            r"the operator Cast of a map \(node 1\) well enough",
        ),
    ],
)
def test_what_is_not_known_is_named(nodes: Any, words: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "twos": np.array([1, 1, 2, 2], np.float32),
        "half": np.array(0.5, np.float32),
        "vector": np.ones(16, np.float32),
        "first": np.array([0]),
        "flat": np.array([128, 16]),
    }
    file = tmp_path / "net.onnx"
    file.write_bytes(_model(nodes, **given))
    with pytest.raises(
        ValueError, match=r"operators the profile knows.*not know " + words + ".*devices add"
    ):
        ARM.measure(_found(file))


def test_what_the_kernels_know_is_counted() -> None:
    twos, two = np.array([1, 1, 2, 2], np.float32), np.array(2, np.float32)
    down = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    (node,) = _nodes([("Resize", ["x", "", "twos"], ["out"], down)], twos=twos)
    assert count_node(node).counts["channels"] == 8
    (node,) = _nodes([("Resize", ["x", "", "twos"], ["out"], {})], twos=twos)
    assert count_node(node).counts["looked_up"] == 8 * 32 * 32
    (node,) = _nodes([("Upsample", ["x", "twos"], ["out"], {})], opset=9, twos=twos)
    assert count_node(node).kind == "resize_nearest"
    biased: Any = [("Add", ["x", "vector"], ["s"], {}), ("Gelu", ["s"], ["out"], {})]
    (node,) = _nodes(biased, vector=np.ones(16, np.float32))
    assert node.op == "BiasGelu"
    (node,) = _nodes([("Pow", ["x", "two"], ["out"], {})], two=two)
    assert count_node(node).kind == "pow"


def test_a_small_part_of_transposed_convolutions_is_counted() -> None:
    convs: Any = [(("Conv"), [f"t{i}", "w"], [f"t{i + 1}"], {"pads": [1] * 4}) for i in range(1, 9)]
    convs[0] = ("Conv", ["x", "w"], ["t2"], {"pads": [1] * 4})
    up: Any = ("ConvTranspose", ["t9", "one"], ["out"], {"strides": [2, 2]})
    nodes = _nodes([*convs, up], one=np.ones((8, 1, 2, 2), np.float32))
    assert graph_parts(nodes, FORMS)[-1].operator == "ConvTranspose"


def test_a_little_of_what_was_not_counted_is_no_matter() -> None:
    conv = ("Conv", ["x", "w"], ["y"], {"pads": [1] * 4})
    little = [conv, ("GlobalAveragePool", ["y"], ["p"], {}), ("Softplus", ["p"], ["out"], {})]
    parts = graph_parts(_nodes(little, shape=(1, 8, 64, 64)), FORMS)
    assert [part.operator for part in parts] == [
        "start",
        "Conv 3x3",
        "GlobalAveragePool",
        "Softplus",
    ]


def test_quantised_graphs_are_refused_by_their_first_operator(tmp_path: Path) -> None:
    config = SPACES["fasternet-32"].sample(Random(0))
    file = tmp_path / "int8.onnx"
    file.write_bytes(quantized(onnx_bytes(config_model(config)), (3, 32, 32)))
    with pytest.raises(ValueError, match="does not know the operator QuantizeLinear"):
        ARM.measure(_found(file))


def test_external_data_and_a_dynamic_batch_change_nothing(tmp_path: Path) -> None:
    config = SPACES["fasternet-32"].sample(Random(1))
    content = onnx_bytes(config_model(config))
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    inside.write_bytes(content)
    model = onnx.load_model_from_string(content)
    assert not model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    onnx.save(model, outside, save_as_external_data=True, location="weights", size_threshold=0)
    expected = count_instructions(config.layers(), FORMS)
    for file in (inside, outside):
        assert _sums(ARM.parts(_found(file))) == pytest.approx(expected, rel=1e-12)


def test_200_layers_take_less_than_a_second() -> None:
    convs = [("Conv", [f"t{i}", "w"], [f"t{i + 1}"], {"pads": [1] * 4}) for i in range(200)]
    convs[0] = ("Conv", ["x", "w"], ["t1"], {"pads": [1] * 4})
    convs[-1] = ("Conv", ["t199", "w"], ["out"], {"pads": [1] * 4})
    content = _model(convs, shape=(1, 8, 32, 32))
    graph_nodes(content)
    begun = time.process_time()
    parts = graph_parts(graph_nodes(content), FORMS)
    assert time.process_time() - begun < 1
    assert len(parts) == 201


def test_what_is_wrong_with_a_graph_is_said_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(_model([("Conv", ["x", "w"], ["out"], {})], w=np.ones((8, 3, 3, 3), "f4")))
    with pytest.raises(
        ValueError,
        match=r"one that ONNX Runtime can run, but .*net.onnx is not: .*C: 8.* Export it again",
    ):
        ARM.measure(_found(file))
    with pytest.raises(ValueError, match="the shape of x must be fixed but for the batch"):
        graph_nodes(_model([("Relu", ["x"], ["out"], {})], shape=(1, 8, None, None)))


def test_parts_of_one_operator_are_one_line_and_the_costliest_is_found() -> None:
    parts = layer_parts(FASTERNET["t0"].layers(), FORMS)
    merged = by_operator(parts)
    assert [part.operator for part in merged[:3]] == ["Conv 1x1", "Gelu", "Conv 3x3"]
    assert _sums(merged) == pytest.approx(_sums(parts))
    assert sum(part.macs for part in merged) == pytest.approx(FASTERNET_T0_MACS, rel=0.001)
    most = costliest(parts)
    assert most is not None
    assert most.operator == "Conv 4x4 stride 4"
    vector = next(part for part in merged if part.operator == "Conv 1x1 of a vector")
    assert vector.per_mac == pytest.approx(2.71, abs=0.01)
    assert costliest([part for part in parts if not part.macs]) is None


def test_measure_says_where_the_instructions_go(capsys: Streams) -> None:
    assert main(["measure", "t0", "--device", "arm", "--layers"]) == 0
    out, err = capsys.readouterr()
    assert "Instructions are counted; over whole networks they are 0.1" in err
    assert "t0: 148 M instructions" in out
    assert "Conv 1x1" in out
    assert "59.1%" in out
    assert "Most instructions a MAC: Conv 4x4 stride 4, 0.56." in out
    assert "0.56. Left out: Conv 1x1 of a vector, under 1 % of all." in out
    assert main(["measure", "t0", "--device", "arm", "--layers", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["context"]["instructions"] == pytest.approx(148389415, rel=0.001)
    assert record["context"]["fma_instructions"] == pytest.approx(93822850, rel=0.0002)
    assert record["context"]["shares"]["Gelu"] == pytest.approx(0.161, abs=0.001)
    assert sum(record["context"]["shares"].values()) == pytest.approx(1, abs=0.001)
    assert sum(part["instructions"] for part in record["layers"]) == pytest.approx(
        record["context"]["instructions"]
    )


def test_layers_of_a_device_with_a_clock_are_refused(capsys: Streams) -> None:
    with pytest.raises(ValueError, match="`--layers` must be of a device that is a profile"):
        main(["measure", "t0", "--device", "cpu", "--layers", "--debug"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("rule", "code"), [("slower 1%", 1), ("slower 20 %", 0), ("slower 1.5%", 1)]
)
def test_a_graph_that_became_slower_fails_the_gate(
    rule: str, code: int, tmp_path: Path, capsys: Streams
) -> None:
    base = [("Conv", ["x", "w"], ["y"], {"pads": [1] * 4}), ("Relu", ["y"], ["out"], {})]
    head = [base[0], ("Sigmoid", ["y"], ["out"], {})]
    for name, nodes in (("base", base), ("head", head)):
        (tmp_path / f"{name}.onnx").write_bytes(_model(nodes, shape=(1, 8, 64, 64)))
    files = [str(tmp_path / f"{name}.onnx") for name in ("base", "head")]
    assert main(["measure", *files, "--device", "arm", "--fail-if", rule]) == code
    assert ("that are allowed" in capsys.readouterr().err) == bool(code)
    assert main(["measure", *files[::-1], "--device", "arm", "--json", "--fail-if", rule]) == 0
    with pytest.raises(ValueError, match="`networks` must be two or more for --fail-if"):
        main(["measure", files[0], "--device", "arm", "--fail-if", rule, "--debug"])


def test_a_rule_that_is_none_is_refused(capsys: Streams) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["measure", "t0", "--device", "arm", "--fail-if", "faster 1%"])
    assert "must be like 'slower 1%', but got 'faster 1%'." in capsys.readouterr().err


FASTERNET_T0_MACS = 335_422_720


def _found(file: Path) -> Any:
    from nas.networks import find_network

    return find_network(str(file))


def _sums(parts: Sequence[Part]) -> tuple[float, float]:
    total, fma = (sum(getattr(part, n) for part in parts) for n in Part.__slots__[3:5])
    return total, fma


def _nodes(
    nodes: Any, *, shape: Any = (1, 8, 16, 16), opset: int = 20, **weights: Any
) -> list[Node]:
    return graph_nodes(_model(nodes, shape=shape, opset=opset, **weights))


def _model(nodes: Any, *, shape: Any = (1, 8, 16, 16), opset: int = 20, **weights: Any) -> bytes:
    """A graph from x to out; `w`, where no other is given, are weights of 3x3 and 8 channels."""
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    given = {"w": np.ones((8, 8, 3, 3), np.float32), **weights}
    graph = helper.make_graph(
        [
            helper.make_node(op, inputs, outputs, name=f"node {i}", **settings)
            for i, (op, inputs, outputs, settings) in enumerate(nodes)
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, name) for name, v in given.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def test_weights_may_be_inputs_of_the_graph_too(tmp_path: Path) -> None:
    """As older exporters wrote them: in a format in which they are known all the same."""
    model = onnx.load_model_from_string(onnx_bytes(timm_model("mobilenetv3_small_050@64")))
    plain, older = tmp_path / "plain.onnx", tmp_path / "older.onnx"
    onnx.save(model, plain)
    for weight in model.graph.initializer:
        value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.append(value)
    model.ir_version = 3
    onnx.save(model, older)
    expected, found = (ARM.measure(onnx_model(file)) for file in (plain, older))
    assert found.median_ms == expected.median_ms


def test_numbers_of_16_bits_are_refused(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float16), "w")
    shapes = {"x": (1, 3, 8, 8), "out": (1, 8, 6, 6)}
    x, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape)
        for name, shape in shapes.items()
    )
    node = helper.make_node("Conv", ["x", "w"], ["out"])
    graph = helper.make_graph([node], "half", [x], [out], [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]),
        tmp_path / "half.onnx",
    )
    with pytest.raises(
        ValueError, match=r"must have numbers of 32 bits .* half.onnx have 16\. Export"
    ):
        ARM.measure(onnx_model(tmp_path / "half.onnx"))


def test_a_softmax_along_another_axis_moves_it_to_the_end_and_back() -> None:
    shape = (1, 8, 16, 16)
    softmax = [("Softmax", ["x"], ["out"], {"axis": 1})]
    moved, along, back = _nodes(softmax, shape=shape)
    assert [node.op for node in (moved, along, back)] == ["Transpose", "Softmax", "Transpose"]
    assert along.output == moved.output == (1, 16, 16, 8)
    assert back.output == shape
    (older,) = _nodes(softmax, shape=shape, opset=11)
    assert older.output == (1, 8 * 16 * 16)
    (last,) = _nodes([("Softmax", ["x"], ["out"], {"axis": 3})], shape=shape)
    assert last.output == shape


def test_what_nothing_goes_into_takes_nothing_and_an_output_may_be_left_out() -> None:
    view = count_node(Node(op="Reshape", inputs=((1,),), output=(1,)))
    assert count_node(Node(op="Softmax", inputs=((0, 4),), output=(0, 4))) == view
    assert count_node(Node(op="ReduceMean", inputs=((),), output=())) == view
    w, r = (np.ones((1, 8, n), np.float32) for n in (16, 2))
    lstm: Any = ("LSTM", ["s", "W", "R"], ["", "out"], {"hidden_size": 2})
    squeeze: Any = ("Squeeze", ["x", "first"], ["s"], {})
    (_, found) = _nodes([squeeze, lstm], shape=(1, 8, 1, 16), W=w, R=r, first=np.array([0]))
    assert (found.op, found.output) == ("LSTM", (1, 1, 2))


def test_constants_of_nodes_may_lie_outside_too(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32))
    nodes = [("Constant", [], ["k"], {"value": weight}), ("Conv", ["x", "k"], ["out"], {})]
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    inside.write_bytes(_model(nodes))
    onnx.save(
        onnx.load(inside),
        outside,
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
        convert_attribute=True,
    )
    found, expected = (ARM.parts(_found(file)) for file in (outside, inside))
    assert _sums(found) == _sums(expected)
