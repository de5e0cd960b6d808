"""timm builds, loads, fine-tunes and takes apart searched networks as it does its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import FAMILY, IRREGULAR, TINY
from torch import Tensor, nn

import fasternas as fn
import fasternas.timm
from search_spaces.timm_models import import_timm, register

timm = import_timm()
IMAGES = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    fn.save_config(IRREGULAR, tmp_path / "x.yaml")
    return tmp_path / "x.yaml"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = fn.build(IRREGULAR)
    network.train()(IMAGES)
    fn.save(network, tmp_path / "x.safetensors", mean=(0.4,), std=(0.2,), classes=tuple("abcdefg"))
    return tmp_path / "x.safetensors"


def _create(**options: Any) -> Any:
    return timm.create_model("fasternas", **options)


def _output(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network.eval()(IMAGES)  # type: ignore[no-any-return]


@pytest.mark.parametrize("order", ["import timm, fasternas", "import fasternas, fasternas.timm"])
def test_timm_knows_the_model_in_either_order(order: str, config: Path) -> None:
    program = (
        "from search_spaces.timm_models import import_timm; import sys\n"
        f"if {order.startswith('import timm')}: import_timm()\n"
        f"{order}\nimport timm\n"
        f"print(timm.create_model('fasternas', config={str(config)!r}).config.widths)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(12, 20, 32)\n"


def test_registering_again_says_nothing() -> None:
    register()
    assert timm.list_models("fasternas") == ["fasternas"]
    assert fasternas.timm.__name__ == "fasternas.timm"


def test_a_checkpoint_loads_in_timm(checkpoint: Path, config: Path) -> None:
    expected = _output(fn.load(checkpoint))
    assert torch.equal(_output(_create(checkpoint=checkpoint)), expected)
    assert torch.equal(_output(_create(checkpoint=checkpoint, config=config)), expected)
    assert torch.equal(_output(_create(config=config, checkpoint_path=str(checkpoint))), expected)
    overlay = {"file": str(checkpoint)}
    found = _create(config=config, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(_output(found), expected)
    data = timm.data.resolve_data_config(model=_create(checkpoint=checkpoint))
    assert (data["input_size"], data["mean"], data["std"]) == ((3, 48, 48), (0.4,) * 3, (0.2,) * 3)


def test_plain_weights_load_beside_their_config(config: Path, tmp_path: Path) -> None:
    network = fn.build(IRREGULAR)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    found = _create(config=config, checkpoint=tmp_path / "weights.pt")
    assert torch.equal(_output(found), _output(network))
    with pytest.raises(ValueError, match=r"The weights must be the \d+ of this config, but there"):
        _create(config=TINY, checkpoint=tmp_path / "weights.pt")


def test_other_classes_get_a_new_classifier(checkpoint: Path) -> None:
    network = _create(checkpoint=checkpoint, num_classes=3)
    assert _output(network).shape == (2, 3)
    assert (network.num_classes, network.get_classifier().out_features) == (3, 3)
    ours = fn.load(checkpoint)
    assert torch.equal(network.conv_head.weight, ours.get_parameter("conv_head.weight"))
    network.reset_classifier(0)
    with torch.no_grad():
        expected = ours.act(
            ours.conv_head(ours.global_pool(ours.stages(ours.patch_embed(IMAGES))))
        ).flatten(1)
        assert torch.equal(network(IMAGES), expected)
        assert torch.equal(
            network.forward_head(network.forward_features(IMAGES), pre_logits=True), expected
        )


@pytest.mark.parametrize("kind", [{}, {"feature_cls": "getter"}, {"feature_cls": "hook"}])
def test_features_are_the_maps_of_the_whole_network(checkpoint: Path, kind: dict[str, str]) -> None:
    network = fn.load(checkpoint)
    maps = []
    for stage in network.stages:
        stage.register_forward_hook(lambda *given: maps.append(given[-1]))
    _output(network)
    backbone = _create(checkpoint=checkpoint, features_only=True, **kind).eval()
    assert backbone.feature_info.channels() == [12, 20, 32]
    assert backbone.feature_info.reduction() == [2, 4, 8]  # the stem's stride is 2
    with torch.no_grad():
        found = backbone(IMAGES)
    assert [feature.shape[-1] for feature in found] == [24, 12, 6]
    assert all(map(torch.equal, found, maps))
    last = _create(checkpoint=checkpoint, features_only=True, out_indices=(1, 2), **kind).eval()
    with torch.no_grad():
        assert all(map(torch.equal, last(IMAGES), maps[1:]))


def test_the_strides_of_four_stages_are_those_of_detectors() -> None:
    backbone = _create(config=fn.FASTERNET["t0"], features_only=True)
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    assert backbone.feature_info.channels() == [40, 80, 160, 320]
    theirs = timm.create_model("fasternet_t0", features_only=True)
    assert theirs.feature_info.reduction() == backbone.feature_info.reduction()
    backbone.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, backbone.eval()(images), theirs.eval()(images)))


def test_intermediate_maps_come_with_the_last(checkpoint: Path) -> None:
    network = _create(checkpoint=checkpoint).eval()
    with torch.no_grad():
        last, maps = network.forward_intermediates(IMAGES)
        assert torch.equal(last, maps[-1])
        assert torch.equal(network.forward_features(IMAGES), last)
        (first,) = network.forward_intermediates(
            IMAGES, [0], stop_early=True, intermediates_only=True
        )
    assert torch.equal(first, maps[0])


def test_gradients_are_the_same_when_maps_are_computed_again(checkpoint: Path) -> None:
    gradients = []
    for enable in (False, True):
        network = _create(checkpoint=checkpoint)
        network.set_grad_checkpointing(enable)
        network(IMAGES).sum().backward()
        gradients.append(network.patch_embed.proj.weight.grad)
    assert torch.equal(*gradients)


def test_timms_optimizer_sees_the_layers(config: Path) -> None:
    network = _create(config=config, drop_path_rate=0.1, drop_rate=0.2)
    import timm.optim

    optim: Any = timm.optim
    groups = optim.param_groups_layer_decay(network, layer_decay=0.5)
    assert len({group["lr_scale"] for group in groups}) >= 4
    assert network.stages[2].blocks[0].drop_path.p == pytest.approx(0.1)
    assert network.drop_rate == 0.2


def test_every_ingredient_is_there_in_timm(tmp_path: Path) -> None:
    """FAMILY has a stem of two convolutions, three of its four stages, and no head."""
    network = fn.build(FAMILY)
    network.train()(IMAGES)
    fn.save(network, tmp_path / "x.safetensors")
    expected = _output(network)
    theirs = _create(checkpoint=tmp_path / "x.safetensors", drop_path_rate=0.1)
    assert torch.equal(_output(theirs), expected)
    assert (theirs.num_features, theirs.head_hidden_size) == (32, 32)
    assert theirs.pretrained_cfg["first_conv"] == "patch_embed.convs.0"
    assert isinstance(theirs.get_submodule(theirs.pretrained_cfg["first_conv"]), nn.Conv2d)
    with torch.no_grad():
        last, maps = theirs.forward_intermediates(IMAGES)
    assert [m.shape[1] for m in maps] == [16, 24, 32]
    assert torch.equal(last, maps[-1])
    backbone = _create(checkpoint=tmp_path / "x.safetensors", features_only=True).eval()
    assert backbone.feature_info.channels() == [16, 24, 32]
    assert backbone.feature_info.reduction() == [4, 8, 16]
    with torch.no_grad():
        assert all(map(torch.equal, backbone(IMAGES), maps))
    theirs.reset_classifier(0)
    with torch.no_grad():
        assert torch.equal(theirs(IMAGES), last.mean((2, 3)))
    theirs.reset_classifier(3)
    assert _output(theirs).shape == (2, 3)


def test_every_ingredient_belongs_to_a_layer_of_timms_optimizer() -> None:
    import timm.optim

    network = _create(config=FAMILY)
    optim: Any = timm.optim
    groups = optim.param_groups_layer_decay(network, layer_decay=0.5)
    lr_of = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    names = [
        "patch_embed.convs.0.weight",
        "stages.0.blocks.0.star.conv.weight",
        "stages.1.blocks.0.mlp.0.weight",
        "stages.2.blocks.1.spatial_mixing.partial_conv3.qkv.weight",
    ]
    rates = [lr_of[id(network.get_parameter(name))] for name in names]
    assert rates == sorted(rates)
    assert len(set(rates)) == len(rates)
    gate = network.get_parameter("stages.2.blocks.1.spatial_mixing.gate.squeeze.weight")
    assert lr_of[id(gate)] == rates[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, '`config` must be given, or a `checkpoint` that holds it, .* Say config="x.yaml"'),
        ({"config": TINY, "in_chans": 1}, "`in_chans` must be 3, but got 1"),
        ({"config": TINY, "global_pool": "max"}, "`global_pool` must be 'avg', but got 'max'"),
    ],
)
def test_what_is_not_supported_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _create(**options)


def test_a_checkpoint_of_another_config_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"`config` must be that of the checkpoint .* Leave"):
        _create(config=TINY, checkpoint=checkpoint)


def test_a_checkpoint_that_was_cut_off_is_refused(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    for options in ({}, {"config": IRREGULAR}):
        with pytest.raises(ValueError, match="The file must be a whole checkpoint, but cannot be"):
            _create(checkpoint=checkpoint, **options)
