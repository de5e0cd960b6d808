"""What users have gone wrong: one line each, no traceback, no hang, nothing left, no code run.

Each test tries what hypothesis invents of one kind of file, for FASTERNAS_FUZZ_SECONDS: four for
each in CI, ten minutes in `make fuzz`. A test is one call of `for_a_while`; a check calls `said`.
"""

import io
import json
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from networks import TINY
from PIL import Image
from run_folders import make_run

from nas.cli.main import main
from predictors.backends.model import config_model
from predictors.backends.onnx_export import onnx_bytes
from predictors.devices.agent.host import MARKER
from predictors.devices.boards import Board, save_boards
from predictors.measurement import TimingProtocol
from search_spaces.checkpoint import begin_with, save
from search_spaces.fasternet import SPACES
from search_spaces.formats import save_config
from search_spaces.io import config_folder
from search_spaces.network import build
from search_spaces.timm_models import import_timm

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
SECONDS = float(os.environ.get("FASTERNAS_FUZZ_SECONDS", "4"))  # for each test
LONGEST_S = 60
T = TypeVar("T")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in; `tmp` in it is where temporary files go."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def for_a_while(check: Callable[[T], None], inventions: st.SearchStrategy[T]) -> None:
    """Call `check` with one invention after the other until the time is over.

    They are the same in each run: a longer one goes on where a shorter one ends.
    """
    end, failed = time.monotonic() + SECONDS, False
    profile = settings(
        max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )

    def check_in_time(invention: T) -> None:
        nonlocal failed
        if not failed and time.monotonic() > end:
            return
        try:
            check(invention)
        except BaseException:
            failed = True  # it is tried again, and made smaller, whatever the time
            raise

    for number in count():
        seed(number)(profile(given(inventions)(check_in_time)))()
        if time.monotonic() > end:
            return


def said(*words: str | Path) -> str:
    """Run a command; return what it says, where it fails one line on standard error.

    What it leaves in `out` is removed again, and nothing else may be left.
    """
    out, err = io.StringIO(), io.StringIO()
    before = _files()
    with redirect_stdout(out), redirect_stderr(err), _in_time():
        code = main([str(word) for word in words])
    shutil.rmtree("out", ignore_errors=True)
    lines = err.getvalue().splitlines()
    if code:
        assert code == 2
        assert lines[-1].startswith(("fasternas: error: ", "fasternas: refused: "))
        assert not any(line.startswith("fasternas: ") for line in lines[:-1])
    assert "Traceback" not in err.getvalue()
    assert "\x1b" not in err.getvalue()
    assert _files() == before
    return err.getvalue()


def _files() -> list[Path]:
    """All that is below this folder; a marker of code that ran would be there too."""
    return sorted(path for path in Path.cwd().rglob("*") if path.name != "out")


@contextmanager
def _in_time() -> Iterator[None]:
    def end(*_: object) -> None:
        raise AssertionError(f"it took more than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file's content after some edits: cut off, overwritten, filled in, twice there."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        begin, end = sorted(draw(st.integers(0, len(content))) for _ in range(2))
        edit = draw(st.sampled_from(("cut", "drop", "write", "repeat")))
        if edit == "cut":
            del content[begin:]
        elif edit == "drop":
            del content[begin:end]
        elif edit == "write":
            some = draw(st.binary(max_size=8))
            content[begin : begin + len(some)] = some
        else:
            content[begin:begin] = content[begin:end][:4096]
    return bytes(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda some: (
        st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=5), some, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which one thing, however deep, is another one or gone."""
    keys: Sequence[Any] = range(len(value)) if isinstance(value, list) else ()
    keys = sorted(value) if isinstance(value, dict) else keys
    if not keys or draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    key = draw(st.sampled_from(keys))
    copy = value.copy()
    if draw(st.integers(0, 5)) == 0:
        del copy[key]
    else:
        copy[key] = draw(changed(value[key]))
    return copy


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
    quick = TimingProtocol(rounds=(2, 2), most_warm_up=1, attempts=1, answer_s=20.0)
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


class Ran:
    """What a pickle calls: it would leave a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


OPCODES = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n",
    b"X\x09\0\0\0touch ran", b"\x8c\1x",
    b"X\x07\0\0\0storage",
    b"(", b")", b"]", b"}", b"R", b"b", b"o", b"\x81", b"\x92", b"\x93", b"u",
    b"s", b"e", b"a", b"\x85", b"\x86", b"t", b"0", b"2", b"q\0", b"h\0", b"Q", b"K\1", b"N",
    b"ios\nsystem\n",
)  # fmt: skip


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
)  # fmt: skip
_FACTS: dict[str, object] = {
    "machine": "aarch64", "kernel": "aarch64", "processor": "a board", "libc": "2.36", "cores": 4,
    "python": "3.11.2", "runtime_version": "1.20.0", "governor": "ondemand", "mhz": 1800.0,
    "celsius": 51.5, "trouble": "",
}  # fmt: skip
_TIMES: dict[str, object] = {
    "wall_ms": [2.0] * 5, "cpu_ms": [2.0] * 5, "event_ms": [0.0] * 5, "preempted": [0] * 5,
    "mhz": 1800.0, "celsius": 51.5,
}  # fmt: skip
_READY: dict[str, object] = {"pinned": True, "realtime": False, "cores": [3], "why": "of 4 alike"}


