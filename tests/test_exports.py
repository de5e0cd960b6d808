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

import onnx
import pytest
import torch
from deployed_networks import deployed
from networks import IRREGULAR
from torch import Tensor

import fasternas as fn
from nas.finetune.export import Export, export_each
from predictors.backends.model import Model
from predictors.backends.onnx_export import OPSET, onnx_bytes
from predictors.backends.table import find_formats
from predictors.training.evaluate import RandomImages
from search_spaces.formats import from_mapping
from search_spaces.timm_models import import_timm

# What timm's own FasterNet can say.
UNIFORM = fn.FasterNetConfig(
    widths=(8, 16, 32, 64),
    depths=(1, 1, 1, 1),
    resolution=32,
    head_width=16,
    activation="gelu",
    classes=5,
)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test's own."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def _export(model: Model, name: str, folder: Path) -> Export:
    (found,) = export_each(model, find_formats([name]), folder, RandomImages(shape=model.shape))
    return found


def test_onnx_says_what_it_takes(tmp_path: Path) -> None:
    for name in ("onnx", "onnx-int8"):
        model = onnx.load(_export(deployed(features=True), name, tmp_path).path)
        said = {item.key: json.loads(item.value) for item in model.metadata_props}
        assert from_mapping(said["config"]) == IRREGULAR
        assert (said["mean"], said["std"]) == ([0.5], [0.25])
        assert [output.name for output in model.graph.output] == ["stride2", "stride4", "stride8"]


def test_an_export_that_is_refused_leaves_the_others(tmp_path: Path) -> None:
    model = deployed()
    lines = find_formats(["yaml", "onnx", "yaml"])
    yaml, onnx_file = export_each(model, lines, tmp_path, RandomImages(shape=model.shape))
    assert "must be the same in all stages to be said to the authors' yaml" in yaml.refusal
    assert [path.name for path in tmp_path.glob("net*")] == ["net.onnx"] == [onnx_file.path.name]


def test_the_authors_yaml_is_read_again(tmp_path: Path) -> None:
    found = _export(deployed(UNIFORM), "yaml", tmp_path)
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
    found = _export(deployed(config, features=features), "timm", tmp_path)
    assert found.refusal == ""
    assert found.agreement is not None
    assert found.agreement.difference == 0
    said = json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    assert said["architecture"] == architecture
    assert said["pretrained_cfg"]["mean"] == [0.5] * 3
    assert found.code.startswith("import fasternas.timm; ") == (architecture == "fasternas")


def test_timm_needs_nothing_of_ours_for_what_it_can_say(tmp_path: Path) -> None:
    found = _export(deployed(UNIFORM), "timm", tmp_path)
    program = (
        "from search_spaces.timm_models import import_timm\n"
        f"timm = import_timm(); network = {found.code}\n"
        "print(type(network).__module__, network.classifier.out_features)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "timm.models.fasternet 5\n"


def test_int8_is_calibrated_with_the_images_that_are_given(tmp_path: Path) -> None:
    class Bright:
        def __iter__(self) -> Iterator[Tensor]:
            yield from torch.full((4, 1, 3, 48, 48), 100.0)

    found = {
        name: _export(deployed(calibration_images=images), "onnx-int8", tmp_path / name)
        for name, images in {"bright": Bright(), "again": Bright(), "noise": None}.items()
    }
    assert found["bright"].path.read_bytes() == found["again"].path.read_bytes()
    bright, noise = found["bright"].agreement, found["noise"].agreement
    assert bright is not None
    assert noise is not None
    assert bright.difference > 2 * noise.difference


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    model, out = deployed(), tmp_path / "out"
    with files_end_at(4096), pytest.raises(OSError, match="File too large"):
        next(export_each(model, find_formats(["onnx"]), out, RandomImages(shape=model.shape)))
    assert not out.exists()


@pytest.mark.parametrize("size", ["t0", "t1", "t2", "s"])
def test_the_graph_has_no_more_nodes_than_timms_own_export(size: str) -> None:
    depths, image = (1, 2, 1, 1), torch.randn(1, 3, 64, 64)  # all blocks are alike
    config, timm = replace(fn.FASTERNET[size], depths=depths), import_timm()
    theirs = timm.create_model(f"fasternet_{size}", depths=depths, exportable=True).eval()
    for values in (*theirs.parameters(), *theirs.buffers()):
        if values.is_floating_point():  # as if trained: equal ones are shared, by further nodes
            values.data.uniform_(0.5, 1.5)
    saved = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(theirs, (image,), saved, dynamo=False, opset_version=OPSET)  # type: ignore[arg-type]
    network = fn.from_timm_weights(config, theirs.state_dict())
    model = Model(name=size, identity=size, shape=(3, 64, 64), build=lambda: network)
    ours = onnx_bytes(model)
    nodes = [
        onnx.load_model_from_string(content).graph.node for content in (ours, saved.getvalue())
    ]
    assert len(nodes[0]) <= len(nodes[1])
    assert not {node.op_type for node in nodes[0]} & {"Identity", "Pad", "Slice", "Reshape"}
