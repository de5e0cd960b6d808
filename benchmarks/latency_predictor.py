"""How well latency is predicted from 50 measured networks: ours beside ridge on one-hot choices.

Ridge is fitted to the same networks and, since those were chosen for ours, to random ones too.

    python benchmarks/latency_predictor.py [--device cpu] [--limit-ms 60]

The predictor chooses the networks that it is fitted to; the others are drawn at random from the
`fasternet` space, those over the limit left out. Each is timed in two processes; a search has the
predictor fitted to one process each, which is a row of its own, with the drift of the machine left
in. Prints a table and writes benchmarks/results/latency_predictor.json. Timings are kept beside it,
so that a run resumes.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.bench import plain_name
from nas.study import journal
from nas.study.store import read_measurements
from predictors.cost import cost
from predictors.devices.device import Device
from predictors.devices.registry import open_device
from predictors.latency import LatencyPredictor, next_batch, one_hot
from predictors.measurement import Latency
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig

RESULTS = Path(__file__).parent / "results"
SPACE = SPACES["fasternet"]
FIT, TEST = 50, 60
PROCESSES = 2  # that time a network


def main() -> None:
    """Measure, fit, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit-ms", type=float, default=60.0)
    options = parser.parse_args()
    device = open_device(options.device)
    folder = RESULTS / plain_name("latency_predictor", device.name)
    folder.mkdir(parents=True, exist_ok=True)
    fit = _fit_set(folder / "fit", device, options.limit_ms)
    test = _test_set(folder / "test", device, options.limit_ms)
    rows = {"ours": _ours(fit, test),
            "ours, fitted to one process": _ours(_by_one(folder / "fit"), test),
            "ridge on one-hot choices, same networks": _ridge(fit, test),
            "ridge on one-hot choices, random networks": _ridge_on_random(test)}  # fmt: skip
    for name, row in rows.items():
        print(f"{name:42}" + "".join(f"  {key} {value:.4g}" for key, value in row.items()))
    timed = next(iter(_latencies(folder / "fit").values()))
    assert timed.backend is not None
    machine = f"{timed.context.machine}, {timed.backend.runtime} {timed.context.runtime_version}"
    result = {"device": f"{machine}, one thread: measured", "limit_ms": options.limit_ms,
              "fitted": len(fit), "tested": len(test), "predictors": rows}  # fmt: skip
    results = folder.with_name(f"{folder.name}.json")
    results.write_text(json.dumps(result, indent=2) + "\n")


def _fit_set(folder: Path, device: Device, limit_ms: float) -> list[tuple[Any, float]]:
    if not _timed(folder):
        _time(folder, device, [FASTERNET["t0"]])
    budgets_ms = {device.name: limit_ms}
    while batch := next_batch(
        SPACE,
        [(config, {device.name: ms}) for config, ms in _timed(folder)],
        budgets_ms=budgets_ms,
        total=FIT,
        seed=0,
    ):
        _time(folder, device, batch)
    return _timed(folder)


def _test_set(folder: Path, device: Device, limit_ms: float) -> list[tuple[Any, float]]:
    """Random networks; the guess of 10 GMACs a second only saves timing what is far too slow."""
    rng = random.Random(1)
    while len(found := [pair for pair in _timed(folder) if pair[1] <= limit_ms]) < TEST:
        drawn: list[FasterNetConfig] = []
        while len(drawn) < 8:
            config = SPACE.sample(rng)
            if cost(config).macs / 1e7 <= 4 * limit_ms:
                drawn.append(config)
        known = {config for config, _ in _timed(folder)}
        new = [config for config in drawn if config not in known]
        _time(folder, device, new)
    return found[:TEST]


def _time(folder: Path, device: Device, configs: Sequence[FasterNetConfig]) -> None:
    folder.mkdir(exist_ok=True)
    timed = device.measure_each(configs, repeats=PROCESSES)
    for config, measured in zip(configs, timed, strict=True):
        entry = {"config": asdict(config), "latencies": {device.name: measured.as_json()}}
        journal.append(folder / "measurements.jsonl", [entry])
        print(f"{len(_timed(folder))} timed, {measured.median_ms:.3g} ms", flush=True)


def _timed(folder: Path) -> list[tuple[Any, float]]:
    return [(config, latency.median_ms) for config, latency in _latencies(folder).items()]


def _latencies(folder: Path) -> dict[FasterNetConfig, Latency]:
    """The latencies on the one device."""
    found = read_measurements(folder).items()
    return {config: latency for config, each in found for latency in each.by_device.values()}


def _by_one(folder: Path) -> list[tuple[Any, float]]:
    """What the first process alone says: by its blocks beside those of all processes."""
    found = []
    for config, m in _latencies(folder).items():
        first, *others = (median(blocks) for blocks in m.samples_ms)
        found.append((config, m.median_ms * first / geometric_mean([first, *others])))
    return found


def _ours(fit: list[tuple[Any, float]], test: list[tuple[Any, float]]) -> dict[str, float]:
    predictor = LatencyPredictor.fit(SPACE, [c for c, _ in fit], [ms for _, ms in fit])
    prediction = predictor.predict([c for c, _ in test])
    truth = np.array([ms for _, ms in test])
    inside = (prediction.low_ms <= truth) & (truth <= prediction.high_ms)
    width = prediction.high_ms / prediction.low_ms
    return {**_agreement(prediction.mean_ms, truth), "covers": float(100 * inside.mean()),
            "interval_ratio": float(np.median(width))}  # fmt: skip


def _ridge(fit: list[tuple[Any, float]], test: list[tuple[Any, float]]) -> dict[str, float]:
    return _agreement(_ridge_predicts(fit, test), np.array([ms for _, ms in test]))


def _ridge_on_random(test: list[tuple[Any, float]]) -> dict[str, float]:
    """Fit to all test networks but six, predict the six, and so on: 54 of what is predicted."""
    predicted = np.empty(len(test))
    for left_out in np.array_split(np.arange(len(test)), 10):
        kept = [pair for i, pair in enumerate(test) if i not in left_out]
        predicted[left_out] = _ridge_predicts(kept, [test[i] for i in left_out])
    return _agreement(predicted, np.array([ms for _, ms in test]))


def _ridge_predicts(fit: list[tuple[Any, float]], test: list[tuple[Any, float]]) -> Any:
    """Ridge regression of the logarithm, its penalty chosen by generalised cross-validation."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-3, 3, 25))
    model.fit(one_hot(SPACE, [c for c, _ in fit]), np.log([ms for _, ms in fit]))
    return np.exp(model.predict(one_hot(SPACE, [c for c, _ in test])))


def _agreement(predicted: Any, truth: Any) -> dict[str, float]:
    error = 100 * np.abs(predicted / truth - 1)
    return {
        "spearman": float(spearmanr(predicted, truth).statistic),
        "kendall": float(kendalltau(predicted, truth).statistic),
        "mape": float(error.mean()), "max": float(error.max()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
