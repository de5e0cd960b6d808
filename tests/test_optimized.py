"""A graph is optimised and its shapes are inferred without its weights, and nothing is run."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from predictors.aarch64 import optimized as module
from predictors.aarch64.graph import graph_nodes
from predictors.aarch64.node import UnknownOperatorError
from predictors.aarch64.optimized import optimized, tensors_of

C = 64  # channels: a weight of 3x3 has 147 kB


@pytest.fixture
def given_to_runtime(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each model that ONNX Runtime is given, and of what it writes."""
    sizes, session = [], module._session

    def seen(model: bytes | str, options: Any) -> Any:
        made = session(model, options)
        files = [model, options.optimized_model_filepath] if isinstance(model, str) else []
        sizes.extend([Path(file).stat().st_size for file in files] or [len(model)])
        return made

    monkeypatch.setattr(module, "_session", seen)
    return sizes


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_not_given_to_the_runtime(given_to_runtime: list[int], *, bias: bool) -> None:
    model = _with_norms(bias=bias)
    found = graph_nodes(model.SerializeToString())
    assert len(given_to_runtime) == 3
    assert max(given_to_runtime) < 15_000 < model.ByteSize() / 30
    assert [(n.op, n.activation, bool(n.inputs[2])) for n in found] == [("Conv", "Relu", True)] * 4


def test_norms_are_folded_where_the_runtime_folds_them() -> None:
    for change in ("", "read again", "unknown", "an input", "two outputs"):
        model = _with_norms(bias=False, change=change)
        expected = Counter(node.op_type for node in _by_runtime(model).graph.node)
        found = optimized(model.SerializeToString()).graph.node
        assert Counter(node.op_type for node in found) == expected, change
        assert (expected["BatchNormalization"] == 0) == (change == ""), change


@pytest.mark.parametrize("outside", [False, True])
def test_weights_in_constant_nodes_and_sparse_ones_are_weights_too(
    *, outside: bool, tmp_path: Path, given_to_runtime: list[int]
) -> None:
    weight = numpy_helper.from_array(np.ones((C, C, 3, 3), np.float32))
    places = numpy_helper.from_array(np.array([[0, 0], [1, 2]]), "places")
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    model = _model(
        [
            helper.make_node("Constant", [], ["k"], value=weight),
            helper.make_node("Conv", ["x", "k"], ["y"], pads=[1] * 4),
            helper.make_node("MatMul", ["y", "w"], ["out"]),
        ],
        [],
    )
    sparse = helper.make_sparse_tensor(values, places, [16, 4])
    model.graph.sparse_initializer.append(sparse)
    plain = model.SerializeToString()
    onnx.save(
        model,
        tmp_path / "net.onnx",
        save_as_external_data=outside,
        location="weights",
        size_threshold=0,
        convert_attribute=True,
    )
    found = graph_nodes((tmp_path / "net.onnx").read_bytes(), folder=tmp_path)
    assert found == graph_nodes(plain)
    assert [(node.op, node.constant) for node in found] == [("Conv", True), ("MatMul", True)]
    assert max(given_to_runtime) < 15_000


@pytest.mark.parametrize("where", ["raw", "typed", "beside", "beside, cut off"])
def test_weights_that_are_not_all_there_are_refused(where: str, tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [C, C, 3, 3], np.ones(C * C * 9))
    if where != "typed":
        weight = numpy_helper.from_array(np.ones((C, C, 3, 3), np.float32), "w")
    model = _model([helper.make_node("Conv", ["x", "w"], ["out"])], [weight])
    if where.startswith("beside"):
        onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights")
        model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    content = model.SerializeToString()
    assert len(graph_nodes(content, folder=tmp_path)) == 1
    (tensor,) = model.graph.initializer
    if where == "beside, cut off":
        (tmp_path / "weights").write_bytes(bytes(1000))
    else:
        tensor.dims[0] += 1
    with pytest.raises(ValueError, match=r"does not match|exceeds available"):
        graph_nodes(model.SerializeToString(), folder=tmp_path)


@pytest.mark.parametrize(("version", "known"), [(3, True), (9, False)])
def test_weights_that_are_inputs_too_are_known_in_older_formats_alone(
    version: int, *, known: bool
) -> None:
    """What is known is packed; numbers that a shape depends on have the values in the file."""
    numbers: dict[str, Any] = {
        "flat": np.array([1, C * 256]),
        "v": np.ones((8, C * 256), np.float32),
        "b": np.ones(8, np.float32),
        "w": np.ones((8, 8), np.float32),
    }
    model = _model(
        [
            helper.make_node("Reshape", ["x", "flat"], ["y"]),
            helper.make_node("Gemm", ["y", "v", "b"], ["z"], transB=1, name="head"),
            helper.make_node("MatMul", ["z", "w"], ["out"], name="last"),
        ],
        [numpy_helper.from_array(values, name) for name, values in numbers.items()],
    )
    for weight in model.graph.initializer:
        value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.append(value)
    model.ir_version = version
    _, head, last = graph_nodes(model.SerializeToString())
    assert (head.name, head.constant, last.name, last.constant) == ("head", known, "last", known)
    assert head.inputs == ((1, C * 256), (8, C * 256), (8,))


