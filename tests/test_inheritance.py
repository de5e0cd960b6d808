"""A network that begins with the weights of another."""

import argparse
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import IRREGULAR, TINY
from safetensors.torch import save_file
from torch import Tensor, nn

from predictors.backends.model import checkpoint_model
from predictors.backends.table import formats
from search_spaces.checkpoint import (
    Checkpoint,
    Inherited,
    begin_with,
    inherit,
    load_all,
    read_weights,
    weights_of,
)
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.network import build, from_timm_weights
from search_spaces.timm_models import import_timm
from search_spaces.torch_file import read_torch_file

WIDER = replace(TINY, widths=(16, 32), depths=(1, 2), classes=7)


def test_of_the_same_shape_it_is_the_same_network() -> None:
    torch.manual_seed(0)
    parent, child = build(IRREGULAR).eval(), build(IRREGULAR).eval()
    images = torch.randn(2, 3, 48, 48)
    assert not torch.equal(parent(images), child(images))
    assert inherit(child, parent.state_dict()) == Inherited(share=1.0, new=())
    assert torch.equal(parent(images), child(images))


@pytest.mark.parametrize("heads", [(TINY.head_width, 0), (0, TINY.head_width)])
def test_where_one_of_both_has_no_head_the_classifier_is_new(heads: tuple[int, int]) -> None:
    parent, child = (build(replace(TINY, head_width=head)) for head in heads)
    before = child.state_dict()["classifier.weight"].clone()
    inherited = inherit(child, parent.state_dict())
    assert {"classifier.weight", "classifier.bias"} <= {*inherited.new}
    assert torch.equal(child.state_dict()["classifier.weight"], before)
    assert 0 < inherited.share < 1


def test_a_corner_of_each_weight_comes_over_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    parent, child = build(TINY), build(WIDER)
    before = {name: weight.clone() for name, weight in child.state_dict().items()}
    share = inherit(child, parent.state_dict()).share
    own, given = child.state_dict(), parent.state_dict()
    kernel = "stages.0.blocks.0.spatial_mixing.partial_conv3.weight"
    assert torch.equal(own[kernel][:4, :4], given[kernel])
    assert torch.equal(own[kernel][4:], before[kernel][4:])
    for name in ("classifier.weight", "stages.1.blocks.1.mlp.0.weight"):  # others; only here
        assert torch.equal(own[name], before[name])
    changed = sum(int((own[n] != before[n]).sum()) for n, _ in child.named_parameters())
    total = sum(p.numel() for p in child.parameters())
    assert 0 < changed / total <= share < 1


Weights = dict[str, Tensor]


def authors_names(weights: Weights) -> Weights:
    """Name weights as FasterNet's authors do: merging layers are the odd stages."""
    named = {}
    for name, weight in weights.items():
        begin, stage, part, *rest = [*name.split("."), "", ""]
        if begin == "stages":
            merging = part == "downsample"
            part = ".".join(filter(None, rest if merging else [part, *rest]))
            named[f"stages.{2 * int(stage) - merging}.{part}"] = weight
        else:
            name = name.replace("conv_head.", "avgpool_pre_head.1.")
            named[name.replace("classifier.", "head.")] = weight
    return named


def test_the_authors_checkpoint_begins_the_whole_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parent, child = import_timm().create_model("fasternet_t0").eval(), build(FASTERNET["t0"]).eval()
    weights = authors_names(parent.state_dict())
    assert {"stages.5.norm.weight", "avgpool_pre_head.1.weight", "head.bias"} < weights.keys()
    file = tmp_path / "fasternet_t0-epoch=281-val_acc1=71.9180.pth"
    torch.save(weights, file)
    inherited = begin_with(child, file)
    assert inherited == Inherited(share=1.0, new=())
    assert inherited.words("t0.pth") == "100 % of the parameters begin as in t0.pth."
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(child(images), parent(images), atol=1e-5)


