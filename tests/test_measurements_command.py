"""Measurements are handed on as a file; one that holds anything else is refused as a whole."""

import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_cache import T1, entry, measurement

from nas.cli.main import main
from nas.study import journal
from nas.study.measurement_files import read_entries
from predictors.devices.cache import Store

Streams = pytest.CaptureFixture[str]
Line = dict[str, Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _call(*arguments: str | Path) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(str(end.code))


def _measurements(*arguments: str | Path) -> int:
    return _call("measurements", *arguments)


def _check_refusal(arguments: Sequence[str | Path], words: str, streams: Streams) -> None:
    before = Store().entries()
    streams.readouterr()
    assert _measurements(*arguments) == 2
    out, err = streams.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.isascii()
    assert words in err
    assert Store().entries() == before


@pytest.fixture
def file(folder: Path) -> Path:
    """Three exported measurements; the store that they came from is empty again."""
    for number in range(3):
        Store().keep(entry(number))
    assert _measurements("export", folder / "three.jsonl") == 0
    Store().path.unlink()
    return folder / "three.jsonl"


def test_nothing_is_listed_where_nothing_is(capsys: Streams) -> None:
    assert _measurements() == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert _measurements("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not Store().path.exists()


def test_measurements_are_listed_by_device_and_setting(capsys: Streams) -> None:
    Store().merge([entry(1), entry(2, network=T1)], alias="lab")
    Store().keep(entry(3))
    assert _measurements("--json") == 0
    cpu, lab = json.loads(capsys.readouterr().out)
    assert (cpu["device"], cpu["count"]) == ("cpu", 1)
    assert (lab["device"], lab["count"]) == ("lab", 2)
    assert (lab["machine"], lab["runtime"], lab["threads"]) == ("a processor", "onnxruntime", 1)
    assert lab["first"] == lab["last"] == "2026-01-02T03:04:05+00:00"
    assert _measurements("list") == 0
    *_, line = capsys.readouterr().out.splitlines()
    setting, when = "a processor, onnxruntime 1.20, one thread", "2026-01-02 - 2026-01-02"
    assert re.split(" {2,}", line) == ["lab", setting, "2", when]


def test_devices_lists_what_is_only_stored(capsys: Streams) -> None:
    Store().merge([entry(1), entry(2, network=T1)], alias="lab")
    assert _call("devices") == 0
    out = capsys.readouterr().out
    assert "stored: 2 measurements of a processor, onnxruntime 1.20, one thread, the last" in out
    assert _call("devices", "--json") == 0
    assert [d["name"] for d in json.loads(capsys.readouterr().out)] == ["cpu", "arm", "lab"]
    Store().path.write_bytes(b"this is no database. " * 500)
    assert _call("devices") == 0
    out, err = capsys.readouterr()
    assert "cpu" in out
    assert "not a database. Mend it or move it away." in err


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_what_is_exported_is_imported_as_it_was(name: str, capsys: Streams) -> None:
    kept = [entry(1), entry(2, device="other", network=T1, ms=0.1 + 0.2)]
    Store().merge(kept)
    assert _measurements("export", name) == 0
    assert capsys.readouterr().out == f"{name}: 2 measurements\n"
    assert Path(name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    Store().path.unlink()
    assert _measurements("import", name) == 0
    assert capsys.readouterr().out == "2 new, 0 replaced by newer ones, 0 kept\n"
    assert Store().entries() == kept
    assert [path.name for path in Path().iterdir()] == [name]


def test_one_device_is_exported_and_imported_under_another_name(capsys: Streams) -> None:
    Store().merge([entry(1), entry(2, device="other")])
    assert _measurements("export", "one.jsonl", "--device", "other") == 0
    assert [found.device for found in read_entries(Path("one.jsonl"))] == ["other"]
    assert _measurements("import", "one.jsonl", "--as", "lab") == 0
    assert [h.device for h in Store().holdings()] == ["cpu", "lab", "other"]
    assert Store().find(entry(2).key) == measurement()
    _check_refusal(["export", "none", "--device", "gpu"], "must be measurements of gpu", capsys)
    _check_refusal(["import", "one.jsonl", "--as", "cpu"], "which is a device already", capsys)
    _check_refusal(["import", "one.jsonl", "--as", "../up"], "must be a word of letters", capsys)
    assert not Path("none").exists()


def test_import_tells_what_was_newer(file: Path, capsys: Streams) -> None:
    newer = replace(entry(1, ms=5.0), taken_at="2026-02-01T00:00:00+00:00")
    older = replace(entry(2, ms=6.0), taken_at="2025-12-01T00:00:00+00:00")
    Store().merge([newer, older])
    capsys.readouterr()
    assert _measurements("import", file) == 0
    assert capsys.readouterr().out == "1 new, 1 replaced by newer ones, 1 kept\n"
    assert Store().find(entry(1).key) == newer.measurement
    assert Store().find(entry(2).key) == measurement()


LATER = (datetime.now(UTC) + timedelta(days=3)).isoformat()
WRONG: list[tuple[Line, str]] = [
    ({"artifact": "../../etc/passwd"}, "`artifact` must be a SHA-256"),
    ({"artifact": None}, "`artifact` must be a line of text, but got None"),
    ({"threads": 0}, "`threads` must be a positive whole number, but got 0"),
    ({"threads": True}, "`threads` must be a positive whole number, but got True"),
    ({"threads": 10**30}, "`threads` must be a positive whole number"),
    ({"emulated": "no"}, "`emulated` must be true or false, but got 'no'"),
    ({"machine": "a\x1b[2Jb"}, "`machine` must be a line of text"),
    ({"machine": "a\nb"}, "`machine` must be a line of text"),
    ({"device": "\ud800"}, "`device` must be a line of text"),
    ({"device": ""}, "`device` must be a line of text, but got ''"),
    ({"device": "x" * 500}, "`device` must be a line of text"),
    ({"runtime": "torch"}, "`measurement` must be of the same runtime, precision and threads"),
    ({"taken_at": "yesterday"}, "`taken_at` must be an ISO time with its zone"),
    ({"taken_at": "2026-01-01T00:00:00"}, "`taken_at` must be an ISO time with its zone"),
    ({"taken_at": LATER}, "`taken_at` must be in the past"),
    ({"network": "t0"}, "`network` must be an object with its `class`, but got 't0'"),
    ({"measurement": None}, "`measurement` must be an object"),
    ({"measurement": {"source": "measured"}}, "must be positive numbers in this order"),
]  # fmt: skip
WRONG_MEASUREMENT: list[tuple[Line, str]] = [
    ({"median_ms": -1.0}, "must be positive numbers in this order"),
    ({"median_ms": 0}, "must be positive numbers in this order"),
    ({"median_ms": float("nan")}, "must be a JSON object"),
    ({"high_ms": float("inf")}, "must be a JSON object"),
    ({"high_ms": 10**400}, "must be positive numbers in this order"),
    ({"high_ms": 2.0}, "must be positive numbers in this order"),
    ({"low_ms": "1"}, "must be positive numbers in this order"),
    ({"median_ms": True}, "must be positive numbers in this order"),
    ({"source": "predicted"}, "`source` must be measured, but got 'predicted'"),
    ({"unstable": 1}, "`unstable` must be true or false, but got 1"),
    ({"samples_ms": 3}, "`samples_ms` must be a list of lists of positive numbers"),
    ({"samples_ms": [[1.0], [-1.0]]}, "`samples_ms` must be a list of lists"),
    ({"context": []}, "`context` must be an object, but got []"),
    ({"extra": 1}, "must be an object with the fields of a measurement"),
]


def _import_changed(file: Path, change: Callable[[Line], None], words: str, s: Streams) -> None:
    """Change the third line, which is the second measurement; import all."""
    lines = file.read_text().splitlines()
    third = json.loads(lines[2])
    change(third)
    file.write_text("\n".join([*lines[:2], json.dumps(third), *lines[3:], ""]))
    _check_refusal(["import", file], f"Line 3 of {file} must be a measurement: ", s)
    _check_refusal(["import", file], words, s)


@pytest.mark.parametrize(("change", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_a_line_that_is_no_measurement_imports_nothing(
    file: Path, change: Line, words: str, capsys: Streams
) -> None:
    _import_changed(file, lambda line: line.update(change), words, capsys)


@pytest.mark.parametrize(("change", "words"), WRONG_MEASUREMENT, ids=lambda v: str(v)[:30])
def test_a_latency_that_is_none_imports_nothing(
    file: Path, change: Line, words: str, capsys: Streams
) -> None:
    _import_changed(file, lambda line: line["measurement"].update(change), words, capsys)


def _files() -> dict[str, tuple[bytes, str]]:
    header = b'{"fasternas_measurements": 1, "entries": 1}\n'
    whole = json.dumps(entry(1).as_json()).encode() + b"\n"
    return {
        "empty": (b"", "Line 1 of {} must be the header"),
        "pickle": (b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.", "Line 1 of {} must be the header"),
        "list": (b"[]\n", "Line 1 of {} must be the header"),
        "text version": (b'{"fasternas_measurements": "1"}\n', "Line 1 of {} must be the header"),
        "newer": (header.replace(b": 1,", b": 2,"), "format 1 at most, but names 2. Update"),
        "cut off": (header, "must hold 1 measurements after its header, but line 1 is the last"),
        "deep": (header + b"[" * 100_000, "Line 2 of {} must be a measurement"),
        "deep network": (header + b'{"network":' + b'{"a":' * 100_000, "Line 2 of {} must be"),
        "no text": (header + b"\xff\xfe\n", "Line 2 of {} must be a measurement"),
        "infinite": (header + whole.replace(b": 224", b": 1e999"), "not JSON compliant"),
        "number": (header + b"1" * 10_000 + b"\n", "Line 2 of {} must be a measurement"),
        "long": (header + b" " * 2**21, "Line 2 of {} must be a measurement, but is too long"),
        "bomb": (gzip.compress(header + b" " * 2**22), "Line 2 of {} must be a measurement, but"),
        "bad gzip": (b"\x1f\x8bno gzip", "must be readable, but the file is damaged"),
        "cut gzip": (
            gzip.compress(header + whole)[:-20],
            "must be readable, but the file is damaged",
        ),
    }


@pytest.mark.parametrize("name", _files())
def test_a_file_that_holds_something_else_imports_nothing(name: str, capsys: Streams) -> None:
    content, words = _files()[name]
    Path("file").write_bytes(content)
    Store().keep(entry(1))
    _check_refusal(["import", "file"], words.format("file"), capsys)
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_files_that_cannot_be_used_are_one_line(folder: Path, capsys: Streams) -> None:
    _check_refusal(["import", "gone"], "No such file or directory: gone", capsys)
    _check_refusal(["import", folder], "Is a directory", capsys)
    _check_refusal(["export", "all"], "must be measurements to export, but", capsys)
    Store().keep(entry(1))
    _check_refusal(["export", "gone/all"], "No such file or directory: gone/all", capsys)
    _check_refusal(["export", "all", "--run", "gone"], "must be a folder that `fasternas", capsys)
    assert list(folder.iterdir()) == []


def test_a_store_that_cannot_be_read_is_one_line(file: Path, capsys: Streams) -> None:
    Store().path.write_bytes(b"this is no database. " * 500)
    for command in (["list"], ["export", "all"], ["import", str(file)]):
        capsys.readouterr()
        assert _measurements(*command) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"fasternas: error: {Store().path} must be a database of measure")


def test_a_run_whose_latencies_are_predicted_has_none_to_export(capsys: Streams) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"options": {}}')
    _check_refusal(["export", "all", "--run", "run"], "with measurements, but run has", capsys)


def test_a_run_of_before_is_told_to_measure_again(capsys: Streams) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"options": {}}')
    line = {"config": {"widths": [16], "depths": [1], "partial_ratios": [0.5], "expansions": [2]},
            "measurement": {**entry(1).as_json()["measurement"], "context": {}}}  # fmt: skip
    journal.append(Path("run/measurements.jsonl"), [line])
    words = "must say their runtime_version, but do not. An older fasternas wrote them"
    _check_refusal(["export", "all", "--run", "run"], words, capsys)
