"""`fasternas search` from end to end: real processes, a real Ray, real timing, real kill -9."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from specs import on

import fasternas as fn
from nas.cli.main import main
from nas.run_folder import resume_run
from nas.search.trial import Outcome
from nas.study import journal
from nas.study.options import SearchOptions

PROGRAM = Path(sys.executable).with_name("fasternas")
TRIALS = 16
SEARCH = ("search", "--device", "arm", "--budget", "10ms", "--trials", str(TRIALS), "--out")
SMALL = (
    "search",
    "--device",
    "arm",
    "--space",
    "fasternet",
    "--budget",
    "20ms",
    "--trials",
    "8",
    "--out",
)
SMALL_OPTIONS = SearchOptions(devices=on("arm", 20.0), trials=8)
COLUMNS = [
    "config",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "accuracy_kind",
    "fp32_accuracy",
    "latency_ms",
    "low_ms",
    "high_ms",
    "source",
    "runtime",
    "precision",
    "ratio",
    "ratio_low",
    "ratio_high",
    "macs",
    "params",
    "file_bytes",
    "memory_bytes",
    "resolution",
]
Streams = pytest.CaptureFixture[str]

pytestmark = pytest.mark.skipif(
    os.uname().machine == "aarch64", reason="here `arm` is this machine, and takes longer."
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no cluster of anybody else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def _start(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "pareto.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == COLUMNS
        return list(reader)


def _trials(run: Path) -> list[tuple[int, list[int], list[float]]]:
    """Number, genes and scores of every trial in the journal, by number."""
    entries = [e for e in journal.read(run / "study.journal") if "user_attrs" in e]
    found = [(e["user_attrs"]["number"], e["user_attrs"]["genes"], e["values"]) for e in entries]
    return sorted(found)


def _check_front(run: Path, budget_ms: float, source: str) -> None:
    """What the CSV says of the front agrees with its configs, and with the budget."""
    rows = _rows(run)
    latencies = [float(row["latency_ms"]) for row in rows]
    accuracies = [float(row["accuracy_low"]) for row in rows]
    assert rows
    assert latencies == sorted(latencies)
    assert accuracies == sorted(accuracies)
    for row in rows:
        assert (row["source"], row["accuracy_kind"]) == (source, "estimated")
        assert 0 < float(row["low_ms"]) < float(row["latency_ms"]) < float(row["high_ms"])
        assert float(row["high_ms"]) <= budget_ms
        total = fn.cost(fn.load_config(run / row["config"]))
        assert (int(row["macs"]), int(row["params"])) == (total.macs, total.params)
        assert int(row["file_bytes"]) == total.file_bytes
        assert int(row["memory_bytes"]) == total.peak_memory_bytes
    configs = {f"configs/{path.name}" for path in (run / "configs").iterdir()}
    assert configs == {row["config"] for row in rows}


def _check_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 20_000


def _check_refusal(arguments: Sequence[str | Path], words: str, streams: Streams) -> None:
    assert main([str(argument) for argument in arguments]) == 2
    out, err = streams.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("fasternas: error: ")
    assert words in err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """A search that nothing happened to; `.args[-1]` is its folder."""
    return _start(*SEARCH, tmp_path_factory.mktemp("runs") / "undisturbed")


def test_a_search_hands_over_its_front(undisturbed: "subprocess.CompletedProcess[str]") -> None:
    assert undisturbed.returncode == 0, undisturbed.stderr
    run = Path(undisturbed.args[-1])
    _check_front(run, 10.0, "predicted")
    assert len(_rows(run)) >= 3
    arm = fn.open_device("arm")
    for row in _rows(run):
        again = arm.measure(fn.load_config(run / row["config"]))
        assert float(row["latency_ms"]) == pytest.approx(again.median_ms)
        assert float(row["high_ms"]) == pytest.approx(again.high_ms)
    _check_picture(run / "pareto.png")
    assert not (run / "calibration.png").exists()
    assert [number for number, _, _ in _trials(run)] == list(range(TRIALS))
    assert undisturbed.stdout.count("predicted") == len(_rows(run))
    for words in ("searching: 16 of 16", "predicted from a profile", "To measure", "estimated"):
        assert words in undisturbed.stderr
    assert "Traceback" not in undisturbed.stderr


def test_run_json_tells_how_to_repeat_it(undisturbed: "subprocess.CompletedProcess[str]") -> None:
    kept = json.loads((Path(undisturbed.args[-1]) / "run.json").read_text())
    options = kept["options"]
    backend = {"runtime": "onnxruntime", "precision": "fp32", "threads": 1}
    arm = {"name": "arm", "backends": [backend], "budget_ms": 10.0, "cores": []}
    assert options["devices"] == [arm]
    assert (options["space"], options["searcher"]) == ("fasternet", "guided")
    assert (options["trials"], options["seed"]) == (TRIALS, 0)
    assert kept["machine"]["cores"] == os.cpu_count()
    assert kept["machine"]["versions"]["fasternas"] == fn.__version__
    assert {"torch", "onnxruntime", "ray", "optuna"} <= kept["machine"]["versions"].keys()


def test_show_prints_the_same_front(
    undisturbed: "subprocess.CompletedProcess[str]", capsys: Streams
) -> None:
    run = undisturbed.args[-1]
    assert main(["show", str(run)]) == 0
    assert capsys.readouterr().out == undisturbed.stdout
    assert main(["show", str(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [{k: str(v) for k, v in row.items()} for row in shown] == _rows(run)


def _kill_at(run: Path, lines: int, seconds: float) -> None:
    """Search until the journal has so many lines, a little longer, and then kill -9."""
    with subprocess.Popen(
        [PROGRAM, *SEARCH, run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        journal_file, end = run / "study.journal", time.monotonic() + 200
        while process.poll() is None and time.monotonic() < end:
            if journal_file.exists() and journal_file.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.communicate()[1]


def test_killed_at_any_moment_it_loses_and_repeats_nothing(
    undisturbed: "subprocess.CompletedProcess[str]", tmp_path: Path
) -> None:
    run, rng = tmp_path / "killed", Random(time.time_ns())
    _kill_at(run, rng.randrange(1, TRIALS - 6), rng.uniform(0, 0.4))
    kept = _trials(run)
    assert len(kept) < TRIALS
    finished = _start(*SEARCH, run, "--resume")
    assert finished.returncode == 0, finished.stderr
    assert all(trial in _trials(run) for trial in kept)
    assert _trials(run) == _trials(undisturbed.args[-1])
    assert finished.stdout == undisturbed.stdout
    assert _rows(run) == _rows(undisturbed.args[-1])
    _check_picture(run / "pareto.png")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here.")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("without_ray")
def test_a_disk_that_fills_up_costs_the_last_trial_only(disk: Path, capsys: Streams) -> None:
    run = disk / "run"
    assert main([*SMALL, str(run)]) == 2
    told = capsys.readouterr().err
    said = told.splitlines()[-1]
    assert said.startswith(f"fasternas: error: No space left on device: {run / 'study.journal'}.")
    assert said.endswith("Free some space; what was begun goes on with --resume.")
    assert "Traceback" not in told
    kept = [number for number, _, _ in _trials(run)]
    assert 1 <= len(kept) < 8
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    resumed = resume_run(run, SMALL_OPTIONS)
    assert [outcome.number for _, outcome in resumed.study.outcomes()] == kept
    resumed.study.keep((0,) * len(resumed.space.genes), Outcome(8, None, "kept now"))
    resumed.close()
    assert len(_trials(run)) == len(kept) + 1


def test_a_full_disk_is_one_line_and_nothing_is_left(disk: Path, capsys: Streams) -> None:
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * 20_000)
    _check_refusal([*SMALL, disk / "runs" / "mine"], "No space left on device", capsys)
    assert list(disk.iterdir()) == [filler]


def test_a_read_only_disk_is_one_line(disk: Path, capsys: Streams) -> None:
    (disk / "run").mkdir()
    (disk / "run" / "run.json").write_text("{}")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for run in (disk, disk / "new", disk / "runs" / "new"):
        _check_refusal([*SMALL, run], "Read-only file system", capsys)
    assert [path.name for path in disk.iterdir()] == ["run"]


@pytest.mark.usefixtures("without_ray")
def test_this_machine_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    # the larger of the named sizes are not timed
    run = tmp_path / "cpu"
    options = ("--budget", "20ms", "--trials", "12", "--out", str(run))
    assert main(["search", "--device", "cpu", *options]) == 0
    out, err = capsys.readouterr()
    _check_front(run, 20.0, "measured")
    for name in ("pareto.png", "calibration.png"):
        _check_picture(run / name)
    for phase in ("calibrating the device", "searching", "verifying the front"):
        assert f"{phase}: " in err
    assert out.count("measured") == len(_rows(run))
    assert len(journal.read(run / "measurements.jsonl")) >= 5
    assert main(["show", str(run)]) == 0
    assert capsys.readouterr().out == out
    _check_extended(run, options, capsys)
    _check_merged(run, tmp_path / "other", tmp_path / "both", capsys)


def _check_extended(run: Path, options: Sequence[str], streams: Streams) -> None:
    """More trials, and what they put on the front is timed; what was there stays."""
    before = {name: (run / name).read_bytes() for name in ("study.journal", "measurements.jsonl")}
    assert main(["search", "--device", "cpu", *options, "--resume", "--trials", "16"]) == 0
    assert "searching: 16 of 16" in streams.readouterr().err
    assert [number for number, _, _ in _trials(run)] == list(range(16))
    _check_front(run, 20.0, "measured")
    for name, content in before.items():
        assert (run / name).read_bytes().startswith(content)


def _check_merged(run: Path, other: Path, both: Path, streams: Streams) -> None:
    """With a run of another seed, of which it shares all networks, it is what it was."""
    shutil.copytree(run, other)
    stored = json.loads((other / "run.json").read_text())
    stored["options"]["seed"] = 1
    (other / "run.json").write_text(json.dumps(stored))
    assert main(["merge", str(run), str(other), "--out", str(both)]) == 0
    assert "16 trials were of a network that another one has" in streams.readouterr().err
    assert _rows(both) == _rows(run)
    assert fn.load_config(both / _rows(both)[0]["config"])


def test_a_budget_out_of_this_machines_reach_is_one_line(tmp_path: Path, capsys: Streams) -> None:
    run = tmp_path / "runs" / "cpu"
    options = ("--budget", "1us", "--out", run)
    _check_refusal(["search", "--device", "cpu", *options], "the fastest config takes 0.", capsys)
    assert not run.exists()
