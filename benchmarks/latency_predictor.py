"""How well latency is predicted from 50 measured networks: ours beside ridge on one-hot choices.

Ridge is fitted to the same networks and, since those were chosen for ours, to random ones too.

    python benchmarks/latency_predictor.py [--space fasternet] [--device cpu] [--limit-ms 60]

The predictor chooses the networks that it is fitted to; the others are drawn at random from the
space, those over the limit left out. Each is timed in two processes; a search has the
predictor fitted to one process each, which is a row of its own, with the drift of the machine left
in; so is one that starts from the profile of an ARM board, as a search's does. Prints a table and
writes benchmarks/results/latency_predictor-DEVICE.json; the name of another space than `fasternet`
is added. Timings are kept in the folder of that name, so that a run resumes, and one that is
complete fits anew without timing anything.
"""

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, get_args

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nas.bench import plain_name
from nas.devices import standard_error
from nas.study import journal
from nas.study.store import read_measurements
from predictors.calibration import next_batch
from predictors.cost import cost
from predictors.devices.device import Device
from predictors.devices.profiled import ProfiledDevice
from predictors.devices.registry import open_device
from predictors.features import one_hot
from predictors.latency import LatencyPredictor
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.fasternet_layers import Activation
from search_spaces.space import AnySpace, Space, each, oneof

RESULTS = Path(__file__).parent / "results"
FIT, TEST = 50, 60
DRAWN_FROM: Mapping[str, Space[Any]] = {
    **SPACES,
    "fasternet": SPACES["fasternet"].replace(resolution=224, head_width=1280),
    "pconv": SPACES["pconv"].replace(
        resolution=224,
        mlps=each(*[oneof("plain", "star")] * 4),
        activation=oneof(*get_args(Activation)),
        kernels=each(*[oneof(2, 3, 5, 7)] * 4),
        head_width=oneof(0, 320, 640, 960, 1280),
        depths=each(*SPACES["pconv"].fields["depths"].items[:3], oneof(0, 1, 2, 3, 4)),
    ),
}
"""The spaces as they were when the networks were drawn that are kept."""
PROCESSES = 2  # that time a network

Timed = list[tuple[FasterNetConfig, float]]  # networks with their latencies in ms


