"""What users have gone wrong: one line each, no traceback, no hang, nothing left, no code run.

Each test tries what hypothesis invents of one kind of file, for FASTERNAS_FUZZ_SECONDS: three for
each in CI, ten minutes in `make fuzz`. A test is one call of `for_a_while`; a check calls `said`.
"""

import io
import json
import zipfile
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import onnx
import pytest
import torch
from fuzzing import Ran, changed, damaged, for_a_while, said, working_in
from google.protobuf.message import Message
from hypothesis import strategies as st
from networks import TINY
from quick import QUICK
from run_folders import make_run

from nas.cli.main import main
from predictors.backends.model import config_model
from predictors.backends.onnx_export import onnx_bytes
from predictors.devices.agent.host import MARKER
from predictors.devices.boards import Board, save_boards
from search_spaces.checkpoint import begin_with, save
from search_spaces.fasternet import SPACES
from search_spaces.formats import save_config
from search_spaces.io import config_folder
from search_spaces.network import build
from search_spaces.timm_models import import_timm

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in."""
    return working_in(tmp_path, monkeypatch)


def test_a_damaged_run_is_one_line(folder: Path) -> None:
    run = folder / "run"
    make_run(run, timed=4)
    config = asdict(SPACES["fasternet-32"].sample(Random(0)))
    trained = {"config": config, "epochs": 2, "accuracy": 50.0, "error": None}
    rounded = {"runtime": "openvino", "precision": "bf16", "fp32_accuracy": 50.0, "lost": 1.0}
    (run / "trainings.jsonl").write_text(json.dumps(trained) + "\n")
    (run / "files.jsonl").write_text(json.dumps({"config": config, **rounded}) + "\n")
    whole = {file.name: file.read_bytes() for file in run.iterdir()}
    assert not said("show", run).startswith("fasternas: error")

    def check(damage: tuple[str, bytes]) -> None:
        name, content = damage
        (run / name).write_bytes(content)
        try:
            said("show", run)
            said("show", run, "--all", "--json")
            Path("out").mkdir()
            said("report", run, "--out", "out/report.html")
        finally:
            (run / name).write_bytes(whole[name])

    def damage(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        content = damaged(whole[name]) | entries(whole[name], several=name != "run.json")
        return st.tuples(st.just(name), content)

    for_a_while(check, st.sampled_from(sorted(whole)).flatmap(damage))


@st.composite
def entries(draw: st.DrawFn, whole: bytes, *, several: bool) -> bytes:
    """A file of JSON of which one line is another, each line whole."""
    lines = whole.splitlines() if several else [whole]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = json.dumps(draw(changed(json.loads(lines[number])))).encode()
    return b"\n".join([*lines, b""])


NUMBERS = (-(2**63), -1, 0, 1, 2, 3, 8, 224, 2**31 - 1, 2**63 - 1)
TEXTS = (
    "",
    "image",
    "x",
    "../../x",
    "/etc/passwd",
    "Conv",
    "Add",
    "Loop",
    "Reshape",
    "\x1b[1m",
    "n",
)


@st.composite
def changed_proto(draw: st.DrawFn, whole: bytes) -> bytes:
    """An ONNX file in which some fields, however deep, have other values or are gone."""
    model = onnx.load_model_from_string(whole)
    for _ in range(draw(st.integers(1, 3))):
        message: Any = model
        while True:
            field, value = draw(st.sampled_from(message.ListFields()))
            several = not isinstance(value, str | bytes | int | float | Message)
            index = draw(st.integers(0, len(value) - 1)) if several else 0
            inner = value[index] if several else value
            if not isinstance(inner, Message) or not inner.ListFields():
                break
            message = inner
        other = draw(st.sampled_from((*NUMBERS, *TEXTS)) | st.binary(max_size=9) | st.floats())
        with suppress(TypeError, ValueError, AttributeError):  # of another type
            if not draw(st.booleans()):
                message.ClearField(field.name)
            elif several:
                value[index] = other
            else:
                setattr(message, field.name, other)
    return bytes(model.SerializeToString())


def test_a_damaged_onnx_file_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = replace(QUICK, rounds=(2, 2), attempts=1, answer_s=20.0)
    monkeypatch.setattr("predictors.devices.registry.PROTOCOL", quick)
    whole = onnx_bytes(config_model(TINY))
    file = folder / "x.onnx"

    file.write_bytes(whole)
    assert main(["measure", str(file), "--device", "arm"]) == 0  # ONNX Runtime leaves its `.ses`

    def check(content: bytes) -> None:
        file.write_bytes(content)
        if "fasternas: error: " not in said("measure", file, "--device", "arm"):
            said("measure", file, "--repeats", "1", "--json")

    for_a_while(check, damaged(whole) | changed_proto(whole))


OPCODES = (
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch\nFloatStorage\n",
    b"X\x09\0\0\0touch ran",
    b"\x8c\1x",
    b"X\x07\0\0\0storage",
    b"(",
    b")",
    b"]",
    b"}",
    b"R",
    b"b",
    b"o",
    b"\x81",
    b"\x92",
    b"\x93",
    b"u",
    b"s",
    b"e",
    b"a",
    b"\x85",
    b"\x86",
    b"t",
    b"0",
    b"2",
    b"q\0",
    b"h\0",
    b"Q",
    b"K\1",
    b"N",
    b"ios\nsystem\n",
)


def pickled(content: object, *, zipped: bool) -> bytes:
    """A file of torch."""
    saved = io.BytesIO()
    torch.save(content, saved, _use_new_zipfile_serialization=zipped)
    return saved.getvalue()


def with_pickle(program: bytes) -> bytes:
    """A file of torch whose pickle is this program."""
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\2" + program + b".")
        archive.writestr("archive/data/0", bytes(4096))
    return saved.getvalue()


def test_a_damaged_checkpoint_is_one_line_and_runs_nothing(folder: Path) -> None:
    import_timm()  # which has wandb make a temporary folder
    config = replace(TINY, partial_ratios=(0.5, 0.5))
    save_config(config, folder / "x.yaml")
    network = build(config)
    weights = network.state_dict()
    ours, foreign = folder / "w.safetensors", folder / "w.pth"
    save(network, ours, classes=[str(i) for i in range(10)])
    whole = ours.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:length])
    inner = json.loads(header["__metadata__"]["fasternas"])

    def with_header(changes: Any) -> bytes:
        text = json.dumps({**header, "__metadata__": {"fasternas": json.dumps(changes)}}).encode()
        return len(text).to_bytes(8, "little") + text + whole[length:]

    def check(content: bytes) -> None:
        for file in (ours, foreign):
            file.write_bytes(content)
        said("export", ours, "--to", "yaml", "--out", "out")
        said("measure", ours, "--device", "arm")
        for file in (ours, foreign):
            said("export", "x.yaml", "--weights", file, "--to", "yaml", "--out", "out")
        with suppress(ValueError):
            begin_with(network, foreign)
        assert not (folder / "ran").exists()

    some = st.sampled_from([*weights.values(), Ran(), torch.ones(1).expand(9, 9), network, 3, "x"])
    names = st.sampled_from([*weights, "model", "state_dict", "a.b", "\x1b[1m", ""])
    held = st.recursive(some, lambda one: st.lists(one, max_size=3) | st.dictionaries(names, one))
    contents = (
        damaged(whole)
        | changed(inner).map(with_header)
        | damaged(pickled({"model": weights, "args": Ran()}, zipped=True))
        | damaged(pickled({"model": weights, "args": Ran()}, zipped=False))
        | st.tuples(held, st.booleans()).map(lambda pair: pickled(pair[0], zipped=pair[1]))
        | st.lists(st.sampled_from(OPCODES), max_size=20).map(b"".join).map(with_pickle)
    )
    for_a_while(check, contents)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=6), some),
    max_leaves=6,
)
_FACTS: dict[str, object] = {
    "machine": "aarch64",
    "kernel": "aarch64",
    "processor": "a board",
    "libc": "2.36",
    "cores": 4,
    "python": "3.11.2",
    "runtime_version": "1.20.0",
    "governor": "ondemand",
    "mhz": 1800.0,
    "celsius": 51.5,
    "trouble": "",
}
_TIMES: dict[str, object] = {
    "wall_ms": [2.0] * 5,
    "cpu_ms": [2.0] * 5,
    "event_ms": [0.0] * 5,
    "preempted": [0] * 5,
    "mhz": 1800.0,
    "celsius": 51.5,
}
_READY: dict[str, object] = {"pinned": True, "realtime": False, "cores": [3], "why": "of 4 alike"}


@pytest.fixture
def board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with all that a board says, whatever it is asked."""
    (folder / "says").write_bytes(b"")
    (folder / "board.sh").write_text(f"cat {folder}/says\n")
    monkeypatch.setenv("FASTERNAS_SSH", f"sh {folder}/board.sh")
    monkeypatch.setattr("predictors.devices.boards._failure", lambda _: "there is no index")
    quick = replace(QUICK, rounds=(2, 2), attempts=1)
    monkeypatch.setattr("predictors.devices.registry.PROTOCOL", quick)
    return folder / "says"


