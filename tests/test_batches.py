"""Networks that take several images at once: throughput instead of latency."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import TINY

from nas.bench import models_figure, operators_figure
from nas.cli.main import main
from nas.networks import Row, Subject
from predictors.backends.model import batched, config_model
from predictors.backends.onnx_export import write_onnx
from predictors.backends.onnx_file import onnx_model
from predictors.backends.onnxruntime import outputs_of
from predictors.backends.table import find_runtime
from predictors.devices.registry import open_device
from predictors.measurement import Backend, Latency


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
    latency, of_many = open_device("cpu").measure_each([one, batched(one, 32)], repeats=1)
    assert of_many.median_ms > 2 * latency.median_ms
    assert of_many.context.artifact != latency.context.artifact


def test_a_program_of_torch_takes_its_batch(tmp_path: Path) -> None:
    four = batched(config_model(TINY), 4)
    file = find_runtime("torch").deploy(four, tmp_path / "four")
    assert torch.export.load(file).module()(four.image()).shape == (4, 10)


def test_what_takes_one_image_refuses_more(tmp_path: Path) -> None:
    fixed = replace(config_model(TINY, name="tiny"), batch="fixed")
    file = write_onnx(fixed, tmp_path / "fixed")
    with pytest.raises(ValueError, match=r"`batch` must be 1 for .*fixed.onnx, but got 4. Export"):
        write_onnx(batched(onnx_model(file), 4), tmp_path / "four")


def test_measure_says_how_many_images_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write_onnx(config_model(TINY), tmp_path / "tiny")
    assert main(["measure", str(file), "--batch", "8", "--repeats", "1"]) == 0
    shown = capsys.readouterr().out
    assert "tiny.onnx x8" in shown
    assert "images/s" in shown


def test_a_profile_knows_one_image_at_a_time() -> None:
    with pytest.raises(ValueError, match="`batch` must be 1 for a profile, but tiny x4 takes 4"):
        open_device("arm").measure(batched(config_model(TINY, name="tiny"), 4))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_fixed_batch_is_quantized(name: str, tmp_path: Path) -> None:
    runtime = find_runtime(name, "int8")
    four = batched(replace(config_model(TINY, name="tiny"), batch="fixed"), 4)
    file = runtime.deploy(four, tmp_path / "four")
    assert outputs_of(str(file))(four.image())[0].shape == (4, 10)


def test_a_plot_shows_the_speed_of_the_whole_batch_and_says_so() -> None:
    latency = Latency(
        median_ms=10.0,
        low_ms=9.9,
        high_ms=10.1,
        source="measured",
        device="cpu",
        backend=Backend("onnxruntime"),
    )
    model = batched(config_model(TINY, name="tiny"), 4)
    row = Row(subject=Subject(model=model, kind="FasterNet", label="T"), latency=latency)
    figure = models_figure([row], device="cpu")
    speeds, latencies = figure.axes[:2]
    shown = [line for line in speeds.lines if line.get_label() == "FasterNet"]
    assert np.asarray(shown[0].get_ydata()).tolist() == [row.gflops]
    assert latencies.get_title(loc="left") == "latency of a batch of 4 in ms"
    operators = operators_figure([row], device="cpu")
    assert operators.axes[0].get_title(loc="left") == "latency of one layer, batch of 4, in ms"
