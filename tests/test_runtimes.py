"""Every runtime computes what torch computes, from files that are the same each time."""

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import IRREGULAR, TINY
from torch import nn

from predictors.backends import table
from predictors.backends.model import Model, config_model
from predictors.backends.onnx_export import logits_of, onnx_logits, relative_difference
from predictors.backends.table import (
    RUNTIMES,
    Runtime,
    find_runtime,
    installed_runtimes,
    runtimes_with,
)
from predictors.devices.agent.loaders import LOADERS
from predictors.devices.registry import open_device
from search_spaces.fasternet import FasterNetConfig

# From the fp32 of torch. With bf16 a number has 8 bits; int8 was calibrated with noise.
TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2, "int8": 0.5}
ONNX = [r for r in RUNTIMES if r.name in ("onnxruntime", "openvino")]
ADDED = [r for r in RUNTIMES if r.name in ("openvino", "ncnn") or r.precision == "int8"]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, a folder to work in and one for temporary files, all of this test's own."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr("predictors.devices.timed.ROUNDS", (2, 2))
    return tmp_path / "scratch"


def _id(runtime: Runtime) -> str:
    return f"{runtime.name}-{runtime.precision}"


def _need(runtime: Runtime) -> None:
    for package in {"ncnn": ["ncnn", "pnnx"]}.get(runtime.name, [runtime.package]):
        pytest.importorskip(package)


def _logits(runtime: Runtime, file: Path, image: torch.Tensor) -> torch.Tensor:
    """What the runtime computes, apart from how the package asks it."""
    logits = {"openvino": _openvino, "ncnn": _ncnn}.get(runtime.name, _onnxruntime)
    return torch.from_numpy(logits(file, image.numpy(), runtime.precision).reshape(1, -1))


def _onnxruntime(file: Path, image: Any, precision: str) -> Any:
    return onnx_logits(file, torch.from_numpy(image)).numpy()


def _openvino(file: Path, image: Any, precision: str) -> Any:
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    return openvino.Core().compile_model(file, "CPU", hint)([image])[0]


def _ncnn(file: Path, image: Any, precision: str) -> Any:
    import zipfile

    import ncnn

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file) as packed:
        packed.extractall(folder)
        net = ncnn.Net()
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = precision == "bf16"
        assert net.load_param(f"{folder}/network.param") == 0
        assert net.load_model(f"{folder}/network.bin") == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(image[0]))
    return np.array(extractor.extract("out0")[1])


@pytest.mark.parametrize("config", [TINY, IRREGULAR], ids=["tiny", "other"])
@pytest.mark.parametrize("runtime", ADDED, ids=_id)
def test_a_runtime_computes_what_torch_computes(
    runtime: Runtime, config: FasterNetConfig, tmp_path: Path, scratch: Path
) -> None:
    _need(runtime)
    model = config_model(config)
    file = runtime.export(model, tmp_path / f"network{runtime.suffix}")
    found = _logits(runtime, file, model.image())
    reference = logits_of(model.network(), model.image())
    assert found.isfinite().all()
    assert relative_difference(found, reference) < TOLERANCES[runtime.precision]
    assert list(scratch.iterdir()) == list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("runtime", ADDED, ids=_id)
def test_a_network_gives_the_same_file_again(runtime: Runtime, tmp_path: Path) -> None:
    _need(runtime)
    first, second = (runtime.export(config_model(IRREGULAR), tmp_path / f"{i}{runtime.suffix}")
                     for i in range(2))  # fmt: skip
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("runtime", ADDED, ids=_id)
def test_the_runner_times_what_was_exported(runtime: Runtime, scratch: Path) -> None:
    _need(runtime)
    device = open_device("cpu", runtime=runtime.name, precision=runtime.precision)
    try:
        (measured,) = device.measure_each([TINY], processes=1)
    except RuntimeError as error:
        if "this processor has no bf16" not in str(error):
            raise
        pytest.skip("this processor has no bf16.")
    assert measured.median_ms > 0
    assert (measured.backend.runtime, measured.backend.precision) == (
        runtime.name,
        runtime.precision,
    )
    assert measured.context["runtime_version"] == version(runtime.package)
    assert (runtime.precision in device.description) == (runtime.precision != "fp32")
    assert list(scratch.iterdir()) == list(Path.cwd().iterdir()) == []


