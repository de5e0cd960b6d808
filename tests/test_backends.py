"""Each line of the table of backends: it writes, runs, agrees with torch, is timed, refuses."""

import ast
import os
import sys
import tempfile
import zipfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from deployed_networks import deployed
from networks import FAMILY, IRREGULAR, TINY
from torch import nn

from nas.finetune.export import Export, export_each
from predictors.backends import agreement, table
from predictors.backends.agreement import check
from predictors.backends.model import Model, batched, config_model
from predictors.backends.table import (
    TABLE,
    Precision,
    Runtime,
    Start,
    find_formats,
    find_runtime,
    formats,
    installed_version,
    runtime_names,
    runtimes,
)
from predictors.devices.agent.host import BOOTSTRAP
from predictors.devices.connection import Connection, program
from predictors.devices.registry import open_device
from predictors.measurement import Backend
from predictors.training.evaluate import RandomImages
from search_spaces.fasternet import FasterNetConfig

COMPUTING = [line for line in TABLE if line.format != "yaml"]
NO_BF16 = "this processor has no bf16"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, a folder to work in and one for temporary files, all of this test's own."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # torch keeps what it has compiled, where it is told to or among the temporary files.
    kept = os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir(), "inductor")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", kept)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def _id(line: Runtime) -> str:
    return f"{line.name}-{line.precision}-{line.format}"


def _need(line: Runtime) -> None:
    for package in line.module.PACKAGES:
        if not installed_version(package):
            pytest.skip(f"{package} is not installed.")


def _export(model: Model, line: Runtime, folder: Path) -> Export:
    _need(line)
    (found,) = export_each(model, [line], folder, RandomImages(shape=model.shape))
    if NO_BF16 in found.refusal:
        pytest.skip(NO_BF16)
    return found


