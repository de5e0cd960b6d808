"""A run folder belongs to one process, one study and one device."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from specs import on, scores

from nas.cli.main import main
from nas.estimators import CHECKPOINTS
from nas.report.model import ReportModel, closing_words
from nas.run_folder import give_up, read_only_run, resume_run, start_run
from nas.search.trial import Outcome
from nas.study.options import SearchOptions
from nas.study.store import TRIALS, hold
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import save_config

PROGRAM = Path(sys.executable).with_name("fasternas")
OPTIONS = SearchOptions(devices=on("arm", 10.0), trials=4)
Streams = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study of three trials, of which one failed."""
    monkeypatch.chdir(tmp_path)
    run = start_run(tmp_path / "run", OPTIONS)
    for number in range(2):
        genes = (number,) * 4 + (0,) * (len(run.space.genes) - 4)
        run.study.keep(genes, Outcome(number, scores(50.0 + number, 3.0)))
    run.study.keep((1,) * len(run.space.genes), Outcome(2, None, "OSError: it broke"))
    run.close()
    return tmp_path / "run"


def _time_on_cpu(folder: Path, *, threads: int = 1) -> None:
    (cpu,) = on("cpu", 10.0, Backend(threads=threads))
    facts = {"cpu": {"description": "a large machine: measured", "source": "measured"}}
    _change_run_json(folder, "options", devices=[asdict(cpu)])
    _change_run_json(folder, "machine", devices=facts)


def _change_run_json(folder: Path, part: str, **values: Any) -> None:
    stored = json.loads((folder / "run.json").read_text())
    stored[part].update(values)
    (folder / "run.json").write_text(json.dumps(stored))


def test_a_study_that_another_process_begins_is_left_alone(tmp_path: Path) -> None:
    first = start_run(tmp_path / "run", OPTIONS)
    before = (tmp_path / "run" / "run.json").read_bytes()
    other = SearchOptions(devices=on("arm", 20.0))
    with pytest.raises(RuntimeError, match="another process works on it"):
        start_run(tmp_path / "run", other)
    with pytest.raises(RuntimeError, match="another process works on it"):
        resume_run(tmp_path / "run", SearchOptions(devices=on("arm", 10.0), trials=9))
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert (tmp_path / "run" / TRIALS).exists()
    first.close()


def test_what_a_killed_command_left_before_it_began_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / TRIALS).touch()
    start_run(tmp_path / "run", OPTIONS).close()
    with pytest.raises(ValueError, match="holds a study"):  # that has no trials yet
        start_run(tmp_path / "run", OPTIONS)


def test_what_was_trained_is_not_given_up(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", OPTIONS)
    (tmp_path / "run" / CHECKPOINTS).mkdir()
    (tmp_path / "run" / CHECKPOINTS / "a.pt").write_bytes(b"hours of work")
    give_up(run)
    run.close()
    resume_run(tmp_path / "run").close()
    assert (tmp_path / "run" / CHECKPOINTS / "a.pt").exists()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (False, "there was nothing to keep yet. Give the same command again."),
        (True, "what was finished is kept. The same command with --resume goes on."),
    ],
)
def test_an_interruption_names_resume_where_something_is_kept(
    found: bool,  # noqa: FBT001
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        if found:
            (tmp_path / "run" / CHECKPOINTS).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.pipeline.run_pipeline", interrupted)
    words_of_search = ["search", "--device", "arm", "--budget", "20ms"]
    assert main([*words_of_search, "--out", str(tmp_path / "run")]) == 130
    assert (tmp_path / "run").exists() == found
    assert capsys.readouterr().err.endswith(f"fasternas: interrupted; {words}\n")


def test_only_what_this_command_began_is_given_up(tmp_path: Path) -> None:
    start_run(tmp_path / "run", OPTIONS).close()
    resumed = resume_run(tmp_path / "run")
    give_up(resumed)
    resumed.close()
    assert (tmp_path / "run" / "run.json").exists()


def test_only_who_holds_a_study_repairs_it(folder: Path, capsys: Streams) -> None:
    with (folder / TRIALS).open("ab") as file:
        file.write(b'{"half of a')
    with hold(folder):
        assert main(["show", str(folder), "--repair"]) == 2
        assert "another process works on it" in capsys.readouterr().err
        assert (folder / TRIALS).read_bytes().endswith(b"half of a")
        # a line that is just being written is no fault
        assert main(["show", str(folder)]) == 0
    assert main(["show", str(folder)]) == 2
    assert "repeat with --repair" in capsys.readouterr().err
    assert main(["show", str(folder), "--repair"]) == 0
    assert (folder / TRIALS).read_bytes().endswith(b"}\n")


def test_a_measured_run_is_shown_on_any_machine(folder: Path, capsys: Streams) -> None:
    _time_on_cpu(folder, threads=4096)
    assert main(["show", str(folder)]) == 0
    assert "predicted from a profile" not in capsys.readouterr().err
    assert read_only_run(folder).devices["cpu"].description == "a large machine: measured"


def test_a_study_goes_on_only_where_it_was_timed(folder: Path) -> None:
    _time_on_cpu(folder)
    with pytest.raises(ValueError, match=r"was timed on \(a large machine: measured\), but is"):
        resume_run(folder)
    with hold(folder):
        pass  # the refused one let go of it


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", [1]), ("trials", True), ("devices", None), ("devices", [3]), ("epochs", 1.5)],
)
def test_options_of_another_kind_are_refused(folder: Path, name: str, value: object) -> None:
    _change_run_json(folder, "options", **{name: value})
    with pytest.raises(ValueError, match=rf"as a search wrote them, but: .*{name}.* Restore"):
        resume_run(folder)


