"""Does a latency come out the same again? Every run times the same networks in fresh processes.

    python benchmarks/repeatability.py [--device cpu] [--runs 40]

One core is kept busy in every other run. Asks of the reported figures, and beside them of what
plain loops over wall-clock times say in the same minutes:

- how far the ratio of T0 to another network spreads over ten runs, (max - min) / median;
- how often T0 and a network about 5 % slower are ranked right;
- how often the stated 95 % intervals contain the long-run truth, the median of all other runs;
- by how much the ratio of two networks differs from process to process, and, beyond that, from run
  to run: what `predictors/measurement.py` assumes of an interval.

Prints a table and writes benchmarks/results/repeatability-DEVICE.json. Runs are kept beside it,
so that it goes on where it was stopped; runs of another device, version or protocol are refused.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median, variance
from typing import Any

from nas.bench import plain_name
from nas.study import journal
from predictors import measurement
from predictors.backends.model import Model, config_model, timm_model
from predictors.backends.table import find_runtime
from predictors.devices.device import Device
from predictors.devices.registry import open_device
from predictors.measurement import Latency, compare, ratios
from search_spaces.fasternet import FASTERNET

RESULTS = Path(__file__).parent / "results"
PREDICTORS = Path(measurement.__file__).parent
PROTOCOL = ("measurement.py", "devices/timed.py")
T0 = FASTERNET["t0"]
SLOWER = replace(T0, depths=(1, 2, 9, 2))
FAST = replace(T0, widths=(32, 64, 128, 256), depths=(1, 1, 4, 1), resolution=160)
TEN = 10  # runs that a spread is taken over
PLAIN = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: numpy.zeros(json.loads(sys.argv[2]), "float32")}
times = []
for _ in range(110):
    start = time.perf_counter()
    session.run(None, feed)
    times.append(1e3 * (time.perf_counter() - start))
print(json.dumps(times[10:]))
"""

BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    pass
"""


def main() -> None:
    """Time, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder for results")
    options = parser.parse_args()
    if options.runs < TEN:
        parser.error(f"--runs must be at least {TEN}.")
    device = open_device(options.device)
    kept = options.out / plain_name("repeatability", device.name) / "runs.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    made_by = _made_by(device)
    if any(run.get("made_by") != made_by for run in journal.read(kept)):
        parser.error(
            f"{kept} must hold runs of this device and protocol, but holds others. Name "
            "another folder by --out or delete that file."
        )
    models = [
        config_model(T0, name="t0"),
        timm_model("mobilenetv2_100"),
        config_model(SLOWER, name="slower"),
        config_model(FAST, name="fast"),
    ]
    for number in range(len(journal.read(kept)), options.runs):
        with _busy_core(busy=number % 2 == 1):
            journal.append(kept, [{"made_by": made_by, **_run(device, models)}])
        print(f"run {number + 1} of {options.runs}", flush=True)
    runs = journal.read(kept)[: options.runs]
    result = {"device": device.description, "runs": len(runs), **_findings(runs)}
    print(json.dumps(result, indent=2))
    results = kept.parent.with_name(f"{kept.parent.name}.json")
    results.write_text(json.dumps(result, indent=2) + "\n")


def _made_by(device: Device) -> dict[str, str]:
    """What runs must share to be compared: the device, the package and the protocol's source."""
    source = b"".join((PREDICTORS / name).read_bytes() for name in PROTOCOL)
    return {
        "device": device.description,
        "fasternas": version("fasternas"),
        "protocol": hashlib.sha256(source).hexdigest(),
    }


def _run(device: Device, models: Sequence[Model]) -> dict[str, Any]:
    measured = {
        m.name: asdict(found) for m, found in zip(models, device.measure_each(models), strict=True)
    }
    return {"measured": measured, "plain": _plain(models[:2]) if device.name == "cpu" else {}}