def test_sizes_that_the_graph_computes_are_known_without_a_run() -> None:
    """With a free batch the optimiser leaves them as they are."""
    model = _model(
        [
            helper.make_node("Shape", ["x"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scales"], ["more"]),
            helper.make_node("Cast", ["more"], ["size"], to=TensorProto.INT64),
            helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="nearest"),
            helper.make_node("Relu", ["y"], ["out"]),
        ],
        [numpy_helper.from_array(np.array([1, 1, 2, 3], np.float32), "scales")],
    )
    shapes, types = tensors_of(optimized(model.SerializeToString()))
    assert shapes["x"] == (1, C, 16, 16)
    assert shapes["out"] == (1, C, 32, 48)
    assert (types["out"], types["size"]) == ("float32", "int64")


def test_a_shape_that_depends_on_the_image_is_refused() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "zero"], ["one"]),
        helper.make_node("Slice", ["x", "zero", "one", "axis"], ["out"], name="cut"),
    ]
    numbers = {"zero": 0, "axis": 3}
    model = _model(nodes, [numpy_helper.from_array(np.array([n]), k) for k, n in numbers.items()])
    with pytest.raises(UnknownOperatorError, match=r"what the operator Slice makes \(cut\)"):
        graph_nodes(model.SerializeToString())


@pytest.mark.parametrize(
    ("operator", "weight", "words"),
    [
        ("Conv", (8, 3, 3, 3), r"Conv \(node\) .* C: 64, kernel channels \* group: 3"),
        ("ConvTranspose", (3, 8, 3, 3), r"ConvTranspose .* C: 64, kernel channels: 3"),
        ("InstanceNormalization", (3,), "InstanceNormalization .* C: 64, scales: 3"),
        ("Reshape", (1, 64, 7), "Reshape .* elements: 16384, after it: 448"),
    ],
)
def test_what_does_not_fit_is_refused_as_by_a_run(
    operator: str, weight: tuple[int, ...], words: str
) -> None:
    values = np.array(weight) if operator == "Reshape" else np.ones(weight, np.float32)
    given = ["x", "w", *(["w"] * (operator == "InstanceNormalization"))]
    model = _model(
        [helper.make_node(operator, given, ["out"], name="node")],
        [numpy_helper.from_array(values, "w")],
    )
    with pytest.raises(ValueError, match=words):
        graph_nodes(model.SerializeToString())


def _with_norms(*, bias: bool, change: str = "") -> onnx.ModelProto:
    """Four convolutions, each with a batch norm and a ReLU; the last is changed."""
    rng, nodes, weights, x = np.random.default_rng(0), [], [], "x"
    for i in range(4):
        weight = rng.standard_normal((C, C, 3, 3), np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        weights += [numpy_helper.from_array(np.ones(C, np.float32), f"{n}{i}") for n in "bsomv"]
        given = [x, f"w{i}", *([f"b{i}"] * bias)]
        norm = [f"{name}{i}" for name in "ysomv"]
        x = "out" if i == 3 else f"r{i}"
        nodes += [
            helper.make_node("Conv", given, [f"y{i}"], pads=[1] * 4),
            helper.make_node("BatchNormalization", norm, [f"n{i}"]),
            helper.make_node("Relu", [f"n{i}"], [x]),
        ]
    model = _model(nodes, weights)
    _change(model, change)
    return model


def _change(model: onnx.ModelProto, change: str) -> None:
    conv, norm, relu = model.graph.node[-3:]
    if change == "read again":
        relu.op_type = "Add"
        relu.input.append(conv.output[0])
    elif change == "unknown":
        norm.input[3] = "computed"
        abs_node = helper.make_node("Abs", ["m3"], ["computed"])
        model.graph.input.append(_value("m3", [C]))
        weights = [w for w in model.graph.initializer if w.name != "m3"]
        del model.graph.initializer[:]
        model.graph.initializer.extend(weights)
        model.graph.node.insert(0, abs_node)
    elif change == "an input":
        model.graph.input.append(_value("w3", [C, C, 3, 3]))
    elif change == "two outputs":
        model.graph.output.append(_value(conv.output[0], [None] * 4))


def _by_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    """What ONNX Runtime makes of a model with its weights."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/made.onnx"
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(options.optimized_model_filepath)


def _value(name: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A graph from x, a map of C channels and 16x16 with a free batch, to out."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [_value("x", ["batch", C, 16, 16])],
        [_value("out", None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def _branch(op: str) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node(op, ["x"], [op])], op, [], [_value(op, None)])


@pytest.mark.parametrize(("value", "op"), [(1, "Sigmoid"), (-1, "Relu")])
def test_a_branch_is_chosen_by_the_values_of_a_large_constant(value: int, op: str) -> None:
    branches = {"then_branch": _branch("Sigmoid"), "else_branch": _branch("Relu")}
    nodes = [
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["out"], **branches),
    ]
    weights = [
        numpy_helper.from_array(np.full(2048, value, np.float32), "large"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    given, made = [_value("x", (1, 8, 16, 16))], [_value("out", None)]
    graph = helper.make_graph(nodes, "graph", given, made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    assert [node.op for node in graph_nodes(model.SerializeToString())] == [op]
