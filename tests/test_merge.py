"""Two runs that ask the same become one, and a search goes on with it."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from networks import TINY
from specs import each, latency, on, scores

from nas.cli.main import main
from nas.run_folder import MergedRuns, merge_runs, read_only_run, start_run
from nas.search.trial import NetworkScores, Outcome
from nas.study import journal
from nas.study.journal import Trained
from nas.study.options import SearchOptions
from nas.study.store import TRIALS, hold
from predictors.measurement import Backend, Latencies
from predictors.training.estimators import TrainingEstimator
from search_spaces.fasternet import FASTERNET, SPACES
from search_spaces.space import Genes

SPACE = SPACES["fasternet-32"]
OPTIONS: dict[str, Any] = {"devices": on("arm", 2.0), "space": "fasternet-32"}
Streams = pytest.CaptureFixture[str]


def _genes(n: int) -> Genes:
    return (n % 3, n // 3 % 4, *(0,) * (len(SPACE.genes) - 2))


def _good(number: int) -> Outcome[NetworkScores]:
    return Outcome(number, scores(50.0 + number, 1.0))


def _latency(ms: float) -> Latencies:
    return each(latency(ms, "arm"))


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a run of some networks, each given by a number, in the folder of that name."""
    monkeypatch.chdir(tmp_path)

    def begin(name: str, *outcomes: tuple[int, Outcome[NetworkScores]], **options: Any) -> Path:
        run = start_run(Path(name), SearchOptions(**{**OPTIONS, **options}))
        for network, outcome in outcomes:
            run.study.keep(_genes(network), outcome)
        run.close()
        return Path(name)

    return begin


@pytest.fixture
def two(begun: Callable[..., Path]) -> list[Path]:
    """Two runs: network 2 is in both, 1 failed in the first and has scores in the second."""
    broke: list[Outcome[NetworkScores]] = [
        Outcome(number, None, "OSError: it broke") for number in (1, 3)
    ]
    first = begun("a", (0, _good(0)), (1, broke[0]), (2, _good(4)), seed=0, trials=9)
    second = begun("b", (2, _good(0)), (1, _good(1)), (5, _good(2)), (6, broke[1]), seed=7)
    return [first, second]


def _kept(folder: Path) -> list[tuple[Any, Outcome[NetworkScores]]]:
    return read_only_run(folder).study.outcomes()


def _check_refused(folders: list[Path], words: str, error: type[Exception] = ValueError) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(error, match=words):
        merge_runs(folders, Path("new/c"))
    assert sorted(Path().rglob("*")) == before


def test_each_network_is_kept_once_and_trials_are_numbered_anew(two: list[Path]) -> None:
    merged = merge_runs(two, Path("c"))
    assert merged == MergedRuns(trials=5, repeated=2, measurements=0)
    found = _kept(Path("c"))
    expected = [(0, 50.0), (1, 51.0), (2, 54.0), (5, 52.0), (6, None)]
    assert [config for config, _ in found] == [SPACE.decode(_genes(n)) for n, _ in expected]
    assert [o.scores and o.scores.accuracy for _, o in found] == [s for _, s in expected]
    assert [o.number for _, o in found] == [0, 1, 2, 3, 4]
    assert found[4][1].error == "OSError: it broke"


def test_it_is_told_where_everything_came_from(two: list[Path]) -> None:
    merge_runs(two, Path("c"))
    begun = json.loads(Path("c/run.json").read_text())
    assert (begun["options"]["trials"], begun["options"]["seed"]) == (5, 0)
    origins = [(o["folder"], o["options"]["seed"], o["trials"]) for o in begun["merged_from"]]
    assert origins == [("a", 0, 3), ("b", 7, 4)]
    entries = [e for e in journal.read(Path("c") / TRIALS) if "user_attrs" in e]
    sources = [e["user_attrs"]["merged_from"] for e in entries]
    assert sources == [["a", 0], ["b", 1], ["a", 4], ["b", 2], ["b", 3]]