def _plain(models: Sequence[Model]) -> dict[str, list[float]]:
    """Wall-clock times of a hundred inferences in a loop, each network in a fresh process."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            file = find_runtime("onnxruntime").deploy(model, Path(folder) / model.name)
            shape = json.dumps([1, *model.shape])
            done = subprocess.run(
                [sys.executable, "-c", PLAIN, file, shape], check=True, capture_output=True
            )
            found[model.name] = json.loads(done.stdout)
    return found


@contextmanager
def _busy_core(*, busy: bool) -> Iterator[None]:
    """Keep a core busy with something else."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _findings(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {"reported": [_reported(run) for run in runs]}
    if runs[0]["plain"]:
        statistics: dict[str, Callable[[list[float]], float]] = {"median": median, "minimum": min}
        found |= {
            f"plain {name} of wall-clock times": [_plain_ratio(run, of) for run in runs]
            for name, of in statistics.items()
        }
    names = ("mobilenetv2_100", "slower", "fast")
    covered = {name: _covered([_latency(run, name) for run in runs]) for name in names}
    covered["ratio of slower to t0"] = _covered([_slower(run) for run in runs])
    pairs = [_slower(run) for run in runs]
    return {
        "spread_percent": {name: _spread(values) for name, values in found.items()},
        "slower_by_percent": 100 * (median(ratio for ratio, _, _ in pairs) - 1),
        "ranked_right": sum(ratio > 1 for ratio, _, _ in pairs),
        "ranked_right_and_sure": sum(low > 1 for _, low, _ in pairs),
        "intervals_that_contain_the_truth": covered,
        "deviation_percent": {name: _deviations(runs, name) for name in names},
        "interval_half_width_percent": {
            name: 50
            * median((high - low) / ms for ms, low, high in (_latency(run, name) for run in runs))
            for name in names
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """The spread of each ten runs in succession: the median and the largest."""
    tens = [values[i : i + TEN] for i in range(0, len(values), TEN)]
    spreads = [100 * (max(ten) - min(ten)) / median(ten) for ten in tens if len(ten) == TEN]
    return {"median": median(spreads), "largest": max(spreads)}


def _covered(values: Sequence[tuple[float, float, float]]) -> str:
    """How many intervals contain the median of all other runs."""
    inside = 0
    for i, (_, low, high) in enumerate(values):
        truth = median(ms for j, (ms, _, _) in enumerate(values) if j != i)
        inside += low <= truth <= high
    return f"{inside} of {len(values)}"


def _deviations(runs: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    """Relative standard deviation of the ratio to T0 between processes and between runs."""
    logs = [
        [
            math.log(median(ratios(*_even(rounds))))
            for rounds in zip(
                *(run["measured"][n]["samples_ms"] for n in (name, "t0")), strict=True
            )
        ]
        for run in runs
    ]
    within = fmean(variance(processes) for processes in logs)
    between = variance([fmean(processes) for processes in logs]) - within / len(logs[0])
    return {"processes": 100 * math.sqrt(within), "runs": 100 * math.sqrt(max(between, 0.0))}


def _even(rounds: tuple[list[float], list[float]]) -> list[list[float]]:
    """The rounds that both were timed in."""
    return [ms[: min(map(len, rounds))] for ms in rounds]


def _latency(run: dict[str, Any], name: str) -> tuple[float, float, float]:
    found = run["measured"][name]
    return found["median_ms"], found["low_ms"], found["high_ms"]


def _slower(run: dict[str, Any]) -> tuple[float, float, float]:
    t0, slower = (Latency.from_json(run["measured"][name]) for name in ("t0", "slower"))
    found = compare(t0, slower)
    return found.ratio, found.low, found.high


def _reported(run: dict[str, Any]) -> float:
    t0, other = (Latency.from_json(run["measured"][name]) for name in ("t0", "mobilenetv2_100"))
    return compare(other, t0).ratio


def _plain_ratio(run: dict[str, Any], of: Callable[[list[float]], float]) -> float:
    return of(run["plain"]["t0"]) / of(run["plain"]["mobilenetv2_100"])


if __name__ == "__main__":
    main()
