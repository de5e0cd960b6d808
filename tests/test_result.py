"""The final table says on which device and in which form a latency is, where that differs."""

from dataclasses import replace
from pathlib import Path

from specs import each, latency, on

from nas.finetune.result import TrainingResult, final_table, keep_result, results_in
from predictors.backends.agreement import Agreement
from predictors.measurement import Backend
from predictors.training.evaluate import EvalResult


def _result(
    name: str, ms: float | None, device: str = "cpu", precision: str = "fp32"
) -> TrainingResult:
    backend = Backend("onnxruntime", precision)
    found = None if ms is None else each(replace(latency(ms, device), backend=backend))
    return TrainingResult(
        name=name, weights="", epoch=1, evaluation=EvalResult(split="test", images=10, correct=9),
        validation=90.0, files=(), deployed="", macs=1, params=1, devices=on(device, None, backend),
        latencies=found,
        agreement=Agreement(images=10, difference=0.0, correlation=1.0),
    )  # fmt: skip


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
