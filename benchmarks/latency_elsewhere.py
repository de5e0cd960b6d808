"""Does the latency predictor hold where nobody has looked? Made-up spaces and devices.

    python benchmarks/latency_elsewhere.py [--seeds 5]

Each case is a space and a device that is a formula, whose measurements have 3 % of noise: latency
that is a line in ordered numbers; a sum over unordered choices times a factor; a product of
factors; and four made-up processors that run the networks of `fasternet`, of which each kind of
work has a speed of its own, each operator a cost and narrow layers a penalty. For 20, 50, 180 and
400 measured configs: the mean error of the predicted latency, and how many of other configs'
measurements the 90 % intervals hold. `chosen` networks are those that a search would time, `with
relative` is told the profile of an ARM board. Besides: the least that is predicted where one
choice makes all others free, whether a budget that only an upper end meets is accepted, and how
far the instructions of `pconv`'s networks on ARM, counted from layer records, are from those of
their ONNX graphs. Writes benchmarks/results/latency_elsewhere.json.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from provenance import provenance

from nas.search.loop import search
from nas.search.trial import Scores
from predictors.aarch64.graph import graph_nodes
from predictors.aarch64.parts import graph_parts
from predictors.backends.model import config_model
from predictors.backends.onnx_export import onnx_bytes
from predictors.calibration import next_batch
from predictors.devices.profiled import ProfiledDevice, load_profile
from predictors.latency import LatencyPredictor, Prediction
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET, SPACES
from search_spaces.space import Space, each, oneof

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
COUNTS = (20, 50, 180, 400)
TESTED = 300
NOISE = 0.03
CHOSEN = 50
LIMIT_MS = 30.0
GRAPHS = 200


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A network of six ordered numbers."""

    widths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Edges:
    """A cell of unordered operators."""

    operators: tuple[str, ...]
    factor: str = "plain"


LINE = Space(Numbers, widths=each(*[oneof(*range(16, 256, 8))] * 6))
CELLS = Space(
    Edges,
    operators=each(*[oneof("none", "a", "b", "c", "d")] * 6),
    factor=oneof("plain", "wide", "huge"),
)
DEAD = Space(Edges, operators=each(*[oneof("none", "a", "b", "c")] * 5))
COSTS = {"none": 0.0, "a": 0.2, "b": 1.0, "c": 4.0, "d": 0.5}
FACTORS = {"plain": 1.0, "wide": 1.6, "huge": 2.5}

Formula = Callable[[Sequence[Any]], Array]


def line_ms(configs: Sequence[Numbers]) -> Array:
    """A sum of the numbers."""
    return np.array([5 + np.dot(range(1, 7), config.widths) / 100 for config in configs])


def sum_ms(configs: Sequence[Edges]) -> Array:
    """A sum over the operators, times a factor."""
    sums = [1 + sum(COSTS[name] for name in config.operators) for config in configs]
    return np.array(sums) * [FACTORS[config.factor] for config in configs]


def product_ms(configs: Sequence[Edges]) -> Array:
    """A product of factors."""
    logs = [sum(COSTS[name] for name in config.operators) / 8 for config in configs]
    return np.exp(logs) * [FACTORS[config.factor] for config in configs]


def dead_ms(configs: Sequence[Edges]) -> Array:
    """A sum, unless the first operator makes the rest free."""
    found = [sum(COSTS[name] for name in c.operators) * (c.operators[0] != "none") for c in configs]
    return 1 + np.array(found)


def processor_ms(seed: int) -> Formula:
    """A made-up processor: speeds by kind of work, a cost of each operator, a penalty if narrow."""
    rng = np.random.default_rng(seed)
    speed = {op: 2e-8 * np.exp(0.4 * rng.standard_normal()) for op in ("conv1", "conv", "linear")}
    byte = 2e-7 * np.exp(0.4 * rng.standard_normal())
    start, narrow = 0.004 * np.exp(rng.standard_normal()), rng.uniform(0, 12)

    def latency_ms(config: Any) -> float:
        total = 0.1
        for layer in config.layers():
            kind = "conv1" if layer.op == "conv" and layer.kernel == 1 else layer.op
            moved = layer.repeat * (layer.c_in + layer.c_out) * layer.height * layer.width
            work = speed.get(kind, 0.0) * layer.macs * (1 + narrow / layer.c_in)
            total += work + start * layer.repeat + byte * moved
        return total

    return lambda configs: np.array([latency_ms(config) for config in configs])


