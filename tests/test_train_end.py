"""The end of `fasternas train` apart from timing: files, judgements, model cards, refusals."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from specs import on
from trained_digits import CONFIGS, SMALL, final_rows, run_with, train_command

import fasternas as fn
from nas.cli.main import main
from nas.finetune.folder import whole_table
from nas.finetune.result import read_result
from predictors.cost import Limits
from predictors.data.datasets import load_data
from search_spaces.checkpoint import read_checkpoint

Streams = pytest.CaptureFixture[str]
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def trained(digits_networks: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(digits_networks, tmp_path / "networks")


def test_the_weights_are_a_checkpoint_that_says_what_they_are(digits_networks: Path) -> None:
    found = read_checkpoint(digits_networks / "out" / "small" / "weights.safetensors")
    data = load_data("digits", resolution=8)
    assert found.config == SMALL
    assert (found.classes, found.mean, found.std) == (data.classes, data.mean, data.std)


def test_without_a_device_the_table_has_accuracies_alone(digits_networks: Path) -> None:
    rows = final_rows(digits_networks / "out")
    assert rows.keys() == CONFIGS.keys()
    data = load_data("digits", resolution=8)
    assert data.test is not None
    for name, row in rows.items():
        assert (row["split"], row["images"]) == ("test", str(len(data.test)))
        low, high = float(row["accuracy_low"]), float(row["accuracy_high"])
        assert low < float(row["accuracy"]) < high
        assert float(row["largest_class"]) == pytest.approx(data.test.largest_class)
        assert (row["latency_ms"], row["kept"], row["source"]) == ("", "", "")
        assert (row["runtime"], row["precision"]) == ("onnxruntime", "fp32")
        assert int(row["macs"]) == fn.cost(CONFIGS[name]).macs
        files = row["files"].split(";")
        assert {f"{name}/{name}.onnx", f"{name}/weights.safetensors"} <= set(files)
        assert all((digits_networks / "out" / file).exists() for file in files)
    card = (digits_networks / "out" / "small" / "README.md").read_text()
    assert "Not timed yet" in card
    assert f"Always guessing the largest class gets {data.test.largest_class:.2f} % of" in card


def test_the_accuracy_is_that_of_the_best_weights_on_the_test_split(digits_networks: Path) -> None:
    from predictors.training.batches import batches

    data = load_data("digits", resolution=8)
    assert data.test is not None
    network = fn.load(digits_networks / "out" / "large" / "weights.safetensors")
    ((images, labels),) = batches(data.test, data=data, batch_size=len(data.test), rng=None)
    with torch.no_grad():
        right = int((network(images).argmax(1) == labels).sum())
    row = final_rows(digits_networks / "out")["large"]
    assert float(row["accuracy"]) == pytest.approx(100 * right / len(labels))
    ending = read_result(digits_networks / "out" / "large")
    assert ending
    assert ending.agreement.images == len(data.validation)
    assert ending.agreement.same == 100
    best = max(
        float(r["accuracy"])
        for r in csv.DictReader(
            (digits_networks / "out" / "large" / "training.csv").read_text().splitlines()
        )
    )
    assert float(row["validation_accuracy"]) == best


def test_the_code_of_the_card_runs_in_its_folder(
    digits_networks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    folder = digits_networks / "out" / "small"
    monkeypatch.chdir(folder)
    text = (folder / "README.md").read_text()
    blocks = CODE.findall(text)
    assert len(blocks) == 3
    for code in blocks:
        exec(compile(code, str(folder / "README.md"), "exec"), {"__name__": "__main__"})
    assert all(line in list("0123456789") for line in capsys.readouterr().out.split())


def test_a_card_says_what_was_trained_on_what_and_how(digits_networks: Path) -> None:
    card = (digits_networks / "out" / "small" / "README.md").read_text()
    for words in (
        "# small\n",
        "% of 359 test images of digits",
        "\u2588\u2588\u2588\u2591",
        "`epochs` 4",
        "begun from scratch",
        "10 classes: 0, 1, 2",
        "looked at once",
        "validation images, by which epoch",
        "small.onnx",
    ):
        assert words in card, words
    assert "`mixup`" not in card  # as the recipe has it anyway


def test_the_weights_go_wherever_a_checkpoint_goes(
    digits_networks: Path, tmp_path: Path, capsys: Streams
) -> None:
    weights = digits_networks / "out" / "small" / "weights.safetensors"
    assert main(["export", str(weights), "--data", "digits", "--out", str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["agreement"]["same"] == 100
    assert told["accuracy_lost"] == 0
    ending = read_result(digits_networks / "out" / "small")
    assert ending
    assert told["agreement"]["accuracy"] == pytest.approx(ending.validation)


def test_a_front_shows_what_became_of_it(trained: Path, capsys: Streams) -> None:
    run = run_with(trained, devices=on("arm", 1.0))
    (run / "pareto.csv").unlink()  # of trials that this run has not
    assert main(["show", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.index("config") < out.index("network") < out.index("359 test")
    assert out.count("359 test") == 2


def test_the_final_check_holds_the_written_file_against_the_limit(
    trained: Path, capsys: Streams
) -> None:
    size = (trained / "out" / "small" / "small.onnx").stat().st_size
    run = run_with(trained, devices=on("arm", 1.0), limits=Limits(params=10**6, file_bytes=size))
    command = ["train", str(run), "--pick", "all", "--epochs", "4", "--device", "none"]
    assert main([*command, "--gpus", "0", "--resume", "--json"]) == 0
    rows = {row["network"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["kept"] for name, row in rows.items()} == {"small": None, "large": False}
    assert rows["small"]["file_bytes"] == size
    cards = [(run / "trained" / name / "README.md").read_text() for name in ("small", "large")]
    words = [[line for line in card.splitlines() if "at the most" in line] for card in cards]
    assert [len(lines) for lines in words] == [2, 2]
    assert "a file of" in words[0][1]
    assert "at the most: kept, it has a file of" in words[0][1]
    assert "at the most: not kept, it has a file of" in words[1][1]


def test_a_broken_record_of_the_end_is_done_again(trained: Path, capsys: Streams) -> None:
    for text in ("", "[]", '{"latency": null}'):
        (trained / "out" / "small" / "final.json").write_text(text)
        command = [*train_command(trained, "small"), "--resume", "--device", "none", "--json"]
        assert main(command) == 0
        (told,) = json.loads(capsys.readouterr().out)
        assert told["accuracy"] == float(final_rows(trained / "out")["small"]["accuracy"])
        assert list(final_rows(trained / "out")) == ["large", "small"]


def test_what_is_cut_short_or_missing_of_a_finished_training_is_written_again(
    trained: Path, capsys: Streams
) -> None:
    folder = trained / "out" / "small"
    whole = (folder / "small.onnx").stat().st_size
    before = {name: (folder / name).read_text() for name in ("config.yaml", "recipe.yaml")}
    for name in before:
        (folder / name).unlink()
    with (folder / "small.onnx").open("ab") as file:
        file.truncate(whole // 2)
    command = [*train_command(trained, "small"), "--epochs", "4", "--device", "none", "--resume"]
    assert main([*command, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["file_bytes"] == (folder / "small.onnx").stat().st_size == whole
    assert {name: (folder / name).read_text() for name in before} == before
    written = (folder / "small.onnx").stat().st_mtime_ns
    assert main(command) == 0
    assert (folder / "small.onnx").stat().st_mtime_ns == written  # which is whole


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "binary"])
def test_a_damaged_table_is_written_again_from_the_checkpoint(
    damage: str, trained: Path, capsys: Streams
) -> None:
    folder = trained / "out" / "small"
    command = [*train_command(trained, "small"), "--epochs", "4", "--device", "none", "--resume"]
    assert main([*command, "--json"]) == 0
    (before,) = json.loads(capsys.readouterr().out)
    whole = (folder / "training.csv").read_text()
    (folder / "final.json").unlink()
    damaged = {"cut": whole[:-9], "other": whole.replace("\n2,", "\ntwo,"), "binary": "\0\udcff"}
    (folder / "training.csv").unlink()
    if damage in damaged:
        (folder / "training.csv").write_text(damaged[damage], errors="surrogateescape")
    assert main([*command, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told == before
    assert (folder / "training.csv").read_text() == whole


def test_a_table_that_no_checkpoint_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text("epoch,loss\n1,2.0\n")
    with pytest.raises(ValueError, match=r"training.csv must have a line for each of 4 epochs, bu"):
        whole_table(tmp_path, 4)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        ("front", "`run` must have a front, but"),
        ("version", "`fasternas` must be at most 1, the format that this version reads, but got 2"),
        ("classes", "`classes` must be the 10 of digits, but large has 4"),
        ("init", "weights.safetensors cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_line(
    spoil: str, complaint: str, trained: Path, capsys: Streams
) -> None:
    run, more = run_with(trained, devices=on("arm", 1.0)), []
    shutil.rmtree(run / "trained")
    if spoil == "front":
        (run / "pareto.csv").unlink()
    if spoil == "version":
        file = run / "configs" / "large.yaml"
        file.write_text(file.read_text().replace("fasternas: 1", "fasternas: 2"))
    if spoil == "classes":
        fn.save_config(replace(CONFIGS["large"], classes=4), run / "configs" / "large.yaml")
    if spoil == "init":
        weights = trained / "out" / "large" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        more = ["--init", str(weights)]
    assert main(["train", str(run), "--epochs", "1", "--gpus", "0", *more]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "validation split" not in line]
    assert len(said) == 1
    assert complaint in said[0]


def test_data_whose_classes_changed_are_not_gone_on_with(tmp_path: Path, capsys: Streams) -> None:
    from predictors.training.estimators import loaded

    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    fn.save_config(replace(SMALL, classes=4), tmp_path / "x.yaml")
    command = [
        "train",
        str(tmp_path / "x.yaml"),
        "--data",
        str(tmp_path / "x.npz"),
        "--gpus",
        "0",
        "--epochs",
        "1",
        "--device",
        "none",
        "--out",
        str(tmp_path / "out"),
    ]
    for first, code in ((0, 0), (1, 2)):
        np.savez(tmp_path / "x.npz", x_train=images, y_train=np.arange(200) % 4 + first)
        loaded.cache_clear()
        assert main([*command, "--resume"]) == code
    assert "has the classes 0, 1, 2, 3, not 1, 2, 3, 4." in capsys.readouterr().err
    loaded.cache_clear()
    row = final_rows(tmp_path / "out")["x"]
    assert (row["split"], row["accuracy"]) == ("validation", row["validation_accuracy"])


def test_pictures_are_cropped_wherever_they_are_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "x.npz",
        x_train=images[:40],
        y_train=np.arange(40) % 4,
        x_test=images[40:],
        y_test=np.arange(20) % 4,
    )
    fn.save_config(replace(SMALL, classes=4, resolution=96), tmp_path / "x.yaml")
    command = [
        "train",
        str(tmp_path / "x.yaml"),
        "--data",
        str(tmp_path / "x.npz"),
        "--gpus",
        "0",
        "--epochs",
        "1",
        "--device",
        "none",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--set", "test_crop=0.75"]) == 0
    assert read_checkpoint(tmp_path / "out" / "x" / "weights.safetensors").crop == 0.75
    card = (tmp_path / "out" / "x" / "README.md").read_text()
    assert "96 x 96 pixels, the middle 75% of the shorter side" in card
    assert "`test_crop` 0.75" in card
    ending = read_result(tmp_path / "out" / "x")
    assert ending
    assert ending.evaluation.images == 20
    assert ending.agreement.accuracy == pytest.approx(ending.validation)
