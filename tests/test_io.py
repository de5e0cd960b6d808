"""Folders for results: made, refused, removed again; what others' errors and odd names say."""

import errno
import os
import time
from pathlib import Path

import pytest

from nas.cli.main import main
from search_spaces.io import (
    atomic_write,
    error_line,
    make_folders,
    named_reason,
    reason,
    remove_empty,
    shown,
)


def test_what_was_made_is_removed_again_unless_something_lies_in_it(tmp_path: Path) -> None:
    made = make_folders(tmp_path / "a" / "b")
    assert made == [tmp_path / "a" / "b", tmp_path / "a"]
    (tmp_path / "a" / "file").touch()
    remove_empty(made)
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "file"]
    assert make_folders(tmp_path / "a") == []


@pytest.mark.parametrize("out", ["out", "out/deeper"])
@pytest.mark.parametrize(
    "command", ["search --device arm --budget 10ms --out", "bench models t0 --out"]
)
def test_a_link_that_leads_nowhere_is_said_to_be_one(
    command: str,
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").symlink_to("gone")
    assert main([*command.split(), out]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "fasternas: error: `out` must be a folder, but out is a link to gone, which is "
        "not there. Make that or remove the link."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


ORT, LIST = (
    "/onnxruntime_src/onnxruntime/core",
    "const onnxruntime::Some*, std::function<void(int)>",
)
FAIL, CONV = "[ONNXRuntimeError] : 1 : FAIL : ", "Non-zero status code while running Conv node. "
# What runtimes say, and what is said of it. The long ones had the reason where they were cut off.
REASONS = [
    (
        f"{FAIL}Load model from /tmp/fasternas-mw/0/net.onnx failed:{ORT}/graph/model.cc:256 "
        f"onnxruntime::Model::Model(onnx::Model&&, {LIST}&) Unsupported model IR version: 99\n",
        f"{FAIL}Load model failed: Unsupported model IR version: 99",
    ),
    (
        f"{FAIL}{CONV}Status Message: {ORT}/cpu/conv_attributes.h:69 onnxruntime::common::Status "
        f"onnxruntime::Conv::Validate({LIST}) const [with T = float] Input channels C: 3",
        f"{FAIL}{CONV}Status Message: Input channels C: 3",
    ),
    (
        "Exception from src/inference/cpp/core.cpp:132:\nException from src/dev/plugin.cpp:59:\n"
        "Check 'a[1].has(b['1'])' failed at src/unconverted_ops.cpp:151:\nNo rule for: my.Foo\n\n",
        "No rule for: my.Foo",
    ),
    (
        '\x1b[1mTraceback\x1b[0m File "/usr/lib/python3/torch/x.py", line 12, in forward\n  x + y\n'
        "RuntimeError: The size of tensor a (3) must match. ",
        "Traceback x + y RuntimeError: The size of tensor a (3) must match",
    ),
    (
        "cannot move '/tmp/out/.exporting-x1/net.onnx' to /home/me/nets/mine.onnx",
        "cannot move to /home/me/nets/mine.onnx",
    ),
    (f"{'a ' * 400}{'b ' * 400}the end", f"{'a ' * 75} ... {('b ' * 400 + 'the end')[-450:]}"),
]


@pytest.mark.parametrize(("error", "said"), REASONS)
def test_reasons_survive(error: str, said: str) -> None:
    assert reason(RuntimeError(error)) == reason(error) == said


def test_a_long_text_without_a_reason_takes_no_time() -> None:
    start = time.monotonic()
    for text in ("a" * 10**5, "a:" * 10**5, "a/" * 10**5, "A::a(" * 10**4, "Check '" * 10**4):
        assert len(reason(text)) < 700
    assert time.monotonic() - start < 10


def test_an_error_without_text_is_called_by_its_class() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert named_reason(SilentError()) == "SilentError"
    assert reason(RuntimeError("\n. ")) == "RuntimeError"
    assert named_reason(KeyError("x")) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"caf\xe9", r"caf\xe9"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("\u732b \u200d\u0643".encode(), "\u732b \u200d\u0643"),
        (b"two\nlines\x1b[1m", r"two\nlines\x1b[1m"),
        ("\u2028".encode(), r"\u2028"),
    ],
)
def test_names_are_shown_in_one_line_that_can_be_written(name: bytes, expected: str) -> None:
    assert shown(os.fsdecode(name)) == expected


def test_what_a_terminal_would_obey_is_spelled_in_an_error() -> None:
    assert error_line(ValueError("of \x1b[1mred\nand \x07 b")) == r"of \x1b[1mred and \x07 b"
    absent = FileNotFoundError(errno.ENOENT, "No such file", "x\x1by")
    assert error_line(absent) == r"No such file: x\x1by."


def test_resuming_is_advised_where_something_is_left(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left", str(tmp_path / "run.json"))
    assert error_line(full).endswith("Free some space; what was begun goes on with --resume.")
    assert error_line(full, resumes=False).endswith("run.json. Free some space.")
    gone = OSError(errno.ENOSPC, "No space left", str(tmp_path / "gone" / "run.json"))
    assert error_line(gone).endswith("run.json. Free some space.")


def test_text_with_a_name_that_is_no_utf8_is_written(tmp_path: Path) -> None:
    file = atomic_write(tmp_path / "card", f"of {os.fsdecode(bytes([0xE9]))}, caf\u00e9")
    assert file.read_bytes() == "of \\udce9, caf\u00e9".encode()


@pytest.mark.parametrize("name", [b"caf\xe9", b"caf\xe9/deeper"])
def test_folders_that_runtimes_would_refuse_at_the_end_are_refused_at_once(
    name: bytes, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"`out` must be a path in UTF-8, .*caf\\xe9.*. Name anoth"
    ):
        make_folders(tmp_path / os.fsdecode(name))
    with pytest.raises(
        ValueError, match=r"`out` must have a name of at most 200 bytes, but n.* 240"
    ):
        make_folders(tmp_path / ("n" * 240))
    assert list(tmp_path.iterdir()) == []
