"""`--device cuda`: what it needs, and, where there is a GPU, what it times."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from predictors.backends.model import batched, config_model
from predictors.backends.onnxruntime import provider
from predictors.backends.table import find_runtime
from predictors.devices.agent.timer import Timer
from predictors.devices.local import CUDA_COMMAND, gpu_name
from predictors.devices.registry import device_names, open_device
from predictors.devices.timed import clock_of
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
    clocks = {
        name: clock_of(find_runtime(name), processor="cuda", threads=1)
        for name in ("torch", "torch-compiled", "onnxruntime")
    }
    assert clocks == {"torch": "event_ms", "torch-compiled": "event_ms", "onnxruntime": "wall_ms"}


@NEEDS_GPU
@pytest.mark.parametrize("runtime", ["torch", "torch-compiled", "onnxruntime"])
def test_a_gpu_times_networks(runtime: str) -> None:
    if _is_built_without_cuda(runtime):
        pytest.skip("it is built without CUDA")
    model = config_model(FASTERNET["t0"])
    device = open_device("cuda", runtime=runtime)
    one, many = device.measure_each([model, batched(model, 256)], repeats=1)
    assert model.images_per_s(one.median_ms) < batched(model, 256).images_per_s(many.median_ms)


def _is_built_without_cuda(runtime: str) -> bool:
    import onnxruntime
    import torch

    if runtime == "onnxruntime":
        return "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    return not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("visible", "name"), [("1", "second"), ("1,0", "second"), ("0", "first"), ("", ""), ("-1", "")]
)
def test_it_is_the_first_that_is_visible(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str, name: str
) -> None:
    driver.write_text('#!/bin/sh\ncase "$*" in *--id=1*) echo second;; *) echo first;; esac\n')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_name() == name


def test_what_times_counts_gpus_as_the_driver_does() -> None:
    spelled = [*CUDA_COMMAND[:-2], "-c", "import os; print(os.environ['CUDA_DEVICE_ORDER'])"]
    assert subprocess.check_output(spelled, text=True) == "PCI_BUS_ID\n"


def test_fp32_is_not_tf32() -> None:
    assert provider("cuda") == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert provider("cpu") == ("CPUExecutionProvider", {})
    program = (
        "import torch; from predictors.backends.torch import refuse_tf32; refuse_tf32()\n"
        "print(torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert told == "False False\n"


def test_the_gpu_is_idle_before_the_first_sample() -> None:
    def synchronised(infer: Callable[[], object]) -> float:
        infer()
        done.append("waited")
        return 1.0

    done: list[str] = []
    timer = Timer(infer=[lambda: done.append("ran")], call=synchronised)
    timer.answer({"time": 0, "discard": 2, "repeats": 1})
    assert done == ["ran", "waited"] * 3
