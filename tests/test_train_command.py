"""`fasternas train`: what it leaves, what it survives, what it refuses."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_trees import GREEN, RED, saved
from networks import TINY
from safetensors.torch import load_file

from nas.cli.main import main
from nas.cli.train import _workers
from nas.ray_workers import Allocation
from predictors.training.recipe import BEFORE, LAST, read_recipe
from search_spaces.checkpoint import load, save
from search_spaces.formats import load_config, save_config
from search_spaces.network import build

Streams = pytest.CaptureFixture[str]
CONFIG = replace(TINY, classes=4)
COMMAND = "import sys; from nas.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and data: four classes of noise, each about a colour of its own."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 1, 1, 3))
    labels = np.arange(600) % 4
    images = np.clip(colours[labels] + rng.normal(0, 40, (600, 32, 32, 3)), 0, 255)
    np.savez(folder / "colours.npz", x_train=images.astype(np.uint8), y_train=labels)
    save_config(CONFIG, folder / "mine.yaml")
    return folder


def _train(place: Path, out: Path, *more: str) -> list[str]:
    return [
        "train",
        str(place / "mine.yaml"),
        "--data",
        str(place / "colours.npz"),
        "--out",
        str(out),
        "--gpus",
        "0",
        "--device",
        "none",
        *more,
    ]


def _table(folder: Path) -> list[dict[str, str]]:
    """The rows but for what the clock says."""
    with (folder / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(_train(place, out, "--epochs", "5", "--set", "lr=5e-3")) == 0
    return out / "mine"


def test_it_leaves_weights_and_everything_that_says_how(undisturbed: Path) -> None:
    assert load_config(undisturbed / "config.yaml") == CONFIG
    assert load(undisturbed / "weights.safetensors").config == CONFIG
    assert (undisturbed / "training.png").read_bytes()[:4] == b"\x89PNG"
    assert "lr: 0.005" in (undisturbed / "recipe.yaml").read_text()
    assert [row["epoch"] for row in _table(undisturbed)] == list("12345")
    assert list((undisturbed / "tensorboard").iterdir())


def test_killed_in_an_epoch_it_goes_on_to_the_same_weights_and_table(
    undisturbed: Path, place: Path, tmp_path: Path, capsys: Streams
) -> None:
    command = _train(place, tmp_path, "--epochs", "5", "--set", "lr=5e-3")
    folder = tmp_path / "mine"
    often = [sys.executable, "-c", COMMAND, *command, "--checkpoint", "1us"]
    with subprocess.Popen(often, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 100
        while not (found := _stopped_in_second_epoch(process, folder)):
            assert time.monotonic() < end
            assert process.poll() is None
        assert main([*command, "--resume"]) == 2
        assert "must be free, but another process works on it" in capsys.readouterr().err
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert found
    assert not (folder / "weights.safetensors").exists()
    assert main([*command, "--resume"]) == 0
    ours, theirs = (load_file(f / "weights.safetensors") for f in (folder, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert _table(folder) == _table(undisturbed)


def _stopped_in_second_epoch(process: "subprocess.Popen[bytes]", folder: Path) -> bool:
    """Stop the process; let it go on unless its checkpoint is in the middle of a later epoch."""
    if not (folder / LAST).exists():
        time.sleep(0.05)
        return False
    process.send_signal(signal.SIGSTOP)
    file = folder / LAST if (folder / LAST).exists() else folder / BEFORE
    state = torch.load(file, weights_only=True)
    if state["epochs_done"] >= 1 and state["step"] >= 1:
        return True
    process.send_signal(signal.SIGCONT)
    time.sleep(0.02)
    return False


def test_a_cut_checkpoint_is_left_and_it_says_so(
    undisturbed: Path, place: Path, tmp_path: Path, capsys: Streams
) -> None:
    command = _train(place, tmp_path, "--epochs", "5", "--set", "lr=5e-3")
    assert main(command) == 0
    last = tmp_path / "mine" / LAST
    last.write_bytes(last.read_bytes()[:1000])
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert "last.pt cannot be read; the one before, last-1.pt, is used" in capsys.readouterr().err
    assert _table(tmp_path / "mine") == _table(undisturbed)


def test_a_loss_that_is_no_number_is_tried_twice_with_less(
    place: Path, tmp_path: Path, capsys: Streams
) -> None:
    assert main(_train(place, tmp_path, "--epochs", "2", "--set", "lr=1e30")) == 2
    said = capsys.readouterr().err
    assert re.search(r"Back to epoch 1, step 0, with 0\.5 of the learning rate", said)
    assert re.search(r"Back to epoch 1, step 0, with 0\.25 of the learning rate", said)
    assert re.search(r"error: The loss must stay a number, .* Use a smaller `lr`", said)
    assert (tmp_path / "mine" / LAST).exists()


def test_another_training_is_not_gone_on_with(
    undisturbed: Path, place: Path, capsys: Streams
) -> None:
    out = undisturbed.parent
    assert main(_train(place, out)) == 2
    assert "`out` must be a new folder, but" in capsys.readouterr().err
    assert main(_train(place, out, "--resume", "--epochs", "7")) == 2
    assert "has the epochs 5, not 7. Name another folder." in capsys.readouterr().err
    assert main(_train(place, out, "--resume", "--json")) == 0  # its recipe is in the folder
    (told,) = json.loads(capsys.readouterr().out)
    best = max(_table(undisturbed), key=lambda row: float(row["accuracy"]))
    assert (told["network"], told["validation_accuracy"]) == ("mine", float(best["accuracy"]))


def test_branches_are_gone_after_the_training(
    undisturbed: Path, place: Path, tmp_path: Path, capsys: Streams
) -> None:
    branches = ("--epochs", "1", "--set", "branches=true")
    assert main(_train(place, tmp_path, *branches)) == 0
    weights = tmp_path / "mine" / "weights.safetensors"
    assert load_file(weights).keys() == build(CONFIG).state_dict().keys()
    capsys.readouterr()
    init = str(undisturbed / "weights.safetensors")
    assert main(_train(place, tmp_path / "other", *branches, "--init", init)) == 2
    assert "`branches` must be false to begin with weights" in capsys.readouterr().err


def test_it_starts_from_other_weights(
    undisturbed: Path, place: Path, tmp_path: Path, capsys: Streams
) -> None:
    weights = str(undisturbed / "weights.safetensors")
    still = ("--epochs", "1", "--set", "lr=0", "--set", "warmup_lr=0", "--set", "min_lr=0")
    assert main(_train(place, tmp_path, "--init", weights, *still)) == 0
    said = f"100 % of the parameters begin as in {weights}."
    assert f"mine: {said}\n" in capsys.readouterr().err
    trained = load_file(tmp_path / "mine" / "weights.safetensors")
    given = load_file(weights)
    assert torch.equal(trained["classifier.weight"], given["classifier.weight"])
    card = (tmp_path / "mine" / "README.md").read_text()
    assert f"begun from {weights}: {said} `recipe.yaml` has" in card
    assert main(_train(place, tmp_path, "--resume")) == 0  # which knows how it began


def test_workers_find_a_teacher_by_a_path_that_is_relative(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(build(CONFIG), tmp_path / "teacher.safetensors")
    taught = ("--set", "teacher=fasternas", "--set", "teacher_weights=teacher.safetensors")
    assert main(_train(place, tmp_path / "out", "--epochs", "1", *taught)) == 0
    recipe = read_recipe(tmp_path / "out" / "mine" / "recipe.yaml")
    assert recipe.teacher_weights == str(tmp_path / "teacher.safetensors")


@pytest.mark.parametrize(("local", "address", "expected"), [(0, "auto", 0), (2, None, 1)])
def test_gpus_of_a_cluster_are_not_counted_here(
    local: int, address: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: local)
    request, here = _workers(Namespace(workers=1, gpus=None, ray=address))
    assert here.gpus == expected
    assert request.resolve(4) == Allocation(workers=1, gpus=1)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (
            ["--set", "min_l=3"],
            "`recipe` must have known settings, but got 'min_l'. Did you mean min_lr?",
        ),
        (["--set", "batch_size=many"], "`batch_size` must be a whole number, but got 'many'"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml"),
        (["--data", "nowhere"], "`data` must be digits, a folder of IDX files, a folder of images"),
        (["--data", "digits"], "`classes` must be the 10 of digits, but mine has 4"),
        (["--init", "nowhere.pt"], "nowhere.pt"),
        (
            ["--init", "supernet"],
            "`init` must not be supernet, which was removed. Search with --accuracy train, and",
        ),
        (["--set", "augment=garbage"], "`augment` must be an augmentation of timm's, such as rand"),
        (["--set", "batch_size=5000"], "`batch_size` must be at most 5"),
        (
            ["--set", "teacher_weights=gone.pth", "--set", "teacher=test_resnet"],
            "`teacher_weights` must be a file that exists, but got 'gone.pth'. Check",
        ),
        (["--gpus", "9"], "`gpus` must be 0 where there is no GPU, but got 9"),
    ],
)
def test_bad_input_is_one_line(
    more: list[str], complaint: str, place: Path, tmp_path: Path, capsys: Streams
) -> None:
    if "--gpus" in more and torch.cuda.is_available():
        pytest.skip("There is a GPU here.")
    assert main([*_train(place, tmp_path), "--epochs", "1", *more]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "validation split" not in line]
    assert len(said) == 1
    assert complaint in said[0]
    assert not list(tmp_path.glob("*/*.pt"))
    begun = {"augment=garbage", "batch_size=5000", "teacher_weights=gone.pth"}.isdisjoint(more)
    assert begun or not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["t9", "--data", "digits"], "`network` must be a run folder, a config or checkpoint"),
        (["t0"], "`data` must be given, but is not"),
        (["t0@32", "t0@32", "--data", "digits"], "`networks` must have names of their own, but"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(
    arguments: list[str], complaint: str, capsys: Streams
) -> None:
    assert main(["train", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_setting_needs_a_value(capsys: Streams) -> None:
    with pytest.raises(SystemExit):
        main(["train", "t0", "--set", "lr"])
    assert "--set: must be NAME=VALUE, but got 'lr'" in capsys.readouterr().err


def test_a_name_that_is_no_utf8_is_found_out_before_the_training_not_after(
    tmp_path: Path, capsys: Streams
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    for name, colour in (("\u732b", RED), (os.fsdecode(b"th\xe9"), GREEN)):
        for number in range(20):
            saved(odd / name / f"{number}.png", colour, (32, 32))
    save_config(replace(TINY, classes=2), tmp_path / "mine.yaml")
    command = [
        "train",
        str(tmp_path / "mine.yaml"),
        "--data",
        str(odd),
        "--epochs",
        "1",
        "--device",
        "none",
        "--gpus",
        "0",
        "--out",
    ]
    assert main([*command, str(odd / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fasternas: error: `out` must be a path in UTF-8")
    assert said.count("\n") == 1
    assert not (odd / "out").exists()
    assert main([*command, str(tmp_path / "\u51fa\u529b")]) == 0
    folder = tmp_path / "\u51fa\u529b" / "mine"
    assert r"- 2 classes: th\xe9, " in (folder / "README.md").read_text(encoding="utf-8")
    assert load(folder / "weights.safetensors").config.classes == 2
    assert "Glyph" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--out", "taken/inner"], r"`out` must be a folder, but .*/taken is a file. Name an"),
        (["--init", "absent.pth"], "`init` must be a file that exists, but got 'absent.pth'. Ch"),
    ],
)
def test_what_can_be_refused_is_refused_before_data_are_read(
    more: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: Streams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nas.finetune.jobs.loaded", None)
    Path("taken").touch()
    assert main(["train", "t0", "--data", "digits", *more]) == 2
    assert re.search(complaint, capsys.readouterr().err)
