"""How damaged files are tried: inventions for a while, each said in one line that costs nothing.

A test is one call of `for_a_while`, for FASTERNAS_FUZZ_SECONDS; a check calls `said`.
"""

import io
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, seed, settings, strategies as st

from nas.cli.main import main

SECONDS = float(os.environ.get("FASTERNAS_FUZZ_SECONDS", "3"))  # for each test
LONGEST_S = 60
T = TypeVar("T")


def working_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make it the folder to work in; `tmp` in it is where temporary files go."""
    (folder / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "tmp"))
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    monkeypatch.chdir(folder)
    return folder


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


class Ran:
    """What a pickle calls: it would leave a file."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)