class Ran:
    """What a pickle calls: it would leave a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("touch ran",)


def prefixed(weights: Weights, *prefixes: str) -> Weights:
    return {f"{prefix}{k}": w for prefix in prefixes for k, w in weights.items()}


def in_mmpretrain(weights: Weights) -> Weights:
    """Name weights as MMPreTrain does: the classifier is in a head beside the backbone."""
    named = prefixed(authors_names(weights), "backbone.").items()
    return {name.replace("backbone.head.", "head.fc."): weight for name, weight in named}


NAMESPACE = argparse.Namespace(model="fasternet_t0", hook=Ran(), file=Path("x"))
TRAINERS: dict[str, Callable[[Weights, Weights], object]] = {
    "timm": lambda w, e: {
        "epoch": 3,
        "args": NAMESPACE,
        "optimizer": {"state": {0: e}},
        "state_dict": w,
    },
    "timm with EMA": lambda w, e: {"args": NAMESPACE, "state_dict": w, "state_dict_ema": e},
    "timm's EMA alone": lambda w, e: {"state_dict_ema": prefixed(e, "module.")},
    "Lightning": lambda w, e: {
        "state_dict": {**prefixed(w, "model."), "loss.weight": e["patch_embed.norm.weight"]},
        "hyper_parameters": defaultdict(list),
        "callbacks": {"x": Ran()},
    },
    "Lightning with EMA": lambda w, e: {
        "state_dict": {**prefixed(w, "model."), **prefixed(e, "ema_model.module.")}
    },
    "torch.compile": lambda w, e: prefixed(w, "_orig_mod."),
    "DDP of torch.compile": lambda w, e: {"model": prefixed(w, "module._orig_mod.")},
    "torch.compile of DDP": lambda w, e: {"model_state_dict": prefixed(w, "_orig_mod.module.")},
    "FSDP": lambda w, e: {k.replace("mlp.", "_fsdp_wrapped_module.mlp."): v for k, v in w.items()},
    "AveragedModel": lambda w, e: {"n_averaged": torch.tensor(3), **prefixed(w, "module.")},
    "MMPreTrain": lambda w, e: {
        "meta": Ran(),
        "state_dict": prefixed(authors_names(w), "backbone."),
    },
    "MMPreTrain with its head": lambda w, e: {"state_dict": in_mmpretrain(w)},
    "Accelerate": lambda w, e: {"net": {"ema": prefixed(e, "module."), "raw": w, "step": 3}},
    "in half precision": lambda w, e: {k: v.bfloat16() if v.ndim else v for k, v in w.items()},
}


@pytest.mark.parametrize(
    "options",
    [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}],
    ids=["zip", "legacy", "protocol 4"],
)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_checkpoints_of_other_trainers_are_read(
    trainer: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = build(TINY)
    plain, averaged = (
        {k: w.clone() for k, w in build(TINY).state_dict().items()} for _ in range(2)
    )
    torch.save(TRAINERS[trainer](plain, averaged), "weights.pth", **options)
    found = read_weights("weights.pth", network.state_dict())
    assert found.averaged == ("EMA" in trainer or trainer == "Accelerate")
    expected = averaged if found.averaged else plain
    assert found.weights.keys() == expected.keys()
    assert all(
        torch.allclose(found.weights[k].float(), expected[k].float(), atol=1e-3) for k in expected
    )
    assert begin_with(network, "weights.pth").share == 1.0
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]  # nothing has run


def test_what_of_mmpretrain_is_missing_is_named(tmp_path: Path) -> None:
    weights = in_mmpretrain(build(TINY).state_dict())
    del weights["backbone.avgpool_pre_head.1.weight"]
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    words = r"there are 1 missing \(conv_head\.weight\)\. Use the config of these weights"
    with pytest.raises(ValueError, match=words):
        weights_of(TINY, tmp_path / "weights.pth")


def test_a_module_that_was_saved_whole_is_read(tmp_path: Path) -> None:
    parent = build(TINY)
    torch.save({"ema": None, "model": nn.DataParallel(parent)}, tmp_path / "whole.pt")
    child = build(TINY)
    assert begin_with(child, tmp_path / "whole.pt").share == 1.0
    assert torch.equal(child.classifier.weight, parent.classifier.weight)


def test_a_student_is_found_beside_its_larger_teacher(tmp_path: Path) -> None:
    student, teacher = build(TINY), build(replace(TINY, widths=tuple(2 * w for w in TINY.widths)))
    both = {**prefixed(teacher.state_dict(), "teacher."), **prefixed(student.state_dict(), "net.")}
    torch.save({"state_dict": both}, tmp_path / "w.ckpt")
    found = weights_of(TINY, tmp_path / "w.ckpt")
    assert torch.equal(found.classifier.weight, student.classifier.weight)


def test_of_two_networks_of_one_shape_it_is_said_which_one_it_is(tmp_path: Path) -> None:
    one, other = build(TINY).state_dict(), build(TINY).state_dict()
    torch.save({**prefixed(one, "teacher."), **prefixed(other, "student.")}, tmp_path / "w.ckpt")
    words = begin_with(build(TINY), tmp_path / "w.ckpt").words("w.ckpt")
    assert "; of several networks in the file it is the one under teacher, not student." in words
    with pytest.raises(ValueError, match=r"several of these names, under teacher, student. Save"):
        weights_of(TINY, tmp_path / "w.ckpt")
    torch.save({**prefixed(one, "net."), **prefixed(one, "model.")}, tmp_path / "w.ckpt")
    weights_of(TINY, tmp_path / "w.ckpt")  # one network under two names is one


def test_weights_are_the_averages_where_lightning_has_put_them(tmp_path: Path) -> None:
    plain, averaged = build(TINY).state_dict(), build(TINY).state_dict()
    content = {
        "current_model_state": prefixed(plain, "model."),
        "state_dict": prefixed(averaged, "model."),
    }
    torch.save(content, tmp_path / "w.ckpt")
    inherited = begin_with(network := build(TINY), tmp_path / "w.ckpt")
    assert inherited.averaged
    assert torch.equal(network.classifier.weight, averaged["classifier.weight"])


def test_weights_that_are_no_numbers_are_refused_for_a_config_too(tmp_path: Path) -> None:
    weights = build(TINY).state_dict()
    weights["classifier.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"must be finite numbers, but .* in classifier.bias. Use"):
        weights_of(TINY, tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, so run `git lfs p"),
        (b"<!DOCTYPE html>", "a web page, so get it again"),
        (b"", "nothing is in it"),
    ],
)
def test_what_a_download_left_is_named(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot be read: {why}"):
        begin_with(build(TINY), tmp_path / name)


def test_a_folder_says_which_weights_are_in_it(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a folder. Name the file .* in it: model.safetensors"):
        begin_with(build(TINY), tmp_path)


def test_an_archive_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    torch.save(build(TINY).state_dict(), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read: it is cut off"):
        begin_with(build(TINY), tmp_path / "w.pth")


def test_what_is_new_and_what_is_left_over_is_said(tmp_path: Path) -> None:
    weights = {k: w for k, w in build(TINY).state_dict().items() if "conv_head" not in k}
    torch.save({**weights, "neck.\x1b[1m.weight": torch.ones(3)}, tmp_path / "w.pth")
    inherited = begin_with(build(replace(TINY, classes=7)), tmp_path / "w.pth")
    words = inherited.words("w.pth")
    assert words.endswith(
        "% of the parameters begin as in w.pth; new are conv_head.weight, classifier.weight, "
        "classifier.bias; left over in the file are 'neck.\\x1b[1m.weight'."
    )
    assert 0.3 < inherited.share < 0.9
    message = (
        r"w\.pth: The weights must .* are 1 missing \(conv_head\.weight\), 1 left over \('neck"
    )
    with pytest.raises(ValueError, match=message):
        weights_of(TINY, tmp_path / "w.pth")


def test_older_files_count_no_batches(tmp_path: Path) -> None:
    network = build(TINY)
    weights = {k: w for k, w in network.state_dict().items() if w.ndim}
    torch.save(weights, tmp_path / "w.pth")
    found = weights_of(TINY, tmp_path / "w.pth")
    assert torch.equal(found.classifier.weight, network.classifier.weight)
    load_all(network, read_weights(tmp_path / "w.pth", network.state_dict()))


def test_a_small_share_is_refused(tmp_path: Path) -> None:
    stem = {k: w for k, w in build(FASTERNET["t0"]).state_dict().items() if "patch_embed" in k}
    torch.save({**stem, "head.fc.weight": torch.ones(3, 3)}, tmp_path / "stem.pth")
    network = build(FASTERNET["t0"])
    message = (
        r"must be much of the network, but with these 0\.0512 % of the parameters begin as in "
        r".*stem\.pth; new are stages\.0\..* and 106 more; left over in the file are head"
    )
    with pytest.raises(ValueError, match=message):
        begin_with(network, tmp_path / "stem.pth")
    t0 = save(FASTERNET["t0"], tmp_path)
    assert 0.03 < begin_with(build(FASTERNET["m"]), t0).share < 0.1  # of half of its blocks a part


def save(config: FasterNetConfig, folder: Path) -> Path:
    torch.save(build(config).state_dict(), folder / "w.pth")
    return folder / "w.pth"


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "w.pth")
    message = r"those of a FasterNet, but .*w\.pth has 1 others \(fc\.weight\)\. Give a checkpoint"
    with pytest.raises(ValueError, match=message):
        begin_with(build(TINY), tmp_path / "w.pth")
    weights = build(TINY).state_dict()
    torch.save({**weights, "classifier.bias": torch.full((10,), torch.nan)}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"must be finite .* others in classifier\.bias\. Use an e"
    ):
        begin_with(build(TINY), tmp_path / "w.pth")


def test_weights_are_read_from_safetensors(tmp_path: Path) -> None:
    weights = {k: v.contiguous() for k, v in build(TINY).state_dict().items()}
    save_file(prefixed(weights, "timm_model."), tmp_path / "MODEL.SafeTensors")
    found = read_weights(tmp_path / "MODEL.SafeTensors", weights).weights
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[k], weights[k]) for k in weights)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    own = build(TINY).state_dict()
    whole = save(TINY, tmp_path).read_bytes()
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint")
    (tmp_path / "noise.safetensors").write_bytes(b"none")
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torchscript = formats()["torchscript"]
    traced = checkpoint_model("net", Checkpoint(config=TINY, weights=build(TINY).state_dict()))
    torchscript.module.write(traced, tmp_path / "program", torchscript)
    for name, reason in {
        "noise.pt": "it was not written by torch.save",
        "noise.safetensors": "",
        "cut.pt": "",
        "program.torchscript.pt": "it is a TorchScript program, which says no names of weights",
    }.items():
        message = rf"`weights` must be a .*{name} cannot be read: {reason}.*Save a state dict"
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / name, own)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"must hold named tensors, but .*empty\.pt holds none"):
        read_weights(tmp_path / "empty.pt", own)
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "missing.pt", own)


@pytest.mark.parametrize(("ours", "theirs"), [(2, 1), (1, 2), (4, 2), (2, 2)])
def test_grouped_convolutions_inherit_what_connects_the_same_channels(
    ours: int, theirs: int
) -> None:
    config = replace(TINY, groups=(1, ours), partial_ratios=(0.5, 0.5))
    old, new = build(replace(config, groups=(1, theirs))), build(config)
    assert inherit(new, old.state_dict()).share == 1.0
    name = "stages.1.blocks.0.spatial_mixing.partial_conv3.weight"
    given, own = (_dense(network.get_parameter(name)) for network in (old, new))
    connected = _dense(torch.ones_like(new.get_parameter(name))) > 0
    assert torch.equal(own[connected], given[connected])


def _dense(weight: torch.Tensor) -> torch.Tensor:
    """The middles of the kernels, of each output over each input."""
    blocks = weight.detach().chunk(len(weight) // weight.shape[1])
    return torch.block_diag(*(block[..., 1, 1] for block in blocks))  # type: ignore[no-untyped-call, no-any-return]


def test_a_pickle_that_asks_for_a_huge_memo_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")  # would take 16 GB
        archive.writestr("w/version", b"3")
    with pytest.raises(ValueError, match="its memo has holes"):
        read_torch_file(tmp_path / "w.pt")


def test_weights_are_counted_before_a_huge_network_is_built() -> None:
    config = replace(FASTERNET["l"], widths=(65536,) * 4, depths=(1000,) * 4)
    with pytest.raises(ValueError, match=r"The weights must be .* numbers or more"):
        from_timm_weights(config, build(TINY).state_dict())
