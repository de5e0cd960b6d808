"""Every command answers, and every mistake is one line, exit code 2 and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from specs import on, scores

import fasternas as fn
from nas.cli.main import main
from nas.run_folder import start_run
from nas.search.trial import Outcome
from nas.study.options import SearchOptions
from search_spaces.fasternet import CHOICES

PROGRAM = Path(sys.executable).with_name("fasternas")
COMMANDS = ("search", "show", "measure", "spaces", "devices", "measurements")
SEARCH = ["search", "--device", "arm", "--budget", "10ms"]
OPTIONS = SearchOptions(devices=on("arm", 10.0), trials=4)
SIZES_MS = {"t0": 29.9, "t1": 69.9, "t2": 140.7}
Streams = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Path:
    """A run folder with four trials, each better and slower than the one before."""
    begun = start_run(folder / "run", OPTIONS)
    for number in range(4):
        genes = (number,) * 4 + (0,) * (len(begun.space.genes) - 4)
        ms = fn.open_device("arm").measure(begun.space.decode(genes)).median_ms
        begun.study.keep(genes, Outcome(number, scores(50.0 + number, ms, 1.03 * ms)))
    begun.close()
    return folder / "run"


def _call(arguments: Sequence[str | Path]) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(str(end.code))


def _start(*arguments: str, stdout: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, *arguments],
        text=True,
        timeout=120,
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _check_refusal(arguments: Sequence[str | Path], words: str, streams: Streams) -> None:
    before = _contents(Path())
    streams.readouterr()
    assert _call(arguments) == 2
    out, err = streams.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("fasternas")
    assert ": error: " in err
    assert words in err
    assert _contents(Path()) == before


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_printed_and_leaves_by_zero(command: str, capsys: Streams) -> None:
    assert _call([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: fasternas {command}".rstrip())
    assert err == ""


def test_each_choice_of_the_spaces_is_told_with_its_source(capsys: Streams) -> None:
    assert CHOICES.keys() == {field.name for field in fields(fn.FasterNetConfig)}
    assert _call(["spaces"]) == 0
    (pconv,) = (part for part in capsys.readouterr().out.split("\n\n") if part.startswith("pconv:"))
    lines = pconv.splitlines()
    told = [line.split(":")[0].strip() for line in lines[1:] if not line.startswith("    ")]
    assert told == list(fn.SPACES["pconv"].fields)
    assert lines[lines.index(f"  kernels: {CHOICES['kernels']}") + 1] == "    3 5 7"
    assert "    stage 4: pconv attention" in lines
    sources = {
        "2603.26425",
        "2503.03148",
        "2502.01303",
        "2401.16456",
        "2104.00298",
        "2303.03667",
    }
    assert sources <= set(re.findall(r"arXiv (\d{4}\.\d{5})", pconv))


def test_the_program_is_installed_and_its_help_loads_nothing_else() -> None:
    subprocess.run([PROGRAM, "--help"], check=True, capture_output=True)
    code = """
import sys
before = set(sys.modules)
from nas.cli.main import main
try:
    main(["--help"])
except SystemExit:
    print(*sorted(name for name in set(sys.modules) - before if "." not in name))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "argparse" in loaded
    assert not set(loaded) - set(sys.stdlib_module_names) - {"nas", "search_spaces"}


@pytest.mark.parametrize("options", [[], ["--budget", "9ms", "--searcher", "best"]])
def test_what_is_missing_is_told_before_torch_is_loaded(options: list[str]) -> None:
    code = f"""
import sys
from nas.cli.main import main
print(main(["search", *{options}]), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "2 False\n"


def test_numpy_has_one_thread_in_the_program_unless_the_user_says_otherwise() -> None:
    code = """
