"""Benchmarks refuse to go on with what another device or protocol timed; files have plain names."""

import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import TINY

from nas.bench import plain_name
from predictors.devices.registry import open_device
from search_spaces.formats import save_config
from search_spaces.network import build

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KEPT = BENCHMARKS / "results" / "repeatability-cpu" / "runs.jsonl"


@pytest.fixture(autouse=True)
def beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks import one another, as when they are run."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs_of_another_protocol_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repeatability = _benchmark("repeatability")
    file = tmp_path / "repeatability-cpu" / "runs.jsonl"
    file.parent.mkdir()
    monkeypatch.setattr(sys, "argv", ["repeatability", "--runs", "10", "--out", str(tmp_path)])
    made_by = repeatability._made_by(open_device("cpu"))
    runs = [json.loads(line) for line in KEPT.read_text().splitlines()[:10]]

    def keep(last: object) -> None:
        lines = [{**run, "made_by": made_by} for run in runs]
        lines[-1]["made_by"] = last
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    for other in (None, {**made_by, "protocol": "0"}, {**made_by, "device": "another"}):
        keep(other)
        with pytest.raises(SystemExit, match="2"):
            repeatability.main()
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{file} must hold runs of this device and protocol, but holds others. " in said
    keep(made_by)
    repeatability.main()
    assert json.loads((tmp_path / "repeatability-cpu.json").read_text())["runs"] == 10


def test_results_of_an_address_have_a_plain_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain_name("paper_ratios", "ssh://me@host:22") == "paper_ratios-ssh-me-host-22"
    paper_ratios = _benchmark("paper_ratios")
    monkeypatch.setattr(paper_ratios, "RESULTS", tmp_path)
    monkeypatch.setattr(paper_ratios, "_row", lambda *_: {})
    monkeypatch.setattr(paper_ratios, "timm_model", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["paper_ratios", "--device", "ssh://me@host:22"])
    paper_ratios.main()
    assert [path.name for path in tmp_path.iterdir()] == ["paper_ratios-ssh-me-host-22.json"]


def test_forms_are_timed_against_timms_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(TINY, tmp_path / "tiny.yaml")
    deployed_form = _benchmark("deployed_form")
    arguments = [
        "--sizes",
        "--found",
        str(tmp_path / "tiny.yaml"),
        "--runtime",
        "onnxruntime",
        "--turns",
        "2",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["deployed_form", *arguments])
    deployed_form.main()
    result = json.loads((tmp_path / "deployed_form.json").read_text())
    assert (result["images"], result["trained"], result["turns"]) == ("noise", {"tiny": False}, 2)
    timms, floor, fp32, int8 = result["rows"]
    assert [row["form"] for row in result["rows"]] == ["timm", "floor", "ours", "ours"]
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert timms["ratio"] == 1
    assert all(row["low"] < row["ratio"] < row["high"] for row in result["rows"])
    assert floor["agreement"] is None
    assert timms["agreement"]["difference"] < 1e-4 > fp32["agreement"]["difference"]
    assert "tiny, timm in onnxruntime fp32: 1.000 (0." in capsys.readouterr().out

    tables = _benchmark("docs_tables")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    before = "a\n<!-- deployed_form -->\n<!-- end -->\nb"
    monkeypatch.setattr(tables, "TABLES", {"deployed_form": tables.TABLES["deployed_form"]})
    after = tables.filled(before)
    assert "| timm's export, onnxruntime fp32 | 1.00 (0." in after
    assert "images (noise) that get the same class as in torch is that of the worst" in after
    assert after.startswith("a\n<!-- deployed_form -->\n")
    (tmp_path / "deployed_form.json").unlink()
    assert tables.filled(before) == before  # nothing to show yet


def test_forms_that_cannot_be_timed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed_form, forms = _benchmark("deployed_form"), _benchmark("deployed_forms")
    refused = forms.Contender(
        network="t0", form="ours", runtime="ncnn", precision="bf16", refusal="it is none"
    )
    found = deployed_form.timed([refused], "cpu", turns=2)
    assert found.measured == found.refused == {}
    row = deployed_form._row(refused, found, refused)
    assert deployed_form.words(row) == "t0, ours in ncnn bf16: refused: it is none"


def test_trainings_take_turns_and_are_compared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training_speed = _benchmark("training_speed")
    workload = training_speed.Workload(
        data=str(tmp_path),
        classes=2,
        resolution=96,
        batch=4,
        warm_up=1,
        steps=1,
        blocks=2,
        loaders=0,
    )
    assert workload.images == 20
    training_speed.write_noise(tmp_path, workload)
    assert len(list((tmp_path / "train").rglob("*.jpg"))) == 20
    found = training_speed.in_turn(workload, rounds=1)
    assert {side: [len(blocks) for blocks in rounds] for side, rounds in found.items()} == {
        "ours": [2],
        "timm": [2],
        "timm_kept": [2],
    }
    assert all(speed > 0 for rounds in found.values() for speed in rounds[0])
    assert "timm: " in capfd.readouterr().out
    made_up = {"ours": [[11.0] * 3] * 3, "timm": [[10.0] * 3] * 3, "timm_kept": [[11.0] * 3] * 3}
    compared = training_speed.compared(made_up)
    assert (compared["ours"], compared["timm"]) == (11, 10)
    assert compared["ratio"] == pytest.approx(1.1)
    assert compared["low"] < 1.1 < compared["high"]
    assert compared["ratio_kept"] == pytest.approx(1.0)


