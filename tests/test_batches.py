"""Networks that take several images at once: throughput instead of latency."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import TINY

from nas.cli import main
from predictors.devices.registry import open_device
from predictors.model_files import write_onnx
from predictors.models import batched, config_model
from predictors.onnx_files import onnx_model
from predictors.runtimes import find_runtime


def test_a_batch_makes_another_network_of_it() -> None:
    one = config_model(TINY, name="tiny")
    four = batched(one, 4)
    assert (four.name, four.macs, four.image().shape) == ("tiny x4", one.macs, (4, 3, 32, 32))
    assert four.identity != one.identity
    assert batched(one, 1) == one


def test_throughput_and_speed_are_of_the_whole_batch() -> None:
    one = config_model(TINY)
    four = batched(one, 4)
    assert (one.images_per_s(2.0), four.images_per_s(2.0)) == (500.0, 2000.0)
    speed = one.gflops(2.0)
    assert speed is not None
    assert four.gflops(2.0) == pytest.approx(4 * speed)
    assert replace(one, macs=None).gflops(2.0) is None


def test_a_larger_batch_takes_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = config_model(TINY)
    latency, of_many = open_device("cpu").measure_each([one, batched(one, 32)], processes=1)
    assert of_many.median_ms > 2 * latency.median_ms
    assert of_many.context["artifact"] != latency.context["artifact"]


def test_a_program_of_torch_takes_its_batch(tmp_path: Path) -> None:
    four = batched(config_model(TINY), 4)
    file = find_runtime("torch").export(four, tmp_path / "four.pt2")
    assert torch.export.load(file).module()(four.image()).shape == (4, 10)


def test_what_takes_one_image_refuses_more(tmp_path: Path) -> None:
    fixed = replace(config_model(TINY, name="tiny"), batch="fixed")
    file = write_onnx(fixed, tmp_path / "fixed.onnx")
    with pytest.raises(ValueError, match=r"`batch` must be 1 for .*fixed.onnx, but got 4. Export"):
        write_onnx(batched(onnx_model(file), 4), tmp_path / "four.onnx")
    if find_runtime("ncnn").version:
        with pytest.raises(ValueError, match="ncnn does not: it takes one image at a time"):
            find_runtime("ncnn").export(batched(fixed, 2), tmp_path / "two.ncnn.zip")


def test_measure_says_how_many_images_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write_onnx(config_model(TINY), tmp_path / "tiny.onnx")
    assert main(["measure", str(file), "--batch", "8", "--processes", "1"]) == 0
    shown = capsys.readouterr().out
    assert "tiny.onnx x8" in shown
    assert "images/s" in shown
