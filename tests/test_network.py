"""The torch network equals timm's, weight by weight and bit by bit."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from predictors.cost import cost
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.network import (
    DropPath,
    FasterNet,
    PConv,
    Stem,
    block_shapes,
    build,
    fold_branches,
    from_timm_weights,
    recalibrate,
    to_timm_weights,
)
from search_spaces.timm_models import import_timm

CUSTOM: dict[str, Any] = {
    "embed_dim": 24,
    "depths": (2, 1, 3),
    "mlp_ratio": 3,
    "n_div": 2,
    "patch_size": 2,
    "feature_dim": 200,
    "num_classes": 7,
    "act_layer": nn.GELU,
}
CUSTOM_CONFIG = FasterNetConfig(
    widths=(24, 48, 96),
    depths=(2, 1, 3),
    partial_ratios=(0.5,) * 3,
    expansions=(3.0,) * 3,
    resolution=64,
    stem_stride=2,
    head_width=200,
    activation="gelu",
    classes=7,
)
SMALL = FasterNetConfig(
    widths=(8, 20),
    depths=(1, 2),
    partial_ratios=(0.5, 1.0),
    expansions=(2.0, 1.5),
    resolution=16,
    stem_stride=1,
    head_width=16,
    classes=4,
)


def _timm(name: str) -> nn.Module:
    timm = import_timm()
    fasternet = timm.models.fasternet.FasterNet
    theirs = fasternet(**CUSTOM) if name == "custom" else timm.create_model(f"fasternet_{name}")
    generator = torch.Generator().manual_seed(1)
    for buffer in theirs.buffers():  # a batch norm that has seen nothing would hide mistakes
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0, generator=generator)
    network: nn.Module = theirs.eval()
    return network


@pytest.mark.parametrize("name", ["t0", "t1", "t2", "custom"])
def test_outputs_are_timms_to_the_last_bit(name: str) -> None:
    theirs = _timm(name)
    config = CUSTOM_CONFIG if name == "custom" else FASTERNET[name]
    ours = from_timm_weights(config, theirs.state_dict()).eval()
    size = config.resolution
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = theirs(images), ours(images)
    assert logits.shape == (2, config.classes)
    assert expected.std() > 0
    assert torch.equal(logits, expected)


def test_weights_return_to_timm_unchanged() -> None:
    theirs = _timm("custom").state_dict()
    back = to_timm_weights(from_timm_weights(CUSTOM_CONFIG, theirs))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    _timm("custom").load_state_dict(back, strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {k: v for k, v in w.items() if k != "classifier.bias"},
            r"must be the \d+ of this config, but there are 1 missing \(classifier\.bias\)\. Use",
        ),
        (
            lambda w: {**w, "norm.weight": torch.ones(3)},
            r"but there are 1 left over \(norm\.weight\)\. Use the config",
        ),
        (
            lambda w: {**w, "conv_head.weight": torch.ones(16, 21, 1, 1)},
            r"1 of another shape \(conv_head\.weight \(16, 21, 1, 1\) for \(16, 20, 1, 1\)\)",
        ),
    ],
    ids=["missing", "left over", "other shape"],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        from_timm_weights(SMALL, change(to_timm_weights(build(SMALL))))


TIMM_PARAMETERS = {"s": 31_181_032, "m": 53_521_464, "l": 93_465_192}


@pytest.mark.parametrize("name", TIMM_PARAMETERS)
def test_large_sizes_have_timms_parameters(name: str) -> None:
    assert _parameters(FASTERNET[name]) == TIMM_PARAMETERS[name]


@pytest.mark.parametrize("name", SPACES)
def test_costed_parameters_are_the_networks(name: str) -> None:
    rng = Random(4)
    for _ in range(40):
        config = SPACES[name].sample(rng)
        assert cost(config).params == _parameters(config)


def _parameters(config: FasterNetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


def test_a_seed_gives_one_network() -> None:
    torch.manual_seed(5)
    first = build(SMALL).state_dict()
    torch.manual_seed(5)
    assert all(torch.equal(v, first[k]) for k, v in build(SMALL).state_dict().items())


def test_weights_start_as_the_paper_says() -> None:
    network = build(CUSTOM_CONFIG)
    assert network.get_parameter("conv_head.weight").std().item() == pytest.approx(0.02, rel=0.03)
    assert network.classifier.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not network.classifier.bias.any()


def test_drop_path_rises_linearly_over_all_blocks() -> None:
    assert _rates(build(CUSTOM_CONFIG, drop_path=0.25)) == pytest.approx([i / 20 for i in range(6)])
    assert _rates(build(CUSTOM_CONFIG)) == [0.0] * 6
    one_block = FasterNetConfig(widths=(8,), depths=(1,), partial_ratios=(0.5,), expansions=(1.0,))
    assert _rates(build(one_block, drop_path=0.3)) == [0.0]


def _rates(network: FasterNet) -> list[float]:
    return [module.p for module in network.modules() if isinstance(module, DropPath)]


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_drop_path_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"`drop_path` must be in \[0, 1\), but got"):
        build(SMALL, drop_path=rate)


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    drop, x = DropPath(0.2), torch.ones(4000, 2, 3, 3)
    torch.manual_seed(0)
    kept = drop(x)
    assert set(kept.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(kept[:, :1, :1, :1].expand_as(x), kept)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


def test_partial_convolution_leaves_the_other_channels_alone() -> None:
    x = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    y = _pconv(widths=(8,), depths=(1,))(x)
    assert torch.equal(y[:, 2:], x[:, 2:])
    assert not torch.equal(y[:, :2], x[:, :2])
    assert _pconv(widths=(8,), depths=(1,), partial_ratios=(1.0,))(x).shape == x.shape


def _pconv(**fields: Any) -> PConv:
    few = {"partial_ratios": (0.25,), "expansions": (2.0,), **fields}
    return PConv(block_shapes(FasterNetConfig(**few))[0])


def test_importing_timm_again_gives_the_same_module() -> None:
    assert import_timm() is import_timm()


INGREDIENTS: list[dict[str, Any]] = [
    {},
    {"kernels": (2, 7), "groups": (2, 4)},
    {"mlps": ("star", "star"), "untouched": ("gate", "gate"), "partial_ratios": (0.5, 1.0)},
    {"mixers": ("pconv", "attention"), "expands": ("fused", "plain"), "kernels": (5, 3)},
]


@pytest.mark.parametrize("fields", INGREDIENTS)
def test_folded_branches_give_the_same_output(fields: dict[str, Any]) -> None:
    few: dict[str, Any] = {"partial_ratios": (0.5, 0.25), "expansions": (2.0, 1.5), **fields}
    config = FasterNetConfig(widths=(16, 32), depths=(2, 2), resolution=32, classes=5, **few)
    torch.manual_seed(3)
    network = build(config, branches=True)
    images = torch.randn(4, 3, 32, 32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.uniform_(0.5, 1.5)
    network.eval()
    with torch.no_grad():
        before = network(images)
        fold_branches(network)
        after = network(images)
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()
    deployed = build(config).eval()
    deployed.load_state_dict(network.state_dict())
    assert torch.equal(deployed(images), after)


def test_recalibration_is_the_mean_over_the_batches() -> None:
    torch.manual_seed(0)
    network = build(SMALL)
    batches = [3 * i + torch.randn(8, 3, 16, 16) for i in range(3)]
    before = {name: w.clone() for name, w in network.named_parameters()}
    recalibrate(network, iter(batches))
    stem = network.patch_embed
    assert isinstance(stem, Stem)
    assert isinstance(stem.norm, nn.BatchNorm2d)
    seen = [stem.proj(images) for images in batches]
    mean = torch.stack([y.mean((0, 2, 3)) for y in seen]).mean(0)
    var = torch.stack([y.var((0, 2, 3)) for y in seen]).mean(0)
    torch.testing.assert_close(stem.norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem.norm.running_var, var, rtol=1e-4, atol=1e-5)
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert all(torch.equal(w, before[name]) for name, w in network.named_parameters())


def test_recalibration_needs_images() -> None:
    with pytest.raises(ValueError, match=r"`batches` must hold at least one batch .* holds none"):
        recalibrate(build(SMALL), [])
