"""Measurements are handed on as a file; one that holds anything else is refused as a whole."""

import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cache import T1, entry, latency

from nas.cli.main import main
from nas.study import journal
from predictors.devices.cache import Cache
from predictors.devices.cache_entry import read_entries

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
    before = Cache().entries()
    streams.readouterr()
    assert _measurements(*arguments) == 2
    out, err = streams.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.isascii()
    assert words in err
    assert Cache().entries() == before


@pytest.fixture
def file(folder: Path) -> Path:
    """Three exported measurements; the store that they came from is empty again."""
    for number in range(3):
        Cache().put(entry(number))
    assert _measurements("export", folder / "three.jsonl") == 0
    Cache().path.unlink()
    return folder / "three.jsonl"


def test_nothing_is_listed_where_nothing_is(capsys: Streams) -> None:
    assert _measurements() == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert _measurements("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not Cache().path.exists()


def test_measurements_are_listed_by_device_and_setting(capsys: Streams) -> None:
    Cache().merge([entry(1), entry(2, network=T1)], alias="lab")
    Cache().put(entry(3))
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
    Cache().merge([entry(1), entry(2, network=T1)], alias="lab")
    assert _call("devices") == 0
    out = capsys.readouterr().out
    assert "stored: 2 measurements of a processor, onnxruntime 1.20, one thread, the last" in out
    assert _call("devices", "--json") == 0
    assert [d["name"] for d in json.loads(capsys.readouterr().out)] == ["cpu", "arm", "lab"]
    Cache().path.write_bytes(b"this is no database. " * 500)
    assert _call("devices") == 0
    out, err = capsys.readouterr()
    assert "cpu" in out
    assert "not a database. Mend it or move it away." in err


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_what_is_exported_is_imported_as_it_was(name: str, capsys: Streams) -> None:
    kept = [entry(1), entry(2, device="other", network=T1, ms=0.1 + 0.2)]
    Cache().merge(kept)
    assert _measurements("export", name) == 0
    assert capsys.readouterr().out == f"{name}: 2 measurements\n"
    assert Path(name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    Cache().path.unlink()
    assert _measurements("import", name) == 0
    assert capsys.readouterr().out == "2 new, 0 replaced by newer ones, 0 kept\n"
    assert Cache().entries() == kept
    assert [path.name for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_an_export_replaces_an_earlier_one_and_no_other_file(name: str, capsys: Streams) -> None:
    Cache().put(entry(1))
    assert _measurements("export", name) == 0
    Cache().put(entry(2))
    assert _measurements("export", name) == 0
    assert len(read_entries(Path(name))) == 2
    for content in (b'{"of": "another"}\n', b"\x1f\x8b and no more"):
        Path(name).write_bytes(content)
        _check_refusal(["export", name], "`file` must be a new file, or an export", capsys)
        assert Path(name).read_bytes() == content


def test_one_device_is_exported_and_imported_under_another_name(capsys: Streams) -> None:
    Cache().merge([entry(1), entry(2, device="other")])
    assert _measurements("export", "one.jsonl", "--device", "other") == 0
    assert [found.device for found in read_entries(Path("one.jsonl"))] == ["other"]
    assert _measurements("import", "one.jsonl", "--as", "lab") == 0
    assert [h.device for h in Cache().summaries()] == ["cpu", "lab", "other"]
    assert Cache().get(entry(2).artifact, entry(2).setting) == entry(2, device="other").latency
    _check_refusal(["export", "none", "--device", "gpu"], "must be measurements of gpu", capsys)
    _check_refusal(["import", "one.jsonl", "--as", "cpu"], "which is a device already", capsys)
    _check_refusal(["import", "one.jsonl", "--as", "../up"], "must be a word of letters", capsys)
    assert not Path("none").exists()


def test_import_tells_what_was_newer(file: Path, capsys: Streams) -> None:
    newer = replace(entry(1, ms=5.0), taken_at="2026-02-01T00:00:00+00:00")
    older = replace(entry(2, ms=6.0), taken_at="2025-12-01T00:00:00+00:00")
    Cache().merge([newer, older])
    capsys.readouterr()
    assert _measurements("import", file) == 0
    assert capsys.readouterr().out == "1 new, 1 replaced by newer ones, 1 kept\n"
    assert Cache().get(entry(1).artifact, entry(1).setting) == newer.latency
    assert Cache().get(entry(2).artifact, entry(2).setting) == latency(number=2)


LATER = "2999-01-01T00:00:00+00:00"
WRONG: list[tuple[Line, str]] = [
    ({"description": "a\x1b[2Jb"}, "`description` must be a line of text"),
    ({"description": "a\nb"}, "`description` must be a line of text"),
    ({"description": 3}, "`description` must be `str`, got `int`"),
    ({"taken_at": "yesterday"}, "`taken_at` is wrong: Invalid RFC3339 encoded datetime"),
    ({"taken_at": "2026-01-01T00:00:00"}, "`taken_at` must be `datetime` with a timezone"),
    ({"taken_at": LATER}, "`taken_at` must be in the past"),
    ({"network": "t0"}, "`network` must be `object`, got `str`"),
    ({"network": {"widths": []}}, "`network` must be an object with its `class`"),
    ({"latency": None}, "`latency` must be `object`, got `null`"),
    ({"latency": {"source": "measured"}}, "missing required field `median_ms`"),
    ({"extra": 1}, "unknown field `extra`"),
]
WRONG_LATENCY: list[tuple[Line, str]] = [
    ({"median_ms": -1.0}, "`latency.median_ms` must be `float` > 0.0"),
    ({"median_ms": 0}, "`latency.median_ms` must be `float` > 0.0"),
    ({"median_ms": float("nan")}, "must be a JSON object"),
    ({"high_ms": float("inf")}, "must be a JSON object"),
    ({"high_ms": 10**400}, "`latency.high_ms`"),
    ({"high_ms": 2.0}, "`low_ms`, `median_ms` and `high_ms` must be in this order"),
    ({"low_ms": "1"}, "`latency.low_ms` must be `float`, got `str`"),
    ({"median_ms": True}, "`latency.median_ms` must be `float`, got `bool`"),
    ({"source": "predicted"}, "`source` must be measured, but got 'predicted'"),
    ({"source": "told"}, "`latency.source` is wrong: Invalid enum value 'told'"),
    ({"unstable": 1}, "`latency.unstable` must be `bool`, got `int`"),
    ({"samples_ms": 3}, "`latency.samples_ms` must be `array`, got `int`"),
    ({"samples_ms": [[1.0], [-1.0]]}, "`latency.samples_ms[1][0]` must be `float` > 0.0"),
    ({"context": []}, "`latency.context` must be `object`, got `array`"),
    ({"context": {}}, "`artifact` must be a SHA-256 in lower-case hex, but got ''"),
    ({"device": "\ud800"}, "`device` must be a line of text"),
    ({"device": ""}, "`device` must be a line of text, but got ''"),
    ({"device": "x" * 500}, "`device` must be a line of text"),
    ({"extra": 1}, "`latency` must have the fields of a latency, but got 'extra'"),
]
WRONG_BACKEND: list[tuple[Line, str]] = [
    ({"threads": 0}, "`threads` must be a positive whole number, but got 0"),
    ({"threads": True}, "`latency.backend.threads` must be `int`, got `bool`"),
    ({"threads": 10**30}, "`threads` must be a positive whole number"),
    ({"runtime": ""}, "`runtime` must be a line of text, but got ''"),
]
WRONG_CONTEXT: list[tuple[Line, str]] = [
    ({"artifact": "../../etc/passwd"}, "`artifact` must be a SHA-256"),
    ({"artifact": None}, "`latency.context.artifact` must be `str`, got `null`"),
    ({"emulated": "no"}, "`latency.context.emulated` must be `bool`, got `str`"),
    ({"machine": "a\x1b[2Jb"}, "`machine` must be a line of text"),
    ({"machine": ""}, "`machine` must be told by a measurement, but is not"),
    ({"nearness": 7}, "`latency.context.nearness` must be `float` <= 1.0"),
    ({"references": {"t0": {"kept_ms": 1.0}}}, "missing required field `now_ms`"),
    ({"counts": {"samples": "9"}}, "`latency.context.counts[...]` must be `int`, got `str`"),
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


@pytest.mark.parametrize(("change", "words"), WRONG_LATENCY, ids=lambda v: str(v)[:30])
def test_a_latency_that_is_none_imports_nothing(
    file: Path, change: Line, words: str, capsys: Streams
) -> None:
    _import_changed(file, lambda line: line["latency"].update(change), words, capsys)


@pytest.mark.parametrize(("change", "words"), WRONG_BACKEND, ids=lambda v: str(v)[:30])
def test_a_backend_that_is_none_imports_nothing(
    file: Path, change: Line, words: str, capsys: Streams
) -> None:
    _import_changed(file, lambda line: line["latency"]["backend"].update(change), words, capsys)


@pytest.mark.parametrize(("change", "words"), WRONG_CONTEXT, ids=lambda v: str(v)[:30])
def test_a_context_that_is_none_imports_nothing(
    file: Path, change: Line, words: str, capsys: Streams
) -> None:
    _import_changed(file, lambda line: line["latency"]["context"].update(change), words, capsys)


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
    Cache().put(entry(1))
    _check_refusal(["import", "file"], words.format("file"), capsys)
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_files_that_cannot_be_used_are_one_line(folder: Path, capsys: Streams) -> None:
    _check_refusal(["import", "gone"], "No such file or directory: gone", capsys)
    _check_refusal(["import", folder], "Is a directory", capsys)
    _check_refusal(["export", "all"], "must be measurements to export, but", capsys)
    Cache().put(entry(1))
    _check_refusal(["export", "gone/all"], "No such file or directory: gone/all", capsys)
    _check_refusal(["export", "all", "--run", "gone"], "must be a folder that `fasternas", capsys)
    assert list(folder.iterdir()) == []


def test_a_store_that_cannot_be_read_is_one_line(file: Path, capsys: Streams) -> None:
    Cache().path.write_bytes(b"this is no database. " * 500)
    for command in (["list"], ["export", "all"], ["import", str(file)]):
        capsys.readouterr()
        assert _measurements(*command) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"fasternas: error: {Cache().path} must be a database of measure")


def test_a_run_whose_latencies_are_predicted_has_none_to_export(capsys: Streams) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"options": {}}')
    _check_refusal(["export", "all", "--run", "run"], "with measurements, but run has", capsys)


def test_a_run_of_before_is_told_to_measure_again(capsys: Streams) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"options": {}}')
    line = {
        "config": {"widths": [16], "depths": [1], "partial_ratios": [0.5], "expansions": [2]},
        "latencies": {"cpu": {**entry(1).latency.as_json(), "context": {}}},
    }
    journal.append(Path("run/measurements.jsonl"), [line])
    words = "must say where they were timed, but: `artifact` must be told by a measurement"
    _check_refusal(["export", "all", "--run", "run"], words, capsys)
