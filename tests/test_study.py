"""A study on disk holds what was found, refuses a second process, and is Optuna's own format."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from specs import each, latency, scores

from nas.search.trial import NetworkScores, Outcome
from nas.study import journal
from nas.study.store import (
    MEASUREMENTS,
    RUN,
    TRIALS,
    Study,
    read_measurements,
    read_run,
    write_run,
)
from predictors.measurement import Backend, Context, Latency
from search_spaces.fasternet import FASTERNET, SPACES
from search_spaces.space import Genes, Space

SPACE = SPACES["fasternet-32"]
BUDGET_MS = 3.0
_RNG = Random(0)
GENES: list[Genes] = [SPACE.random_genes(_RNG) for _ in range(6)]
OUTCOMES: list[Outcome[NetworkScores]] = [
    Outcome(0, scores(70.123456789012345, 1 / 3, 0.4)),
    Outcome(2, scores(-5.0, 2.5)),
    Outcome(1, None, "ValueError: it says \u00b5"),
    Outcome(3, scores(80.0, 2.9, 3.1)),
]
MEASURED = Latency(
    median_ms=1 / 7,
    low_ms=0.1,
    high_ms=0.2,
    source="measured",
    device="arm",
    backend=Backend("onnxruntime", threads=2),
    unstable=True,
    samples_ms=((0.1, 0.15), (0.2,)),
    context=Context(clock="cpu_ms", pinned=True, cores="0,1"),
)


MEASUREMENT = each(MEASURED)


def _open(folder: Path) -> Study:
    return Study(folder, SPACE, {"arm": BUDGET_MS})


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """A study with four trials."""
    opened = _open(tmp_path)
    for genes, outcome in zip(GENES, OUTCOMES, strict=False):
        opened.keep(genes, outcome)
    yield opened
    opened.close()


def _expected() -> list[tuple[Any, Outcome[NetworkScores]]]:
    pairs = [(SPACE.decode(g), o) for g, o in zip(GENES, OUTCOMES, strict=False)]
    return sorted(pairs, key=lambda pair: pair[1].number)


def test_what_was_kept_is_known_at_once_and_after_reopening(study: Study) -> None:
    assert study.outcomes() == _expected()
    study.close()
    again = _open(study.folder)
    assert again.outcomes() == _expected()
    again.close()


def test_outcomes_are_recalled_with_what_was_evaluated(study: Study) -> None:
    study.close()
    again = _open(study.folder)
    assert again.recall(OUTCOMES[0].number) == (GENES[0], OUTCOMES[0])
    assert again.recall(OUTCOMES[2].number) == (GENES[2], OUTCOMES[2])
    assert again.recall(99) is None
    again.close()


def test_looking_at_a_study_writes_nothing(study: Study) -> None:
    study.keep_measurement(FASTERNET["t0"], MEASUREMENT)
    study.close()
    before = {path.name: path.read_bytes() for path in study.folder.iterdir()}
    again = _open(study.folder)
    again.outcomes()
    again.close()
    assert {path.name: path.read_bytes() for path in study.folder.iterdir()} == before


def test_optuna_itself_loads_the_journal(study: Study) -> None:
    study.close()
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(study.folder / TRIALS)))
    loaded = optuna.load_study(study_name="fasternas", storage=storage)
    assert [d.name for d in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(loaded.trials) == len(OUTCOMES)
    for trial, genes, outcome in zip(loaded.trials, GENES, OUTCOMES, strict=False):
        assert trial.state.name == ("COMPLETE" if outcome.scores else "FAIL")
        assert tuple(trial.params[name] for name in SPACE.names) == genes
        if outcome.scores:
            ms = outcome.scores.latencies.by_device["arm"].median_ms
            assert trial.values == [outcome.scores.accuracy, ms / BUDGET_MS]
    assert [trial.number for trial in loaded.best_trials] == [0]  # 3 misses the budget


def test_measurements_come_back_as_they_were(study: Study) -> None:
    networks = [FASTERNET["t0"], SPACE.decode(GENES[0]), SPACE.decode(GENES[1])]
    for config in networks:
        study.keep_measurement(config, MEASUREMENT)
    assert list(study.measurements) == networks
    study.close()
    found = read_measurements(study.folder)
    assert found == dict.fromkeys(networks, MEASUREMENT)
    assert list(found) == networks


def test_the_last_measurement_of_a_network_counts(study: Study) -> None:
    later = each(replace(latency(9.0), backend=Backend("torch")))
    for measurement in (MEASUREMENT, later):
        study.keep_measurement(FASTERNET["t0"], measurement)
    assert read_measurements(study.folder) == {FASTERNET["t0"]: later}


HOLD = """
import sys
from pathlib import Path
from nas.study.store import Study
from search_spaces.fasternet import SPACES
study = Study(Path(sys.argv[1]), SPACES["fasternet-32"], {"arm": 3.0})
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(study: Study) -> None:
    study.close()
    command = [sys.executable, "-c", HOLD, str(study.folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=r"must be free, but another process works on it\."):
            _open(study.folder)
        holder.kill()
        assert holder.wait() == -signal.SIGKILL
        again = _open(study.folder)
    assert again.outcomes() == _expected()
    again.close()


def test_a_write_that_fails_loses_that_trial_only(
    study: Study, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    file = study.folder / TRIALS
    with (
        files_end_at(file.stat().st_size + 100),
        pytest.raises(OSError, match="File too large"),
    ):
        study.keep(GENES[4], OUTCOMES[0])
    study.close()
    again = _open(study.folder)
    assert again.outcomes() == _expected()
    again.keep(GENES[4], Outcome(4, OUTCOMES[0].scores))
    again.close()
    assert len(journal.read(file)) == 1 + len(OUTCOMES) + 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{,}", r"Line 3 of .*study\.journal must be a JSON object"),
        (b"{}", r"study\.journal"),
        (b'{"op_code":4,"worker_id":"x","study_id":0}', r"study\.journal"),
        (b'{"op_code":99,"worker_id":"x"}', r"study\.journal"),
    ],
)
def test_a_corrupt_trial_is_refused_and_the_study_is_free_again(
    study: Study, line: bytes, message: str
) -> None:
    study.close()
    file = study.folder / TRIALS
    whole = file.read_bytes()
    lines = whole.splitlines()
    file.write_bytes(b"\n".join([*lines[:2], line, *lines[3:], b""]))
    with pytest.raises(ValueError, match=message):
        _open(study.folder)
    file.write_bytes(whole)
    again = _open(study.folder)
    assert again.outcomes() == _expected()
    again.close()


