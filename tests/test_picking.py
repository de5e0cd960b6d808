"""Which networks of a front are trained in full."""

from pathlib import Path

import pytest
from networks import TINY
from run_folders import make_run

from nas.folders import read_only_run
from nas.reporting.report import write_report
from nas.searching.pareto import dominates
from nas.searching.trial import Scores
from nas.training.picking import FrontPoint, beyond_the_front, find_networks, from_run, picked
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import save_config

FRONT = [
    FrontPoint(file=f"configs/{name}.yaml", accuracy=accuracy, latency_ms=ms)
    for name, accuracy, ms in (
        ("a", 50.0, 1.0), ("b", 70.0, 1.5), ("c", 75.0, 2.5), ("d", 77.0, 5.0), ("e", 78.0, 10.0),
    )
]  # fmt: skip


def _names(pick: str) -> str:
    return "".join(Path(point.file).stem for point in picked(FRONT[::-1], pick))


@pytest.mark.parametrize(
    ("pick", "names"),
    [("best", "e"), ("knee", "b"), ("all", "abcde"), ("1", "e"), ("2", "ae"), ("3", "ace"),
     ("5", "abcde"), ("9", "abcde")],
)  # fmt: skip
def test_the_front_is_picked_from(pick: str, names: str) -> None:
    assert _names(pick) == names


@pytest.mark.parametrize("pick", ["", "0", "-1", "worst", "2.5"])
def test_what_means_nothing_is_refused(pick: str) -> None:
    with pytest.raises(ValueError, match="`pick` must be best, knee, all or a number, but got"):
        picked(FRONT, pick)


def test_two_networks_have_no_knee() -> None:
    assert picked(FRONT[:2], "knee") == [FRONT[1]]


def _run(folder: Path, table: str | None) -> Path:
    (folder / "configs").mkdir()
    (folder / "run.json").write_text('{"options": {}}')
    save_config(TINY, folder / "configs" / "a.yaml")
    if table is not None:
        (folder / "pareto.csv").write_text(table)
    return folder


def test_a_run_gives_its_configs(tmp_path: Path) -> None:
    run = _run(tmp_path, "config,accuracy,latency_ms\nconfigs/a.yaml,50,1.5\n")
    (network,) = from_run(run, "best")
    assert (network.name, network.config, network.run) == ("a", TINY, run)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 29 networks, many of them within the budget."""
    folder = tmp_path_factory.mktemp("picking") / "run"
    make_run(folder)
    run = read_only_run(folder)
    write_report(run)
    run.close()
    return folder


def test_a_front_that_is_too_short_is_filled_up_with_the_next_best(searched: Path) -> None:
    run = read_only_run(searched)
    within = [c for c in run.candidates() if c.feasible]
    run.close()
    front = [c.name for c in within if c.on_front]
    found = from_run(searched, str(len(front) + 2))
    assert [(p.name, p.runner_up) for p in found[:-2]] == [(name, False) for name in front]
    assert all(p.runner_up for p in found[-2:])
    scores = {c.name: Scores(accuracy=c.accuracy, latency_ms=c.latency.median_ms) for c in within}
    after = [p.name for p in found[-2:]]
    others = set(scores) - set(front) - set(after)
    assert others
    assert not any(dominates(scores[other], scores[name]) for other in others for name in after)
    configs = {c.name: c.config for c in within}
    assert [p.config for p in found] == [configs[p.name] for p in found]

    line = beyond_the_front("runs/x", found, str(len(found)))
    assert line == (f"The front of runs/x has {len(front)} of the {len(found)} networks; next come "
                    f"{', '.join(after)}.")  # fmt: skip


def test_no_more_come_than_keep_the_budget(searched: Path) -> None:
    run = read_only_run(searched)
    within = {c.name for c in run.candidates() if c.feasible}
    run.close()
    found = from_run(searched, "99")
    assert {p.name for p in found} == within
    assert len(found) == len(within)
    line = beyond_the_front("runs/x", found, "99")
    assert line.endswith(", and no more keep the budget.")


@pytest.mark.parametrize("pick", ["best", "knee", "all", "1"])
def test_a_front_that_suffices_is_not_remarked_on(pick: str, searched: Path) -> None:
    found = from_run(searched, pick)
    assert not any(p.runner_up for p in found)
    assert beyond_the_front("runs/x", found, pick) == ""


@pytest.mark.parametrize("table", [None, "config,accuracy,latency_ms\n"])
def test_a_run_without_a_front_is_refused(table: str | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`run` must have a front, but .* no network in"):
        from_run(_run(tmp_path, table), "best")


def test_a_spoilt_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be the table of a front, but a line of it is none"):
        from_run(_run(tmp_path, "config,accuracy,latency_ms\nconfigs/a.yaml,x,1\n"), "best")


def test_a_config_of_another_version_is_refused(tmp_path: Path) -> None:
    run = _run(tmp_path, "config,accuracy,latency_ms\nconfigs/a.yaml,50,1.5\n")
    file = run / "configs" / "a.yaml"
    file.write_text(file.read_text().replace("fasternas: 1", "fasternas: 99"))
    with pytest.raises(ValueError, match=r"a\.yaml: .*99"):
        from_run(run, "best")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`run` must be a folder that `fasternas search` wrote"):
        find_networks(str(tmp_path), "best")


def test_sizes_and_files_are_found(tmp_path: Path) -> None:
    (sized,) = find_networks("t1@96", "best")
    assert (sized.config.widths, sized.config.resolution) == (FASTERNET["t1"].widths, 96)
    save_config(TINY, tmp_path / "mine.yaml")
    (mine,) = find_networks(str(tmp_path / "mine.yaml"), "best")
    assert (mine.name, mine.config, mine.any_classes) == ("mine", TINY, False)
    with pytest.raises(ValueError, match="`network` must be a run folder, a config file or t0"):
        find_networks("t9", "best")
