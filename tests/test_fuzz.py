"""What users have gone wrong: one line each, no traceback, no hang, nothing left, no code run.

Each test tries what hypothesis invents of one kind of file, for FASTERNAS_FUZZ_SECONDS: four for
each in CI, ten minutes in `make fuzz`. A test is one call of `for_a_while`; a check calls `said`.
"""

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from run_folders import make_run

from nas.cli.main import main

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
    end = time.monotonic() + SECONDS
    profile = settings(
        max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    for number in count():
        seed(number)(profile(given(inventions)(check)))()
        if time.monotonic() > end:
            return


def said(*words: str | Path) -> str:
    """Run a command; return what it says, where it fails one line on standard error."""
    out, err = io.StringIO(), io.StringIO()
    before = _files()
    with redirect_stdout(out), redirect_stderr(err), _in_time():
        code = main([str(word) for word in words])
    lines = err.getvalue().splitlines()
    if code:
        assert code == 2
        assert lines[-1].startswith("fasternas: error: ")
        assert not any(line.startswith("fasternas: error: ") for line in lines[:-1])
    assert "Traceback" not in err.getvalue()
    assert _files() == before
    return err.getvalue()


def _files() -> list[Path]:
    """All that is below this folder; a marker of code that ran would be there too."""
    return sorted(Path.cwd().rglob("*"))


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


def test_a_damaged_run_is_one_line(folder: Path) -> None:
    run = folder / "run"
    make_run(run, timed=4)
    names = ("run.json", "study.journal", "measurements.jsonl")
    whole = {name: (run / name).read_bytes() for name in names}

    def check(damage: tuple[str, bytes]) -> None:
        name, content = damage
        (run / name).write_bytes(content)
        try:
            said("show", run)
            said("show", run, "--all", "--json")
        finally:
            (run / name).write_bytes(whole[name])

    def damage(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        return st.tuples(st.just(name), damaged(whole[name]))

    for_a_while(check, st.sampled_from(names).flatmap(damage))