@pytest.fixture
def board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with all that a board says, whatever it is asked."""
    (folder / "says").write_bytes(b"")
    (folder / "board.sh").write_text(f"cat {folder}/says\n")
    monkeypatch.setenv("FASTERNAS_SSH", f"sh {folder}/board.sh")
    monkeypatch.setattr("predictors.devices.boards._failure", lambda _: "there is no index")
    quick = TimingProtocol(repeats=1, rounds=(2, 2), attempts=1, pauses=0, most_warm_up=2)
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
        "ssh": "ssh://pi@10.0.0.3", "cores": [0, 1], "architecture": "aarch64", "machine": "Pi 5",
        "version": "1.20.0", "python": "3.11.2", "number_of_cores": 4, "governor": "ondemand",
        "celsius": 51.5, "emulated": False, "runtime": "onnxruntime", "precision": "fp32",
        "threads": 1,
    }  # fmt: skip
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


def _said_of_data(path: Path) -> None:
    """Have data read, and then refuse the batches: nothing is trained."""
    more = ("--set", "batch_size=1000000", "--out", "out", "--device", "none", "--gpus", "0")
    assert "error: " in said("train", "t0@32", "--data", path, *more)


_ARRAYS = {
    "x_train",
    "y_train",
    "x_val",
    "y_val",
    "x_test",
    "y_test",
    "train_images",
    "labels",
    "x",
}
_DTYPES = ("u1", "i8", "f4", "f8", "?", "U3", "S3", "O", "M8[s]", "c8", "V2")


def _array(shape: list[int], dtype: str, seed: int) -> "np.ndarray[Any, Any]":
    values = np.random.default_rng(seed).integers(0, 256, shape)
    if dtype == "O":
        return np.full(shape, Ran(), dtype=object)
    if dtype == "V2":
        return np.zeros(shape, dtype="V2")
    return values.astype(dtype)


def test_any_npz_is_data_or_one_line(folder: Path) -> None:
    numbers = count()
    archive = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3), dtype=np.uint8)
    labels = np.arange(8) % 2
    np.savez_compressed(archive, x_train=images, y_train=labels, x_test=images, y_test=labels)

    def check(content: bytes | dict[str, "np.ndarray[Any, Any]"]) -> None:
        path = folder / f"{next(numbers)}.npz"  # what was read once is kept by its name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, allow_pickle=True, **content)
        try:
            _said_of_data(path)
        finally:
            path.unlink()

    shapes = st.lists(st.sampled_from((0, 1, 2, 3, 4, 8, 9)), max_size=5)
    arrays = st.builds(_array, shapes, st.sampled_from(_DTYPES), st.integers(0, 3))
    for_a_while(
        check,
        st.one_of(
            damaged(archive.getvalue()),
            st.dictionaries(st.sampled_from(sorted(_ARRAYS)), arrays),
        ),
    )


_MODES = (
    ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "BMP"), ("F", "TIFF"),
    ("I;16", "TIFF"), ("RGB", "WEBP"), ("LAB", "TIFF"),
)  # fmt: skip


def _pictures() -> list[bytes]:
    """The same picture in many formats and modes."""
    found = []
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 4), dtype=np.uint8)
    for mode, kind in _MODES:
        rgba = Image.fromarray(pixels)
        if mode == "LAB":
            image = Image.fromarray(pixels[..., :3], mode="LAB")
        else:
            image = rgba.convert("L").convert(mode) if mode in "FI;16" else rgba.convert(mode)
        content = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(content, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        found.append(content.getvalue())
    return found


_NAMES = (b"a", b"b", b"train", b"val", b"test", b"@eaDir", b"caf\xe9", "\u732b".encode(), b"0.png",
          b"1.JPG", b"2.tif", b"3.heic", b".hidden.png", b"no ending", b"4.gif", b"new\nline.png",
          b"train-images-idx3-ubyte", b"t10k-labels-idx1-ubyte.gz", b"-r.webp")  # fmt: skip


def test_any_folder_is_data_or_one_line(folder: Path) -> None:
    numbers = count()

    def check(files: list[tuple[list[bytes], bytes]]) -> None:
        root = folder / f"{next(numbers)}"
        root.mkdir()
        for parts, content in files:
            path = root.joinpath(*map(os.fsdecode, parts))
            if not path.exists() and not any(p.is_file() for p in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        (root / "a" / "up").symlink_to(root) if (root / "a").is_dir() else None
        try:
            _said_of_data(root)
        finally:
            shutil.rmtree(root)

    names = st.lists(
        st.one_of(st.sampled_from(_NAMES), st.binary(min_size=1, max_size=9)),
        min_size=1,
        max_size=4,
    ).filter(lambda parts: not any(set(p) & {0, 47} or p in (b".", b"..") for p in parts))
    pictures = _pictures()
    content = st.one_of(
        st.sampled_from(pictures),
        st.sampled_from(pictures).flatmap(damaged),
        st.binary(max_size=40),
    )
    plain = st.tuples(st.sampled_from((b"a", b"b")), st.sampled_from(_NAMES)).map(list)
    for_a_while(check, st.lists(st.tuples(st.one_of(plain, names), content), max_size=12))
