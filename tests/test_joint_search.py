"""One search on two devices: this machine, which is timed, and the profile, which predicts."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fasternas as fn
from nas.cli.main import main
from nas.report.html import html_report
from nas.report.model import ReportModel
from nas.run_folder import read_only_run
from nas.study import journal
from predictors.measurement import Latency
from search_spaces.fasternet import FasterNetConfig

BUDGETS = {"arm": 20.0, "cpu": 4.0}
REFERENCES_MS = ("kept_ms", "now_ms")  # of other networks than the one that a record is of
DEVICES = ("--device", "arm", "--device", "cpu")
SEARCH = ("search", *DEVICES, "--budget", "arm=20ms,cpu=4ms", "--trials", "8", "--out")
# Timed as quickly as here.
KILLED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pytest
from quick import time_quickly
from nas.cli.main import main
time_quickly(pytest.MonkeyPatch())
main(sys.argv[1:])
"""
Streams = pytest.CaptureFixture[str]

pytestmark = [
    pytest.mark.skipif(os.uname().machine == "aarch64", reason="here `arm` is this machine."),
    pytest.mark.usefixtures("without_ray"),
]


def _kill_when_timing(run: Path) -> None:
    """Search until the first latencies are there, and then kill -9."""
    command = [sys.executable, "-c", KILLED, *SEARCH, str(run)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        file, end = run / "measurements.jsonl", time.monotonic() + 200
        while process.poll() is None and time.monotonic() < end:
            if file.exists() and file.read_bytes().count(b"\n") >= 2:
                break
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.communicate()[1]


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "pareto.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _alone(run: Path, row: dict[str, str], device: str) -> Latency:
    """What the device says of a network of the front when it is asked by itself."""
    config = fn.load_config(run / row["config"])
    return next(fn.open_device(device, reuse=True).measure_each([config], repeats=1))


def _check_front(run: Path, *, in_doubt: bool) -> None:
    """Each latency is what its device says, each budget is kept, and the ratio is the worst.

    Where the run was `in_doubt`, since its references took another time than the kept one, its
    intervals reach further than those of a device that is asked by itself.
    """
    for row in _rows(run):
        for device, source in (("arm", "predicted"), ("cpu", "measured")):
            assert row[f"{device}_source"] == source
            alone = _alone(run, row, device)
            assert alone.source == source
            assert float(row[f"{device}_ms"]) == pytest.approx(alone.median_ms)
            low_ms, high_ms = (float(row[f"{device}_{end}_ms"]) for end in ("low", "high"))
            if in_doubt and source == "measured":
                assert low_ms <= alone.low_ms * (1 + 1e-6)
                assert high_ms >= alone.high_ms * (1 - 1e-6)
            else:
                assert low_ms == pytest.approx(alone.low_ms)
                assert high_ms == pytest.approx(alone.high_ms)
            assert alone.high_ms <= BUDGETS[device]
        ratios = {
            end: max(float(row[f"{d}_{end}ms"]) / ms for d, ms in BUDGETS.items())
            for end in ("low_", "", "high_")
        }
        assert float(row["ratio_low"]) == pytest.approx(ratios["low_"])
        assert float(row["ratio"]) == pytest.approx(ratios[""])
        assert float(row["ratio_high"]) == pytest.approx(ratios["high_"])


def test_killed_and_resumed_it_finds_one_front_for_both(tmp_path: Path, capsys: Streams) -> None:
    run = tmp_path / "both"
    _kill_when_timing(run)
    kept = (run / "measurements.jsonl").read_bytes()
    assert main([*SEARCH, str(run), "--resume"]) == 0
    out, err = capsys.readouterr()
    assert (run / "measurements.jsonl").read_bytes().startswith(kept)
    timed = [json.dumps(e["config"]) for e in journal.read(run / "measurements.jsonl")]
    assert len(set(timed)) == len(timed) >= 5
    assert _rows(run)
    _check_front(run, in_doubt="when its milliseconds were fixed" in err)
    assert (run / "calibration-cpu.png").exists()
    assert not (run / "calibration-arm.png").exists()
    for words in ("worst ratio", "arm ms", "cpu ms"):
        assert words in out.splitlines()[0]
    assert out.count("measured") == len(_rows(run))
    assert out.count("predicted") == 2 * len(_rows(run))
    assert "attach a board" in err
    assert main(["show", str(run)]) == 0
    assert capsys.readouterr().out == out
    _check_milliseconds(run)
    _check_pages(run)
    _check_exported(run, tmp_path / "exported.jsonl")
    _check_replayed(run, tmp_path / "replayed")
    _check_merged(run, tmp_path)


def _fields(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every field of a JSON value with its name, whatever it lies in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, name)
    else:
        yield name, value


def _records(path: Path) -> list[Any]:
    """The records of a file that holds any."""
    if path.suffix == ".json":
        return [json.loads(path.read_text())]
    if path.suffix in (".jsonl", ".journal"):
        return journal.read(path)
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return []


def _config_of(run: Path, record: Any) -> FasterNetConfig | None:
    """The network that a record is of."""
    if "user_attrs" in record:
        return read_only_run(run).space.decode(record["user_attrs"]["genes"])
    if isinstance(record.get("config"), dict):
        fields: Any = record["config"].items()
        values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields}
        return FasterNetConfig(**values)
    return fn.load_config(run / record["config"]) if "config" in record else None