def main() -> None:
    """Fit everything; print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    cases: dict[str, tuple[Space[Any], Formula]] = {
        "a line": (LINE, line_ms),
        "a sum, a factor": (CELLS, sum_ms),
        "a product": (CELLS, product_ms),
    }
    found: dict[str, Any] = {}
    for name, (space, formula) in cases.items():
        for count in COUNTS:
            rows = [plain_row(space, formula, count, seed) for seed in seeds]
            _add(found, f"{name}, {count}", rows)
    for count in (5, 10, 20, CHOSEN):
        for related in (False, True):
            if count < 8 and not related:
                continue
            rows = [processor_row(seed, count, related=related) for seed in range(4)]
            _add(found, f"processors, {count}{' with relative' if related else ''}", rows)
    found["least predicted"] = least_predicted(seeds)
    found["budget accepted"] = budget_accepted()
    found["counts"] = counts()
    print({name: found[name] for name in ("least predicted", "budget accepted", "counts")})
    content = {"seeds": len(seeds), "noise": NOISE, "cases": found, **provenance("numpy", "scipy")}
    (RESULTS / "latency_elsewhere.json").write_text(json.dumps(content, indent=2) + "\n")


def _add(found: dict[str, Any], name: str, rows: Sequence[tuple[float, float]]) -> None:
    """Keep and print a row: mean error and coverage in percent, over all seeds."""
    error, covers = np.mean(rows, axis=0).tolist()
    found[name] = {"mean_error": error, "covers": covers}
    print(f"{name:36} error {error:6.2f} %   covers {covers:5.1f} %", flush=True)


def plain_row(space: Space[Any], formula: Formula, count: int, seed: int) -> tuple[float, float]:
    """Fit to random configs."""
    rng, noise = Random(seed), np.random.default_rng(seed)
    configs = [space.sample(rng) for _ in range(count + TESTED)]
    truth = formula(configs)
    seen = truth * np.exp(NOISE * noise.standard_normal(len(truth)))
    predictor = LatencyPredictor.fit(space, configs[:count], seen[:count].tolist())
    return judged(predictor, configs[count:], truth[count:], seen[count:])


def processor_row(seed: int, count: int, *, related: bool) -> tuple[float, float]:
    """Fit to the networks that a search would time, on one of the made-up processors."""
    space, formula = SPACES["fasternet"], processor_ms(seed)
    noise = np.random.default_rng(seed)

    def measured(configs: Sequence[Any]) -> Array:
        return formula(configs) * np.exp(NOISE * noise.standard_normal(len(configs)))

    timed: list[tuple[Any, float]] = [(FASTERNET["t0"], float(measured([FASTERNET["t0"]])[0]))]
    while batch := next_batch(
        space,
        [(c, {"cpu": ms}) for c, ms in timed],
        budgets_ms={"cpu": LIMIT_MS},
        total=count,
        seed=seed,
    ):
        timed += zip(batch, measured(batch).tolist(), strict=True)
    relatives = [ProfiledDevice("arm", Backend())] if related else []
    configs, latencies = zip(*timed, strict=True)
    predictor = LatencyPredictor.fit(space, configs, latencies, relatives=relatives)
    rng = Random(seed + 100)
    others = [space.sample(rng) for _ in range(TESTED)]
    return judged(predictor, others, formula(others), measured(others))


def judged(
    predictor: LatencyPredictor, configs: Sequence[Any], truth: Array, seen: Array
) -> tuple[float, float]:
    """Return the mean error of the latency and how many measurements the intervals hold, in %."""
    found = predictor.predict(configs)
    error = np.mean(np.abs(found.mean_ms / truth - 1))
    return 100 * float(error), 100 * float(
        np.mean((found.low_ms <= seen) & (seen <= found.high_ms))
    )


def least_predicted(seeds: Sequence[int]) -> dict[str, float]:
    """The least prediction of all, its upper end, and how often the interval misses the least."""
    rng = Random(1)
    every = [DEAD.sample(rng) for _ in range(1000)]
    least, upper, missed = np.inf, np.inf, 0
    for seed in seeds:
        for count in (20, 50):
            own = Random(seed)
            configs = [DEAD.sample(own) for _ in range(count)]
            found = LatencyPredictor.fit(DEAD, configs, dead_ms(configs).tolist()).predict(every)
            at = int(found.mean_ms.argmin())
            least = min(least, float(found.mean_ms[at]))
            upper = min(upper, float(found.high_ms[at]))
            low = found.mean_ms < 0.5
            missed += int(np.sum(found.high_ms[low] < 1.0))
    return {"least_ms": least, "least_upper_ms": upper, "intervals_that_miss": missed}


def budget_accepted() -> bool:
    """Whether a search goes on under a budget that the config of the highest mean alone meets."""

    def predict(configs: Sequence[Numbers]) -> Prediction:
        first = np.array([config.widths[0] == 16 for config in configs])
        mean = np.where(first, 1.0, 2.0)
        return Prediction(mean, mean / 2, np.where(first, 9.0, 3.0))

    space = Space(Numbers, widths=each(oneof(16, 24)))
    trials = search(
        space,
        lambda _: Scores(accuracy=1.0, latency_ms=2.0),
        trials=1,
        budget_ms=5.0,
        predict_latency=predict,
    )
    return [trial.config.widths for trial in trials] == [(24,)]


def counts() -> dict[str, float]:
    """Largest relative difference of instructions by layers and by graphs, over `pconv`."""
    profile, rng = load_profile("raspberry_pi_5"), Random(0)
    differences = []
    for _ in range(GRAPHS):
        config = SPACES["pconv"].sample(rng)
        total, _fma = profile.instructions(config.layers())
        parts = graph_parts(graph_nodes(onnx_bytes(config_model(config))), profile.forms)
        differences.append(abs(float(total) / sum(part.instructions for part in parts) - 1))
    return {"networks": GRAPHS, "largest_difference": max(differences)}


if __name__ == "__main__":
    main()
