"""What `--accuracy auto` chooses, and why."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from specs import on

from nas.cli.main import main
from nas.estimators import MOST, auto_estimator, epoch_seconds, prepared
from nas.study.options import SearchOptions
from predictors.data.datasets import ImageData, load_data
from search_spaces.fasternet import FASTERNET
from search_spaces.network import build

OPTIONS = SearchOptions(devices=on("arm", 1.0), space="fasternet-32", data="digits",
                        accuracy="train", epochs=8, trials=36, classes=10)  # fmt: skip
T0 = build(replace(FASTERNET["t0"], resolution=32))


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data("digits")


def test_without_data_there_is_a_score() -> None:
    choice = auto_estimator(replace(OPTIONS, accuracy="estimate", data=""), None, minutes=5)
    assert choice.options.accuracy == "estimate"
    assert "no data" in choice.reason


def test_without_a_limit_networks_are_trained(digits: ImageData) -> None:
    choice = auto_estimator(OPTIONS, digits, minutes=None)
    assert (choice.options.accuracy, choice.options.trials) == ("train", 36)


@pytest.mark.parametrize(
    ("minutes", "accuracy", "trials"),
    [(0.01, "estimate", 36), (10, "estimate", 36), (30, "train", 15), (65, "train", 33),
     (120, "train", 61), (1e6, "train", MOST)],
)  # fmt: skip
def test_more_time_buys_more(
    minutes: float, accuracy: str, trials: int, digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes 75 s on one of two cores: a training 5 minutes."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    choice = auto_estimator(OPTIONS, digits, minutes=minutes, clock=lambda *_: 75.0)
    assert (choice.options.accuracy, choice.options.trials) == (accuracy, trials)
    assert "about" in choice.reason or "only" in choice.reason


def test_a_machine_is_timed_by_some_steps(digits: ImageData) -> None:
    assert epoch_seconds(OPTIONS, digits) > 0


def test_it_is_said_with_what_a_supernet_begins(tmp_path: Path) -> None:
    file = tmp_path / "t0.pth"
    torch.save({"state_dict": {f"model.{k}": w for k, w in T0.state_dict().items()}}, file)
    options = replace(OPTIONS, accuracy="supernet", weights=str(file))
    (*_, said) = prepared(options, automatic=False).remarks
    assert re.fullmatch(
        rf"The supernet: [\d.]+ % of the parameters begin as in {file}; new are patch_embeds\.1\."
        r"proj\.weight, .* and \d+ more\.", said,
    )  # fmt: skip
    torch.save({"fc.weight": torch.ones(3)}, file)
    with pytest.raises(ValueError, match="`weights` must be those of a FasterNet, but "):
        prepared(options, automatic=False)


@pytest.mark.parametrize("space", ["pconv", "pconv-32"])
def test_a_space_whose_blocks_share_no_weights_has_no_supernet(
    space: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which is said before anything is loaded or made."""
    monkeypatch.setattr("nas.estimators.load_data", lambda _: pytest.fail("it loads"))
    command = ["search", "--device", "arm", "--budget", "9ms", "--out", str(tmp_path / "run")]
    assert main([*command, "--space", space, "--data", "digits", "--accuracy", "supernet"]) == 2
    assert capsys.readouterr().err == (
        "fasternas: error: `kernels` must be as in the published FasterNet to share the weights of "
        "a supernet, but the space has 2, 5, 7. Train its networks one by one.\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [(), ("--accuracy", "estimate")])
def test_a_time_by_which_nothing_is_chosen_is_refused(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--device", "arm", "--budget", "9ms", "--out", str(tmp_path / "run")]
    assert main([*command, "--time", "2h", *words]) == 2
    assert capsys.readouterr().err == (
        "fasternas: error: `time` must be left out unless `accuracy` is auto, but got 7200 s. Add "
        "--accuracy auto.\n"
    )
    assert not (tmp_path / "run").exists()
