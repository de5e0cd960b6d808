"""The final table says on which device and in which form a latency is, where that differs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from specs import each, latency, on

from nas.finetune.model_card import _limits
from nas.finetune.result import (
    TrainingResult,
    final_row,
    final_table,
    keep_result,
    read_result,
    results_in,
)
from predictors.backends.agreement import Agreement
from predictors.cost import NO_LIMITS, Limits
from predictors.measurement import Backend
from predictors.training.evaluate import EvalResult


def _result(
    name: str, ms: float | None, device: str = "cpu", precision: str = "fp32"
) -> TrainingResult:
    backend = Backend("onnxruntime", precision)
    found = None if ms is None else each(replace(latency(ms, device), backend=backend))
    return TrainingResult(
        name=name,
        weights="",
        epoch=1,
        evaluation=EvalResult(split="test", images=10, correct=9),
        validation=90.0,
        files=(),
        deployed="",
        macs=1,
        params=1,
        devices=on(device, None, backend),
        latencies=found,
        agreement=Agreement(images=10, difference=0.0, correlation=1.0),
    )


def _columns(*results: TrainingResult) -> dict[str, list[str]]:
    header, lines = final_table(results)
    return {name: [line[i] for line in lines] for i, name in enumerate(header)}


def test_what_is_the_same_everywhere_is_not_said() -> None:
    columns = _columns(_result("a", 1.0), _result("b", 2.0), _result("c", None))
    assert not {"device", "in"} & set(columns)
    assert columns["latency ms"] == ["1", "2", "-"]


def test_devices_and_forms_are_told_apart() -> None:
    columns = _columns(_result("a", 9.0, device="pi"), _result("b", 1.0), _result("c", None))
    assert columns["device"] == ["pi", "cpu", "-"]
    columns = _columns(_result("a", 1.0, precision="int8"), _result("b", 2.0))
    assert columns["in"] == ["onnxruntime int8", "onnxruntime fp32"]


def test_latencies_are_ranked_on_each_device_and_what_was_not_timed_is_last(tmp_path: Path) -> None:
    for result in (
        _result("a", None),
        _result("b", 9.0, "pi"),
        _result("c", 2.0),
        _result("d", 1.0),
    ):
        folder = tmp_path / result.name
        folder.mkdir()
        (folder / "weights.safetensors").touch()
        keep_result(folder, result)
    assert [result.name for _, result in results_in(tmp_path)] == ["d", "c", "b", "a"]


def _limited(
    limits: Limits, ms: float | None = 1.0, budget_ms: float | None = 2.0
) -> TrainingResult:
    found = _result("a", ms)
    return replace(
        found, limits=limits, devices=on("cpu", budget_ms), file_bytes=900, memory_bytes=80
    )


def test_what_breaks_a_limit_is_not_kept_whatever_its_latency(tmp_path: Path) -> None:
    wide = Limits(params=1, file_bytes=900, memory_bytes=80)
    narrow = Limits(params=1, file_bytes=899)
    assert [_limited(wide).kept, _limited(narrow).kept, _limited(narrow, None).kept] == [
        True,
        False,
        False,
    ]
    assert _limited(wide, 3.0).kept is False  # over the budget
    assert _limited(wide, None).kept is None
    assert _limited(wide, None, None).kept is True
    assert _limited(NO_LIMITS, 1.0, None).kept is None
    columns = _columns(_limited(wide), _limited(narrow), _limited(narrow, None))
    assert columns["kept"] == ["yes", "no", "no"]
    assert columns["file"] == ["900 B"] * 3
    assert columns["memory"] == ["80 B"] * 3
    assert not {"file", "memory"} & set(_columns(_limited(Limits(params=1))))
    row = final_row(_limited(narrow))
    assert (row["kept"], row["file_bytes"], row["memory_bytes"]) == (False, 900, 80)
    keep_result(tmp_path, _limited(narrow))
    assert read_result(tmp_path) == _limited(narrow)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evaluation", {"split": "test", "images": 0, "correct": 0}),
        ("evaluation", {"split": "test", "images": 10, "correct": 11}),
        ("evaluation", {"split": "test", "images": "ten", "correct": 9}),
        ("validation", "90"),
        ("macs", None),
        ("files", [1]),
        ("devices", []),
        ("devices", [{"name": "pi", "budget_ms": 1.0}]),
        ("latencies", {"cpu": {"median_ms": "fast"}}),
    ],
)
def test_a_record_of_other_values_is_none(tmp_path: Path, name: str, value: object) -> None:
    result = _result("a", 1.0)
    keep_result(tmp_path, result)
    assert read_result(tmp_path) == result
    values = json.loads((tmp_path / "final.json").read_text())
    (tmp_path / "final.json").write_text(json.dumps({**values, name: value}))
    assert read_result(tmp_path) is None


def test_a_card_has_limits_with_all_of_their_figures() -> None:
    found = replace(_limited(Limits(file_bytes=4_000_001)), file_bytes=4_000_002)
    assert _limits(found) == (
        "\n- a file of 4.000001 MB at the most: not kept, it has a file of 4.000002 MB\n"
    )


def test_on_several_devices_a_limit_counts_for_each() -> None:
    found = replace(
        _limited(Limits(file_bytes=899)),
        devices=(*on("cpu", 2.0), *on("pi", 0.5)),
        latencies=each(latency(1.0), latency(1.0, "pi")),
    )
    row = final_row(found)
    assert (row["cpu_kept"], row["pi_kept"]) == (False, False)
    row = final_row(replace(found, limits=NO_LIMITS))
    assert (row["cpu_kept"], row["pi_kept"]) == (True, False)


def test_what_always_guessing_reaches_is_in_the_table(tmp_path: Path) -> None:
    known = _result("a", 1.0)
    evaluation = EvalResult(split="test", images=30, correct=28, largest_class=93.333)
    result = replace(known, evaluation=evaluation)
    assert _columns(result, known)["largest class %"] == ["93.33", "-"]
    keep_result(tmp_path, result)
    found = read_result(tmp_path)
    assert found
    assert found.evaluation == evaluation
    assert final_row(found)["largest_class"] == 93.333