def test_exported_files_are_compared_with_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exporters, tables = _benchmark("exporters"), _benchmark("docs_tables")
    monkeypatch.setattr(sys.modules["export_subjects"], "by_hand", lambda _: TINY)
    monkeypatch.setattr("predictors.training.evaluate.CALIBRATION_IMAGES", 16)
    data, kept = _few_images(tmp_path / "few.npz"), tmp_path / "kept"

    def run(to: Sequence[str], *arguments: str) -> list[dict[str, Any]]:
        small = "--resolution 32 --images 20 --epochs 1 --small-epochs 1"
        places = ["--data", data, "--small-data", data, "--kept", str(kept), "--out", str(tmp_path)]
        told = [*places, *small.split(), "--to", *to]
        monkeypatch.setattr(sys, "argv", ["exporters", *told, *arguments])
        exporters.main()
        networks: list[dict[str, Any]] = _result()["networks"]
        return networks

    def _result() -> Any:
        return json.loads((tmp_path / "exporters.json").read_text())

    t0, relu, gelu = run(["onnx", "onnx-int8", "timm", "yaml"])
    names = ["t0", "fasternet-32-relu", "fasternet-32-gelu"]
    assert [n["network"] for n in (t0, relu, gelu)] == names
    assert [row["format"] for row in t0["rows"]] == ["onnx", "onnx-int8", "timm", "yaml"]
    assert [row["format"] for row in gelu["rows"]] == ["onnx", "onnx-int8"]
    fp32, int8, timms, yaml = t0["rows"]
    assert timms["agreement"]["difference"] < 1e-5 > fp32["agreement"]["difference"]
    assert (fp32["agreement"]["images"], fp32["agreement"]["same"]) == (20, 100)
    assert (fp32["lost"]["points"], fp32["lost"]["only_torch"]) == (0, 0)
    assert int8["agreement"]["difference"] > 1e-3
    assert yaml["agreement"] is yaml["lost"] is None
    assert (t0["split"], relu["split"]) == ("validation", "test")
    assert relu["rows"][0]["lost"]["images"] == 30
    said = capsys.readouterr().out
    assert "fasternet_t0: epoch 1 of 1: " in said
    assert "t0 as yaml: written, there is nothing to compute" in said
    table = tables.TABLES["exporters"](_result())
    assert "| `onnx` | " in table
    assert "| `yaml` | nothing to compute | - | - | - | - |" in table
    assert "| fasternet-32-gelu, `onnx-int8` | " in table

    (weights,) = kept.glob("*.pth")
    again, *small = run(["onnx"], "--weights", str(weights))
    assert again["weights"] == f"as given: {weights.name}"
    assert again["rows"][0]["agreement"]["same"] == 100
    assert [network["rows"] for network in small] == [relu["rows"][:1], gelu["rows"][:1]]
    assert "epoch" not in capsys.readouterr().out  # nothing is trained twice


def test_timms_training_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = _benchmark("export_subjects")
    timm = SimpleNamespace(create_model=lambda _, num_classes: build(TINY))
    monkeypatch.setattr(subjects, "import_timm", lambda: timm)
    short = subjects.Short(data=_few_images(tmp_path / "few.npz"), resolution=32, epochs=2)
    whole, cut, keep = tmp_path / "whole", tmp_path / "cut", subjects._keep
    whole.mkdir()
    cut.mkdir()
    expected = torch.load(subjects.train_timms(short, whole))

    def kept_and_cut_off(content: dict[str, Any], path: Path) -> None:
        keep(content, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(subjects, "_keep", kept_and_cut_off)
    with pytest.raises(KeyboardInterrupt):
        subjects.train_timms(short, cut)
    monkeypatch.setattr(subjects, "_keep", keep)
    found = torch.load(subjects.train_timms(short, cut))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    (file,) = cut.iterdir()
    assert re.fullmatch(r"fasternet_t0-few-[0-9a-f]{8}-32px-2-epochs\.pth", file.name)
    elsewhere = replace(short, data=str(tmp_path / "elsewhere" / "few.npz"))
    assert elsewhere.name != short.name
    assert capsys.readouterr().out.count("epoch 2 of 2: ") == 2


def test_what_an_export_lost_has_an_interval() -> None:
    exporters = _benchmark("exporters")
    none = exporters.Paired(images=10_000, only_torch=0, only_file=0)
    assert none.lost == 0
    assert none.interval == pytest.approx((-0.0196, 0.0196), abs=1e-4)
    some = exporters.Paired(images=10_000, only_torch=100, only_file=60)
    assert some.lost == pytest.approx(0.4)
    assert some.interval == pytest.approx((0.151, 0.649), abs=1e-3)


def _few_images(path: Path) -> str:
    """Ten classes that a glance tells apart, in 200 training and 30 test images."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", 200), ("test", 30)):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 60, (count, 16, 16, 3)) + 18 * labels[:, None, None, None]
        arrays |= {f"x_{split}": pixels.astype(np.uint8), f"y_{split}": labels}
    np.savez(path, **arrays)
    return str(path)
