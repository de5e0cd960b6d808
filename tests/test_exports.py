"""Every kind of file computes what torch computes, or is refused and leaves nothing."""

import io
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from networks import IRREGULAR
from torch import Tensor, nn

import fasternas as fn
from nas.training.export_images import RandomImages
from nas.training.exports import Export, export_each
from predictors.backends.export_subject import Subject
from predictors.backends.export_targets import TARGETS, Target, find_targets
from predictors.backends.onnx_export import OPSET, onnx_content
from search_spaces.checkpoint import Checkpoint
from search_spaces.formats import from_mapping
from search_spaces.timm_models import import_timm

# What timm's own FasterNet can say.
UNIFORM = fn.FasterNetConfig(widths=(8, 16, 32, 64), depths=(1, 1, 1, 1), resolution=32,
                             head_width=16, activation="gelu", classes=5)  # fmt: skip
BY_NAME = {target.name: target for target in TARGETS}
COMPUTING = [target for target in TARGETS if target.run]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test's own."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def _subject(config: fn.FasterNetConfig = IRREGULAR, **more: Any) -> Subject:
    """A network whose batch norms have seen something, so that folding them matters."""
    torch.manual_seed(0)
    network = fn.build(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.uniform_(0.5, 1.5)
    checkpoint = Checkpoint(config=config, weights=network.state_dict(), mean=(0.5,), std=(0.25,))
    return Subject(name="net", checkpoint=checkpoint, trained=True, **more)


def _export(subject: Subject, target: Target, folder: Path) -> Export:
    for package in target.packages:
        pytest.importorskip(package)
    (found,) = export_each(subject, [target], folder, RandomImages(shape=subject.shape))
    return found


def _id(target: Target) -> str:
    return target.name


@pytest.mark.parametrize("features", [False, True], ids=["whole", "features"])
@pytest.mark.parametrize("target", COMPUTING, ids=_id)
def test_a_file_computes_what_torch_computes(
    target: Target, *, features: bool, tmp_path: Path, scratch: Path
) -> None:
    found = _export(_subject(features=features), target, tmp_path / "out")
    assert found.refusal == ""
    assert found.agreement is not None
    assert found.agreement.images == 8
    if target.int8:
        assert found.agreement.correlation > 0.95
    else:
        assert found.agreement.difference < 1e-5
        assert found.agreement.same == (None if features else 100)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert found.size == sum(path.stat().st_size for path in files)
    assert found.path.exists()
    assert found.path.name in found.load
    assert not any(path.name.startswith(".") for path in (tmp_path / "out").iterdir())
    assert not list(scratch.glob("fasternas-*"))


@pytest.mark.parametrize("target", [t for t in COMPUTING if t.name != "ncnn"], ids=_id)
def test_a_fixed_batch_is_kept(target: Target, tmp_path: Path) -> None:
    found = _export(_subject(batch=3), target, tmp_path)
    assert found.refusal == ""
    assert found.agreement is not None
    assert found.agreement.images == 8  # the last two of them filled up
    if found.path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(found.path, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == [3, 3, 48, 48]


def test_ncnn_takes_one_image_at_a_time(tmp_path: Path) -> None:
    found = _export(_subject(batch=3), BY_NAME["ncnn"], tmp_path / "out")
    assert found.refusal == "`batch` must be 1 for ncnn, but got 3. Leave it out."
    path = tmp_path / "x.ncnn.param"
    said = BY_NAME["ncnn"].load.format(path=path, stem=path.with_suffix(""))
    assert said == (f'net = ncnn.Net(); net.load_param("{path}"); '
                    f'net.load_model("{tmp_path / "x.ncnn.bin"}")')  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_onnx_says_what_it_takes(tmp_path: Path) -> None:
    for name in ("onnx", "onnx-int8"):
        model = onnx.load(_export(_subject(features=True), BY_NAME[name], tmp_path).path)
        said = {item.key: json.loads(item.value) for item in model.metadata_props}
        assert from_mapping(said["config"]) == IRREGULAR
        assert (said["mean"], said["std"]) == ([0.5], [0.25])
        assert [output.name for output in model.graph.output] == ["stride2", "stride4", "stride8"]


@pytest.mark.parametrize("target", [t for t in COMPUTING if t.name != "timm"], ids=_id)
def test_what_computes_something_else_is_refused(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Subject.network
    calls: list[int] = []

    def network(subject: Subject) -> nn.Module:
        """The second one, which the file is compared with, is another."""
        calls.append(1)
        found: Any = trained(subject)
        if len(calls) == 2:
            found.classifier.weight.data.mul_(-1)
        return found  # type: ignore[no-any-return]

    monkeypatch.setattr(Subject, "network", network)
    found = _export(_subject(), target, tmp_path / "out")
    expected = "must compute in int8 much the same" if target.int8 else "must agree with torch to"
    assert expected in found.refusal
    assert not (tmp_path / "out").exists()


def test_an_export_that_is_refused_leaves_the_others(tmp_path: Path) -> None:
    subject = _subject()
    targets = find_targets(["yaml", "onnx", "yaml"])
    yaml, onnx_file = export_each(subject, targets, tmp_path, RandomImages(shape=subject.shape))
    assert "must be the same in all stages to be said to the authors' yaml" in yaml.refusal
    assert [path.name for path in tmp_path.glob("net*")] == ["net.onnx"] == [onnx_file.path.name]


def test_the_authors_yaml_is_read_again(tmp_path: Path) -> None:
    found = _export(_subject(UNIFORM), BY_NAME["yaml"], tmp_path)
    assert fn.load_config(found.path) == UNIFORM
    assert found.agreement is None


@pytest.mark.parametrize(
    ("config", "features", "architecture"),
    [
        (UNIFORM, False, "fasternet_t0"),
        (replace(UNIFORM, activation="relu"), True, "fasternet_t2"),
        (replace(UNIFORM, stem_stride=2), False, "fasternet_t0"),
        (replace(UNIFORM, stem_stride=2), True, "fasternas"),  # timm would say strides 4 to 32
        (IRREGULAR, False, "fasternas"),
    ],
)
def test_timm_loads_the_folder_alone_where_it_can(
    config: fn.FasterNetConfig, *, features: bool, architecture: str, tmp_path: Path
) -> None:
    found = _export(_subject(config, features=features), BY_NAME["timm"], tmp_path)
    assert found.refusal == ""
    assert found.agreement is not None
    assert found.agreement.difference == 0
    said = json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    assert said["architecture"] == architecture
    assert said["pretrained_cfg"]["mean"] == [0.5] * 3
    assert found.load.startswith("import fasternas.timm; ") == (architecture == "fasternas")


def test_timm_needs_nothing_of_ours_for_what_it_can_say(tmp_path: Path) -> None:
    found = _export(_subject(UNIFORM), BY_NAME["timm"], tmp_path)
    program = (
        "from search_spaces.timm_models import import_timm\n"
        f"timm = import_timm(); network = {found.load}\n"
        "print(type(network).__module__, network.classifier.out_features)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout == "timm.models.fasternet 5\n"


def test_int8_is_calibrated_with_the_images_that_are_given(tmp_path: Path) -> None:
    class Bright:
        def __iter__(self) -> Iterator[Tensor]:
            yield from torch.full((4, 1, 3, 48, 48), 100.0)

    found = {name: _export(_subject(calibration=images), BY_NAME["onnx-int8"], tmp_path / name)
             for name, images in {"bright": Bright(), "again": Bright(),
                                  "noise": None}.items()}  # fmt: skip
    assert found["bright"].path.read_bytes() == found["again"].path.read_bytes()
    bright, noise = found["bright"].agreement, found["noise"].agreement
    assert bright is not None
    assert noise is not None
    assert bright.difference > 2 * noise.difference


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    subject, out = _subject(), tmp_path / "out"
    with files_end_at(4096), pytest.raises(OSError, match="File too large"):
        next(export_each(subject, [BY_NAME["onnx"]], out, RandomImages(shape=subject.shape)))
    assert not out.exists()


@pytest.mark.parametrize("size", ["t0", "t1", "t2", "s"])
def test_the_graph_has_no_more_nodes_than_timms_own_export(size: str) -> None:
    config, image = fn.FASTERNET[size], torch.randn(1, 3, 64, 64)
    theirs = import_timm().create_model(f"fasternet_{size}", exportable=True).eval()
    for values in (*theirs.parameters(), *theirs.buffers()):
        if values.is_floating_point():  # as if trained: equal ones are shared, by further nodes
            values.data.uniform_(0.5, 1.5)
    saved = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(theirs, (image,), saved, dynamo=False, opset_version=OPSET)  # type: ignore[arg-type]
    ours = onnx_content(fn.from_timm_weights(config, theirs.state_dict()), image)
    nodes = [
        onnx.load_model_from_string(content).graph.node for content in (ours, saved.getvalue())
    ]
    assert len(nodes[0]) <= len(nodes[1])
    assert not {node.op_type for node in nodes[0]} & {"Identity", "Pad", "Slice", "Reshape"}
