"""Which networks of a front are trained in full."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from networks import TINY
from run_folders import make_run

from nas.candidates import Candidate
from nas.finetune.select import (
    NOWHERE,
    FrontPoint,
    devices_for,
    find_networks,
    from_run,
    picked,
    remark_on,
)
from nas.report.model import ReportModel, write_report
from nas.run_folder import read_only_run
from nas.search.pareto import dominates
from nas.search.trial import Objectives
from predictors.devices.device import DeviceSpec
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import save_config

FRONT = [
    FrontPoint(file=f"configs/{name}.yaml", accuracy=accuracy, ratio=ratio)
    for name, accuracy, ratio in (
        ("a", 50.0, 1.0),
        ("b", 70.0, 1.5),
        ("c", 75.0, 2.5),
        ("d", 77.0, 5.0),
        ("e", 78.0, 10.0),
    )
]


def _names(pick: str) -> str:
    return "".join(Path(point.file).stem for point in picked(FRONT[::-1], pick))


@pytest.mark.parametrize(
    ("pick", "names"),
    [
        ("best", "e"),
        ("knee", "b"),
        ("all", "abcde"),
        ("1", "e"),
        ("2", "ae"),
        ("3", "ace"),
        ("5", "abcde"),
        ("9", "abcde"),
    ],
)
def test_the_front_is_picked_from(pick: str, names: str) -> None:
    assert _names(pick) == names


@pytest.mark.parametrize("pick", ["", "0", "-1", "worst", "2.5", "3 ", "\u0663", "9" * 5000])
def test_what_means_nothing_is_refused(pick: str) -> None:
    rule = "^`pick` must be best, knee, all or a whole number from 1, but got .{0,100}$"
    with pytest.raises(ValueError, match=rule):
        picked(FRONT, pick)
    with pytest.raises(ValueError, match=rule):
        find_networks("t0", pick)


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
    run = _run(tmp_path, "config,accuracy,ratio\nconfigs/a.yaml,50,0.5\n")
    (network,) = from_run(run, "best")
    assert (network.name, network.config, network.run) == ("a", TINY, run)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 29 networks, many of them within the budget."""
    folder = tmp_path_factory.mktemp("picking") / "run"
    make_run(folder)
    run = read_only_run(folder)
    write_report(ReportModel(run))
    run.close()
    return folder


def _precision(devices: tuple[DeviceSpec, ...]) -> str:
    return devices[0].backends[0].precision


def _within(folder: Path) -> dict[str, Candidate]:
    """Its networks that keep the budget."""
    run = read_only_run(folder)
    found = {c.name: c for c in run.candidates() if c.feasible}
    run.close()
    return found


def test_a_front_that_is_too_short_is_filled_up_with_the_next_best(searched: Path) -> None:
    within = _within(searched)
    front = [c.name for c in within.values() if c.on_front]
    found = from_run(searched, str(len(front) + 2))
    assert [(p.name, p.runner_up, p.predicted) for p in found[:-2]] == [
        (name, False, False) for name in front
    ]
    assert [p.config for p in found] == [within[p.name].config for p in found]
    first, second = (p.name for p in found[-2:])
    assert all(p.runner_up for p in found[-2:])
    scores = {
        c.name: Objectives(accuracy=c.accuracy, ratio=c.ratio.median) for c in within.values()
    }
    others = scores.keys() - set(front) - {first, second}
    assert others
    assert not any(dominates(scores[o], scores[name]) for o in others for name in (first, second))
    assert scores[first].accuracy == max(scores[name].accuracy for name in (*others, first, second))
    assert remark_on("runs/x", found, str(len(found))) == (
        f"The front of runs/x has {len(front)} of the {len(found)} networks; next come {first}, "
        f"{second}."
    )


def test_no_more_come_than_keep_the_budget(searched: Path) -> None:
    found = from_run(searched, "099")
    assert sorted(p.name for p in found) == sorted(_within(searched))
    line = remark_on("runs/x", found, "099")
    assert " of the 99 networks; next come " in line
    assert line.endswith(", and no more of its networks are known to keep the budget.")


def test_a_table_that_is_older_than_the_study_has_the_front_of_now_come_next(
    searched: Path, tmp_path: Path
) -> None:
    """As while a search goes on, or after one that was killed."""
    run = shutil.copytree(searched, tmp_path / "run")
    table = run / "pareto.csv"
    header, *lines = table.read_text().splitlines(keepends=True)
    assert len(lines) > 1
    table.write_text(header + lines[0])
    found = from_run(run, str(len(lines)))
    front = {c.name for c in _within(run).values() if c.on_front}
    assert {p.name for p in found} == front
    assert [p.runner_up for p in found] == [False] + [True] * (len(lines) - 1)


def test_what_was_not_timed_is_marked_predicted(searched: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    measurements = run / "measurements.jsonl"
    front = _within(run)
    kept = [
        line
        for line in measurements.read_text().splitlines(keepends=True)
        if json.loads(line)["config"] in _plain(c for c in front.values() if c.on_front)
        or json.loads(line)["config"] not in _plain(front.values())
    ]
    measurements.write_text("".join(kept))
    found = from_run(run, "99")
    assert {p.predicted for p in found if p.runner_up} == {True}
    assert "next come trial-" in remark_on("run", found, "99")
    assert " (its latency is predicted), trial-" in remark_on("run", found, "99")


def _plain(candidates: Iterable[Candidate]) -> list[Any]:
    return [json.loads(json.dumps(asdict(c.config))) for c in candidates]


def test_runners_up_are_timed_in_the_form_that_they_were_the_fastest_in(
    searched: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    stored = json.loads((run / "run.json").read_text())
    (device,) = stored["options"]["devices"]
    device["backends"].append({**device["backends"][0], "precision": "int8"})
    (run / "run.json").write_text(json.dumps(stored))
    measurements = run / "measurements.jsonl"
    measurements.write_text(measurements.read_text().replace('"fp32"', '"int8"'))
    *_, last = from_run(run, "99")
    assert last.runner_up
    assert _precision(devices_for(run, NOWHERE, network=last.name)) == "int8"
    assert _precision(devices_for(run, NOWHERE, network="trial-9999")) == "fp32"


@pytest.mark.parametrize("pick", ["best", "knee", "all", "1"])
def test_a_front_that_suffices_is_not_remarked_on(pick: str, searched: Path) -> None:
    found = from_run(searched, pick)
    assert not any(p.runner_up for p in found)
    assert remark_on("runs/x", found, pick) == ""


def test_one_config_is_enough_whatever_the_number(tmp_path: Path) -> None:
    save_config(TINY, tmp_path / "mine.yaml")
    found = find_networks(str(tmp_path / "mine.yaml"), "3")
    assert remark_on("mine.yaml", found, "3") == ""


@pytest.mark.parametrize("table", [None, "config,accuracy,ratio\n"])
def test_a_run_without_a_front_is_refused(table: str | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`run` must have a front, but .* no network in"):
        from_run(_run(tmp_path, table), "best")


def test_a_spoilt_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be the table of a front, but a line of it is none"):
        from_run(_run(tmp_path, "config,accuracy,ratio\nconfigs/a.yaml,x,1\n"), "best")


def test_a_config_of_another_version_is_refused(tmp_path: Path) -> None:
    run = _run(tmp_path, "config,accuracy,ratio\nconfigs/a.yaml,50,0.5\n")
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
    with pytest.raises(
        ValueError, match="`network` must be a run folder, a config or checkpoint file, or t"
    ):
        find_networks("t9", "best")