def test_trainings_of_runs_of_other_seeds_are_found(begun: Callable[..., Path]) -> None:
    trained = {"accuracy": "train", "data": "digits", "classes": 10}
    runs = [begun(name, (0, _good(0)), seed=seed, **trained) for name, seed in (("a", 2), ("b", 5))]
    config = SPACE.decode(_genes(0))
    wanted = []
    for run in runs:
        estimator = read_only_run(run).estimator
        assert isinstance(estimator, TrainingEstimator)
        wanted.append(estimator.file(config).name)
    merge_runs(runs, Path("c"))
    found = read_only_run(Path("c")).estimator
    assert isinstance(found, TrainingEstimator)
    found.folder.mkdir()
    for name in reversed(wanted):
        (found.folder / name).touch()
        assert found.file(config).name == name


def test_times_of_trials_stay_those_of_the_runs(two: list[Path]) -> None:
    merge_runs(two, Path("c"))
    times = [
        [t.datetime_complete for t in read_only_run(f).study.trials()]
        for f in (Path("a"), Path("c"))
    ]
    assert times[1][0] == times[0][0]


def test_the_runs_stay_as_they_were(two: list[Path]) -> None:
    before = {p: p.read_bytes() for run in two for p in run.iterdir()}
    merge_runs(two, Path("c"))
    assert {p: p.read_bytes() for run in two for p in run.iterdir()} == before


def test_latencies_and_trainings_are_carried_the_first_of_each(two: list[Path]) -> None:
    for folder, ms in zip(two, (1.0, 2.0), strict=True):
        run = read_only_run(folder)
        run.study.keep_measurement(FASTERNET["t0"], _latency(ms))
        run.study.keep_measurement(SPACE.decode(_genes(int(ms))), _latency(3.0))
        run.study.keep_training(TINY, Trained(epochs=int(2 * ms), accuracy=ms))
        (folder / "trainings").mkdir()
        (folder / "trainings" / f"{folder.name}.pt").write_bytes(b"weights")
    assert merge_runs(two, Path("c")).measurements == 3
    study = read_only_run(Path("c")).study
    assert list(study.measurements) == [FASTERNET["t0"], *(SPACE.decode(_genes(n)) for n in (1, 2))]
    assert study.measurements[FASTERNET["t0"]].by_device["arm"].median_ms == 1.0
    assert {n: t.accuracy for n, t in study.trainings[TINY].items()} == {2: 1.0, 4: 2.0}
    assert {p.name: p.read_bytes() for p in Path("c/trainings").iterdir()} == {
        "a.pt": b"weights",
        "b.pt": b"weights",
    }


def test_a_training_that_ended_well_comes_before_one_that_failed(two: list[Path]) -> None:
    failed = Trained(epochs=4, accuracy=None, error="the node died")
    for folder, training in zip(two, (failed, Trained(epochs=4, accuracy=60.0)), strict=True):
        read_only_run(folder).study.keep_training(TINY, training)
    merge_runs(two, Path("c"))
    assert read_only_run(Path("c")).study.trainings[TINY][4].accuracy == 60.0


def test_what_was_merged_can_be_merged(two: list[Path], begun: Callable[..., Path]) -> None:
    merge_runs(two, Path("c"))
    last = begun("d", (8, _good(0)), seed=3)
    assert merge_runs([Path("c"), last], Path("e")).trials == 6
    origins = json.loads(Path("e/run.json").read_text())["merged_from"]
    assert [(o["folder"], o["trials"]) for o in origins] == [("a", 3), ("b", 4), ("d", 1)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"devices": on("arm", 3.0)},
            r"agree in devices, but a has arm within 2\.0 ms.* and z arm within 3\.0",
        ),
        ({"space": "fasternet"}, "agree in space, but a has fasternet-32 and z fasternet"),
        (
            {"devices": on("arm", 2.0, Backend(threads=4))},
            r"agree in devices, but .*one thread.* and z .* 4 threads\. Only trials, seed,",
        ),
        ({"classes": 3}, "agree in classes, but a has None and z 3"),
    ],
)
def test_runs_that_ask_otherwise_are_refused(
    two: list[Path], begun: Callable[..., Path], options: dict[str, Any], words: str
) -> None:
    _check_refused([two[0], begun("z", **options)], words)


def test_runs_of_two_machines_are_refused(two: list[Path]) -> None:
    stored = json.loads((two[1] / "run.json").read_text())
    stored["machine"]["devices"]["arm"]["description"] = "another board: measured"
    (two[1] / "run.json").write_text(json.dumps(stored))
    _check_refused(two, "agree in the machine, but a has .* and b another board: measured")


