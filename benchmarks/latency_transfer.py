"""How few measurements does a new device need, if a relative is known? Beside three simpler ways.

    python benchmarks/latency_transfer.py --export    # once: writes the files that are timed
    python benchmarks/latency_transfer.py --time 4    # minutes of a quiet machine, until all is
    python benchmarks/latency_transfer.py             # fits; times nothing

Four pairs of a device and its relative: this processor from the profile of an ARM board; OpenVINO
from ONNX Runtime; int8 from fp32; two threads from one. The networks are those of
benchmarks/results/latency_predictor-cpu, at most 60 ms there, whose timings serve the first pair;
for the others they are timed again, in one process of a few rounds each, and the relative is a
predictor fitted to all of the fit set in the other setting. Fitted to 3 to 50 networks of the fit
set: ours with the relative, of which the first network is drawn at random, the others are chosen as
a search does; with all drawn at random, ours with and (from 8 networks on) without the relative,
one factor over the relative, and ridge on one-hot choices. Mean errors are of the test set, with
their spread over ten draws; the timings that they are held against have a standard error of their
own. Writes benchmarks/results/latency_transfer-cpu.json.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from latency_predictor import _latencies, _ridge_predicts
from numpy.typing import NDArray
from provenance import provenance

from nas.devices import standard_error
from nas.study import journal
from predictors.backends.model import config_identity, config_model
from predictors.backends.table import find_runtime
from predictors.calibration import telling
from predictors.devices.profiled import ProfiledDevice
from predictors.devices.registry import open_device
from predictors.devices.timed import REFERENCES, TimedDevice, _Artifact
from predictors.latency import FEWEST, LatencyPredictor, Relative
from predictors.measurement import Backend, Latencies, Latency, TimingProtocol
from search_spaces.fasternet import SPACES, FasterNetConfig

Array = NDArray[np.float64]
Timed = Mapping[FasterNetConfig, Latency]

RESULTS = Path(__file__).parent / "results"
FOLDER = RESULTS / "latency_transfer-cpu"
SPACE = SPACES["fasternet"]
LIMIT_MS = 60.0
TESTED = 30  # of each new setting
DRAWS = 10
COUNTS = (3, 5, 10, 20, 50)
SETTINGS = {
    "onnxruntime": Backend("onnxruntime", "fp32", 1),
    "openvino": Backend("openvino", "fp32", 1),
    "onnxruntime-int8": Backend("onnxruntime", "int8", 1),
    "onnxruntime-2threads": Backend("onnxruntime", "fp32", 2),
}
PAIRS = {
    "openvino": "onnxruntime",
    "onnxruntime-int8": "onnxruntime",
    "onnxruntime-2threads": "onnxruntime",
}
PROTOCOL = TimingProtocol(
    repeats=1,
    rounds=(6, 6),
    most_rounds=8,
    block_ms=8.0,
    discard_ms=4.0,
    discards=(1, 5),
    inferences=(3, 10),
    pauses=0,
)
GROUP = 15  # networks in a process
CHOSEN = "with the relative, networks chosen"
WAYS = (
    "with the relative",
    "one factor over the relative",
    "ridge on one-hot choices",
    "without a relative",
)


def main() -> None:
    """Export, time or fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--time", type=float, metavar="MINUTES")
    parser.add_argument(
        "--files", type=Path, default=Path(tempfile.gettempdir(), "fasternas-files")
    )
    options = parser.parse_args()
    if options.export:
        export(options.files)
    elif options.time:
        time_all(options.files, 60 * options.time)
    else:
        fit_all()


def _sets() -> tuple[Timed, Timed]:
    """The networks to fit and to test, as they were timed in ONNX Runtime."""
    table = RESULTS / "latency_predictor-cpu"
    fit, test = (
        {c: one for c, one in _latencies(table / name).items() if one.median_ms <= LIMIT_MS}
        for name in ("fit", "test")
    )
    return fit, test


def _networks() -> list[FasterNetConfig]:
    """Those that are timed again, fit and test by turns: an early end leaves some of both."""
    fit, test = (list(timed) for timed in _sets())
    pairs = zip(fit, test[:TESTED], strict=False)
    return [*(config for pair in pairs for config in pair), *fit[TESTED:]]


