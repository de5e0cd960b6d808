"""What is exported is what torch computes, in the form that runtimes execute fastest."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from predictors.backends import onnx_export
from predictors.backends.model import config_model
from predictors.backends.onnx_export import (
    TOLERANCE,
    export_onnx,
    export_torch,
    folded,
    onnx_difference,
    relative_difference,
)
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.network import build

SMALL = FasterNetConfig(
    widths=(8, 20), depths=(1, 2), partial_ratios=(0.5, 1.0), expansions=(2.0, 1.5),
    resolution=16, stem_stride=2, head_width=16, activation="gelu", classes=5,
)  # fmt: skip
EXPORTS = [(export_onnx, ".onnx"), (export_torch, ".pt2")]
Export = Callable[[nn.Module, torch.Tensor, Path], Path]
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


def _classifier(network: nn.Module) -> Any:
    return network.get_submodule("classifier")


def _random_config(name: str, seed: int) -> FasterNetConfig:
    config: FasterNetConfig = SPACES[name].sample(Random(seed))
    return config


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(4))
def test_onnx_computes_what_torch_computes(name: str, seed: int, tmp_path: Path) -> None:
    config = _random_config(name, seed)
    network, image = _trained(config), config_model(config).image()
    path = export_onnx(network, image, tmp_path / "network.onnx")
    assert onnx_difference(network, torch.cat([image, image.flip(-1)]), path) < TOLERANCE
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"ScatterND", "BatchNormalization", "Slice", "Reshape"}
    assert [p.name for p in tmp_path.iterdir()] == ["network.onnx"]


def test_onnx_takes_any_batch(tmp_path: Path) -> None:
    network = _trained(SMALL)
    path = export_onnx(network, IMAGE, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", 3, 16, 16])
    assert (logits.name, logits.shape) == ("logits", ["batch", 5])
    for batch in (1, 3, 8):
        images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(None, {"image": images.numpy()})
        with torch.no_grad():
            assert relative_difference(torch.from_numpy(found), network(images)) < TOLERANCE


def test_onnx_holds_gelu_as_one_operator_and_pconv_as_split_and_concat(tmp_path: Path) -> None:
    model = onnx.load(export_onnx(config_model(SMALL).network(), IMAGE, tmp_path / "network.onnx"))
    operators = [node.op_type for node in model.graph.node]
    assert {kind: operators.count(kind) for kind in ("Gelu", "Split", "Concat", "Add")} == {
        "Gelu": 4, "Split": 1, "Concat": 1, "Add": 3,
    }  # fmt: skip


def test_the_torch_program_computes_what_the_network_computes(tmp_path: Path) -> None:
    network = _trained(SMALL)
    path = export_torch(network, IMAGE, tmp_path / "network.pt2")
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = torch.export.load(path).module()(images)
        assert relative_difference(found, network(images)) < TOLERANCE
    assert [p.name for p in tmp_path.iterdir()] == ["network.pt2"]


def test_a_config_gives_the_same_file_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = export_onnx(config_model(SMALL).network(), IMAGE, tmp_path / "first.onnx").read_bytes()
    torch.manual_seed(2)
    assert (
        export_onnx(config_model(SMALL).network(), IMAGE, tmp_path / "second.onnx").read_bytes()
        == first
    )


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


def test_exporting_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    network = _trained(SMALL).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for export, suffix in EXPORTS:
        export(network, IMAGE, tmp_path / f"network{suffix}")
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("export", "suffix"), EXPORTS, ids=["onnx", "torch"])
def test_an_export_that_computes_something_else_is_refused(
    export: Export, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: nn.Module, image: torch.Tensor) -> nn.Module:
        network = folded(network, image)
        _classifier(network).bias.data[2] += 1e-3
        return network

    monkeypatch.setattr(onnx_export, "folded", wrong)
    with pytest.raises(RuntimeError, match=rf"network\{suffix} must agree with torch to 1e-04"):
        export(_trained(SMALL), IMAGE, tmp_path / f"network{suffix}")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_no_number_is_refused(tmp_path: Path) -> None:
    network = config_model(SMALL).network()
    _classifier(network).bias.data.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="must agree with torch to 1e-04, but differs by nan"):
        export_onnx(network, IMAGE, tmp_path / "network.onnx")


@pytest.mark.parametrize(("export", "suffix"), EXPORTS, ids=["onnx", "torch"])
def test_where_no_file_can_be_none_is_left(export: Export, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    for folder in ("absent", "file"):
        with pytest.raises(OSError, match=folder):
            export(build(SMALL), IMAGE, tmp_path / folder / f"network{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("export", "suffix"), EXPORTS, ids=["onnx", "torch"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    export: Export,
    suffix: str,
    tmp_path: Path,
    files_end_at: Callable[[int], AbstractContextManager[None]],
) -> None:
    path = tmp_path / f"network{suffix}"
    path.write_text("old", encoding="utf-8")
    with files_end_at(4096), pytest.raises(OSError, match="File too large"):
        export(build(SMALL), IMAGE, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_differences_are_relative_to_the_largest_output() -> None:
    reference: Any = torch.tensor([[1.0, -4.0]])
    assert relative_difference(torch.tensor([[1.5, -4.0]]), reference) == pytest.approx(0.125)
    assert np.isnan(relative_difference(torch.tensor([[float("nan"), 0.0]]), reference))