def _lines(*answers: object) -> bytes:
    """What a board says: which Python it has, and these answers."""
    return "\n".join([f"Welcome!\n{MARKER} 3.11.2", *map(json.dumps, answers), ""]).encode()


def _mutated(draw: st.DrawFn, *tables: dict[str, object]) -> list[dict[str, object]]:
    """The tables with some of their values replaced by something else."""
    found = [dict(table) for table in tables]
    for _ in range(draw(st.integers(1, 3))):
        table = draw(st.sampled_from(found))
        table[draw(st.sampled_from(sorted(table)))] = draw(_JSON)
    return found


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    """Enough of them to register a board and to time two networks on it."""
    facts, times, ready = _mutated(draw, _FACTS, _TIMES, _READY)
    whole = {"facts": facts, "installed": "site", "kept": "network", "ready": ready, **times}
    said_whole = _lines(*[whole] * 40)
    return draw(st.just(said_whole) | damaged(_lines({"facts": facts})) | damaged(said_whole))


def test_whatever_a_board_answers_is_one_line(folder: Path, board: Path) -> None:
    save_config(TINY, folder / "tiny.yaml")
    registered = config_folder() / "devices.toml"
    measure = ["measure", "tiny.yaml", "--device", "pi", "--repeats", "1"]
    good = {"facts": _FACTS, "kept": "network", "ready": _READY, **_TIMES}
    board.write_bytes(_lines(*[good] * 40))
    save_boards({"pi": Board(name="pi", ssh="ssh://board", version="1.20.0")})
    assert main(measure) == 0  # ONNX Runtime leaves a file when it is first used here

    def check(answers: bytes) -> None:
        board.write_bytes(answers)
        registered.unlink(missing_ok=True)
        said("devices", "add", "pi", "--ssh", "pi@board")
        said("devices", "list")
        said("devices", "check", "pi")
        save_boards({"pi": Board(name="pi", ssh="ssh://board", version="1.20.0")})
        said(*measure)

    for_a_while(check, _answers())


