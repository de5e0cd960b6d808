"""A run is a folder: it is gone on with by its name, from anywhere, also where it was moved."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from specs import on

from nas.cli.main import main
from nas.finetune.jobs import TrainingRequest
from nas.run_folder import place_of_data, read_only_run, resume_run, start_run
from nas.study.options import SearchOptions
from predictors.measurement import Backend
from predictors.training.evaluate import ValidationSplit
from search_spaces.formats import save_config

Streams = pytest.CaptureFixture[str]
OPTIONS = SearchOptions(
    devices=on("arm", 1.0),
    space="fasternet-32",
    trials=4,
    accuracy="train",
    data="sets/noise.npz",
    epochs=1,
    seed=3,
    classes=4,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a run of it, begun in there by relative paths."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "sets").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "sets" / "noise.npz", x_train=images, y_train=np.arange(80) % 4)
    monkeypatch.chdir(folder)
    split = ValidationSplit(images=16, largest_class=25.0)
    start_run(Path("runs/one"), OPTIONS, validation=split).close()
    (folder / "runs" / "one" / "configs").mkdir()
    space = OPTIONS.open_space()
    config = space.decode((0,) * len(space.genes))
    save_config(config, folder / "runs" / "one" / "configs" / "a.yaml")
    table = "config,accuracy,ratio\nconfigs/a.yaml,50,0.5\n"
    (folder / "runs" / "one" / "pareto.csv").write_text(table)
    return folder


def _data(run: Path) -> str:
    (job,) = TrainingRequest(networks=[str(run)]).jobs()[0]
    return job.data


def test_absolute_paths_are_beside_those_that_were_typed(project: Path) -> None:
    stored = json.loads((project / "runs" / "one" / "run.json").read_text())
    assert stored["options"]["data"] == "sets/noise.npz"
    assert stored["paths"] == {"data": str(project / "sets" / "noise.npz")}
    assert stored["folder"] == str(project / "runs" / "one")
    assert stored["validation"] == {"images": 16, "largest_class": 25.0}


def test_a_run_finds_its_data_from_any_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "noise.npz").write_text("another set, by the same name")
    assert _data(project / "runs" / "one") == str(project / "sets" / "noise.npz")
    run = resume_run(Path("project/runs/one"))
    assert run.options.data == str(project / "sets" / "noise.npz")
    run.close()
    assert read_only_run(Path("project/runs/one")).options.data == "sets/noise.npz"


def test_a_run_that_was_moved_with_its_data_finds_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "elsewhere" / "runs" / "one"
    assert _data(run) == str(tmp_path / "elsewhere" / "sets" / "noise.npz")


def test_a_run_that_kept_what_was_typed_looks_around_itself(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project / "runs" / "one" / "run.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({"options": stored["options"]}))
    monkeypatch.chdir(tmp_path)
    assert _data(project / "runs" / "one") == str(project / "sets" / "noise.npz")


@pytest.mark.parametrize("command", ["train", "search --resume --out"])
def test_a_run_whose_data_are_gone_says_where_it_looked(
    project: Path, command: str, capsys: Streams
) -> None:
    (project / "sets" / "noise.npz").unlink()
    moved = (project / "runs").rename(project / "moved")
    assert main([*command.split(), str(moved / "one")]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(
        rf"fasternas: error: `data` of the run in {moved}/one must be where it was, but is not at "
        rf"{project}/sets/noise.npz, .*. Move it back, or say where it is: --data PATH.\n",
        said,
    )


@pytest.mark.parametrize("name", ["digits", "torch/mnist@sets", "hfds/user/name"])
def test_sets_by_name_are_no_paths(project: Path, name: str) -> None:
    file = project / "runs" / "one" / "run.json"
    stored = json.loads(file.read_text())
    stored["options"]["data"] = name
    del stored["paths"]
    file.write_text(json.dumps(stored))
    expected = f"torch/mnist@{project}/sets" if "@" in name else name
    assert place_of_data(project / "runs" / "one") == expected


def _resume(*words: str) -> Any:
    """What a search would go on with."""
    from argparse import Namespace

    from nas.cli.main import parser_for
    from nas.cli.search import _folder, _resumed, fill

    given = ["search", "--resume", *words]
    arguments = parser_for(given).parse_args(given, Namespace(debug=False, json=False))
    typed = fill(arguments)
    folder = _folder(arguments)
    return resume_run(folder, _resumed(arguments, folder, typed).options)


def test_a_search_goes_on_with_nothing_but_the_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ("--out", "project/runs/one")
    ours = ("", "--seed 3", "--budget 1ms", "--epochs 1", "--device arm", "--accuracy auto")
    for words in (*ours, "--data project/sets/noise.npz"):
        run = _resume(*out, *words.split())
        expected = {**OPTIONS.as_json(), "data": str(project / "sets" / "noise.npz")}
        assert run.options.as_json() == expected
        run.close()
    run = _resume(*out, "--trials", "9")
    assert run.options.trials == 9
    run.close()
    stored = json.loads((project / "runs" / "one" / "run.json").read_text())
    assert stored["options"] == {**OPTIONS.as_json(), "trials": 9}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 0", "has seed 3, not 0"),
        ("--budget 2ms", "has devices arm .*, not arm"),
        ("--space fasternet", "has space fasternet-32, not fasternet"),
        ("--epochs 8", "has epochs 1, not 8"),
        ("--data digits", "has data sets/noise.npz, not digits"),
        ("--searcher random", "has searcher guided, not random"),
        ("--resolution 32", "has resolutions"),
    ],
)
@pytest.mark.usefixtures("project")
def test_what_is_typed_must_be_the_run_s_own_even_if_it_is_the_default(
    words: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"must hold this study, but .* {message}"):
        _resume("--out", "runs/one", *words.split())


def test_a_search_goes_on_with_data_that_were_moved(project: Path) -> None:
    new = project / "disk" / "noise.npz"
    new.parent.mkdir()
    (project / "sets" / "noise.npz").rename(new)
    with pytest.raises(ValueError, match="say where it is: --data PATH"):
        _resume("--out", "runs/one")
    run = _resume("--out", "runs/one", "--data", "disk/noise.npz")
    assert run.options.data == str(new)
    run.close()
    assert place_of_data(Path("runs/one")) == str(new)  # from now on


def test_a_search_keeps_how_its_networks_are_timed(project: Path) -> None:
    devices = on("cpu", 1.0, Backend(precision="int8", threads=2))
    start_run(project / "runs" / "two", replace(OPTIONS, devices=devices)).close()
    run = _resume("--out", "runs/two", "--budget", "1ms")
    assert run.options.devices == devices
    run.close()
    with pytest.raises(ValueError, match=r"has devices cpu .*2 threads, not cpu .*one thread"):
        _resume("--out", "runs/two", "--threads", "1")


@pytest.mark.usefixtures("project")
def test_without_a_name_or_a_budget_it_says_so(capsys: Streams) -> None:
    assert main(["search", "--resume"]) == 2
    assert "`out` must be given with --resume, or the --budget" in capsys.readouterr().err
    assert main(["search"]) == 2
    assert "arguments are required: --budget" in capsys.readouterr().err


def test_a_training_goes_on_where_its_run_was_moved(
    project: Path, tmp_path: Path, capsys: Streams
) -> None:
    run = project / "runs" / "one"
    words = ("--gpus", "0", "--device", "none")
    assert main(["train", str(run), *words, "--epochs", "1"]) == 0
    (run / "trained" / "a" / "weights.safetensors").unlink()
    project.rename(tmp_path / "elsewhere")
    moved = str(tmp_path / "elsewhere" / "runs" / "one")
    assert main(["train", moved, *words, "--epochs", "1", "--resume"]) == 0
    assert "a: epoch" not in capsys.readouterr().err.split("exporting and evaluating")[1]
    assert (Path(moved) / "trained" / "a" / "weights.safetensors").is_file()
    assert main(["train", moved, *words, "--resume", "--epochs", "1", "--data", "digits"]) == 2
