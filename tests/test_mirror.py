"""An Optuna storage gets a copy of each trial, is behind at times, and never stops a search."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from specs import on, scores

from nas.cli.main import main
from nas.pipeline import Run
from nas.run_folder import read_only_run, resume_run, start_run
from nas.search.trial import Outcome
from nas.study.options import SearchOptions
from nas.study.store import Mirror

URL = "sqlite:///trials.db"
OPTIONS = SearchOptions(devices=on("arm", 20.0), trials=8)
SEARCH = (
    "search",
    "--device",
    "arm",
    "--space",
    "fasternet",
    "--budget",
    "20ms",
    "--searcher",
    "random",
    "--trials",
    "8",
    "--out",
)
FULL = "CREATE TRIGGER full BEFORE INSERT ON trials BEGIN SELECT RAISE(ABORT, 'over quota'); END"
Streams = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _keep(run: Run, *numbers: int) -> None:
    for number in numbers:
        found = scores(50.0 + number, 1.0, 1.5)
        outcome = Outcome(number, found) if number != 2 else Outcome(2, None, "OSError: no")
        run.study.keep((number % 3, *(0,) * (len(run.space.genes) - 1)), outcome)


def _there(storage: Any, name: str = "run") -> list[tuple[Any, ...]]:
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [
        (t.user_attrs, t.params, t.state, t.values, t.system_attrs, t.datetime_complete)
        for t in trials
    ]


def _here(name: str = "run") -> list[tuple[Any, ...]]:
    return [
        (t.user_attrs, t.params, t.state, t.values, t.system_attrs, t.datetime_complete)
        for t in read_only_run(Path(name)).study.trials()
    ]


@pytest.mark.usefixtures("without_ray")
def test_a_search_fills_a_database_that_optuna_opens(capsys: Streams) -> None:
    assert main([*SEARCH, "run", "--storage", URL]) == 0
    assert len(_there(URL)) == 8
    assert _there(URL) == _here()
    study = optuna.load_study(study_name="run", storage=URL)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert main([*SEARCH, "run", "--storage", URL, "--resume"]) == 0
    assert len(_there(URL)) == 8


def test_a_storage_that_is_behind_is_brought_up_to_date() -> None:
    run = start_run(Path("run"), OPTIONS)
    _keep(run, 0, 1)
    Mirror(URL, "run").update(run.study.trials())
    assert len(_there(URL)) == 2
    _keep(run, 2, 3)
    run.close()
    again = resume_run(Path("run"))
    _keep(again, 4)
    mirror = Mirror(URL, "run")
    mirror.update(again.study.trials())
    _keep(again, 5)
    mirror.update(again.study.trials())
    again.close()
    assert _there(URL) == _here()
    assert [attributes["number"] for attributes, *_ in _there(URL)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("without_ray")
def test_the_trials_are_copied_while_a_search_runs_and_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.setattr("nas.cli.search.MIRROR_S", 0.0)
    seen: list[int] = []

    def look(steps: Iterable[Any], heading: str) -> None:
        for _ in steps:
            seen.append(len(_there(URL)))
            if seen[-1] == 5:
                raise RuntimeError("no more")

    monkeypatch.setattr("nas.cli.search.show_search", look)
    assert main([*SEARCH, "run", "--storage", URL]) == 2
    assert seen[-1] == 5
    assert seen == sorted(seen)
    assert 5 <= len(_there(URL)) < 8
    assert _there(URL) == _here()


def test_a_journal_is_a_storage_too() -> None:
    run = start_run(Path("run"), OPTIONS)
    _keep(run, 0, 1, 2)
    Mirror("all.journal", "run").update(run.study.trials())
    run.close()
    backend = JournalFileBackend("all.journal")
    assert _there(optuna.storages.JournalStorage(backend)) == _here()


def test_runs_of_several_names_share_a_storage_and_those_of_one_do_not() -> None:
    for number, name in enumerate(("a", "b", "elsewhere/a")):
        run = start_run(Path(name), OPTIONS)
        _keep(run, number)
        if name.endswith("/a"):
            with pytest.raises(ValueError, match=r"hold no other run's study, but .* has one"):
                Mirror(URL, "a").update(run.study.trials())
        else:
            Mirror(URL, name).update(run.study.trials())
        run.close()
    assert _there(URL, "a") == _here("a")
    assert _there(URL, "b") == _here("b")


def test_a_storage_that_fails_on_the_way_costs_nothing() -> None:
    run = start_run(Path("run"), OPTIONS)
    mirror = Mirror(URL, "run")
    _keep(run, 0)
    mirror.update(run.study.trials())
    with sqlite3.connect("trials.db") as other:
        other.execute(FULL)
    _keep(run, 1, 2)
    with pytest.raises(RuntimeError, match=r"but sqlite:///trials.db does not: .*over quota\."):
        mirror.update(run.study.trials())
    with sqlite3.connect("trials.db") as other:
        other.execute("DROP TRIGGER full")
    _keep(run, 3)
    assert len(_there(URL)) == 1
    mirror.update(run.study.trials())
    run.close()
    assert len(_here()) == 4
    assert _there(URL) == _here()


@pytest.mark.usefixtures("without_ray")
def test_a_search_whose_storage_stays_away_ends_with_its_front_and_the_reason(
    capsys: Streams,
) -> None:
    assert main([*SEARCH[:-3], "--trials", "4", "--out", "run", "--storage", URL]) == 0
    with sqlite3.connect("trials.db") as other:
        other.execute(FULL)
    capsys.readouterr()
    assert main([*SEARCH, "run", "--storage", URL, "--resume"]) == 2
    said = capsys.readouterr()
    assert "trial-000" in said.out
    last = said.err.splitlines()[-1]
    assert last.startswith(f"fasternas: error: `storage` must take the trials, but {URL} does not")
    assert "over quota. The run folder has all of them; --resume copies what" in last
    assert len(_here()) == 8
    assert _there(URL) == _here()[:4]
    with sqlite3.connect("trials.db") as other:
        other.execute("DROP TRIGGER full")
    assert main([*SEARCH, "run", "--storage", URL, "--resume"]) == 0
    assert _there(URL) == _here()


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "nonsense://x", "gone/x.journal"])
def test_a_storage_that_cannot_be_opened_is_one_line_and_nothing_is_left(
    url: str, capsys: Streams
) -> None:
    assert main([*SEARCH, "runs/run", "--storage", url]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"fasternas: error: `storage` must take the trials, but {url} does")
    assert said.err.count("\n") == 1
    assert said.err.endswith(". Give one that can be opened.\n")  # there is nothing to resume
    assert not Path("runs").exists()


def test_a_storage_that_is_no_url_makes_no_file_of_that_name(capsys: Streams) -> None:
    assert main([*SEARCH, "runs/run", "--storage", "foo"]) == 2
    assert capsys.readouterr().err == (
        "fasternas: error: `storage` must be a URL or a journal's file, but got foo. Write "
        "sqlite:///foo.db or foo.journal.\n"
    )
    assert list(Path().iterdir()) == []
    with pytest.raises(ValueError, match=r"must be a URL or a journal's file, but got redis\. W"):
        Mirror("redis", "run")
