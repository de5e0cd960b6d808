"""A network that is deployed in int8 counts with the accuracy of its int8 file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from specs import candidate, each, latency, on, scores
from test_several import Form

from nas.candidates import (
    Candidate,
    Scored,
    candidates_of,
    named_sizes,
    near_misses,
    with_front,
)
from nas.cli.search import forget_failed_files
from nas.estimators import open_estimator, open_weights
from nas.pipeline import Run, time_front
from nas.search.trial import Outcome
from nas.study.journal import (
    FileAccuracies,
    FileAccuracy,
    deployed_accuracy,
    evaluate_file,
    read_files,
)
from nas.study.options import SearchOptions
from nas.study.store import Study
from predictors.cost import NO_LIMITS
from predictors.devices.several import MultiBackendDevice
from predictors.measurement import Backend, Latencies, Latency, Source
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig

SPACE = SPACES["fasternet-32"]
CONFIG = replace(SPACE.sample(Random(0)), classes=4)
INT8 = Backend("onnxruntime", "int8")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> SearchOptions:
    """Those of a search on four classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    colours = rng.integers(0, 256, (4, 1, 1, 3))[labels]
    images = np.clip(colours + rng.normal(0, 40, (120, 32, 32, 3)), 0, 255)
    file = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    devices = on("cpu", 5.0, Backend(), Backend(precision="int8"))
    return SearchOptions(
        devices=devices, space="fasternet-32", accuracy="train", data=str(file), epochs=1, classes=4
    )


class Searched(Run):
    """A run whose search found one network."""

    def predicted(self, configs: Sequence[FasterNetConfig]) -> dict[FasterNetConfig, Latencies]:
        return {CONFIG: each(_timed("fp32", 1.0, source="predicted"))}


def test_files_of_the_front_are_evaluated_and_what_loses_less_takes_its_place(
    options: SearchOptions, tmp_path: Path
) -> None:
    accuracy = open_estimator(options, tmp_path)(CONFIG)
    space = options.open_space()
    depth = CONFIG.depths[0]
    device = MultiBackendDevice(
        "cpu",
        [
            Form(runtime="onnxruntime", precision="fp32", takes_ms={depth: 2.0}),
            Form(runtime="onnxruntime", precision="int8", takes_ms={depth: 1.0}),
        ],
    )
    run = Searched(tmp_path, options, {"cpu": device})
    study = run.study
    study.keep(space.encode(CONFIG), Outcome(number=0, scores=scores(accuracy, 1.0, device="cpu")))
    assert [(at.done, at.total) for at in time_front(run)] == [(1, 1)]
    failed = FileAccuracy(fp32_accuracy=accuracy, error="no converter.")
    study.keep_file(CONFIG, INT8, failed)
    list(time_front(run))
    assert study.files[CONFIG][INT8] == failed
    forget_failed_files(run)  # as --resume does
    list(time_front(run))
    run.close()
    found = study.files[CONFIG][INT8]
    assert found.error is None
    assert found.lost is not None
    assert (found.fp32_accuracy, found.images) == (accuracy, 12)
    assert read_files(tmp_path) == study.files
    again = Study(tmp_path, space, {"cpu": 5.0}, reading=True)
    assert again.measurements[CONFIG].by_device["cpu"].slower[0].median_ms == 2


def test_what_a_file_loses_is_measured_against_torch(
    options: SearchOptions, tmp_path: Path
) -> None:
    weights = open_weights(options, tmp_path)
    assert weights is not None
    none = evaluate_file(weights, CONFIG, INT8, fp32_accuracy=50.0, data=options.data)
    assert none.lost is None
    assert "`folder` must hold the network's training" in str(none.error)
    open_estimator(options, tmp_path)(CONFIG)
    same = evaluate_file(
        weights, CONFIG, Backend("onnxruntime"), fp32_accuracy=50.0, data=options.data
    )
    assert (same.lost, same.images, same.error) == (0.0, 12, None)