def main() -> None:
    """Measure, fit, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=SPACES, default="fasternet")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit-ms", type=float, default=60.0)
    options = parser.parse_args()
    device, space = open_device(options.device), DRAWN_FROM[options.space]
    stem = plain_name("latency_predictor", device.name)
    folder = RESULTS / (stem if options.space == "fasternet" else f"{stem}-{options.space}")
    folder.mkdir(parents=True, exist_ok=True)
    fit = _fit_set(space, folder / "fit", device, options.limit_ms)
    test = _test_set(space, folder / "test", device, options.limit_ms)
    rows = {
        "ours": _ours(space, fit, test),
        "ours, fitted to one process": _ours(space, _by_one(folder / "fit"), test),
        "ours, with the ARM profile": _ours(
            space, fit, test, errors=_standard_errors(folder / "fit")
        ),
        "ridge on one-hot choices, same networks": _ridge(space, fit, test),
        "ridge on one-hot choices, random networks": _ridge_on_random(space, test),
    }
    for name, row in rows.items():
        print(f"{name:42}" + "".join(f"  {key} {value:.4g}" for key, value in row.items()))
    timed = next(iter(_latencies(folder / "fit").values()))
    assert timed.backend is not None
    machine = f"{timed.context.machine}, {timed.backend.runtime} {timed.context.runtime_version}"
    result = {
        "device": f"{machine}, one thread: measured",
        "limit_ms": options.limit_ms,
        "fitted": len(fit),
        "tested": len(test),
        "predictors": rows,
    }
    results = folder.with_name(f"{folder.name}.json")
    results.write_text(json.dumps(result, indent=2) + "\n")


def _fit_set(space: Space[FasterNetConfig], folder: Path, device: Device, limit_ms: float) -> Timed:
    if not _timed(folder):
        _time(folder, device, [FASTERNET["t0"]])
    budgets_ms = {device.name: limit_ms}
    while batch := next_batch(
        space,
        [(config, {device.name: ms}) for config, ms in _timed(folder)],
        budgets_ms=budgets_ms,
        total=FIT,
        seed=0,
    ):
        _time(folder, device, batch)
    return _timed(folder)


def _test_set(
    space: Space[FasterNetConfig], folder: Path, device: Device, limit_ms: float
) -> Timed:
    """Random networks; the guess of 10 GMACs a second only saves timing what is far too slow."""
    rng = random.Random(1)
    while len(found := [pair for pair in _timed(folder) if pair[1] <= limit_ms]) < TEST:
        drawn: list[FasterNetConfig] = []
        while len(drawn) < 8:
            config = space.sample(rng)
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


def _timed(folder: Path) -> Timed:
    return [(config, latency.median_ms) for config, latency in _latencies(folder).items()]


def _latencies(folder: Path) -> dict[FasterNetConfig, Latency]:
    """The latencies on the one device."""
    found = read_measurements(folder).items()
    return {config: latency for config, each in found for latency in each.by_device.values()}


def _by_one(folder: Path) -> Timed:
    """What the first process alone says: by its blocks beside those of all processes."""
    found = []
    for config, m in _latencies(folder).items():
        first, *others = (median(blocks) for blocks in m.samples_ms)
        found.append((config, m.median_ms * first / geometric_mean([first, *others])))
    return found


def _standard_errors(folder: Path) -> list[float]:
    return [standard_error(latency) for latency in _latencies(folder).values()]


def _ours(
    space: AnySpace, fit: Timed, test: Timed, *, errors: Sequence[float] | None = None
) -> dict[str, float]:
    """With errors, as a search has it: with the ARM profile, too."""
    relatives = [] if errors is None else [ProfiledDevice("arm", Backend())]
    configs, latencies = [c for c, _ in fit], [ms for _, ms in fit]
    predictor = LatencyPredictor.fit(space, configs, latencies, relatives=relatives, errors=errors)
    prediction = predictor.predict([c for c, _ in test])
    truth = np.array([ms for _, ms in test])
    inside = (prediction.low_ms <= truth) & (truth <= prediction.high_ms)
    width = prediction.high_ms / prediction.low_ms
    return {
        **_agreement(prediction.mean_ms, truth),
        "covers": float(100 * inside.mean()),
        "interval_ratio": float(np.median(width)),
    }


def _ridge(space: AnySpace, fit: Timed, test: Timed) -> dict[str, float]:
    return _agreement(_ridge_predicts(space, fit, test), np.array([ms for _, ms in test]))


def _ridge_on_random(space: AnySpace, test: Timed) -> dict[str, float]:
    """Fit to all test networks but six, predict the six, and so on: 54 of what is predicted."""
    predicted = np.empty(len(test))
    for left_out in np.array_split(np.arange(len(test)), 10):
        kept = [pair for i, pair in enumerate(test) if i not in left_out]
        predicted[left_out] = _ridge_predicts(space, kept, [test[i] for i in left_out])
    return _agreement(predicted, np.array([ms for _, ms in test]))


def _ridge_predicts(space: AnySpace, fit: Timed, test: Timed) -> Any:
    """Ridge regression of the logarithm, its penalty chosen by generalised cross-validation."""
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-3, 3, 25))
    model.fit(one_hot(space, [c for c, _ in fit]), np.log([ms for _, ms in fit]))
    return np.exp(model.predict(one_hot(space, [c for c, _ in test])))


def _agreement(predicted: Any, truth: Any) -> dict[str, float]:
    error = 100 * np.abs(predicted / truth - 1)
    return {
        "spearman": float(spearmanr(predicted, truth).statistic),
        "kendall": float(kendalltau(predicted, truth).statistic),
        "mape": float(error.mean()),
        "max": float(error.max()),
        "within_5": float(100 * np.mean(error <= 5)),
    }


if __name__ == "__main__":
    main()