@pytest.mark.parametrize(
    ("config", "features"),
    [(IRREGULAR, False), (IRREGULAR, True), (FAMILY, False)],
    ids=["whole", "features", "family"],
)
@pytest.mark.parametrize("line", COMPUTING, ids=_id)
def test_a_file_computes_what_torch_computes(
    line: Runtime, config: FasterNetConfig, *, features: bool, tmp_path: Path, scratch: Path
) -> None:
    found = _export(deployed(config, features=features), line, tmp_path / "out")
    assert found.refusal == ""
    assert found.agreement is not None
    assert found.agreement.images == 8
    assert (found.agreement.difference < 1e-5) == (line.precision == "fp32")  # rounding is seen
    assert found.agreement.correlation > 0.95
    if line.precision == "fp32":
        assert found.agreement.same == (None if features else 100)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert found.size == sum(path.stat().st_size for path in files)
    assert sorted(found.files) == sorted(files)
    assert found.path.exists()
    assert found.path.name in found.code
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").iterdir())
    assert not list(scratch.glob("fasternas-*"))
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("line", [t for t in COMPUTING if t.format != "ncnn"], ids=_id)
def test_a_fixed_batch_is_kept(line: Runtime, tmp_path: Path) -> None:
    found = _export(deployed(batch=3), line, tmp_path)
    assert found.refusal == ""
    assert found.agreement is not None
    assert found.agreement.images == 8  # the last two of them filled up
    if found.path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(found.path, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == [3, 3, 48, 48]


@pytest.mark.parametrize("line", [t for t in COMPUTING if t.format != "timm"], ids=_id)
def test_what_computes_something_else_is_refused(
    line: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Model.network
    calls: list[int] = []

    def network(model: Model) -> nn.Module:
        """The second one, which the file is compared with, is another."""
        calls.append(1)
        found: Any = trained(model)
        if len(calls) == 2:
            found.classifier.weight.data.mul_(-1)
        return found  # type: ignore[no-any-return]

    monkeypatch.setattr(Model, "network", network)
    found = _export(deployed(TINY), line, tmp_path / "out")
    exact = line.precision == "fp32"
    assert ("must agree with torch to" if exact else "much the same as in fp32") in found.refusal
    assert "\n" not in found.refusal
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", runtimes(), ids=_id)
def test_what_is_timed_is_what_is_handed_out(line: Runtime, tmp_path: Path) -> None:
    _need(line)
    model = deployed(TINY, batch=1)
    handing_out = formats()[line.format]
    handed_out = handing_out.module.write(model, tmp_path / "network", handing_out)
    timed = line.deploy(model, tmp_path / "timed")
    if timed.suffix != ".zip":
        assert timed.read_bytes() == handed_out.read_bytes() or timed.suffix == ".pt2"
        return
    with zipfile.ZipFile(timed) as packed:
        assert len(packed.namelist()) == 2
        for name in packed.namelist():
            assert packed.read(name) == handed_out.with_name(name).read_bytes()


@pytest.mark.parametrize("line", [t for t in runtimes() if t.format != "torch"], ids=_id)
@pytest.mark.parametrize("config", [IRREGULAR, FAMILY], ids=["irregular", "family"])
def test_a_network_gives_the_same_file_again(line: Runtime, config: Any, tmp_path: Path) -> None:
    _need(line)
    first, second = (line.deploy(config_model(config), tmp_path / str(i)) for i in range(2))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("line", runtimes(), ids=_id)
def test_the_agent_times_it(line: Runtime, tmp_path: Path, scratch: Path) -> None:
    _need(line)
    file = line.deploy(config_model(TINY), tmp_path / "network")
    start = Start(
        module=line.module.__name__,
        models=[str(file)],
        shapes=[[1, 3, 32, 32]],
        runtime=line.name,
        precision=line.precision,
        processor="cpu",
        clock="wall_ms",
        threads=1,
        cores=None,
    )
    timer = program("host", "timer", backend=line.module.__name__)
    with Connection((sys.executable, "-uc", BOOTSTRAP)) as connection:
        try:
            connection.ask({"start": start, "program": timer})
        except RuntimeError as error:
            if NO_BF16 not in str(error):
                raise
            pytest.skip(NO_BF16)
        answer = connection.ask({"time": 0, "discard": 1, "repeats": 3})
    assert len(answer["wall_ms"]) == 3
    assert all(ms > 0 for ms in answer["wall_ms"])
    assert list(scratch.iterdir()) == list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("line", [find_runtime("onnxruntime", "int8"), find_runtime("ncnn")])
def test_a_device_times_what_was_deployed(line: Runtime, scratch: Path) -> None:
    _need(line)
    device = open_device("cpu", runtime=line.name, precision=line.precision)
    (measured,) = device.measure_each([TINY])
    assert measured.median_ms > 0
    assert measured.backend == Backend(line.name, line.precision)
    assert measured.context.runtime_version == version(line.package)
    assert (line.precision in device.description) == (line.precision != "fp32")
    assert list(scratch.iterdir()) == list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("line", TABLE, ids=_id)
def test_a_board_can_run_its_file(line: Runtime) -> None:
    """The file of a backend imports the standard library alone, and Python 3.8 can read it."""
    file = sys.modules[line.module.__name__].__file__
    assert file is not None
    tree = ast.parse(Path(file).read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in imports
    ]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    assert "__future__" in names
    timed = any(other.name for other in TABLE if other.module is line.module)
    assert hasattr(line.module, "load") == timed


@pytest.mark.parametrize("line", [t for t in runtimes() if t.format.startswith("onnx")], ids=_id)
def test_deploying_checks_what_the_file_computes(
    line: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need(line)
    wrong = agreement._reference

    def negated(model: Model) -> table.Run:
        reference = wrong(model)
        return lambda images: [-output for output in reference(images)]

    monkeypatch.setattr(agreement, "_reference", negated)
    message = "correlate by -" if line.precision == "int8" else "must agree with torch to"
    with pytest.raises(RuntimeError, match=message):
        line.deploy(config_model(TINY), tmp_path / "network")


def test_other_outputs_than_torchs_are_refused(tmp_path: Path) -> None:
    model, line = deployed(TINY), find_runtime("onnxruntime")
    file = line.module.write(model, tmp_path / "tiny", line)
    other = deployed(replace(TINY, classes=11))
    with pytest.raises(RuntimeError, match=r"tiny\.onnx must agree with torch to 1e-04, .* by nan"):
        check(other, file, line, RandomImages(shape=model.shape))
    with pytest.raises(RuntimeError, match="must compute in int8 much the same as in fp32"):
        check(other, file, replace(line, precision="int8"), RandomImages(shape=model.shape))


def test_openvino_refuses_bf16_where_it_would_compute_in_fp32(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has bf16.")
    line = find_runtime("openvino", "bf16")
    file = line.deploy(config_model(TINY), tmp_path / "network")
    with pytest.raises(NotImplementedError, match=NO_BF16):
        line.module.run(config_model(TINY), file, line)


class _Sorting(nn.Module):
    """An operator that ncnn has not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sort().values.mean(1, keepdim=True)


def test_what_ncnn_cannot_run_is_named(tmp_path: Path, scratch: Path) -> None:
    _need(find_runtime("ncnn"))
    model = Model(name="theirs", identity="theirs", shape=(3, 16, 16), build=_Sorting)
    with pytest.raises(ValueError, match="`runtime` must be one that runs theirs, but ncnn does "):
        find_runtime("ncnn").deploy(model, tmp_path / "network")
    assert list(scratch.iterdir()) == list(Path.cwd().iterdir()) == []


def test_ncnn_takes_one_image_at_a_time(tmp_path: Path) -> None:
    found = _export(deployed(batch=3), find_runtime("ncnn"), tmp_path / "out")
    assert found.refusal == "`batch` must be 1 for ncnn, but got 3. Leave it out."
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="`batch` must be 1 for ncnn, but got 2"):
        find_runtime("ncnn").deploy(batched(config_model(TINY), 2), tmp_path / "two")


def test_ncnn_has_two_files(tmp_path: Path) -> None:
    line, path = find_runtime("ncnn"), tmp_path / "x.ncnn.param"
    assert line.module.code(deployed(), path, line) == (
        f'net = ncnn.Net(); net.load_param("{path}"); net.load_model("{tmp_path / "x.ncnn.bin"}")'
    )


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
    installed = runtime_names(line for line in runtimes() if line.version)
    assert installed == ("onnxruntime", "torch", "torch-compiled")
    for name in ("openvino", "ncnn"):
        words = rf"must be installed here, but {name} is not\. .*'fasternas\[{name}\]'"
        with pytest.raises(RuntimeError, match=f"`runtime` {name} {words}"):
            open_device("cpu", runtime=name)
        with pytest.raises(RuntimeError, match=rf"`to` {name} {words}"):
            find_formats(["onnx", name])
    with pytest.raises(RuntimeError, match=r"`runtime` ncnn must be installed .* pnnx is not"):
        find_runtime("ncnn").deploy(config_model(TINY), tmp_path / "ncnn")
    file = find_runtime("openvino", "int8").deploy(config_model(TINY), tmp_path / "openvino")
    assert file.stat().st_size > 1000  # a board runs it, which has OpenVINO


def test_what_there_is_not_is_refused() -> None:
    names = ", ".join(runtime_names())
    with pytest.raises(ValueError, match=f"`runtime` must be one of {names}, or auto"):
        find_runtime("tflite")
    with pytest.raises(ValueError, match=r"`precision` must be one of fp32, bf16 in ncnn, but got"):
        open_device("cpu", runtime="ncnn", precision="int8")
    with pytest.raises(ValueError, match=r"`precision` must be one of fp32, bf16, int8, but got"):
        runtimes(precision="fp64")
    with pytest.raises(ValueError, match=r"`precision` must be fp32 for the profile .* got 'int8'"):
        open_device("arm", precision="int8")
    with pytest.raises(ValueError, match=r"`to` must be one of onnx, onnx-int8, .* but got 'onx'"):
        find_formats(["onnx", "onx"])


def test_precisions_are_those_that_there_are() -> None:
    precisions: set[Precision] = {"fp32", "bf16", "int8"}
    assert {line.precision for line in TABLE} == precisions
    assert len({(line.name, line.precision, line.format) for line in TABLE}) == len(TABLE)
    assert all(formats()[t.format].precision in (t.precision, "fp32") for t in TABLE)