def _timed(precision: str, ms: float, source: Source = "measured") -> Latency:
    return Latency.from_json(
        {
            "median_ms": ms,
            "low_ms": 0.9 * ms,
            "high_ms": 1.1 * ms,
            "source": source,
            "device": "cpu",
            "backend": {"runtime": "onnxruntime", "precision": precision},
        }
    )


def _front(files: FileAccuracies) -> list[tuple[str, float, str]]:
    latency = replace(_timed("int8", 1.0), slower=(_timed("fp32", 2.0),))
    scored = [Scored(name="trial-0003", config=CONFIG, accuracy=60.0)]
    candidates = candidates_of(
        scored, {CONFIG: each(latency)}, files, kind="trained", budgets_ms={"cpu": 5.0}
    )
    found = with_front(candidates, measured_only=True)
    assert all(c.on_front and c.fp32_accuracy == 60 for c in found)
    backends = [one.backend for c in found for one in c.latencies.by_device.values()]
    precisions = [backend.precision for backend in backends if backend]
    return [(c.name, c.accuracy, p) for c, p in zip(found, precisions, strict=True)]


def test_a_slower_form_that_loses_less_is_on_the_front_too() -> None:
    assert _front({}) == [("trial-0003", 60.0, "int8")]
    lost = FileAccuracy(fp32_accuracy=60.0, images=12, lost=2.0)
    assert _front({CONFIG: {INT8: lost}}) == [
        ("trial-0003", 58.0, "int8"),
        ("trial-0003-onnxruntime-fp32", 60.0, "fp32"),
    ]
    gained = FileAccuracy(fp32_accuracy=60.0, images=12, lost=-0.5)
    assert _front({CONFIG: {INT8: gained}}) == [("trial-0003", 60.5, "int8")]
    before = FileAccuracy(fp32_accuracy=59.0, images=12, lost=2.0)  # of a shorter training
    assert _front({CONFIG: {INT8: before}}) == [("trial-0003", 60.0, "int8")]


def test_a_latency_keeps_its_slower_forms() -> None:
    latency = replace(_timed("int8", 1.0), slower=(_timed("fp32", 2.0),))
    assert Latency.from_json(latency.as_json()) == latency
    assert "slower" not in _timed("fp32", 1.0).as_json()


def test_a_line_that_is_no_evaluated_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files.jsonl").write_text('{"config": {}}\n')
    with pytest.raises(ValueError, match=r"Line 1 of .*files.jsonl must hold a config and how"):
        read_files(tmp_path)


def test_what_nearly_keeps_the_budget_is_chosen_as_fronts_are() -> None:
    """By the lower end of an estimate, and not by its middle."""

    def network(accuracy: float, low: float, high_ms: float) -> Candidate:
        found = replace(latency(9.8, source="predicted"), low_ms=9.5, high_ms=high_ms)
        one = candidate("", FASTERNET["t0"], accuracy, each(found), {"cpu": 10.0})
        return replace(one, accuracy_ends=(low, accuracy + 1))

    kept = network(74.0, 70.0, 9.9)
    sure, unsure = network(73.0, 72.0, 10.1), network(75.0, 69.0, 10.1)
    assert near_misses([kept, unsure, sure], NO_LIMITS, 4) == [sure]


@pytest.mark.parametrize(("accuracy", "lost", "found"), [(99.98, -0.05, 100.0), (0.1, 0.2, 0.0)])
def test_an_accuracy_in_int8_is_a_share(accuracy: float, lost: float, found: float) -> None:
    """What is lost is of some of the images."""
    files = {INT8: FileAccuracy(fp32_accuracy=accuracy, images=2000, lost=lost)}
    timed = each(replace(latency(1.0, "cpu"), backend=INT8))
    assert deployed_accuracy(accuracy, timed, files) == found


def test_sizes_whose_last_map_would_be_empty_are_left_out() -> None:
    small = SPACES["fasternet-32"].replace(resolution=28)
    assert named_sizes(small) == {}
    assert list(named_sizes(SPACES["fasternet-32"])) == list(FASTERNET)