def test_runs_of_other_images_are_refused(two: list[Path]) -> None:
    for folder, images in zip(two, (90, 91), strict=True):
        stored = json.loads((folder / "run.json").read_text())
        stored["data"] = {"classes": 10, "train": images, "validation": 1000}
        (folder / "run.json").write_text(json.dumps(stored))
    _check_refused(two, r"images of its data, but a has 90 \+ 1,000 and b 91 \+ 1,000")


def test_too_few_runs_are_refused(two: list[Path]) -> None:
    _check_refused(two[:1], "`runs` must be two folders or more, each once, but got a")
    _check_refused([two[0], Path("../" + Path.cwd().name) / "a"], "each once, but got a, ")


def test_what_is_no_run_or_is_taken_is_refused(two: list[Path]) -> None:
    _check_refused([two[0], Path("gone")], r"gone has no run\.json")
    with pytest.raises(ValueError, match="`out` must be a new folder, but b is there"):
        merge_runs(two, two[1])


def test_a_space_of_ones_own_that_changed_in_between_is_refused(begun: Callable[..., Path]) -> None:
    own = Path("own.py")
    text = """
import fasternas as fn

SPACE = fn.SPACES["fasternet-32"].replace(resolution=fn.oneof(SIDES))
"""
    own.write_text(text.replace("SIDES", "16, 32"))
    first = begun("a", space=f"{own}:SPACE")
    own.write_text(text.replace("SIDES", "8, 16, 32"))
    for module in [name for name in sys.modules if name.startswith("space of ")]:
        sys.modules.pop(module)
    second = begun("b", space=f"{own}:SPACE")
    for runs in ([first, second], [second, first]):
        _check_refused(runs, r"`space` must be as it was when the study in a began, but .* changed")


def test_a_run_at_work_is_refused_and_one_being_merged_is_held(two: list[Path]) -> None:
    with hold(two[1]):
        _check_refused(two, "b must be free, but another process works on it", RuntimeError)
    with hold(two[1], reading=True):
        assert merge_runs(two, Path("c")).trials == 5
        with pytest.raises(RuntimeError, match="another process works on it"):
            hold(two[1])
    hold(two[1]).close()


def test_a_cut_line_is_refused_until_it_may_be_dropped(two: list[Path], capsys: Streams) -> None:
    file = two[1] / TRIALS
    file.write_bytes(file.read_bytes()[:-9])
    assert main(["merge", "a", "b", "--out", "c"]) == 2
    said = capsys.readouterr().err
    assert "repeat with --repair" in said
    assert said.count("\n") == 1
    assert not Path("c").exists()
    assert main(["merge", "a", "b", "--out", "c", "--repair"]) == 0
    assert len(_kept(Path("c"))) == 4


def test_a_full_disk_leaves_nothing(
    two: list[Path], files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    limit = (two[0] / TRIALS).stat().st_size + 100
    with files_end_at(limit):
        _check_refused(two, "File too large", OSError)


@pytest.mark.usefixtures("without_ray")
def test_a_search_goes_on_with_what_was_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.chdir(tmp_path)
    search = ["search", "--device", "arm", "--space", "fasternet", "--budget", "20ms"]
    for name, seed in (("a", "0"), ("b", "5")):
        assert main([*search, "--trials", "6", "--seed", seed, "--out", name]) == 0
    capsys.readouterr()
    assert main(["merge", "a", "b", "--out", "c", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    merged = _kept(Path("c"))
    every = [c for name in "ab" for c in read_only_run(Path(name)).candidates()]
    best = max(c.accuracy_ends[0] for c in every if c.accuracy_ends)
    assert max(row["accuracy_low"] for row in printed) == best
    assert len((Path("c") / "pareto.csv").read_text().splitlines()) == len(printed) + 1

    assert main([*search, "--trials", "15", "--resume", "--out", "c"]) == 0
    found = _kept(Path("c"))
    assert found[: len(merged)] == merged
    assert [outcome.number for _, outcome in found] == list(range(15))
    assert len({config for config, _ in found}) == 15
