"""The operators of the paper's table 1: what they cost, what they compute, what is deployed."""

import logging
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from nas.networks import operator_models
from predictors.backends.model import Model
from predictors.backends.onnx_export import write_onnx

OPERATORS = operator_models()
BY_NAME = {model.name: model for model in OPERATORS}
SMALLEST = [model for model in OPERATORS if model.shape == (768, 7, 7)]


def _name(model: Model) -> str:
    return model.name


def test_there_are_four_operators_at_four_sizes_and_each_has_its_own_identity() -> None:
    assert [model.name for model in OPERATORS[:5]] == [
        "Conv3x3 96x56x56",
        "GConv3x3 96x56x56",
        "DWConv3x3 96x56x56",
        "PConv3x3 96x56x56",
        "Conv3x3 192x28x28",
    ]
    assert {model.shape for model in OPERATORS} == {
        (96, 56, 56),
        (192, 28, 28),
        (384, 14, 14),
        (768, 7, 7),
    }
    assert len({model.identity for model in OPERATORS}) == len(OPERATORS) == 16


@pytest.mark.parametrize("model", OPERATORS, ids=_name)
def test_costs_are_those_that_fvcore_counts(model: Model) -> None:
    network = model.network()
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    assert model.macs == FlopCountAnalysis(network, model.image()).total()
    assert model.params == sum(p.numel() for p in network.parameters())


def test_costs_are_those_of_the_papers_formulas() -> None:
    positions = 56 * 56
    assert BY_NAME["Conv3x3 96x56x56"].macs == 10 * 96 * 96 * 9 * positions
    assert BY_NAME["GConv3x3 96x56x56"].macs == 10 * 96 * 96 * 9 * positions // 16
    assert BY_NAME["DWConv3x3 96x56x56"].macs == 10 * 96 * 9 * positions
    assert BY_NAME["PConv3x3 96x56x56"].macs == 10 * 24 * 24 * 9 * positions


def test_pconv_convolves_a_quarter_of_the_channels_ten_times_and_passes_the_rest() -> None:
    model = BY_NAME["PConv3x3 768x7x7"]
    network, image = model.network(), model.image()
    expected = image[:, :192]
    for weight in network.state_dict().values():
        expected = torch.nn.functional.conv2d(expected, weight, padding=1)
    with torch.no_grad():
        found = network(image)
    assert torch.equal(found[:, 192:], image[:, 192:])
    torch.testing.assert_close(found[:, :192], expected)


@pytest.mark.parametrize("model", SMALLEST, ids=_name)
def test_what_is_deployed_computes_the_same(model: Model, tmp_path: Path) -> None:
    network, image = model.network(), model.image()
    file = write_onnx(model, tmp_path / "operator")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        expected = network(image).numpy()
    assert found.shape == (1, *model.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))
