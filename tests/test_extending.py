"""A finished run goes on to more trials, as if they had been asked for at once."""

from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from nas.study import journal

SEARCH = ("search", "--device", "arm", "--space", "fasternet", "--budget", "20ms")
Streams = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _search(*options: str) -> int:
    return main([*SEARCH, *options])


def _trials(run: str) -> list[Any]:
    entries = [e for e in journal.read(Path(run) / "study.journal") if "user_attrs" in e]
    return sorted((e["user_attrs"]["number"], e["params"], e["values"]) for e in entries)


def test_it_comes_to_the_trials_and_the_front_of_a_longer_run(capsys: Streams) -> None:
    assert _search("--trials", "13", "--out", "once") == 0
    at_once = capsys.readouterr().out
    assert _search("--trials", "9", "--out", "twice") == 0
    shorter = _trials("twice")
    capsys.readouterr()
    assert _search("--trials", "13", "--out", "twice", "--resume") == 0
    assert capsys.readouterr().out == at_once
    assert _trials("twice")[:9] == shorter
    assert _trials("twice") == _trials("once")
    fronts = [(Path(run) / "pareto.csv").read_bytes() for run in ("once", "twice")]
    assert fronts[0] == fronts[1]


def test_unless_told_a_run_keeps_its_number_of_trials(capsys: Streams) -> None:
    assert _search("--trials", "3", "--out", "run") == 0
    assert _search("--out", "run", "--resume") == 0
    assert len(_trials("run")) == 3
    capsys.readouterr()
    assert _search("--trials", "2", "--out", "run", "--resume") == 2
    words = "`trials` must be at least the 3 that the study in run has, but got 2. Leave it out."
    assert words in capsys.readouterr().err


def test_the_error_says_what_may_change(capsys: Streams) -> None:
    assert _search("--trials", "3", "--out", "run") == 0
    capsys.readouterr()
    given = ("--budget", "3ms", "--trials", "5", "--out", "run", "--resume")
    assert main([*SEARCH[:5], *given]) == 2
    said = capsys.readouterr().err
    words = "has devices arm within 20.0 ms, onnxruntime fp32, one thread, not arm within 3.0 ms"
    assert words in said
    assert "Only --trials may change, to more of them: name another" in said
    assert said.count("\n") == 1
