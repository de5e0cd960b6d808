"""A supernet that several workers of a cluster train: lost, killed, gone on with, refused."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray_nodes import kill_one
from specs import on

from nas.cli.main import main
from nas.estimators import SUPERNET_FILE as FILE, supernet_training
from nas.ray_pool import joined
from nas.ray_workers import (
    WorkerRequest,
    _supernet_progress,
    _watched,
    train_supernet,
)
from nas.study.options import FieldChoices, SearchOptions
from predictors.cost import cost
from predictors.training.estimators import Sandwich, SupernetProgress, SupernetTraining

CPU = torch.device("cpu")
TWO = WorkerRequest(workers=2, gpus=0)
COMMAND = "import sys; from nas.cli.main import main; sys.exit(main())"
Streams = pytest.CaptureFixture[str]


@pytest.fixture
def address(on_cluster: Any) -> str:
    """That of two nodes of one core each, which is joined."""
    return str(on_cluster.address)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> SearchOptions:
    """A study of images of noise."""
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(file, x_train=images, y_train=np.arange(160) % 4)
    return SearchOptions(
        devices=on("arm", 1.0),
        space="fasternet-32",
        accuracy="supernet",
        data=str(file),
        classes=4,
        epochs=1,
        choices=(FieldChoices(field="depths", values=(1,)),),  # of few weights
    )


@pytest.fixture(scope="module")
def sandwich(options: SearchOptions) -> Sandwich:
    """The smallest of some networks."""
    space, rng = options.open_space(), Random(0)
    drawn = sorted((space.sample(rng) for _ in range(200)), key=lambda config: cost(config).macs)
    return Sandwich(drawn[:16])


def _training(options: SearchOptions, folder: Path, sandwich: Sandwich) -> SupernetTraining:
    return supernet_training(options, folder, sandwich.configs)


def _read(folder: Path) -> dict[str, Any]:
    """The checkpoint of the supernet in a folder."""
    return torch.load(folder / FILE, weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As each of the workers has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(
    options: SearchOptions,
    sandwich: Sandwich,
    one_thread: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[SupernetProgress]]:
    """What one process comes to, and how."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, list(_training(options, folder, sandwich).run(device=CPU))


def _kill_when(done: int, folder: Path, ended: threading.Event, killed: list[bool]) -> None:
    seen = (folder / FILE).stat().st_mtime_ns
    while not ended.wait(0.05):
        if (now := (folder / FILE).stat().st_mtime_ns) == seen:
            continue
        seen = now
        if _read(folder)["epochs_done"] >= done:
            killed.append(kill_one("RayTrainWorker"))
            return


def test_two_go_on_with_what_one_began_one_is_lost_and_they_come_to_the_same(
    alone: tuple[Path, list[SupernetProgress]],
    options: SearchOptions,
    sandwich: Sandwich,
    address: str,
    tmp_path: Path,
) -> None:
    whole, epochs = alone
    first = _training(options, tmp_path, sandwich).run(device=CPU)
    assert next(first) == epochs[0]
    ended, killed = threading.Event(), list[bool]()
    watcher = threading.Thread(target=_kill_when, args=(2, tmp_path, ended, killed))
    watcher.start()
    try:
        with joined(address):
            told = list(
                train_supernet(_training(options, tmp_path, sandwich), TWO, address=address)
            )
    finally:
        ended.set()
        watcher.join()
    assert killed == [True]
    assert told[-1].done == told[-1].total == len(epochs)
    assert [at.done for at in told] == sorted({at.done for at in told})
    ours, theirs = (_read(folder)["network"] for folder in (tmp_path, whole))
    for name, weight in theirs.items():  # AdamW makes much of some gradients that are mere rounding
        assert (ours[name] - weight).abs().double().mean() < 1e-4, name
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_two_have_done_is_not_done_again_and_a_loss_that_is_no_number_is_one_line(
    alone: tuple[Path, list[SupernetProgress]],
    options: SearchOptions,
    sandwich: Sandwich,
    address: str,
    tmp_path: Path,
) -> None:
    kept = _read(alone[0])
    torch.save(kept, tmp_path / FILE)
    assert not list(train_supernet(_training(options, tmp_path, sandwich), TWO, address=address))
    kept["network"]["classifier.bias"].fill_(torch.nan)
    torch.save({**kept, "epochs_done": 1}, tmp_path / FILE)
    with joined(address), pytest.raises(RuntimeError, match="must stay a number, but is nan") as no:
        list(train_supernet(_training(options, tmp_path, sandwich), TWO, address=address))
    assert "\n" not in str(no.value)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_too_many_workers_for_the_cluster_are_one_line(
    options: SearchOptions, sandwich: Sandwich, address: str, tmp_path: Path
) -> None:
    message = r"^`workers` must find room, but 3 of them do not: there are 2 cores and 1 GPUs\..*$"
    with joined(address), pytest.raises(RuntimeError, match=message):
        list(
            train_supernet(
                _training(options, tmp_path, sandwich),
                WorkerRequest(workers=3, gpus=0),
                address=address,
            )
        )
    assert not list(tmp_path.iterdir())