def test_openvino_refuses_bf16_where_it_would_compute_in_fp32(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has bf16.")
    file = find_runtime("openvino", "bf16").export(config_model(TINY), tmp_path / "network.onnx")
    start = {"models": [str(file)], "shapes": [[1, 3, 32, 32]], "threads": 1, "precision": "bf16"}
    with pytest.raises(RuntimeError, match="this processor has no bf16"):
        LOADERS["openvino"](start)
    assert LOADERS["openvino"]({**start, "precision": "fp32"})[0]() is not None


@pytest.mark.parametrize("runtime", ONNX, ids=_id)
def test_an_export_that_computes_something_else_is_refused(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need(runtime)

    def wrong(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return -logits_of(network, images)

    monkeypatch.setattr("predictors.backends.onnx_export.logits_of", wrong)
    with pytest.raises(RuntimeError, match="must agree with torch to 1e-04, but differs by"):
        runtime.export(config_model(TINY), tmp_path / "network.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def _model_of(layer: nn.Module) -> Model:
    return Model(name="theirs", identity="theirs", shape=(3, 16, 16), build=lambda: layer)


class _Sorting(nn.Module):
    """An operator that ncnn has not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sort().values.mean(1, keepdim=True)


def test_what_ncnn_cannot_run_is_named(tmp_path: Path, scratch: Path) -> None:
    _need(find_runtime("ncnn"))
    with pytest.raises(ValueError, match="`runtime` must be one that runs theirs, but ncnn does "):
        find_runtime("ncnn").export(_model_of(_Sorting()), tmp_path / "network.ncnn.zip")
    assert not (tmp_path / "network.ncnn.zip").exists()
    assert list(scratch.iterdir()) == list(Path.cwd().iterdir()) == []


def test_what_ncnn_computes_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need(find_runtime("ncnn"))
    monkeypatch.setattr("predictors.backends.export_ncnn.logits_of", lambda *_: torch.ones(1, 10))
    with pytest.raises(ValueError, match="its outputs differ from torch's by"):
        find_runtime("ncnn").export(config_model(TINY), tmp_path / "network.ncnn.zip")
    assert not (tmp_path / "network.ncnn.zip").exists()


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the extras."""

    def version_of(package: str) -> str:
        if package in ("openvino", "ncnn", "pnnx"):
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(table, "version", version_of)


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_not_installed_says_how_to_install_it(tmp_path: Path) -> None:
    assert installed_runtimes() == ("onnxruntime", "torch", "torch-compiled")
    for name in ("openvino", "ncnn"):
        with pytest.raises(RuntimeError, match=rf"`runtime` {name} must be installed here, but "
                           rf"{name} is not\. .*`pip install 'fasternas\[{name}\]'`"):  # fmt: skip
            open_device("cpu", runtime=name)
    with pytest.raises(
        RuntimeError, match="`runtime` ncnn must be installed here, but pnnx is not"
    ):
        find_runtime("ncnn").export(config_model(TINY), tmp_path / "network.ncnn.zip")
    file = find_runtime("openvino", "int8").export(config_model(TINY), tmp_path / "network.onnx")
    assert file.stat().st_size > 1000  # a board runs it, which has OpenVINO


def test_a_precision_that_a_runtime_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`precision` must be one of fp32, bf16 in ncnn, but got"):
        open_device("cpu", runtime="ncnn", precision="int8")
    with pytest.raises(ValueError, match=r"`precision` must be one of fp32, bf16, int8, but got"):
        runtimes_with("fp64")
    with pytest.raises(ValueError, match=r"`precision` must be fp32 for the profile .* got 'int8'"):
        open_device("arm", precision="int8")
