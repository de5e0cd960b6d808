"""Benchmarks really run on this machine: what they print, write, keep and survive."""

import csv
import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from networks import IRREGULAR, TINY
from torch import Tensor, nn

from nas import networks
from nas.bench import (
    JOURNAL,
    bench,
    bench_table,
    default_folder,
    in_order,
    keep_measurement,
    kept_measurements,
)
from nas.cli.main import main
from nas.networks import MODELS, Row, Subject, model_subjects
from predictors.aarch64.layers import count_instructions
from predictors.backends.model import Model, config_model
from predictors.backends.onnx_export import write_onnx
from predictors.devices.profiled import load_profile
from predictors.devices.registry import open_device
from predictors.measurement import Backend, Context, Latency
from search_spaces.formats import save_config

WIDER = replace(TINY, widths=(16, 32))
MEASURED = Latency(
    median_ms=2.0,
    low_ms=1.9,
    high_ms=2.1,
    source="measured",
    device="cpu",
    backend=Backend("onnxruntime"),
    samples_ms=((2.0, 2.1), (1.9, 2.0)),
    context=Context(clock="cpu_ms"),
)
Streams = pytest.CaptureFixture[str]


class _Broken(nn.Module):
    """What cannot be run, and so not exported."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError(f"cannot be run\nat {x.shape}")


BROKEN = Model(name="broken", identity='{"broken": 1}', shape=(3, 8, 8), build=_Broken)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def names(folder: Path) -> list[str]:
    """Config files of two small networks."""
    save_config(TINY, folder / "tiny.yaml")
    save_config(WIDER, folder / "wider.yaml")
    return ["tiny.yaml", "wider.yaml"]


def _subject(model: Model) -> Subject:
    return Subject(model=model, kind="FasterNet", label=model.name)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _size_of(png: bytes) -> tuple[int, ...]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def _refused(arguments: Sequence[str], words: str, streams: Streams) -> None:
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    out, err = streams.readouterr()
    assert out == ""
    assert err.startswith("fasternas: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(Path().rglob("*")) == before


def test_models_are_timed_written_and_not_timed_again(names: list[str], capsys: Streams) -> None:
    assert main(["bench", "models", "--repeats", "1", *names]) == 0
    out, err = capsys.readouterr()
    header, _, tiny, wider = out.splitlines()
    columns = "model latency ms 95 % interval source MACs GFLOPS params"
    assert header.split() == columns.split()
    assert tiny.startswith("tiny.yaml ")
    assert wider.startswith("wider.yaml ")
    assert "1 of 2: tiny.yaml " in err
    assert "bench/cpu-models/models.png, .csv and .json hold the results." in err

    written = Path("bench/cpu-models")
    assert {path.name for path in written.iterdir()} == {
        "models.csv",
        "models.json",
        "models.png",
        JOURNAL,
    }
    assert _size_of((written / "models.png").read_bytes()) == (1920, 2040)
    document = json.loads((written / "models.json").read_text())
    device = open_device("cpu")
    assert document["machine"]["devices"]["cpu"]["description"] == device.description
    assert document["machine"]["versions"]["onnxruntime"] in device.description
    for row, record, config in zip(
        _table(written / "models.csv"), document["rows"], (TINY, WIDER), strict=True
    ):
        assert (record["runtime"], record["precision"], record["threads"]) == (
            "onnxruntime",
            "fp32",
            1,
        )
        model = config_model(config)
        assert (record["macs"], record["params"]) == (model.macs, model.params)
        assert record["gflops"] == pytest.approx(2 * record["macs"] / record["latency_ms"] / 1e6)
        assert record["low_ms"] < record["latency_ms"] < record["high_ms"]
        assert (record["kind"], record["resolution"], record["failed"]) == ("FasterNet", 32, "")
        assert row == {key: "" if value is None else str(value) for key, value in record.items()}

    assert main(["bench", "models", "--repeats", "1", "tiny.yaml", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == document["rows"][:1]
    assert "1 of 1: tiny.yaml " in err
    assert "timed before and not again" in err
    assert len((written / JOURNAL).read_text().splitlines()) == 2


def test_operators_are_timed_with_their_latency_a_layer(
    monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.setattr("nas.networks.MAPS", ((32, 8, 8),))
    assert main(["bench", "operators", "--repeats", "1", "--out", "here"]) == 0
    rows = _table(Path("here/operators.csv"))
    lines = capsys.readouterr().out.splitlines()
    assert [row["kind"] for row in rows] == ["Conv3x3", "GConv3x3", "DWConv3x3", "PConv3x3"]
    assert [int(row["macs"]) for row in rows] == [
        10 * 9 * weights * 64 for weights in (32 * 32, 32 * 32 // 16, 32, 8 * 8)
    ]
    assert "ms a layer" in lines[0]
    for line, row in zip(lines[2:], rows, strict=True):
        assert line.startswith(row["name"])
        per_layer = float(line.removeprefix(row["name"]).split()[0])
        assert per_layer == pytest.approx(float(row["latency_ms"]) / 10, rel=6e-3)
    assert _size_of(Path("here/operators.png").read_bytes()) == (1920, 1080)


def test_a_network_that_cannot_be_exported_is_reported_and_the_rest_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    subjects = [_subject(config_model(TINY, name="tiny")), _subject(BROKEN)]
    monkeypatch.setattr("nas.cli.measure.model_subjects", lambda _: (subjects, {}))
    assert main(["bench", "models", "--repeats", "1", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 2: broken failed: cannot be run at torch.Size([1, 3, 8, 8])\n" in err
    assert "failed: cannot be run" in out.splitlines()[3]
    tiny, broken = _table(folder / "out" / "models.csv")
    assert (broken["failed"], broken["latency_ms"], broken["gflops"]) == (
        "cannot be run at torch.Size([1, 3, 8, 8])",
        "",
        "",
    )
    assert float(tiny["latency_ms"]) > 0
    kept = kept_measurements(folder / "out", open_device("cpu").description)
    assert list(kept) == [subjects[0].model.identity]


def test_where_nothing_can_be_timed_one_line_says_why_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    other = replace(BROKEN, name="other", identity='{"broken": 2}')
    monkeypatch.setattr("nas.cli.measure.model_subjects", lambda _: ([_subject(BROKEN)], {}))
    assert main(["bench", "models", "--repeats", "1"]) == 2
    assert "error: `network` must be one that cpu can run, but got broken: cannot be run" in (
        capsys.readouterr().err
    )
    with pytest.raises(
        RuntimeError,
        match=r"`device` must be able to time one of 2 networks, but "
        r"cpu could time none; the first: cannot be run",
    ):
        list(bench([_subject(BROKEN), _subject(other)], open_device("cpu"), folder / "deep" / "er"))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("topic", ["", "operators", "models"])
def test_help_is_printed(topic: str, capsys: Streams) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["bench", *topic.split(), "--help"])
    assert capsys.readouterr().out.startswith(f"usage: fasternas bench {topic}".rstrip())


def test_what_is_wrong_is_said_in_one_line(folder: Path, capsys: Streams) -> None:
    _refused(["bench", "models", "no_such_network"], "'no_such_network'", capsys)
    (folder / "bad").mkdir()
    (folder / "bad" / JOURNAL).write_text('{"device": 1}\nno JSON\n')
    _refused(
        ["bench", "models", "t0", "--out", "bad"],
        "Line 2 of bad/bench.jsonl must be a JSON object",
        capsys,
    )
    (folder / "bad" / JOURNAL).write_text("{}\n")
    _refused(
        ["bench", "models", "t0", "--out", "bad"],
        "Line 1 of bad/bench.jsonl must be a measurement, but is none",
        capsys,
    )


def test_models_are_predicted_on_arm_from_their_graphs(folder: Path, capsys: Streams) -> None:
    save_config(TINY, folder / "tiny.yaml")
    write_onnx(config_model(IRREGULAR), folder / "odd")
    (folder / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"broken\.onnx"):
        main(["bench", "models", "broken.onnx", "--device", "arm", "--debug"])
    capsys.readouterr()
    assert main(["bench", "models", "tiny.yaml", "odd.onnx", "--device", "arm", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["source"] for row in rows] == ["predicted"] * 2
    assert all(0 < row["fma_instructions"] < row["instructions"] for row in rows)
    (expected, _) = count_instructions(IRREGULAR.layers(), load_profile("raspberry_pi_5").forms)
    assert rows[1]["instructions"] == pytest.approx(expected, abs=1)
    assert main(["bench", "models", "tiny.yaml", "odd.onnx", "--device", "arm"]) == 0
    assert "  interval: error found  " in capsys.readouterr().out


def test_a_measurement_is_kept_whole_and_known_again_on_the_same_device_only(folder: Path) -> None:
    model = config_model(TINY)
    keep_measurement(folder, "here", model, MEASURED)
    assert kept_measurements(folder, "here") == {model.identity: MEASURED}
    assert kept_measurements(folder, "elsewhere") == {}
    with (folder / JOURNAL).open("a") as file:
        file.write('{"identity": "cut of')
    assert kept_measurements(folder, "here") == {model.identity: MEASURED}


def test_what_was_timed_before_comes_first_and_the_table_is_in_order(folder: Path) -> None:
    subjects = [_subject(BROKEN), _subject(config_model(TINY))]
    device = open_device("cpu")
    keep_measurement(folder, device.description, subjects[1].model, MEASURED)
    rows = list(bench(subjects, device, folder))
    assert [row.done for row in rows] == [True, False]
    assert [row.subject for row in in_order(rows, subjects)] == subjects


def test_networks_are_found_by_size_name_and_file_each_once(names: list[str]) -> None:
    (tiny, t0, small, resnet, mobile), wrong = model_subjects(
        ["tiny.yaml", "t0", "t0@192", "resnet18@64", "mobilenetv3_small_050", "./tiny.yaml"]
    )
    assert not wrong
    assert (tiny.kind, tiny.label, tiny.model.name) == ("FasterNet", "tiny", "tiny.yaml")
    assert (t0.kind, t0.label, t0.model.name) == ("FasterNet", "T0", "fasternet_t0")
    assert (small.label, small.model.shape) == ("T0@192", (3, 192, 192))
    assert (resnet.kind, resnet.label) == ("ResNet", "ResNet18@64")
    assert resnet.model.shape == (3, 64, 64)
    assert (mobile.kind, mobile.label) == ("MobileNet", "mobilenetv3_small_050")


def test_all_networks_of_the_list_are_in_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    from search_spaces.timm_models import import_timm

    timm = import_timm()
    ours = ("t0", "t1", "t2", "s", "l")
    assert all(timm.is_model(name) for name in MODELS if name not in ours)
    monkeypatch.setattr(networks, "MODELS", {"t0": MODELS["t0"]})
    (subject,), _ = model_subjects([])
    assert subject.model.name == "fasternet_t0"


@pytest.mark.parametrize(
    ("device", "setting", "name"),
    [
        ("cpu", (), "cpu-models"),
        ("ssh://me@host:22", (), "ssh-me-host-22-models"),
        ("a,b", ("torch", "2-threads"), "a-b-torch-2-threads-models"),
        ("../up", (), "up-models"),
    ],
)
def test_the_folder_has_a_name_that_any_disk_takes(
    device: str, setting: tuple[str, ...], name: str
) -> None:
    assert default_folder("models", device, *setting) == Path("bench") / name


def test_without_macs_there_is_no_speed() -> None:
    model = Model(name="file", identity="{}", shape=(100,))
    row = Row(subject=Subject(model=model, kind="file", label="file"), latency=MEASURED)
    assert row.gflops is None
    assert (row.as_json()["gflops"], row.as_json()["resolution"]) == (None, None)
    (cells,) = bench_table("models", [row])[1]
    assert cells == ["file", "2", "1.9 - 2.1", "measured", "-", "-", "-"]
