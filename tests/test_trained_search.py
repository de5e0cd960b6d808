"""A search that trains its networks."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from quick import evaluate_here
from specs import on

import fasternas as fn
from nas.cli.main import main
from nas.estimators import _words_of_start, estimated_median
from nas.search.guided import AccuracyPrior, posterior_mean
from nas.search.loop import Exploration
from nas.study.journal import read, read_trainings
from nas.study.options import SearchOptions
from predictors.training.estimators import TrainingEstimator
from predictors.training.recipe import SHORT

PROGRAM = Path(sys.executable).with_name("fasternas")
Streams = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 1, 1, 3))
    labels = np.arange(160) % 4
    images = np.clip(colours[labels] + rng.normal(0, 40, (160, 32, 32, 3)), 0, 255)
    file = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    return str(file)


def _search(folder: Path, data: str, *more: str) -> list[str]:
    return [
        "search",
        "--device",
        "arm",
        "--budget",
        "1ms",
        "--space",
        "fasternet-32",
        "--set-space",
        "depths=1",
        "--out",
        str(folder),
        "--data",
        data,
        "--trials",
        "5",
        "--epochs",
        "4",
        *more,
    ]


def _front(folder: Path) -> list[dict[str, str]]:
    with (folder / "pareto.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def undisturbed(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    priors = []

    def told(**options: Any) -> Any:
        priors.append(options["prior"])
        return Exploration(**options)

    def seen(space: Any, scores: Any, prior: AccuracyPrior) -> Any:
        priors.append(prior)
        return posterior_mean(space, scores, prior)

    with pytest.MonkeyPatch.context() as patch:
        evaluate_here(patch)
        patch.setattr("nas.pipeline.Exploration", told)
        patch.setattr("nas.pipeline.posterior_mean", seen)
        assert main(_search(folder, data)) == 0
    # The search and both promotions know the estimate, and how few images judge.
    assert [(prior.scores, prior.images) for prior in priors] == [(estimated_median, 16)] * 3
    return folder


def test_trainings_begin_with_the_weights_of_a_file(
    data: str, tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    parent = replace(fn.SPACES["fasternet-32"].sample(Random(0)), classes=4, depths=(1, 1, 1, 1))
    fn.save(fn.build(parent), "parent.safetensors")
    search = _search(tmp_path / "run", data, "--init", "parent.safetensors")
    assert main(search) == 0
    (said,) = re.findall(r"Of large to small networks (\S+) to (\S+) % of", capsys.readouterr().err)
    assert 10 < float(said[0]) <= float(said[1]) <= 100
    found = (tmp_path / "run" / "pareto.csv").read_bytes()
    monkeypatch.chdir("/")  # the file is found from any folder
    assert main(["search", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "pareto.csv").read_bytes() == found

    still = replace(SHORT, epochs=1, lr=1e-12, min_lr=0.0)
    estimator = TrainingEstimator(
        data=data,
        recipe=still,
        epochs=1,
        folder=tmp_path / "trainings",
        init=str(tmp_path / "parent.safetensors"),
    )
    estimator(parent)
    begun = estimator.checkpoint(parent).weights
    for name, weight in fn.load(tmp_path / "parent.safetensors").named_parameters():
        assert torch.allclose(begun[name], weight, atol=1e-6), name
    assert estimator.file(parent) != replace(estimator, init="").file(parent)


def test_one_network_is_begun_with_and_what_it_is_is_said(tmp_path: Path) -> None:
    def prefixed(prefix: str) -> dict[str, torch.Tensor]:
        config = replace(fn.SPACES["fasternet-32"].sample(Random(0)), classes=4)
        return {f"{prefix}{k}": w for k, w in fn.build(config).state_dict().items()}

    file = tmp_path / "w.ckpt"
    torch.save({**prefixed("student."), **prefixed("teacher.")}, file)
    options = SearchOptions(
        devices=on("arm", 20.0),
        accuracy="train",
        data="digits",
        space="fasternet-32",
        classes=4,
        init=str(file),
    )
    with pytest.raises(ValueError, match=r"has several, under student, teacher\. Save the one"):
        _words_of_start(options)
    torch.save({**prefixed(""), **prefixed("ema."), "neck.weight": torch.ones(3)}, file)
    (said,) = _words_of_start(options)
    assert "of the parameters begin as in " in said
    assert "w.ckpt (its averaged weights)" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--init", "absent.pth"], "absent.pth"),
        (["--init", "other.npz"], "other.npz"),
        (["--init", "x.pth", "--accuracy", "estimate"], "`init` must be left out where `accuracy`"),
    ],
)
def test_weights_that_are_none_are_refused_before_anything_is_done(
    more: list[str], message: str, data: str, tmp_path: Path, capsys: Streams
) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    more = [str(tmp_path / word) if "." in word else word for word in more]
    assert main(_search(tmp_path / "run", data, *more)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_front_has_accuracies_and_its_best_were_trained_longest(
    undisturbed: Path, capsys: Streams
) -> None:
    front = _front(undisturbed)
    assert front
    assert all(row["accuracy_kind"] == "trained" for row in front)
    assert all(0 <= float(row["accuracy"]) <= 100 for row in front)
    kept = json.loads((undisturbed / "run.json").read_text())
    assert kept["validation"]["images"] == 16
    assert all(float(row["largest_class"]) >= 25.0 for row in front)  # of four classes
    assert all(float(row["accuracy_low"]) < float(row["accuracy_high"]) for row in front)
    options = kept["options"]
    assert (options["classes"], options["accuracy"]) == (4, "train")
    longest = [max(by_epochs) for by_epochs in read_trainings(undisturbed).values()]
    assert sorted(longest) == [2, 4]  # of five two go on, of those one
    assert main(["show", str(undisturbed)]) == 0
    assert "accuracy %" in capsys.readouterr().out


@pytest.mark.usefixtures("without_ray")
def test_killed_while_it_trains_it_goes_on_to_the_same_front(
    undisturbed: Path, data: str, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    with subprocess.Popen(
        [PROGRAM, *_search(folder, data)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 200
        while len(list(folder.glob("trainings/*.pt"))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
    checkpoints = {file: file.stat().st_mtime_ns for file in folder.glob("trainings/*.pt")}
    assert len(checkpoints) >= 2
    assert not (folder / "pareto.csv").exists()
    assert main(_search(folder, data, "--resume")) == 0
    assert _front(folder) == _front(undisturbed)
    assert read_trainings(folder) == read_trainings(undisturbed)


def test_with_ray_tune_it_is_killed_and_comes_to_the_same_front(
    undisturbed: Path, data: str, tmp_path: Path, capsys: Streams
) -> None:
    folder, tune = tmp_path / "killed", ("--engine", "tune")
    with subprocess.Popen(
        [PROGRAM, *_search(folder, data, *tune)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 300
        while len(_finished(folder)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
    finished = _finished(folder)
    assert 2 <= len(finished) < 5
    assert main(_search(folder, data, "--resume", *tune)) == 0
    assert _finished(folder)[: len(finished)] == finished  # as they were, once each
    assert len(_finished(folder)) == 5
    assert _front(folder) == _front(undisturbed)
    assert read_trainings(folder) == read_trainings(undisturbed)
    # One experiment of Tune's for each rung, with the checkpoints of its trials.
    rungs = {path.name for path in (folder / "tune").iterdir()}
    assert rungs == {"1-epochs", "2-epochs", "4-epochs"}
    assert list(folder.glob("tune/1-epochs/*/trial-*/checkpoint_*/*.pt"))
    assert capsys.readouterr().out.startswith("config ")  # and nothing that Tune prints


def _finished(folder: Path) -> list[Any]:
    """The trials on record, in the order in which they ended."""
    entries = read(folder / "study.journal", growing=True)
    return [entry["user_attrs"] for entry in entries if "user_attrs" in entry]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--classes", "10"], "`classes` must be the 4 of .*, but got 10"),
        (["--accuracy", "guess"], "`accuracy` must be one of .*, but got"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    more: list[str], complaint: str, data: str, tmp_path: Path, capsys: Streams
) -> None:
    folder = tmp_path / "run"
    assert main(_search(folder, data, *more)) == 2
    said = capsys.readouterr().err
    assert re.search(complaint, said)
    assert said.count("\n") == 1
    assert not folder.exists()


def test_training_needs_data(tmp_path: Path, capsys: Streams) -> None:
    assert (
        main(
            [
                "search",
                "--device",
                "arm",
                "--budget",
                "1ms",
                "--accuracy",
                "train",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    assert "`data` must be given where `accuracy` is train" in capsys.readouterr().err


def _grown(file: Path, classes: int = 4) -> None:
    """Give data as many images again, of so many classes."""
    with np.load(file) as kept:
        images, count = kept["x_train"], 2 * len(kept["x_train"])
    np.savez(file, x_train=np.tile(images, (2, 1, 1, 1)), y_train=np.arange(count) % classes)


@pytest.mark.usefixtures("without_ray")
def test_on_other_data_a_run_does_not_go_on(
    undisturbed: Path, data: str, tmp_path: Path, capsys: Streams
) -> None:
    folder, file = tmp_path / "run", tmp_path / "colours.npz"
    shutil.copytree(undisturbed, folder)
    shutil.copy(data, file)
    kept = json.loads((folder / "run.json").read_text())
    assert kept["data"] == {"classes": 4, "train": 144, "validation": 16}
    go_on = ["search", "--resume", "--out", str(folder)]
    assert main([*go_on, "--data", str(file)]) == 0  # the same at another place
    capsys.readouterr()

    _grown(file, classes=5)
    assert main(go_on) == 2
    assert capsys.readouterr().err == (
        f"fasternas: error: `data` must be what the run began with, but {file} has 290 training "
        "and 30 validation images of 5 classes now, and had 144 and 16 of 4. Put them back, or "
        "begin another run.\n"
    )
    del kept["data"]  # a run of before
    kept["paths"]["data"] = str(file)
    (folder / "run.json").write_text(json.dumps(kept))
    assert main(go_on) == 0


def test_there_are_fewer_trials_where_they_take_longer_than_was_reckoned(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    evaluate_here(monkeypatch)
    monkeypatch.setattr("nas.estimators.LEAST", 2)
    monkeypatch.setattr("nas.estimators.epoch_seconds", lambda *_: 1e-6)
    words = ["--time", "10ms", "--parallel", "1"]
    assert main(_search(tmp_path / "run", data, *words)) == 0
    said = capsys.readouterr().err
    assert "auto took 5 short trainings" in said
    assert "searching: 2 of 2; no more fit in" in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["trials"] == 2
    assert main(["show", str(tmp_path / "run")]) == 0
    assert main(["search", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert "searching: 2 of 2\n" in capsys.readouterr().err
    assert main([*_search(tmp_path / "run", data, *words), "--resume"]) == 0
    assert "searching: 2 of 2\n" in capsys.readouterr().err
