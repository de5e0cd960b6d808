"""What becomes of a benchmark whose board is lost, or whose network ends the process that times."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_sshd import Server
from quick import QUICK
from torch import nn

from nas.bench import JOURNAL, bench
from nas.cli.main import main
from nas.networks import Subject
from predictors.backends.model import Model, config_model
from predictors.devices.connection import program
from predictors.devices.registry import open_device
from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import save_config

TINY = FasterNetConfig(
    widths=(8, 16),
    depths=(1, 1),
    partial_ratios=(0.5, 0.25),
    expansions=(2.0, 2.0),
    resolution=32,
    head_width=32,
    classes=10,
)
Streams = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small network to work in."""
    monkeypatch.chdir(tmp_path)
    save_config(TINY, tmp_path / "tiny.yaml")
    return tmp_path


def _subject(model: Model) -> Subject:
    return Subject(model=model, kind="FasterNet", label=model.name)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_board_that_is_lost_ends_it_at_once_and_what_was_timed_stays(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    command = ["bench", "models", "--device", "pi", "--repeats", "1", "--out", "out"]
    assert main([*command, "tiny.yaml"]) == 0
    before = _table(Path("out/models.csv"))
    server.dies()
    tried: list[int] = []
    monkeypatch.setattr("predictors.devices.timed.time.sleep", lambda _: tried.append(1))
    capsys.readouterr()
    assert main([*command, "tiny.yaml", "t0", "t1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("fasternas: error: The device must stay reachable, but pi was lost")
    assert "tiny.yaml" in said[-2]  # nothing was said of the others
    assert len(tried) == QUICK.attempts  # no halves
    assert _table(Path("out/models.csv")) == before
    assert len(Path("out", JOURNAL).read_text().splitlines()) == 1


def test_a_network_that_kills_its_timer_is_reported_and_the_rest_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = open_device("cpu", protocol=replace(QUICK, attempt_pause_s=0))
    model = config_model(replace(TINY, classes=11), name="tiny")
    fatal = config_model(replace(TINY, resolution=64), name="fatal")
    head = "    def inference(path: str, shape: list[int]) -> Callable[[], object]:\n"
    abort = "        if shape[-1] == 64: __import__('os').abort()\n"

    def fatal_program(*names: str, backend: str) -> str:
        text, code = program(*names, backend=backend), json.dumps(head)[1:-1]
        assert text.count(code) == 1
        return text.replace(code, json.dumps(head + abort)[1:-1])

    monkeypatch.setattr("predictors.devices.timed.program", fatal_program)
    tiny, row = bench([_subject(model), _subject(fatal)], device, folder / "out", repeats=1)
    assert tiny.latency is not None
    assert "the process that times the networks died (SIGABRT)" in row.failed


def test_what_could_not_be_timed_may_fail_again_and_the_rest_is_shown(folder: Path) -> None:
    """All that is left to time is then what fails."""
    good = [_subject(config_model(TINY, name="good"))]
    bad = [
        _subject(replace(config_model(replace(TINY, head_width=n), name=f"bad{n}"), build=_fails))
        for n in (8, 16)
    ]
    device = open_device("cpu", protocol=QUICK)
    for _ in range(2):
        rows = list(bench([*good, *bad], device, folder / "out", repeats=1))
        assert [bool(row.latency) for row in rows] == [True, False, False]
    with pytest.raises(RuntimeError, match="must be able to time one of 2 networks"):
        list(bench(bad, device, folder / "other", repeats=1))


def _fails() -> nn.Module:
    raise RuntimeError("it cannot be built")


def test_what_was_timed_on_other_cores_is_timed_again(folder: Path) -> None:
    device, subject = open_device("cpu", protocol=QUICK), [_subject(config_model(TINY))]
    for cores, done in (((0,), False), ((1,), False), ((0,), True)):
        (row,) = bench(subject, device, folder / "out", repeats=1, cores=cores)
        assert row.done is done
