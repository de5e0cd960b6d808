"""A checkpoint gives the network back, and what is wrong with it is one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import IRREGULAR, TINY
from safetensors.torch import load_file, save_file

import fasternas as fn
from search_spaces.checkpoint import KEY, is_checkpoint, read_checkpoint

IMAGES = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
NAMES = tuple("abcdefg")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = fn.build(IRREGULAR)
    network.train()(IMAGES)  # batch norms have seen something
    fn.save(network, tmp_path / "network.safetensors", classes=NAMES, mean=(0.5,), std=(0.25,))
    return tmp_path / "network.safetensors"


def _rewritten(file: Path, **changes: Any) -> Path:
    """The same weights below a header that says something else."""
    header = {
        "config": {
            "fasternas": 1,
            "widths": [8, 16],
            "depths": [1, 1],
            "partial_ratios": [0.5, 0.25],
            "expansions": [2, 2],
            "head_width": 32,
            "resolution": 32,
            "classes": 10,
        }
    }
    fn.save(fn.build(TINY), file)
    save_file(load_file(file), file, metadata={KEY: json.dumps({**header, **changes})})
    return file


def test_a_checkpoint_gives_the_network_back(file: Path) -> None:
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    network = fn.load(file)
    assert torch.equal(torch.rand(1), expected_draw)
    assert network.config == IRREGULAR
    assert not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.manual_seed(0)
    same = fn.build(IRREGULAR)
    same.train()(IMAGES)
    with torch.no_grad():
        assert torch.equal(network(IMAGES), same.eval()(IMAGES))
    found = read_checkpoint(file)
    assert (found.classes, found.mean, found.std) == (NAMES, (0.5,), (0.25,))


def test_networks_of_one_checkpoint_share_no_memory(file: Path) -> None:
    found = read_checkpoint(file)
    first, second = found.network(), found.network()
    with torch.no_grad():
        first.classifier.bias.fill_(7.0)
    assert not torch.equal(first.classifier.bias, second.classifier.bias)


def test_the_same_weights_make_the_same_file(file: Path) -> None:
    again = file.with_name("again.safetensors")
    fn.save(fn.load(file), again, classes=NAMES, mean=(0.5,), std=(0.25,))
    assert again.read_bytes() == file.read_bytes()


def test_weights_that_lie_channels_last_are_written_too(tmp_path: Path) -> None:
    network: Any = fn.build(TINY)
    network.to(memory_format=torch.channels_last)
    fn.save(network, tmp_path / "x.safetensors")
    loaded = fn.load(tmp_path / "x.safetensors").get_parameter("conv_head.weight")
    assert torch.equal(loaded, network.conv_head.weight)


def test_a_config_file_gives_a_fresh_network(tmp_path: Path) -> None:
    fn.save_config(TINY, tmp_path / "tiny.yaml")
    torch.manual_seed(3)
    network = fn.load(tmp_path / "tiny.yaml")
    torch.manual_seed(3)
    assert torch.equal(network.classifier.weight, fn.build(TINY).classifier.weight)
    assert not network.training


def test_its_weights_are_timms(tmp_path: Path) -> None:
    fn.save(fn.build(TINY), tmp_path / "x.safetensors")
    network = fn.from_timm_weights(TINY, load_file(tmp_path / "x.safetensors"))
    assert torch.equal(
        network.classifier.weight, fn.load(tmp_path / "x.safetensors").classifier.weight
    )


@pytest.mark.parametrize("end", [0, 4, 300, -1])
def test_a_checkpoint_that_was_cut_off_is_one_line(file: Path, end: int) -> None:
    file.write_bytes(file.read_bytes()[:end])
    message = r"network\.safetensors: The file must be a whole checkpoint, but .*\. Use an earlier"
    with pytest.raises(ValueError, match=message) as error:
        fn.load(file)
    assert "\n" not in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save(fn.build(TINY).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="The file must be a whole checkpoint"):
        fn.load(tmp_path / "weights.safetensors")
    foreign = (tmp_path / "weights.safetensors").rename(tmp_path / "timm.pth")
    with pytest.raises(
        ValueError,
        match=r"timm\.pth: The file must be a checkpoint that fasternas "
        r"saved, but .* kind\. Name the config of the weights, or give both: `",
    ):
        fn.load(foreign)


def test_weights_without_a_config_are_refused(tmp_path: Path) -> None:
    save_file(fn.build(TINY).state_dict(), tmp_path / "weights.safetensors")
    assert not is_checkpoint(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"must hold the config of its weights, but has none\. "):
        fn.load(tmp_path / "weights.safetensors")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = _rewritten(tmp_path / "x.safetensors", config={"fasternas": 2, "kernel": 5})
    with pytest.raises(
        ValueError,
        match=r"x\.safetensors: `fasternas` must be at most 1, .* 2\. "
        "Update fasternas",
    ):
        fn.load(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": [1]}, "The header must hold a config, but holds"),
        ({"config": {"fasternas": 1, "widths": [8], "depths": [1], "wide": 1}}, "The keys must be"),
        ({"classes": ["a", "b"]}, "`classes` must name the 10 classes of the config, but got 2"),
        ({"classes": [1] * 10}, "`classes` must be a list of names, but got"),
        ({"mean": "0.5"}, "`mean` must be a list of numbers, but got '0.5'"),
        (
            {"std": [0.0]},
            r"`std` must be positive, since images are divided by it, but got \[0.0\]",
        ),
        ({"std": [1, 2]}, "`std` must have a number for each of 1 or 3 channels, but got"),
    ],
)
def test_a_header_that_is_wrong_is_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = _rewritten(tmp_path / "x.safetensors", **changes)
    with pytest.raises(ValueError, match=rf"x\.safetensors: {message}") as error:
        fn.load(file)
    assert "\n" not in str(error.value)


def test_weights_of_another_config_are_refused(tmp_path: Path) -> None:
    config = {
        "fasternas": 1,
        "widths": [8, 16],
        "depths": [1, 1],
        "partial_ratios": [0.5, 0.25],
        "expansions": [2, 2],
        "head_width": 32,
        "resolution": 32,
        "classes": 11,
    }
    file = _rewritten(tmp_path / "x.safetensors", config=config)
    with pytest.raises(
        ValueError, match=r"x\.safetensors: The weights .* 2 of another shape \(class"
    ):
        fn.load(file)


def test_a_header_that_is_no_json_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={KEY: "{"})
    with pytest.raises(ValueError, match=r"x\.safetensors: Expecting property name"):
        fn.load(tmp_path / "x.safetensors")


def test_names_that_do_not_fit_the_classes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`classes` must name the 10 classes of the config, but"):
        fn.save(fn.build(TINY), tmp_path / "x.safetensors", classes=["a"])
    with pytest.raises(ValueError, match=r"`path` must end in \.safetensors, but got '.*x\.pt'"):
        fn.save(fn.build(TINY), tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_absent_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        fn.load(tmp_path / "absent.safetensors")


def test_a_full_disk_leaves_the_old_checkpoint(
    file: Path, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    before, network = file.read_bytes(), fn.build(TINY)
    with files_end_at(4096), pytest.raises(OSError, match="File too large"):
        fn.save(network, file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_names_load_without_torch() -> None:
    program = "import sys, fasternas; print('torch' in sys.modules, 'load' in dir(fasternas))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False True\n"
