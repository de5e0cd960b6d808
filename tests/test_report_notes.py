"""What a report says under its table: backends, what files lost, short memory, failures."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import OPTIONS, accuracy_of, make_run, measurement_of
from specs import each, on

from nas.estimators import CHECKPOINTS
from nas.report import tables
from nas.report.html import html_report
from nas.report.model import ReportModel
from nas.run_folder import keep_remarks, read_only_run
from nas.study.journal import FileAccuracy, Trained, append_file, append_training
from nas.study.store import Study, read_run, write_run
from predictors.measurement import Backend
from predictors.training.estimators import SMALL_BATCHES
from predictors.training.recipe import rungs
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import listed

FP32, INT8 = Backend("onnxruntime"), Backend("onnxruntime", "int8")
OF_TWO = replace(OPTIONS, devices=on("cpu", 2.0, FP32, INT8))


def _timed_in_int8(folder: Path) -> list[FasterNetConfig]:
    """Time every network of a run again, in eight bits."""
    options = read_only_run(folder).options
    study = Study(folder, options.open_space(), options.budgets_ms)
    configs = [config for config, outcome in study.outcomes() if outcome.scores]
    for config in configs:
        latency = measurement_of(config).by_device["cpu"]
        study.keep_measurement(config, each(replace(latency, backend=INT8)))
    study.close()
    return configs


def test_a_choice_of_backends_and_what_files_lost_are_said(tmp_path: Path) -> None:
    make_run(tmp_path / "run", OF_TWO)
    for i, config in enumerate(_timed_in_int8(tmp_path / "run")):
        known = FileAccuracy(fp32_accuracy=accuracy_of(config), images=100, lost=0.5)
        unknown = FileAccuracy(fp32_accuracy=accuracy_of(config), error="no room")
        append_file(tmp_path / "run", config, INT8, unknown if i % 2 else known)
    notes = "\n".join(ReportModel(read_only_run(tmp_path / "run")).notes)
    assert "Each network is in the fastest of onnxruntime" in notes
    assert "Accuracies in int8 are those of the files, which are -0.50 to " in notes
    assert "could not be evaluated here and count as in fp32; the first: no room" in notes


def test_what_eight_bits_cost_is_not_known_of_an_estimate(tmp_path: Path) -> None:
    make_run(tmp_path / "run", replace(OF_TWO, accuracy="estimate", data=""))
    _timed_in_int8(tmp_path / "run")
    notes = "\n".join(ReportModel(read_only_run(tmp_path / "run")).notes)
    assert "is that of fp32; what int8 costs is not known before" in notes


def test_short_memory_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    said = "batches were taken in pieces, of 32 images at the least"
    assert said not in "\n".join(ReportModel(read_only_run(tmp_path / "run")).notes)
    (tmp_path / "run" / CHECKPOINTS).mkdir()
    (tmp_path / "run" / CHECKPOINTS / SMALL_BATCHES).write_text("32\n")
    assert said in "\n".join(ReportModel(read_only_run(tmp_path / "run")).notes)


def test_trainings_that_ended_without_an_accuracy_are_failures(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    trial = next(iter(read_only_run(tmp_path / "run").study.outcomes()))
    append_training(
        tmp_path / "run", trial[0], Trained(epochs=4, accuracy=None, error="the loss is nan")
    )
    failures = ReportModel(read_only_run(tmp_path / "run")).failures
    found = [(f.what, f.reason, f.names) for f in failures if f.what == "longer training"]
    assert found == [("longer training", "the loss is nan", ["0 at 4 epochs"])]


def test_networks_of_the_front_that_were_trained_less_are_named(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    before = _with_largest_class(tmp_path / "run", 12.5)
    assert not any("more accurate after all" in note for note in before.notes)
    *shorter, best = before.front
    assert shorter
    whole = Trained(epochs=OPTIONS.epochs, accuracy=best.accuracy + 0.5)
    append_training(tmp_path / "run", best.config, whole)
    notes = ReportModel(read_only_run(tmp_path / "run")).notes
    assert notes[-1] == (
        f"{listed([one.name for one in shorter])} had {rungs(OPTIONS.epochs)[0]} of "
        f"{OPTIONS.epochs} epochs, and may well be more accurate after all of them."
    )


def _with_largest_class(folder: Path, percent: float) -> ReportModel:
    split = {"images": 1000, "largest_class": percent}
    write_run(folder, {**read_run(folder), "validation": split})
    return ReportModel(read_only_run(folder))


def test_tables_of_trained_networks_say_what_guessing_reaches(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    assert "largest_class" not in tables.rows(ReportModel(read_only_run(tmp_path / "run")).front)[0]
    model = _with_largest_class(tmp_path / "run", 12.5)
    header, lines = tables.table(model.front)
    assert {line[header.index("largest class %")] for line in lines} == {"12.50"}
    assert {row["largest_class"] for row in tables.rows(model.front)} == {12.5}
    assert "fp32_accuracy,largest_class," in tables.csv_text(model.front, model.devices)
    assert "Always guessing the largest class gets 12.50 % of the validation images." in model.notes
    assert re.search(
        r"^trial-\d+ is the most accurate of the front with a probability of \d+%, as "
        r"far as 1,000 validation images tell",
        model.notes[-1],
    )
    assert re.fullmatch(r"[\d.]+ \[[\d.]+ to [\d.]+\]", lines[0][header.index("accuracy %")])
    assert '<th scope="col">largest class %</th>' in html_report(model)
    assert "no network here does better." in _with_largest_class(tmp_path / "run", 99.5).notes[-2]
    best = max(network.accuracy for network in model.front)
    barely = _with_largest_class(tmp_path / "run", best - 0.1).notes[-2]
    assert re.search(r"; the best of \d+ networks may do better by chance alone\.$", barely)


def test_no_estimate_below_zero_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", replace(OPTIONS, accuracy="estimate"))
    run = read_only_run(tmp_path / "run")
    below = [
        replace(one, accuracy=-3.0, fp32_accuracy=-3.0, accuracy_ends=(-9.0, 4.0))
        for one in run.candidates()
    ]
    shown = [tables.network_of(one) for one in below]
    assert {one.accuracy_words for one in shown} == {"0.0 [0.0 to 4.0]"}
    assert {row["fp32_accuracy"] for row in tables.rows(shown)} == {0.0}


def test_a_search_that_has_tried_all_networks_is_over(tmp_path: Path) -> None:
    make_run(tmp_path / "run", replace(OPTIONS, trials=60))
    run = read_only_run(tmp_path / "run")
    assert "goes on" in ReportModel(run).state
    keep_remarks(run)  # as a search does at its end
    over = "30 of 60 trials are done: the space has no more networks for them."
    assert ReportModel(read_only_run(tmp_path / "run")).state == over


def test_an_estimate_is_not_held_against_guessing(tmp_path: Path) -> None:
    make_run(tmp_path / "run", replace(OPTIONS, accuracy="estimate"))
    model = _with_largest_class(tmp_path / "run", 12.5)
    assert "largest class %" not in tables.table(model.front)[0]
    assert not any("Always guessing" in note for note in model.notes)