@pytest.mark.parametrize("command", ["show RUN", "search --resume --out RUN", "train RUN"])
@pytest.mark.parametrize(
    ("accuracy", "instead"), [("supernet", "--accuracy train"), ("proxy", "--accuracy estimate")]
)
def test_a_run_of_before_with_an_accuracy_that_was_removed_says_what_to_use(
    accuracy: str, instead: str, command: str, folder: Path, capsys: Streams
) -> None:
    _change_run_json(folder, "options", accuracy=accuracy, data="digits", weights="", growing=[])
    (folder / "configs").mkdir()
    save_config(replace(FASTERNET["t0"], classes=10, resolution=32), folder / "configs" / "a.yaml")
    (folder / "pareto.csv").write_text("config,accuracy,ratio\nconfigs/a.yaml,50,0.5\n")
    assert main(command.replace("RUN", str(folder)).split()) == 2
    assert capsys.readouterr().err == (
        f"fasternas: error: `accuracy` must not be {accuracy}, which was removed. Search anew with "
        f"{instead}.\n"
    )


@pytest.mark.parametrize("damage", ["missing", "empty"])
@pytest.mark.parametrize("command", ["show RUN", "report RUN", "search --resume --out RUN"])
def test_a_run_that_lost_its_trials_is_refused(
    command: str, damage: str, folder: Path, capsys: Streams
) -> None:
    (folder / "pareto.csv").write_text("config,accuracy,ratio\nconfigs/a.yaml,50,0.5\n")
    (folder / TRIALS).write_text("")
    if damage == "missing":
        (folder / TRIALS).unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(command.replace("RUN", str(folder)).split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"must hold the trials of the run, but is {damage}, and pareto.csv has netw" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_of_before_that_could_have_had_weights_is_read(folder: Path) -> None:
    _change_run_json(folder, "options", weights="")
    assert read_only_run(folder).options == OPTIONS


def test_genes_of_another_space_are_refused_by_file(folder: Path) -> None:
    _change_run_json(folder, "options", space="pconv")
    with pytest.raises(ValueError, match=r"`space` must be as it was when the study in .* began"):
        read_only_run(folder)


@pytest.mark.parametrize("seed", [-1, 2**31, 10**30])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"`seed` must be in 0..2147483647, but got {seed}"):
        SearchOptions(devices=on("arm", 10.0), seed=seed)


def test_failed_trials_are_told(folder: Path) -> None:
    run = read_only_run(folder)
    assert run.failed() == ["OSError: it broke"]
    words = closing_words(ReportModel(run))
    assert "1 of 4 trials failed; the first: OSError: it broke" in words


def test_lost_trials_are_told(folder: Path) -> None:
    assert not any(
        "no result" in line for line in closing_words(ReportModel(read_only_run(folder)))
    )
    run = resume_run(folder)
    run.study.keep((1, *(0,) * (len(run.space.genes) - 1)), Outcome(4, None, "OSError: it broke"))
    run.close()
    told = (
        "1 of 4 trials have no result, as a worker, a disk or a package failed, or the search was "
        "ended; --resume tries them again."
    )
    assert told in closing_words(ReportModel(read_only_run(folder)))
    known = read_only_run(folder)
    known.lost_because = "my-lab 1.0: KeyError: 'x'"
    (why,) = (line for line in closing_words(ReportModel(known)) if "no result" in line)
    assert "have no result (the first: my-lab 1.0: KeyError: 'x'); --resume tries" in why
    run = resume_run(folder)
    try:  # a search that goes on has not got to it yet
        assert told not in closing_words(ReportModel(read_only_run(folder)))
    finally:
        run.close()


@pytest.mark.parametrize("words", ["--out=", "--resolution=,", "--activation=relu,", "--ray=x:y"])
def test_an_empty_or_garbled_option_is_refused(words: str, capsys: Streams) -> None:
    with pytest.raises(SystemExit) as end:
        main(["search", "--budget", "10ms", "--device", "arm", words])
    assert end.value.code == 2
    assert "must" in capsys.readouterr().err


def test_a_command_that_is_told_to_end_cleans_up(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [PROGRAM, "measure", "t0", "t1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    end = time.monotonic() + 60
    while not list(scratch.glob("fasternas-*")):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.endswith("fasternas: interrupted; what was finished is kept.\n")
    assert list(scratch.glob("fasternas-*")) == []


def test_a_resolution_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="`resolution` must be distinct values, but got 96,96"):
        SearchOptions(devices=on("arm", 10.0), resolutions=(96, 96)).open_space()
