"""`--device cuda`: what it needs, and, where there is a GPU, what it times."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from predictors.devices.cuda import gpu_name
from predictors.devices.registry import device_names, open_device
from predictors.devices.session import clock_of
from predictors.models import batched, config_model
from search_spaces.fasternet import FASTERNET

NEEDS_GPU = pytest.mark.skipif(not gpu_name(), reason="there is no NVIDIA GPU here")
SMALL = replace(FASTERNET["t0"], resolution=64)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for the driver's nvidia-smi, which can be told what it finds."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    gpu_name.cache_clear()
    yield tool
    gpu_name.cache_clear()


@pytest.mark.usefixtures("driver")
def test_without_a_gpu_it_is_refused_and_not_listed() -> None:
    with pytest.raises(RuntimeError, match="`device` cuda must be an NVIDIA GPU of this machine"):
        open_device("cuda")
    assert "cuda" not in device_names()


def test_it_is_called_by_the_drivers_name(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho 'NVIDIA Orin Nano'\necho second\n")
    assert "cuda" in device_names()
    assert open_device("cuda", runtime="torch").description.startswith("NVIDIA Orin Nano, torch ")


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_runtime_built_without_cuda_says_so(driver: Path, runtime: str) -> None:
    if not _is_built_without_cuda(runtime):
        pytest.skip("it is built with CUDA")
    driver.write_text("#!/bin/sh\necho NVIDIA\n")
    words = "finds no GPU; install its CUDA" if runtime == "torch" else "install onnxruntime-gpu"
    with pytest.raises(RuntimeError, match=words):
        open_device("cuda", runtime=runtime).measure(SMALL)


def test_others_do_not_run_on_it() -> None:
    with pytest.raises(ValueError, match=r"`runtime` must be one of onnxruntime, torch.* on a GPU"):
        open_device("cuda", runtime="ncnn")
    with pytest.raises(ValueError, match="in fp32, on a GPU, but got onnxruntime in int8"):
        open_device("cuda", precision="int8")


def test_torch_is_timed_by_events_and_onnxruntime_by_the_wall() -> None:
    start = {"processor": "cuda", "threads": 1}
    assert clock_of({**start, "runtime": "torch"}) == "event_ms"
    assert clock_of({**start, "runtime": "torch-compiled"}) == "event_ms"
    assert clock_of({**start, "runtime": "onnxruntime"}) == "wall_ms"


@NEEDS_GPU
@pytest.mark.parametrize("runtime", ["torch", "torch-compiled", "onnxruntime"])
def test_a_gpu_times_networks(runtime: str) -> None:
    if _is_built_without_cuda(runtime):
        pytest.skip("it is built without CUDA")
    model = config_model(FASTERNET["t0"])
    device = open_device("cuda", runtime=runtime)
    one, many = device.measure_each([model, batched(model, 256)], processes=1)
    assert model.images_per_s(one.median_ms) < batched(model, 256).images_per_s(many.median_ms)


def _is_built_without_cuda(runtime: str) -> bool:
    import onnxruntime
    import torch

    if runtime == "onnxruntime":
        return "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    return not torch.cuda.is_available()