def test_what_a_killed_team_left_goes_before_one_trains_here(
    options: SearchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ray").mkdir()
    for file in (".ray/state", ".error"):
        (tmp_path / file).write_text("left", encoding="utf-8")
    monkeypatch.setattr(SupernetTraining, "run", lambda *_, **__: iter(()))
    training = _training(options, tmp_path, Sandwich([]))
    assert not list(train_supernet(training, WorkerRequest(workers=1, gpus=0)))
    assert not list(tmp_path.iterdir())


class Waiting:
    """Stands for Ray, whose workers keep the supernet at the second look and end at the sixth."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, file: Path) -> None:
        self.looks, self._file = 0, file

    def wait(self, references: list[str], *, timeout: float) -> tuple[list[str], list[str]]:
        """Return which have ended, and which have not."""
        assert timeout <= 1
        self.looks += 1
        if self.looks == 2:
            torch.save({"epochs_done": 1, "rows": [{"accuracy": 7.0}]}, self._file)
        return (references, []) if self.looks == 6 else ([], references)

    def get(self, reference: str) -> None:
        """Nothing went wrong."""


def test_the_file_of_the_workers_is_read_only_when_it_has_changed(
    options: SearchOptions, sandwich: Sandwich, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    ray = Waiting(tmp_path / FILE)

    def progress(training: SupernetTraining) -> SupernetProgress:
        read.append(ray.looks)
        return _supernet_progress(training)

    monkeypatch.setattr("nas.ray_workers._supernet_progress", progress)
    monkeypatch.setattr(SupernetTraining, "total", 1)
    told = list(_watched("reference", _training(options, tmp_path, sandwich), ray))
    assert told == [SupernetProgress(done=1, total=1, accuracy=7.0)]
    assert read == [0, 2, 6]


def _search(folder: Path, options: SearchOptions, *more: str) -> list[str]:
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
        "--trials",
        "3",
        "--out",
        str(folder),
        "--data",
        options.data,
        "--accuracy",
        "supernet",
        "--epochs",
        "1",
        *more,
    ]


@pytest.mark.usefixtures("without_ray")
def test_a_killed_search_with_two_workers_goes_on_with_one(
    options: SearchOptions, address: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = _search(folder, options, "--workers", "2", "--gpus", "0", "--ray", address)
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 200
        while not (folder / FILE).exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.kill()
    begun = _read(folder)["epochs_done"]
    assert main(_search(folder, options, "--resume", "--gpus", "0")) == 0
    assert _read(folder)["epochs_done"] > begun
    assert (folder / "pareto.csv").exists()
    assert not (folder / ".ray").exists()


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), WorkerRequest()),
        (("--workers", "3"), WorkerRequest(workers=3)),
        (("--gpus", "2"), WorkerRequest(gpus=2)),
    ],
)
@pytest.mark.usefixtures("without_ray")
def test_the_options_reach_the_training(
    words: tuple[str, ...],
    asked: WorkerRequest,
    options: SearchOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    seen: list[Any] = []

    def trained(*arguments: Any, address: str | None) -> Iterator[SupernetProgress]:
        seen.append((arguments[-1], address))
        raise RuntimeError("That is enough.")

    monkeypatch.setattr("nas.pipeline.train_supernet", trained)
    monkeypatch.setattr("nas.pipeline.joined", seen.append)  # what trains joins Ray if it needs it
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert main(_search(tmp_path / "run", options, *words)) == 2
    assert capsys.readouterr().err.endswith("error: That is enough.\n")
    assert seen == [(asked, None)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            "--workers 2 --accuracy estimate",
            "`workers` must be left out where `accuracy` is estimate",
        ),
        ("--gpus 1 --accuracy train", "`gpus` must be left out where `accuracy` is train"),
        ("--gpus 9", "`gpus` must be 0 where there is no GPU, but got 9"),
        ("--workers 50", "`workers` must find room, but 50 of them do not: there are 2 cores and"),
    ],
)
def test_workers_that_have_nothing_to_do_are_refused(
    words: str,
    complaint: str,
    options: SearchOptions,
    tmp_path: Path,
    capsys: Streams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert main(_search(tmp_path / "run", options, *words.split())) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
