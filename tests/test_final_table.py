"""The final table says on which device and in which form a latency is, where that differs."""

from pathlib import Path

from nas.training.ending import Ending, keep_ending
from nas.training.final_table import endings_in, final_table
from predictors.backends.agreement import Agreement
from predictors.measurement import Backend, Latency
from predictors.training.evaluate import EvalResult


def _ending(name: str, ms: float | None, device: str = "cpu", precision: str = "fp32") -> Ending:
    latency = None if ms is None else Latency(
        median_ms=ms, low_ms=0.9 * ms, high_ms=1.1 * ms, source="measured", device=device,
        backend=Backend("onnxruntime", precision))  # fmt: skip
    return Ending(
        name=name, weights="", epoch=1, judged=EvalResult(split="test", images=10, correct=9),
        validation=90.0, files=(), deployed="", macs=1, params=1, latency=latency,
        agreement=Agreement(images=10, difference=0.0, correlation=1.0),
    )  # fmt: skip


def _columns(*endings: Ending) -> dict[str, list[str]]:
    header, lines = final_table(endings)
    return {name: [line[i] for line in lines] for i, name in enumerate(header)}


def test_what_is_the_same_everywhere_is_not_said() -> None:
    columns = _columns(_ending("a", 1.0), _ending("b", 2.0), _ending("c", None))
    assert not {"device", "in"} & set(columns)
    assert columns["latency ms"] == ["1", "2", "-"]


def test_devices_and_forms_are_told_apart() -> None:
    columns = _columns(_ending("a", 9.0, device="pi"), _ending("b", 1.0), _ending("c", None))
    assert columns["device"] == ["pi", "cpu", "-"]
    columns = _columns(_ending("a", 1.0, precision="int8"), _ending("b", 2.0))
    assert columns["in"] == ["onnxruntime int8", "onnxruntime fp32"]


def test_latencies_are_ranked_on_each_device_and_what_was_not_timed_is_last(tmp_path: Path) -> None:
    for ending in (
        _ending("a", None),
        _ending("b", 9.0, "pi"),
        _ending("c", 2.0),
        _ending("d", 1.0),
    ):
        folder = tmp_path / ending.name
        folder.mkdir()
        (folder / "weights.safetensors").touch()
        keep_ending(folder, ending)
    assert [ending.name for _, ending in endings_in(tmp_path)] == ["d", "c", "b", "a"]