def _check_milliseconds(run: Path) -> None:
    """In every file, what is called milliseconds is near what the devices say of that network.

    A percentage of a budget would be 60 times as much or more.
    """
    arm = fn.open_device("arm")
    found: dict[str, int] = {}
    for path in sorted(run.rglob("*")):
        for record in _records(path):
            fields = list(_fields(record))
            references = [float(str(v)) for name, v in fields if name in REFERENCES_MS]
            assert all(0.002 < ms < 200 for ms in references), (path, record)
            names = {n for n, _ in fields if n.endswith("_ms")} - set(REFERENCES_MS)
            in_ms = [float(str(v)) for name, v in fields if name in names and v]
            found[path.name] = found.get(path.name, 0) + len(in_ms)
            config = _config_of(run, record)
            own_ms = [arm.measure(config).median_ms] if config else list(BUDGETS.values())
            assert all(min(own_ms) / 20 < ms < 20 * max(own_ms) for ms in in_ms), (path, record)
            ratios = [float(str(v)) for name, v in fields if name.startswith("ratio")]
            assert all(0.01 < ratio <= 1 for ratio in ratios)
            assert not [name for name, _ in fields if "share" in name or "percent" in name]
    with_ms = {name for name, count in found.items() if count}
    assert with_ms == {"run.json", "measurements.jsonl", "study.journal", "pareto.csv"}


def _check_pages(run: Path) -> None:
    page = html_report(ReportModel(read_only_run(run)))
    for words in (
        "Networks within 20 ms on arm and 4 ms on cpu",
        "worst latency/budget ratio",
        "Latencies on arm PREDICTED, not measured; those on cpu are measured",
        "every budget",
        "cpu ms [interval]",
        "--budget arm=20ms,cpu=4ms",
    ):
        assert words in page
    for row in _rows(run):
        comment = (run / row["config"]).read_text().splitlines()[0]
        assert "predicted on arm" in comment
        assert "measured on cpu" in comment


def _check_exported(run: Path, file: Path) -> None:
    """What was timed can be handed on, without what was predicted."""
    assert main(["measurements", "export", str(file), "--run", str(run)]) == 0
    header, *entries = map(json.loads, file.read_text().splitlines())
    assert header["entries"] == len(journal.read(run / "measurements.jsonl"))
    assert {entry["latency"]["device"] for entry in entries} == {"cpu"}
    assert main(["measurements", "import", str(file), "--as", "lab"]) == 0


def _check_replayed(run: Path, again: Path) -> None:
    """What was imported takes the place of the device that was timed."""
    search = [word.replace("cpu", "lab") for word in SEARCH]
    assert main([*search, str(again)]) == 0
    found = [
        {name.replace("lab_", "cpu_"): value for name, value in row.items()} for row in _rows(again)
    ]
    assert found == _rows(run)


def _check_merged(run: Path, folder: Path) -> None:
    shutil.copytree(run, folder / "other")
    stored = json.loads((run / "run.json").read_text())
    stored["options"]["seed"] = 1
    (folder / "other" / "run.json").write_text(json.dumps(stored))
    merged = folder / "merged"
    assert main(["merge", str(run), str(folder / "other"), "--out", str(merged)]) == 0
    assert _rows(merged) == _rows(run)


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ("arm=20ms,cpu=1us", r"got 0.001 ms on cpu: the fastest config takes 0."),
        ("arm=10us,cpu=9ms", r"got 0.01 ms on arm: the fastest config takes "),
    ],
)
def test_a_budget_that_one_device_cannot_keep_is_one_line(
    tmp_path: Path, capsys: Streams, budgets: str, words: str
) -> None:
    run = tmp_path / "runs" / "both"
    assert main(["search", *DEVICES, "--budget", budgets, "--out", str(run)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert words in err
    assert not run.parent.exists()
