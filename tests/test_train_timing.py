"""The end of `fasternas train`: timing what was trained, wherever the device is by then."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from specs import on
from trained_digits import CONFIGS, SMALL, final_rows, run_with, train_command

import fasternas as fn
from nas.cli.main import main
from nas.finetune.result import read_result
from nas.finetune.select import devices_for
from predictors.measurement import Backend

Streams = pytest.CaptureFixture[str]


@pytest.fixture
def trained(digits_networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them."""
    return shutil.copytree(digits_networks, tmp_path / "networks")


def test_resumed_it_times_both_side_by_side_and_repeats_nothing(
    trained: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [p for p in (trained / "out").rglob("*") if p.suffix in (".onnx", ".safetensors")]
    before = {file: file.stat().st_mtime_ns for file in files}
    command = [*train_command(trained, "large", "small"), "--resume", "--json"]
    assert main(command) == 0
    told = {row["network"]: row for row in json.loads(capsys.readouterr().out)}
    assert {file: file.stat().st_mtime_ns for file in files} == before
    results = {name: read_result(trained / "out" / name) for name in CONFIGS}
    latencies = {name: result.latencies for name, result in results.items() if result}
    sessions = set()
    for name, each in latencies.items():
        assert each
        latency = each.by_device["cpu"]
        assert (latency.source, latency.backend) == ("measured", Backend())
        assert latency.context.artifact == _sha256(trained / "out" / name / f"{name}.onnx")
        sessions.add(latency.context.session)
        row = final_rows(trained / "out")[name]
        assert float(row["latency_ms"]) == told[name]["latency_ms"] == latency.median_ms
        assert (row["source"], row["kept"]) == ("measured", "")
        card = (trained / "out" / name / "README.md").read_text()
        assert " measured (95 %)" in card
        assert "onnxruntime" in card
    assert len(sessions) == 1
    assert list(final_rows(trained / "out")) == sorted(
        final_rows(trained / "out"), key=lambda name: told[name]["latency_ms"]
    )

    # Of what was lost, what the store has is not timed again.
    (trained / "out" / "small" / "final.json").unlink()
    (trained / "out" / "small" / "small.onnx").unlink()
    monkeypatch.setattr("predictors.devices.timed.TimedDevice._timed", _not_again)
    assert main(command) == 0
    again = {row["network"]: row for row in json.loads(capsys.readouterr().out)}
    assert again["small"]["latency_ms"] == pytest.approx(told["small"]["latency_ms"])
    assert (trained / "out" / "small" / "small.onnx").exists()


def _not_again(*_: Any) -> None:
    raise AssertionError


def test_a_budget_is_kept_by_the_upper_end_of_the_interval(trained: Path, capsys: Streams) -> None:
    arm = fn.open_device("arm")
    if arm.source == "measured":
        pytest.skip("Here `arm` is this machine.")
    small, large = (arm.measure(config) for config in (SMALL, CONFIGS["large"]))
    budget = (small.high_ms + large.median_ms) / 2
    assert small.high_ms < budget < large.high_ms
    run = run_with(trained, devices=on("arm", budget))
    assert main(["train", str(run), "--pick", "all", "--resume", "--gpus", "0"]) == 0
    said = capsys.readouterr()
    assert "To measure, attach a board" in said.err
    rows = final_rows(run)
    assert [(name, row["kept"]) for name, row in rows.items()] == [
        ("small", "yes"),
        ("large", "no"),
    ]
    assert float(rows["small"]["high_ms"]) == pytest.approx(small.high_ms)
    assert {row["source"] for row in rows.values()} == {"predicted"}
    assert rows["small"]["files"].startswith("trained/small/weights.safetensors;")
    assert said.out.count("predicted") == 2
    cards = {name: (run / "trained" / name / "README.md").read_text() for name in rows}
    assert "ms is kept" in cards["small"]
    assert "ms is not kept" in cards["large"]


def test_on_several_devices_each_is_timed_and_each_budget_judged(
    trained: Path, capsys: Streams
) -> None:
    arm = fn.open_device("arm")
    if arm.source == "measured":
        pytest.skip("Here `arm` is this machine.")
    small, large = (arm.measure(config) for config in (SMALL, CONFIGS["large"]))
    budget = (small.high_ms + large.median_ms) / 2
    run = run_with(trained, devices=(*on("arm", budget), *on("cpu", 1000.0)))
    command = ["train", str(run), "--pick", "all", "--resume", "--gpus", "0"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "timing 2 on arm + cpu" in said.err
    assert "To measure, attach a board" in said.err
    assert (said.out.count("predicted"), said.out.count("measured")) == (2, 2)
    rows = final_rows(run)
    judged = {name: (row["kept"], row["arm_kept"], row["cpu_kept"]) for name, row in rows.items()}
    assert judged == {"small": ("yes", "yes", "yes"), "large": ("no", "no", "yes")}
    for name, alone in (("small", small), ("large", large)):
        row = rows[name]
        assert float(row["arm_ms"]) == pytest.approx(alone.median_ms)
        assert (row["arm_source"], row["cpu_source"]) == ("predicted", "measured")
        assert float(row["arm_budget_ms"]) == pytest.approx(budget)
        assert (row["latency_ms"], row["budget_ms"], row["cpu_budget_ms"]) == ("", "", "1000.0")
        assert float(row["ratio_high"]) == pytest.approx(alone.high_ms / budget)
    card = (run / "trained" / "large" / "README.md").read_text()
    head = card.splitlines()[2]
    assert "ms predicted on arm" in head
    assert "ms measured on cpu" in head
    assert f"{alone.median_ms:.3g} ms predicted" in head
    assert "ms on arm is not kept" in card
    assert "ms on cpu is kept" in card
    kept = {name: read_result(run / "trained" / name) for name in CONFIGS}
    assert main(command) == 0
    assert "timing" not in capsys.readouterr().err
    assert {name: read_result(run / "trained" / name) for name in CONFIGS} == kept
    assert devices_for(run, "pi") == on("pi", None)  # it is none of those that the run has
    assert devices_for(run, "cpu") == on("cpu", 1000.0)
    assert main([*command, "--device", "cpu"]) == 0
    assert {row["kept"] for row in final_rows(run).values()} == {"yes"}


def test_several_devices_in_runtimes_of_their_own_need_one_to_be_told(
    trained: Path, capsys: Streams
) -> None:
    run = run_with(trained, devices=(*on("arm", 1.0), *on("cpu", 1.0, Backend("torch"))))
    assert main(["train", str(run), "--resume", "--gpus", "0"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "`device` must be one of arm, cpu, since the run's devices have not one runtime" in err
    assert "Say --device arm." in err


def test_in_int8_the_file_that_is_timed_is_the_one_that_is_judged(
    trained: Path, capsys: Streams
) -> None:
    run = run_with(trained, devices=on("cpu", 1000.0, Backend(precision="int8")))
    assert main(["train", str(run), "--pick", "best", "--resume", "--gpus", "0"]) == 0
    result = read_result(run / "trained" / "large")
    assert result
    assert result.latencies
    latency = result.latencies.by_device["cpu"]
    file = run / "trained" / "large" / result.deployed
    assert file.name == "large.int8.onnx"
    assert latency.context.artifact == _sha256(file)
    assert (latency.backend, result.kept) == (Backend(precision="int8"), True)
    assert (
        abs(result.evaluation.accuracy - float(final_rows(trained / "out")["large"]["accuracy"]))
        < 10
    )
    assert "large.int8.onnx" in final_rows(run)["large"]["files"]
    card, found = (run / "trained" / "large" / "README.md").read_text(), result.agreement
    assert "359 test images by `large.int8.onnx` (95 %, Wilson)" in card
    assert found.torch_accuracy is not None
    assert found.accuracy is not None
    assert f"{found.torch_accuracy - found.accuracy:+.2f} points lost." in card
    assert "yes" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["lab", "ssh://nobody@127.0.0.1:9"])
def test_when_the_device_is_gone_all_else_is_kept_and_it_says_what_to_do(
    device: str, trained: Path, capsys: Streams
) -> None:
    run = run_with(trained, devices=on(device, 1.0))
    for stale in (run / "trained").glob("*/README.md"):
        stale.unlink()
    assert main(["train", str(run), "--pick", "all", "--resume", "--gpus", "0"]) == 2
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith(f"fasternas: error: {device}: ")
    assert errors[0].endswith("To time them later, give the command again with --resume.")
    assert all((run / "trained" / name / "README.md").exists() for name in CONFIGS)
    assert {row["kept"] for row in final_rows(run).values()} == {""}
    assert "large" in said.out


def test_another_machine_than_the_studys_is_not_taken_for_it(
    trained: Path, capsys: Streams
) -> None:
    run = run_with(trained, devices=on("cpu", 1.0))
    told = json.loads((run / "run.json").read_text())
    another = {
        "description": "Another, onnxruntime 1, one thread: measured",
        "source": "measured",
    }
    told["machine"] = {"devices": {"cpu": another}}
    (run / "run.json").write_text(json.dumps(told))
    assert main(["train", str(run), "--resume", "--gpus", "0"]) == 2
    said = capsys.readouterr().err
    assert "`device` must be the one that the study was timed on (Another, onnxruntime 1" in said
    assert "say --device cpu." in said


def test_a_device_that_is_told_is_looked_for_before_the_training(
    tmp_path: Path, capsys: Streams
) -> None:
    fn.save_config(SMALL, tmp_path / "small.yaml")
    assert main([*train_command(tmp_path, "small"), "--device", "lab"]) == 2
    said = capsys.readouterr().err
    assert "`device` must be one of" in said
    assert not (tmp_path / "out").exists()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
