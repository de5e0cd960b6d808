"""A network that begins with the weights of another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import IRREGULAR, TINY
from safetensors.torch import save_file

from search_spaces.checkpoint import inherit, read_weights
from search_spaces.fasternet import FASTERNET
from search_spaces.network import build
from search_spaces.space import Space, oneof
from search_spaces.supernet import Supernet
from search_spaces.timm_models import import_timm

WIDER = replace(TINY, widths=(16, 32), depths=(1, 2), classes=7)


def test_of_the_same_shape_it_is_the_same_network() -> None:
    torch.manual_seed(0)
    parent, child = build(IRREGULAR).eval(), build(IRREGULAR).eval()
    images = torch.randn(2, 3, 48, 48)
    assert not torch.equal(parent(images), child(images))
    assert inherit(child, parent.state_dict()) == 1.0
    assert torch.equal(parent(images), child(images))


def test_a_corner_of_each_weight_comes_over_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    parent, child = build(TINY), build(WIDER)
    before = {name: weight.clone() for name, weight in child.state_dict().items()}
    share = inherit(child, parent.state_dict())
    own, given = child.state_dict(), parent.state_dict()
    kernel = "stages.0.blocks.0.spatial_mixing.partial_conv3.weight"
    assert torch.equal(own[kernel][:4, :4], given[kernel])
    assert torch.equal(own[kernel][4:], before[kernel][4:])
    for name in ("classifier.weight", "stages.1.blocks.1.mlp.0.weight"):  # others; only here
        assert torch.equal(own[name], before[name])
    changed = sum(int((own[n] != before[n]).sum()) for n, _ in child.named_parameters())
    total = sum(p.numel() for p in child.parameters())
    assert 0 < changed / total <= share < 1


def test_a_supernet_scores_a_timm_network_as_timm_does() -> None:
    parent = import_timm().create_model("fasternet_t0", num_classes=10).eval()
    t0 = replace(FASTERNET["t0"], classes=10)
    fields: dict[str, Any] = {name: getattr(t0, name) for name in t0.__dataclass_fields__}
    widths = oneof(t0.widths, (48, 96, 192, 384))
    supernet = Supernet(Space(type(t0), **fields | {"widths": widths})).eval()
    assert 0 < inherit(supernet, parent.state_dict()) < 1
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(supernet(images, t0), parent(images), atol=1e-5)


def test_weights_of_something_else_change_nothing() -> None:
    network = build(TINY)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"those of a FasterNet, but got 1 tensors \(fc\.weight"):
        inherit(network, {"fc.weight": torch.zeros(3, 3)})
    assert all(torch.equal(w, before[n]) for n, w in network.state_dict().items())


def test_weights_are_read_from_files_of_either_kind(tmp_path: Path) -> None:
    weights = {k: v.contiguous() for k, v in build(TINY).state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "trainer.pth")
    torch.save({"model": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "ddp.pth")
    for name in ("w.safetensors", "plain.pt", "trainer.pth", "ddp.pth"):
        read = read_weights(tmp_path / name)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[k], weights[k]) for k in weights)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint")
    (tmp_path / "noise.safetensors").write_bytes(b"none")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save({"hook": Path}, tmp_path / "code.pt")  # a class: more than plain values
    for name in ("noise.pt", "noise.safetensors", "code.pt"):
        with pytest.raises(ValueError, match="`weights` must be a safetensors file or a check"):
            read_weights(tmp_path / name)
    with pytest.raises(ValueError, match=r"must hold named tensors, but .*empty\.pt holds none"):
        read_weights(tmp_path / "empty.pt")
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "missing.pt")