def export(folder: Path) -> None:
    """Write the ONNX files of all networks and references, in fp32 and in eight bits."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = (*REFERENCES.values(), *_networks())
    for config, precision in product(networks, ("fp32", "int8")):
        file = _file(folder, config, precision)
        if file.exists():
            continue
        runtime = find_runtime("onnxruntime", precision)
        with tempfile.TemporaryDirectory(dir=folder) as new:
            model = config_model(config)
            # The ranges of activations, for which one image does, change no latency.
            model = replace(model, calibration_images=[model.image()])
            runtime.module.write(model, Path(new, "n"), runtime).rename(file)
        print(file.name, flush=True)


def _file(folder: Path, config: FasterNetConfig, precision: str) -> Path:
    digest = hashlib.sha256(config_identity(config).encode()).hexdigest()[:16]
    return folder / f"{digest}.{precision}.onnx"


def time_all(folder: Path, seconds: float) -> None:
    """Time what is not timed, a group of one setting in each process, until the time is over."""
    end = time.monotonic() + seconds
    FOLDER.mkdir(exist_ok=True)
    for group in _groups():
        for name, backend in SETTINGS.items():
            known = _timed(name)
            there = (c for c in group if _file(folder, c, backend.precision).exists())
            new = [config for config in there if config not in known]
            if new and time.monotonic() < end:
                _time(folder, name, backend, new)
                print(f"{name}: {len(known) + len(new)} timed", flush=True)
    left = {name: len(_networks()) - len(_timed(name)) for name in SETTINGS}
    print("still to time:", left)


def _groups() -> Iterator[Sequence[FasterNetConfig]]:
    networks = _networks()
    return (networks[i : i + GROUP] for i in range(0, len(networks), GROUP))


def _time(folder: Path, name: str, backend: Backend, configs: Sequence[FasterNetConfig]) -> None:
    device: Any = open_device("cpu", **asdict(backend), protocol=PROTOCOL)
    assert isinstance(device, TimedDevice)
    artifacts = [
        _Artifact.of(_file(folder, config, backend.precision), config_model(config))
        for config in (*REFERENCES.values(), *configs)
    ]
    for config, latency in zip(configs, device._timed(artifacts, 1), strict=True):
        record = {"latencies": Latencies({name: replace(latency, device=name)}).as_json()}
        journal.append_record(FOLDER / f"{name}.jsonl", config, record)


def _timed(name: str) -> Timed:
    def parse(entry: journal.Entry) -> Latency:
        return Latencies.from_json(entry["latencies"]).by_device[name]

    return dict(journal.read_records(FOLDER / f"{name}.jsonl", parse, what="a latency"))


def fit_all() -> None:
    """Fit each pair in each way to each number of networks; print and write the errors."""
    found: dict[str, Any] = {}
    cases = _cases()
    for name, case in cases.items():
        ways = (CHOSEN, *WAYS)
        rows = {way: [_over_draws(case, way, count) for count in COUNTS] for way in ways}
        found[name] = rows
        print(name + "".join(f"{count:>22}" for count in COUNTS))
        for way, cells in rows.items():
            print(f"  {way:30}" + "".join(f"{_words(cell):>22}" for cell in cells), flush=True)
    timing_errors = {
        name: 100 * float(np.mean([standard_error(one) for one in case.test.values()]))
        for name, case in cases.items()
    }
    content = {
        "counts": COUNTS,
        "draws": DRAWS,
        "pairs": found,
        "timing_errors": timing_errors,
        **provenance("numpy", "scipy"),
    }
    FOLDER.with_name("latency_transfer-cpu.json").write_text(json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What was timed on a device, and what predicts the relative."""

    fit: Timed
    test: Timed
    relative: Relative


def _cases() -> dict[str, Case]:
    fit, test = _sets()
    found = {
        "this processor from the ARM profile": Case(
            fit=fit, test=test, relative=ProfiledDevice("arm", Backend())
        )
    }
    for name, relative in PAIRS.items():
        timed, other = _timed(name), _timed(relative)
        parts = [{c: timed[c] for c in part if c in timed} for part in (fit, test)]
        known = {c: other[c] for c in fit if c in other}
        if len(parts[0]) >= FEWEST and len(known) >= FEWEST:
            predictor = LatencyPredictor.fit(
                SPACE, list(known), [one.median_ms for one in known.values()]
            )
            found[f"{name} from {relative}"] = Case(fit=parts[0], test=parts[1], relative=predictor)
    return found


def _over_draws(case: Case, way: str, count: int) -> dict[str, float] | None:
    """Mean error in percent, its extremes over draws, and the coverage of the intervals."""
    count = min(count, len(case.fit))
    if way == WAYS[3] and count < FEWEST:
        return None
    draws = range(DRAWS if count < len(case.fit) else 1)
    every = list(case.fit.items())
    results = []
    for draw in draws:
        order = np.random.default_rng(draw).permutation(len(every))
        networks = [every[i][0] for i in order]
        if way == CHOSEN:
            pool = networks[1:]
            networks = [
                networks[0],
                *telling(SPACE, networks[:1], pool, count - 1, [case.relative]),
            ]
        results.append(_errors(case, way, [(c, case.fit[c]) for c in networks[:count]]))
    errors, covers = np.array(results).T
    return {
        "networks": count,
        "mean": float(errors.mean()),
        "least": float(errors.min()),
        "most": float(errors.max()),
        "covers": float(covers.mean()),
    }


def _errors(
    case: Case, way: str, fit: Sequence[tuple[FasterNetConfig, Latency]]
) -> tuple[float, float]:
    configs, latencies = [c for c, _ in fit], [one.median_ms for _, one in fit]
    tested, truth = list(case.test), np.array([one.median_ms for one in case.test.values()])
    inside = np.full(len(truth), np.nan)
    if way == WAYS[1]:
        factor = np.exp(np.mean(np.log(latencies / case.relative.predict(configs).mean_ms)))
        predicted = factor * case.relative.predict(tested).mean_ms
    elif way == WAYS[2]:
        predicted = _ridge_predicts(
            SPACE, [(c, one.median_ms) for c, one in fit], [(c, 0.0) for c in tested]
        )
    else:
        predictor = LatencyPredictor.fit(
            SPACE,
            configs,
            latencies,
            errors=[standard_error(one) for _, one in fit],
            relatives=[case.relative] if way in (CHOSEN, WAYS[0]) else [],
        )
        found = predictor.predict(tested)
        predicted, inside = found.mean_ms, (found.low_ms <= truth) & (truth <= found.high_ms)
    return 100 * float(np.mean(np.abs(predicted / truth - 1))), 100 * float(np.mean(inside))


def _words(cell: Mapping[str, float] | None) -> str:
    if cell is None:
        return "-"
    return f"{cell['mean']:.2f} ({cell['least']:.1f}-{cell['most']:.1f}) {cell['covers']:.0f}%"


if __name__ == "__main__":
    main()