import os, sys
sys.argv = ["fasternas", "spaces"]
from nas.cli.main import main
main()
import numpy
print(os.environ["OPENBLAS_NUM_THREADS"], len(os.listdir("/proc/self/task")))
"""
    for given, said in (({}, "1 1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2 ")):
        environment = {name: v for name, v in os.environ.items() if not name.endswith("_THREADS")}
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**environment, **given},
        )
        assert done.stdout.splitlines()[-1].startswith(said)


def test_spaces_and_devices_are_listed(capsys: Streams) -> None:
    assert _call(["spaces", "--json"]) == 0
    spaces = {space["name"]: space for space in json.loads(capsys.readouterr().out)}
    assert spaces.keys() == fn.SPACES.keys()
    assert spaces["fasternet"]["size"] == fn.SPACES["fasternet"].size
    assert spaces["pconv"]["choices"]["mixers"][2:] == [["pconv"], ["pconv", "attention"]]
    assert "arXiv 2603.26425" in spaces["pconv"]["about"]["kernels"]
    assert _call(["devices", "--json"]) == 0
    devices = {device["name"]: device for device in json.loads(capsys.readouterr().out)}
    assert devices.keys() == {"cpu", "arm"}
    assert devices["cpu"]["source"] == "measured"
    for command, names in (("spaces", spaces), ("devices", devices)):
        assert _call([command]) == 0
        out, err = capsys.readouterr()
        assert all(name in out for name in names)
        assert err == ""


@pytest.mark.parametrize("command", ["devices", "measurements"])
def test_a_flag_counts_before_and_after_an_action(command: str, capsys: Streams) -> None:
    for words in ([command, "--json", "list"], [command, "list", "--json"]):
        assert _call(words) == 0
        assert isinstance(json.loads(capsys.readouterr().out), list)
    with pytest.raises(ValueError, match="must be a registered board"):
        main(["devices", "--debug", "check", "gone"])


@pytest.mark.skipif(os.uname().machine == "aarch64", reason="here `arm` is this machine.")
def test_measure_predicts_the_named_sizes_on_arm(capsys: Streams) -> None:
    assert _call(["measure", *SIZES_MS, "--device", "arm", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = json.loads(out)
    assert [row["name"] for row in rows] == list(SIZES_MS)
    for row in rows:
        assert row["median_ms"] == pytest.approx(SIZES_MS[row["name"]], rel=0.01)
        assert row["low_ms"] < row["median_ms"] < row["high_ms"]
        assert row["source"] == "predicted"
        assert row["unstable"] is False
        assert (row["device"], row["runtime"], row["threads"]) == ("arm", "onnxruntime", 1)
    assert _call(["measure", *SIZES_MS, "--device", "arm"]) == 0
    out, err = capsys.readouterr()
    assert out.count(" predicted  ") == len(SIZES_MS)
    assert "t0 is 2.34x faster than t1 (2.24 to 2.44, predicted)." in out
    assert "predicted from a profile" in err


def test_measure_takes_files_and_names(folder: Path, capsys: Streams) -> None:
    fn.save_config(fn.FASTERNET["t1"], folder / "mine.yaml")
    assert _call(["measure", "mine.yaml", "t1", "--device", "arm", "--threads", "4", "--json"]) == 0
    mine, t1 = json.loads(capsys.readouterr().out)
    assert mine.pop("name") == "mine.yaml"
    assert t1.pop("name") == "t1"
    assert t1.pop("times_the_first")["ratio"] == 1
    assert mine == t1
    assert t1["threads"] == 4


def test_show_prints_the_front_or_all(run: Path, capsys: Streams) -> None:
    before = _contents(run)
    assert _call(["show", run, "--json"]) == 0
    front = json.loads(capsys.readouterr().out)
    assert 2 <= len(front) <= 4
    assert all(row["source"] == "predicted" and row["high_ms"] <= 10 for row in front)
    assert _call(["show", run, "--all", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert _call(["show", run]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 + len(front)
    assert "predicted from a profile" in err
    assert _contents(run) == before


MISTAKES: list[tuple[str, str]] = [
    ("", "required: COMMAND"),
    ("serch", "invalid choice: 'serch'"),
    ("search", "required: --budget"),
    ("search --budget -3ms", "must be positive, but got '-3ms'"),
    ("search --budget -.5ms", "must be positive, but got '-.5ms'"),
    ("search --budget=-3ms", "must be positive, but got '-3ms'"),
    ("search --budget 0ms", "must be positive, but got '0ms'"),
    ("search --budget 10", "must end in us, ms, s, min or h, as in 10ms, but got '10'"),
    ("search --budget 10_parsecs", "but got '10 parsecs'"),
    ("search --budget nanms", "but got 'nanms'"),
    ("search --budget 1e999ms", "but got '1e999ms'"),
    ("search --budget ten", "but got 'ten'"),
    ("search --budget 10ms --device gpu", "`device` must be one of cpu, arm, but got 'gpu'"),
    ("search --budget 10ms --device ../up", "`device` must be one of cpu, arm, but got '../up'"),
    (" --space resnet", "`space` must be one of fasternet, fasternet-32, pconv, pconv-32, or "),
    (" --runtime tflite", "`runtime` must be onnxruntime"),
    (
        "search --budget 10ms --device cpu --runtime tflite",
        "`runtime` must be one of onnxruntime, openvino, ncnn, torch, ",
    ),
    (" --runtime auto,auto", "`runtime` must be auto alone, or of onnxruntime, openvino, nc"),
    (" --accuracy foo", "`accuracy` must be one of estimate, train, auto, but got 'foo'"),
    (" --searcher luck", "`searcher` must be one of guided, nsga2, nsga3, tpe, gp, evolution"),
    (" --threads 3", "`threads` must be 1 or 4, but got 3"),
    (" --threads 0", "`threads` must be a positive whole number, but got 0"),
    ("search --budget 10ms --device cpu --threads 5000", "`threads` must be at most the "),
    (" --trials 0", "`trials` must be at least 1, but got 0"),
    (" --trials -5", "`trials` must be at least 1, but got -5"),
    (" --seed x", "invalid int value: 'x'"),
    (" --resolution 7", "`resolution` must be at least"),
    (" --resolution 192,big", "must be numbers like 192,224, but got '192,big'"),
    (" --resolution 224,224", "distinct"),
    (" --activation swish", "must be relu or gelu or hardswish, but got 'swish'"),
    (" --classes 0", "`classes` must be a positive whole number, but got 0"),
    (" --budget 0.5ms", "comes closest takes "),
    (" --ray nonsense", "Ray must be reachable"),
    (" --resume", "has no run.json"),
    (" --resume --out gone", "has no run.json"),
    (" --out file", "file"),
    (" --out file/run", "file"),
    ("show gone", "must be a folder that `fasternas search` wrote, but gone has no run.json"),
    ("show .", "has no run.json"),
    ("show gone --repair", "has no run.json"),
    ("show", "required: RUN"),
    ("measure t9 --device arm", "'t9'"),
    ("measure gone.yaml --device arm", "gone.yaml"),
    ("measure . --device arm", "."),
    ("measure file --device arm", "file"),
    ("measure binary --device arm", "binary"),
    ("measure wrong.yaml --device arm", "wrong.yaml: `widths`"),
    ("measure t0 --device gpu", "`device` must be one of cpu, arm, but got 'gpu'"),
    ("measure t0 --device arm --threads 3", "`threads` must be 1 or 4, but got 3"),
    ("measure --device arm", "required: NETWORK"),
]


@pytest.mark.parametrize(("command", "words"), MISTAKES, ids=[c or "-" for c, _ in MISTAKES])
def test_a_mistake_is_one_line(folder: Path, command: str, words: str, capsys: Streams) -> None:
    (folder / "file").write_text("this is no config")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "wrong.yaml").write_text("fasternas: 1\nwidths: [-8]\ndepths: [1]\n")
    given = command.replace("10_parsecs", "10\0parsecs").split(" ")
    arguments = [word.replace("\0", " ") for word in given if word]
    _check_refusal([*SEARCH, *arguments] if command.startswith(" ") else arguments, words, capsys)


@pytest.mark.parametrize("options", ["", "--seed 1", "--space fasternet-32", "--budget 11ms"])
def test_a_folder_with_another_study_is_refused(run: Path, options: str, capsys: Streams) -> None:
    words = f"must hold this study, but the one in {run} has " if options else "with --resume"
    resume = ["--resume"] if options else []
    _check_refusal([*SEARCH, "--out", run, *options.split(), *resume], words, capsys)


@pytest.mark.parametrize(
    "command", [["show"], [*SEARCH, "--trials", "4", "--resume", "--out"]], ids=["show", "resume"]
)
@pytest.mark.parametrize("name", ["study.journal", "measurements.jsonl", "run.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"{,}\n",
        b"[]\n",
        b"{}\n",
        b"\xff\0\n",
        b"{}{}\n",
        b'{"a":',
        b"[" * 9999 + b"\n",
    ],
)
def test_a_corrupt_file_is_one_line(
    run: Path, command: list[str], name: str, content: bytes, capsys: Streams
) -> None:
    file = run / name
    file.write_bytes((file.read_bytes() if name == "study.journal" else b"") + content)
    _check_refusal([*command, run], name, capsys)


def test_a_line_that_was_cut_off_can_be_dropped(run: Path, capsys: Streams) -> None:
    journal = run / "study.journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    _check_refusal(["show", run, "--all", "--json"], "--repair", capsys)
    assert _call(["show", run, "--all", "--json", "--repair"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert _call(["show", run, "--all", "--json"]) == 0


@pytest.mark.usefixtures("without_ray")
def test_a_search_that_finds_nothing_to_use_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.setattr("nas.report.model.ReportModel.front", [])
    search = ["search", "--device", "arm", "--budget", "10ms", "--trials", "2", "--json"]
    assert main(search) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == []
    words = "`budget` must be kept by some network, but none of 2 is known to. Search anew with"
    assert f"fasternas: error: {words}" in said.err


def test_debug_shows_where_an_error_comes_from() -> None:
    with pytest.raises(ValueError, match="`device` must be one of cpu, arm, but got 'gpu'"):
        main(["measure", "t0", "--device", "gpu", "--debug"])


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Streams) -> None:
    def interrupted(_: object) -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may ignore it
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr("nas.cli.runs.run_spaces", interrupted)
    assert _call(["spaces"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    finished = _start("devices", stdout=writing)
    os.close(writing)
    assert finished.stderr == ""


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "nas.cli.main", "spaces", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0]["name"] == "fasternet"
    command += ["pconv", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "fasternas: error: unrecognized arguments: x\n"


@pytest.mark.parametrize("words", ["devices", "--help", "bench models --help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_finds_no_room_is_one_line(
    words: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        finished = _start(*words.split(), stdout=full.fileno())
    assert finished.returncode == 2
    assert finished.stderr == "fasternas: error: No space left on device.\n"
