"""Analytic costs against fvcore, which counts what it sees torch do."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from predictors.backends.onnx_export import folded
from predictors.cost import BYTES, cost, cost_by_layer, costs, layers_in_groups
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.layers import Layer
from search_spaces.network import FasterNet, build


@pytest.fixture(autouse=True)
def _leave_weights_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build fast: nobody looks at the weights here."""
    for kind in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(kind, "reset_parameters", lambda _: None)
    monkeypatch.setattr("search_spaces.network.initialise", lambda _: None)


def _network(config: FasterNetConfig) -> FasterNet:
    return build(config).eval().requires_grad_(requires_grad=False)


def _count(network: nn.Module, resolution: int, repeats: Sequence[int] = ()) -> tuple[int, int]:
    """What fvcore counts in all, and how much of it is batch norm.

    With `repeats`, the block of each stage counts so often.
    """
    from fvcore.nn import FlopCountAnalysis

    counted = FlopCountAnalysis(network, torch.zeros(1, 3, resolution, resolution))
    counted.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
    parts = [("", 1), *((f"stages.{i}.blocks.0", n - 1) for i, n in enumerate(repeats))]
    norms = (n * counted.by_operator(name)["batch_norm"] for name, n in parts)
    return int(sum(n * counted.total(name) for name, n in parts)), int(sum(norms))


def _count_fast(network: FasterNet, resolution: int) -> tuple[int, int]:
    """The same in less time, of a network that is left with one block a stage: all are alike.

    Tracing notes the stack at every operator, so keep it low.
    """
    stages: Any = network.stages
    repeats = [len(stage.blocks) for stage in stages]
    for stage in stages:
        assert len(set(map(repr, stage.blocks))) == 1
        stage.blocks = stage.blocks[:1]
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_count, network, resolution, repeats).result()


def _assert_equal(config: FasterNetConfig) -> None:
    found, network = cost(config), _network(config)
    assert found.params == sum(parameter.numel() for parameter in network.parameters()), config
    total, batch_norm = _count_fast(network, config.resolution)
    assert (found.macs_with_batch_norm, found.macs) == (total, total - batch_norm), config


@pytest.mark.parametrize("name", SPACES)
def test_costs_are_fvcores_on_random_networks(name: str) -> None:
    rng = Random(0)
    for _ in range(40):  # at 32 px, where nothing but the tracing takes time
        _assert_equal(replace(SPACES[name].sample(rng), resolution=32))


def test_costs_are_fvcores_at_the_resolution_of_the_space() -> None:
    rng = Random(1)
    for _ in range(3):
        _assert_equal(SPACES["fasternet"].sample(rng))
    for resolution in (97, 130, 223):  # which the strides do not divide
        config = replace(SPACES["fasternet"].sample(rng), resolution=resolution)
        _assert_equal(config)
        _assert_equal(replace(config, stem="convs"))


@pytest.mark.parametrize("name", SPACES)
def test_deployed_costs_are_fvcores_on_networks_with_folded_batch_norm(name: str) -> None:
    rng = Random(2)
    for _ in range(4):
        config = replace(SPACES[name].sample(rng), resolution=32)
        deployed: Any = folded(_network(config), torch.zeros(1, 3, 32, 32))
        assert _count_fast(deployed, 32) == (cost(config).macs, 0)


@pytest.mark.parametrize("name", SPACES)
def test_the_fast_way_of_counting_is_fvcores_own(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rng = Random(4)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            network = _network(replace(SPACES[name].sample(rng), resolution=32))
            assert _count(network, 32) == _count_fast(network, 32)
    assert not caplog.records


@pytest.mark.parametrize("name", SPACES)
def test_costs_of_many_are_the_costs_of_each(name: str) -> None:
    rng = Random(3)
    configs = [SPACES[name].sample(rng) for _ in range(100)]
    _assert_costs_of_each(configs)


def test_costs_of_many_need_not_be_of_one_kind() -> None:
    two_stages = FasterNetConfig(
        widths=(16, 48),
        depths=(1, 2),
        partial_ratios=(0.25, 1.0),
        expansions=(2.0, 3.0),
        activation="gelu",
    )
    _assert_costs_of_each([FASTERNET["t0"], _Toy(), two_stages, FASTERNET["t2"], _Toy()])


def _assert_costs_of_each(configs: list[Any]) -> None:
    together = costs(configs)
    for field in ("macs", "macs_with_batch_norm", "params", "memory_bytes"):
        column: Any = getattr(together, field)
        assert column.dtype == np.int64
        assert column.tolist() == [getattr(cost(config), field) for config in configs]


@dataclass(frozen=True)
class _Toy:
    """A network of one convolution, a split and a sum, to be checked by hand."""

    def layers(self) -> tuple[Layer, ...]:
        at: dict[str, Any] = {"height": 6, "width": 4}
        return (
            Layer(name="conv", op="conv", c_in=2, c_out=5, kernel=3, norm=True, repeat=7, **at),
            Layer(name="split", op="split_concat", c_in=5, c_out=2, **at),
            Layer(name="add", op="add", c_in=5, c_out=5, **at),
            Layer(name="pool", op="pool", c_in=5, c_out=5, **at),
            Layer(name="linear", op="linear", c_in=5, c_out=3, height=1, width=1),
        )


def test_each_layer_costs_what_a_pencil_says() -> None:
    found = [(x.name, x.repeat, x.macs, x.params, x.memory_bytes) for x in cost_by_layer(_Toy())]
    assert found == [
        ("conv", 7, 7 * 2 * 5 * 9 * 24, 7 * (90 + 10), BYTES * 7 * (7 * 24 + 90 + 5)),
        ("split", 1, 0, 0, BYTES * 10 * 24),
        ("add", 1, 0, 0, BYTES * 15 * 24),
        ("pool", 1, 5 * 24, 0, BYTES * (5 * 24 + 5)),
        ("linear", 1, 15, 18, BYTES * (5 + 3 + 18)),
    ]


@pytest.mark.parametrize("name", FASTERNET)
def test_layers_sum_to_the_network(name: str) -> None:
    layers, whole = cost_by_layer(FASTERNET[name]), cost(FASTERNET[name])
    assert sum(layer.macs for layer in layers) == whole.macs
    assert sum(layer.params for layer in layers) == whole.params
    assert sum(layer.memory_bytes for layer in layers) == whole.memory_bytes


def test_costs_of_nothing_are_empty() -> None:
    assert np.asarray(costs([]).macs).shape == (0,)


def test_a_config_without_layers_is_refused() -> None:
    config: Any = ("conv", 3)
    message = r"`config` must have a layers\(\) method to be costed, but got \('conv', 3\)"
    for refuse in (cost, cost_by_layer, lambda c: costs([c]), lambda c: [*layers_in_groups([c])]):
        with pytest.raises(TypeError, match=message):
            refuse(config)
