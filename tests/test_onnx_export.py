"""What is exported is what torch computes, in the form that runtimes execute fastest."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from networks import FAMILY
from torch import Tensor, nn

from predictors.backends.agreement import TOLERANCES, check_on_noise
from predictors.backends.model import Model, config_model
from predictors.backends.onnx_export import folded, ungrouped, write_onnx
from predictors.backends.table import find_runtime
from search_spaces.fasternet import SPACES, FasterNetConfig

SMALL = FasterNetConfig(
    widths=(8, 20),
    depths=(1, 2),
    partial_ratios=(0.5, 1.0),
    expansions=(2.0, 1.5),
    resolution=16,
    stem_stride=2,
    head_width=16,
    activation="gelu",
    classes=5,
)
RUNTIMES = ("onnxruntime", "torch")
IMAGE = config_model(SMALL).image()


def _trained(config: FasterNetConfig) -> nn.Module:
    """A network whose batch norms have seen something, so that folding them matters."""
    network, generator = config_model(config).network(), torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.uniform_(0.5, 2.0, generator=generator)
    return network


def _model(network: nn.Module, config: FasterNetConfig = SMALL) -> Model:
    return replace(config_model(config), build=lambda: network)


def _classifier(network: nn.Module) -> Any:
    return network.get_submodule("classifier")


def _random_config(name: str, seed: int) -> FasterNetConfig:
    config: FasterNetConfig = SPACES[name].sample(Random(seed))
    return replace(config, resolution=min(config.resolution, 64))  # less to compute


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(2))
def test_onnx_computes_what_torch_computes(name: str, seed: int, tmp_path: Path) -> None:
    config = _random_config(name, seed)
    model = _model(_trained(config), config)
    path = write_onnx(model, tmp_path / "network")
    check_on_noise(model, path, find_runtime("onnxruntime"))
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"ScatterND", "BatchNormalization", "Slice", "Shape", "Gather", "Pad"}
    assert ("Reshape" in operators) == ("attention" in config.mixers[: config.stages])
    assert ("HardSwish" in operators) == (config.activation == "hardswish")
    assert [p.name for p in tmp_path.iterdir()] == ["network.onnx"]


def test_onnx_takes_any_batch(tmp_path: Path) -> None:
    network = _trained(SMALL)
    path = write_onnx(_model(network), tmp_path / "network")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", 3, 16, 16])
    assert (logits.name, logits.shape) == ("logits", ["batch", 5])
    for batch in (1, 3, 8):
        images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(None, {"image": images.numpy()})
        with torch.no_grad():
            assert _difference(torch.from_numpy(found), network(images)) < TOLERANCES["fp32"]


def test_onnx_holds_gelu_as_one_operator_and_pconv_as_split_and_concat(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(config_model(SMALL), tmp_path / "network"))
    operators = [node.op_type for node in model.graph.node]
    assert {kind: operators.count(kind) for kind in ("Gelu", "Split", "Concat", "Add")} == {
        "Gelu": 4,
        "Split": 1,
        "Concat": 1,
        "Add": 3,
    }


def test_every_ingredient_is_as_few_operators_as_there_are_for_it(tmp_path: Path) -> None:
    graph = onnx.load(write_onnx(config_model(FAMILY), tmp_path / "network")).graph
    operators = Counter(node.op_type for node in graph.node)
    for shared in ("Constant", "Identity"):  # no work when it runs
        operators.pop(shared, None)
    assert operators == {
        "Conv": 22,
        "Relu": 4,
        "Gelu": 2,
        "HardSwish": 2,
        "HardSigmoid": 3,
        "Mul": 4,
        "Add": 4,
        "Split": 5,
        "Concat": 3,
        "MatMul": 4,
        "Softmax": 2,
        "Reshape": 4,
        "Transpose": 4,
        "GlobalAveragePool": 4,
        "Flatten": 1,
        "Gemm": 1,
    }
    same = [node for node in graph.node for a in node.attribute if a.name == "auto_pad"]
    assert [node.op_type for node in same] == ["Conv"] * 2  # of even kernels, without a Pad


def test_activations_are_fused_into_the_convolutions_before_them(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    # No further: what it makes of them then only runs on processors like this one.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    path = write_onnx(config_model(FAMILY), tmp_path / "network")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    fused = Counter(
        onnx.helper.get_node_attr_value(node, "activation").decode()
        for node in nodes
        if node.op_type == "FusedConv"
    )
    assert fused == {"Relu": 4, "HardSigmoid": 3}
    kinds = {node.op_type for node in nodes}
    assert not kinds & {"Relu", "Transpose", "MatMul"}  # FusedMatMul has what the last two do


def test_attention_has_its_scale_in_the_weights_of_the_queries(tmp_path: Path) -> None:
    config = replace(SMALL, mixers=("attention", "pconv"), activation="relu")
    network = _trained(config)
    image = config_model(config).image()
    deployed = folded(network, image)
    assert network.get_submodule("stages.0.blocks.0.spatial_mixing.partial_conv3").scale == 0.25
    assert deployed.get_submodule("stages.0.blocks.0.spatial_mixing.partial_conv3").scale == 1
    with torch.no_grad():
        assert _difference(deployed(image), network(image)) < 1e-5
    path = write_onnx(_model(network, config), tmp_path / "network")
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "Softmax" in operators
    assert "Mul" not in operators


@pytest.mark.parametrize(
    ("groups", "c_out", "bias", "kept"),
    [(1, 8, True, True), (8, 16, True, True), (2, 8, True, False), (4, 12, False, False)],
)
def test_groups_become_convolutions_of_their_own(
    groups: int, c_out: int, *, bias: bool, kept: bool
) -> None:
    conv = nn.Conv2d(8, c_out, 3, padding=1, groups=groups, bias=bias)
    network = nn.Sequential(conv).requires_grad_(requires_grad=False)
    image = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = network(image)
    found = ungrouped(network)
    assert (found.get_submodule("0") is conv) == kept
    with torch.no_grad():
        assert _difference(found(image), expected) < 1e-6
    assert all(m.groups in (1, 8) for m in found.modules() if isinstance(m, nn.Conv2d))


def test_the_torch_program_computes_what_the_network_computes(tmp_path: Path) -> None:
    network = _trained(SMALL)
    path = find_runtime("torch").deploy(_model(network), tmp_path / "network")
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = torch.export.load(path).module()(images)
        assert _difference(found, network(images)) < TOLERANCES["fp32"]
    assert [p.name for p in path.parent.iterdir()] == ["network.pt2"]


def test_a_config_gives_the_same_file_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = write_onnx(config_model(SMALL), tmp_path / "first").read_bytes()
    torch.manual_seed(2)
    assert write_onnx(config_model(SMALL), tmp_path / "second").read_bytes() == first


def test_making_the_network_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    config_model(SMALL).network()
    assert torch.equal(torch.rand(1), expected)


def test_folding_leaves_the_network_as_it_was() -> None:
    network = _trained(SMALL).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    other = folded(network, IMAGE)
    assert network.training
    assert not other.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in other.modules())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_deploying_leaves_the_weights_as_they_were(runtime: str, tmp_path: Path) -> None:
    network = _trained(SMALL)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    find_runtime(runtime).deploy(_model(network), tmp_path / "network")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_export_that_computes_something_else_is_refused(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: nn.Module, image: torch.Tensor) -> nn.Module:
        network = folded(network, image)
        _classifier(network).bias.data[2] += 1e-3
        return network

    monkeypatch.setattr("predictors.backends.onnx_export.folded", wrong)
    with pytest.raises(RuntimeError, match=r"network\.\w+ must agree with torch to 1e-04, but"):
        find_runtime(runtime).deploy(_model(_trained(SMALL)), tmp_path / "network")


def test_an_output_that_is_no_number_is_refused(tmp_path: Path) -> None:
    network = config_model(SMALL).network()
    _classifier(network).bias.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="must agree with torch to 1e-04, but differs by nan"):
        find_runtime("onnxruntime").deploy(_model(network), tmp_path / "network")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_where_no_file_can_be_none_is_left(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    for folder in ("absent", "file"):
        with pytest.raises(OSError, match=folder):
            find_runtime(runtime).deploy(config_model(SMALL), tmp_path / folder / "network")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _difference(ours: Any, reference: Any) -> float:
    """max|ours - reference| / max|reference|."""
    return float((ours - reference).abs().max() / reference.abs().max())


class _Spectrum(nn.Module):
    """The exporter has no operator for it, or refuses what it is asked of one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "fft":
            spectrum: Tensor = torch.fft.fft2(x)
            return spectrum.real
        return nn.functional.adaptive_avg_pool2d(x, (7, 5))


@pytest.mark.parametrize(("kind", "named"), [("fft", "aten::fft_fft2"), ("pool", "adaptive_avg_")])
def test_what_cannot_be_exported_is_one_line(
    kind: str, named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = replace(_model(_Spectrum(kind)), name="mine", layers=())
    with pytest.raises(ValueError, match=f"^mine must be of operators .*but got {named}") as found:
        write_onnx(model, tmp_path / "network")
    assert "\n" not in str(found.value)
    assert capfd.readouterr().out == ""