def test_trials_of_a_space_that_has_changed_are_refused(study: Study) -> None:
    """Their genes would be read as other choices, or not at all."""
    study.close()
    turned = Space(
        SPACE.config_class, **dict(sorted(SPACE.fields.items(), key=lambda one: one[0] == "widths"))
    )
    fewer = SPACE.replace(activation="relu")
    for other in (turned, fewer):
        assert other.names != SPACE.names
        with pytest.raises(ValueError, match=r"`space` must be as it was .* has changed since"):
            Study(study.folder, other, {"arm": BUDGET_MS})


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"widths": [8]}},
        {"config": {"nonsense": 1}},
        {"config": 3},
        {"latencies": None},
        {"latencies": {"cpu": {"median_ms": 1}}},
    ],
    ids=str,
)
def test_a_line_that_is_no_measurement_is_named(study: Study, change: dict[str, Any]) -> None:
    for config in (FASTERNET["t0"], FASTERNET["t1"]):
        study.keep_measurement(config, MEASUREMENT)
    study.close()
    file = study.folder / MEASUREMENTS
    first, second = file.read_text().splitlines()
    file.write_text(f"{first}\n{json.dumps({**json.loads(second), **change})}\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*measurements\.jsonl .*Restore the file"):
        read_measurements(study.folder)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _open(tmp_path / "gone")


def test_run_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    run = {"options": {"device": "arm", "budget_ms": 10.0}, "machine": {"cores": 2}}
    write_run(tmp_path, run)
    write_run(tmp_path, run)
    assert read_run(tmp_path) == run
    assert [path.name for path in tmp_path.iterdir()] == [RUN]


def test_a_folder_without_a_run_is_told_from_one_whose_run_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`fasternas search` wrote, but .* has no run\.json"):
        read_run(tmp_path)
    for content in ("", "[]", "{", '{"options": []}', "{}", "\0"):
        (tmp_path / RUN).write_text(content)
        with pytest.raises(ValueError, match=r"run\.json must be a JSON object with `options`"):
            read_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"machine": 3},
            r"must be as a search wrote it, but: Expected `object`, got `int`.*machine",
        ),
        ({"machine": {"devices": []}}, r"Expected `object`, got `array`.*machine\.devices"),
        ({"machine": {"devices": {"cpu": {"source": "measured"}}}}, "missing .* `description`"),
        ({"remarks": "x"}, r"Expected `array`, got `str`.*remarks.*\. Restore the file\."),
        ({"merged_from": [3]}, r"Expected `object`, got `int`.*merged_from"),
        ({"options": [3]}, r"run\.json must be a JSON object with `options`\. Restore the file\."),
    ],
)
def test_a_record_with_other_types_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_run(tmp_path, {"options": {}, **changes})
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path)


def test_latencies_of_another_device_are_refused(study: Study) -> None:
    study.keep_measurement(FASTERNET["t0"], each(replace(MEASURED, device="cpu")))
    study.close()
    with pytest.raises(
        ValueError, match=r"Line 1 of .* must hold a config and latencies on arm\. R"
    ):
        _open(study.folder)
