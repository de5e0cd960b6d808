"""What a training begins with, and a run's networks by the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from specs import on

from nas.cli.main import main
from nas.finetune.folder import held
from nas.finetune.jobs import Job, TrainingRequest, started
from nas.study.options import SearchOptions
from predictors.training.checkpoint import in_folder
from predictors.training.estimators import loaded
from predictors.training.recipe import Recipe
from search_spaces.formats import save_config

OPTIONS = SearchOptions(devices=on("arm", 1.0), space="fasternet-32", classes=4, epochs=1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a front of two, and data."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(80) % 4)
    folder = tmp_path / "run"
    (folder / "configs").mkdir(parents=True)
    space = OPTIONS.open_space()
    lines = ["config,accuracy,ratio"]
    for name, choice in (("small", 0), ("large", 1)):
        save_config(space.decode((choice,) * len(space.genes)), folder / "configs" / f"{name}.yaml")
        lines.append(f"configs/{name}.yaml,{50 + choice},{1 + choice}")
    (folder / "pareto.csv").write_text("\n".join(lines) + "\n")
    options = OPTIONS.as_json() | {"data": str(tmp_path / "noise.npz")}
    (folder / "run.json").write_text(json.dumps({"options": options}))
    return folder


def test_one_seed_begins_with_the_same_weights_and_draws_no_others_numbers(run: Path) -> None:
    config = OPTIONS.open_space().decode((0,) * len(OPTIONS.open_space().genes))
    job = Job(name="a", config=config, recipe=Recipe(), data="", folder=run / "x")
    state = torch.get_rng_state()
    first, second = started(job).state_dict(), started(job).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_of_a_run_is_trained_on_the_runs_data(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(run), "--epochs", "1", "--gpus", "0"]) == 0
    assert "large" in capsys.readouterr().out
    assert (run / "trained" / "large" / "weights.safetensors").exists()
    assert not (run / "trained" / "small").exists()


def test_a_training_goes_on_with_as_many_images_only(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", str(run), "--epochs", "1", "--gpus", "0"]
    assert main(train) == 0
    folder = run / "trained" / "large"
    kept = (folder / "training.csv").read_bytes()
    last = in_folder(folder).newest()
    assert last is not None
    with np.load(run.with_name("noise.npz")) as file:
        images, labels = file["x_train"], file["y_train"]
    np.savez(run.with_name("noise.npz"), x_train=images[:60], y_train=labels[:60])
    loaded.cache_clear()
    capsys.readouterr()
    assert main([*train, "--resume"]) == 2
    assert capsys.readouterr().err.endswith(
        f"{folder} has the images 72 of training and 8 of validation, not 52 of training and 8 of "
        "validation. Name another folder.\n"
    )
    identity = {k: v for k, v in last.content["identity"].items() if k != "images"}
    in_folder(folder).write({**last.content, "identity": identity})  # of before
    assert main([*train, "--resume"]) == 0
    assert (folder / "training.csv").read_bytes() == kept
    loaded.cache_clear()


def test_a_training_of_before_that_began_with_a_supernet_is_refused(run: Path) -> None:
    identity = {"start": "supernet", "data": str(run.with_name("noise.npz"))}
    in_folder(run / "trained" / "large").write({"identity": identity})
    request = TrainingRequest(networks=[str(run)], resume=True)
    with pytest.raises(ValueError, match="`init` must not be supernet, which was removed"):
        request.jobs()


def test_what_picks_from_no_front_is_refused(run: Path) -> None:
    for networks, pick in ((["t0"], "knee"), (["t0", "t1"], "best")):
        request = TrainingRequest(networks=networks, pick=pick, data="digits")
        with pytest.raises(ValueError, match=f"`pick` must be left out .* but got {pick}. It cho"):
            request.jobs()
    assert TrainingRequest(networks=[str(run)], pick="best").jobs()[0]


def test_a_folder_is_one_processes(tmp_path: Path) -> None:
    refused = pytest.raises(RuntimeError, match="must be free, but another process works on it")
    with held(tmp_path), refused, held(tmp_path):
        pass
    with held(tmp_path):
        pass