@st.composite
def _registered(draw: st.DrawFn) -> bytes:
    """A list of boards as it is written, with other values, or damaged."""
    board: dict[str, object] = {
        "ssh": "ssh://pi@10.0.0.3",
        "cores": [0, 1],
        "architecture": "aarch64",
        "machine": "Pi 5",
        "version": "1.20.0",
        "python": "3.11.2",
        "number_of_cores": 4,
        "governor": "ondemand",
        "celsius": 51.5,
        "emulated": False,
        "runtime": "onnxruntime",
        "precision": "fp32",
        "threads": 1,
    }
    names = ("pi", draw(st.text(max_size=8)), "other")
    tables = zip(names, [*_mutated(draw, board, board), board], strict=True)
    text = "\n".join(
        f"[{json.dumps(name)}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
        for name, table in tables
    )
    whole = text.encode(errors="replace")
    return draw(st.just(whole) | damaged(whole) | st.binary(max_size=40))


@pytest.mark.usefixtures("board")
def test_a_damaged_list_of_boards_is_one_line() -> None:
    file = config_folder() / "devices.toml"
    file.parent.mkdir(parents=True, exist_ok=True)

    def check(content: bytes) -> None:
        file.write_bytes(content)
        said("devices")
        said("devices", "check", "pi")
        said("devices", "remove", "pi")
        file.write_bytes(content)
        said("measure", "t0", "--device", "pi,other", "--cores", "0")

    for_a_while(check, _registered())
