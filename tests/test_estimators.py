"""What `--accuracy auto` chooses, and why."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from quick import evaluate_here
from specs import on

from nas.cli.main import main
from nas.estimators import (
    MOST,
    TimeLimit,
    auto_estimator,
    epoch_seconds,
    estimated_median,
    estimated_scores,
    open_estimator,
    prepared,
    typical,
)
from nas.study.options import SearchOptions
from predictors.cost import cost
from predictors.data.datasets import ImageData, has_characters, load_data
from predictors.data.images import Pictures
from predictors.training.estimators import TrainingEstimator
from search_spaces.fasternet import FASTERNET

OPTIONS = SearchOptions(
    devices=on("arm", 1.0),
    space="fasternet-32",
    data="digits",
    accuracy="train",
    epochs=8,
    trials=36,
    classes=10,
)

THREE_STAGES = """
import fasternas as fn

SPACE = fn.Space(
    fn.FasterNetConfig,
    widths=fn.oneof((8, 16, 32), (16, 32, 64)),
    depths=(1, 1, 1),
    partial_ratios=(0.5,) * 3,
    expansions=(2.0,) * 3,
    resolution=32,
    classes=10,
)
"""


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


def test_photos_are_trained_at_a_lower_rate(tmp_path: Path) -> None:
    """At 2e-3 a quarter of T0 learned more of photos than T0."""
    rates = []
    for resolutions in ((), (64,), (64, 128)):
        options = replace(OPTIONS, accuracy="train", data="digits", resolutions=resolutions)
        estimator = open_estimator(options, tmp_path)
        assert isinstance(estimator, TrainingEstimator)
        rates.append(estimator.recipe.lr)
    assert rates == [2e-3, 2e-3, 5e-4]


@pytest.mark.parametrize(
    ("minutes", "accuracy", "trials"),
    [
        (34, "train", 15),
        (73, "train", 33),
        (134, "train", 61),
        (1e6, "train", MOST),
    ],
)
def test_more_time_buys_more(
    minutes: float, accuracy: str, trials: int, digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes 75 s on one of two cores: a training 5 minutes, of nine tenths of the time."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    choice = auto_estimator(OPTIONS, digits, minutes=minutes, clock=lambda *_: 75.0)
    assert (choice.options.accuracy, choice.options.trials) == (accuracy, trials)
    assert "about" in choice.reason
    one = replace(OPTIONS, parallel=1)  # on the same two cores
    half = auto_estimator(one, digits, minutes=2 * minutes, clock=lambda *_: 75.0)
    assert half.options.trials == trials
    few = auto_estimator(OPTIONS, digits, minutes=minutes, asked=13, clock=lambda *_: 75.0)
    assert few.options.trials == 13


@pytest.mark.parametrize("minutes", [0.01, 10])
def test_too_little_time_leaves_the_estimate_where_there_is_one(
    minutes: float, digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    photos = replace(OPTIONS, space="fasternet")
    choice = auto_estimator(photos, digits, minutes=minutes, clock=lambda *_: 75.0)
    assert (choice.options.accuracy, choice.options.trials) == ("estimate", 200)
    assert "only" in choice.reason
    asked = auto_estimator(photos, digits, minutes=minutes, asked=20, clock=lambda *_: 75.0)
    assert asked.options.trials == 20
    message = r"`time` must be enough for 12 short trainings, about 28 min, but .* images of 32 px"
    with pytest.raises(ValueError, match=message):
        auto_estimator(OPTIONS, digits, minutes=minutes, clock=lambda *_: 75.0)


def test_photos_begin_smaller_where_that_makes_trainings_fit(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve whole trainings would take 28 minutes, such ones less."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    photos = replace(OPTIONS, space="fasternet", accuracy="estimate")
    choice = auto_estimator(photos, digits, minutes=23, clock=lambda *_: 75.0)
    assert choice.options.accuracy == "train"
    assert choice.options.trials >= 12
    assert choice.options.progressive == ("resolution",)
    assert "smaller images" in choice.reason
    longer = auto_estimator(photos, digits, minutes=34, clock=lambda *_: 75.0)
    assert (longer.options.trials, longer.options.progressive) == (15, ())
    asked = replace(photos, progressive=("images",))  # stays as it was asked for
    choice = auto_estimator(asked, digits, minutes=23, clock=lambda *_: 75.0)
    assert choice.options.progressive == ("images",)


def test_trainings_on_photos_are_longer_before_there_are_more(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    photos = replace(OPTIONS, space="fasternet", accuracy="estimate")

    def chosen(minutes: float) -> tuple[str, int, bool]:
        options = auto_estimator(
            photos, digits, minutes=minutes, longer=True, clock=lambda *_: 75.0
        ).options
        return options.accuracy, options.epochs, options.trials > 15

    assert chosen(10) == ("estimate", 8, True)
    epochs = [chosen(minutes)[1] for minutes in (23, 30, 40, 60)]
    assert epochs == sorted(set(epochs))
    assert not any(chosen(minutes)[2] for minutes in (23, 30, 40, 60))
    assert chosen(1e3) == ("train", 32, True)  # a quarter of which sees some 10,000 digits
    small = auto_estimator(OPTIONS, digits, minutes=1e3, longer=True, clock=lambda *_: 75.0)
    assert small.options.epochs == 8


def test_trials_fit_by_what_those_before_took() -> None:
    """A trial is a quarter of a training, and a third of all train to the next quarter."""
    limit = TimeLimit(minutes=60)
    assert limit.allows(12, 11, minutes=1e6)  # so many there always are
    assert limit.allows(20, 0, minutes=0)
    assert limit.allows(20, 9, minutes=10)  # a training takes 4 minutes, all 20 come to 33
    assert not limit.allows(20, 9, minutes=20)
    smaller = TimeLimit(minutes=60, progressive=("resolution",))
    assert not smaller.allows(20, 9, minutes=16)  # later epochs take longer than those until now
    assert limit.allows(20, 9, minutes=16)


@pytest.mark.parametrize(("epochs", "crop"), [(8, 0.0), (12, 0.25)])
def test_photos_of_long_trainings_are_cropped(epochs: int, crop: float, tmp_path: Path) -> None:
    photos = replace(OPTIONS, space="fasternet", epochs=epochs)
    estimator = open_estimator(photos, tmp_path)
    assert isinstance(estimator, TrainingEstimator)
    assert estimator.recipe.crop == crop


def test_how_long_photos_train_here_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("nas.estimators.epoch_seconds", lambda *_: 75.0)
    images = np.random.default_rng(0).integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", x_train=images, y_train=np.arange(40) % 2)
    photos = replace(
        OPTIONS, space="fasternet", data=str(tmp_path / "photos.npz"), classes=2, trials=15
    )
    said = "15 short trainings take about 30 min here. --time takes what fits in."
    assert said in prepared(photos, automatic=False).remarks
    assert said not in prepared(photos, automatic=False, here=False).remarks


def test_an_estimate_is_refused_where_there_is_none_and_data_are() -> None:
    wanted = replace(OPTIONS, accuracy="estimate")
    with pytest.raises(ValueError, match=r"`accuracy` must be train for this space, .* of 32 px"):
        prepared(wanted, automatic=False)


def test_networks_of_three_stages_are_searched_without_the_estimate(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(THREE_STAGES)
    three = replace(OPTIONS, space=f"{tmp_path / 'own.py'}:SPACE")
    assert estimated_scores(three) is None
    assert estimated_scores(OPTIONS) is estimated_median


def test_what_is_timed_may_keep_the_budget() -> None:
    """T0 takes 30 ms there, so 15 ms are for networks of about half of its MACs."""
    photos = replace(OPTIONS, space="fasternet", classes=None)
    macs = {
        budget: cost(typical(replace(photos, devices=on("arm", budget)))).macs
        for budget in (0.1, 15.0, 30.0)
    }
    whole = cost(FASTERNET["t0"]).macs
    assert macs[0.1] < macs[15.0] < 0.6 * whole < macs[30.0] < whole


def test_a_machine_is_timed_by_some_steps(digits: ImageData) -> None:
    assert epoch_seconds(OPTIONS, digits) > 0


@dataclass(frozen=True)
class _Slow:
    """Pictures that take long to decode."""

    pictures: Pictures
    seconds: float = 0.02

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        time.sleep(self.seconds * len(rows))
        return self.pictures.read(rows)


def test_the_time_in_which_images_are_decoded_counts(digits: ImageData) -> None:
    slow = replace(digits, train=replace(digits.train, pictures=_Slow(digits.train.pictures)))
    count = len(digits.train) + 512 + len(digits.validation)  # of which 512 for batch norms
    assert epoch_seconds(OPTIONS, slow) > 0.02 * count


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


def test_with_data_a_time_chooses_the_trainings_which_a_run_that_goes_on_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_here(monkeypatch)
    monkeypatch.setattr("nas.estimators.epoch_seconds", lambda *_: 1.0)
    words = ["--device", "arm", "--budget", "0.3ms", "--space", "fasternet-32", "--data", "digits"]
    out = ["--out", str(tmp_path / "run")]
    few = ["--trials", "2", "--epochs", "1"]
    assert main(["search", *words, *out, *few, "--time", "1min"]) == 0
    said = capsys.readouterr().err
    assert "auto took " in said
    assert main(["search", *words, *out, *few, "--time", "2h", "--resume"]) == 0
    assert "--time changes nothing: the run chose its trainings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("--epochs", "8"), ("--progressive", "images"), ("--flip", "off")]
)
def test_how_to_train_is_refused_where_nothing_is_trained(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--device", "arm", "--budget", "9ms", "--out", str(tmp_path / "run")]
    for more in ((), ("--data", "digits", "--accuracy", "estimate")):
        assert main([*command, *words, *more]) == 2
        assert capsys.readouterr().err == (
            f"fasternas: error: `{words[0][2:]}` must be left out where `accuracy` is estimate, "
            "but is given: nothing is trained. Name what to train on with --data, and add "
            "--accuracy train.\n"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flip", [True, False])
def test_images_are_mirrored_unless_they_must_not_be(*, flip: bool, tmp_path: Path) -> None:
    estimator = open_estimator(replace(OPTIONS, flip=flip), tmp_path)
    assert isinstance(estimator, TrainingEstimator)
    assert estimator.recipe.flip is flip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("torch/mnist@/data", True),
        ("/data/EMNIST-letters", True),
        ("digits", True),
        ("torch/fashion_mnist@/data/mnist", False),
        ("/mnist/photos", False),
    ],
)
def test_digits_and_letters_are_known_by_name(name: str, *, found: bool) -> None:
    """They are others in a mirror."""
    assert has_characters(name) is found
