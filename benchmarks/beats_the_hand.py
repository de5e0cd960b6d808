"""Does a search find better networks than a hand that scales FasterNet to 32 px? At equal latency.

    python benchmarks/beats_the_hand.py --data images.npz

The hand takes T0's depths, one partial ratio of 1/4, an expansion of 2 and doubling widths; three
embedding widths give three bars. For each, a search of `fasternet-32` gets exactly the latency that
was measured of the bar as its budget. The bar and the most accurate network of the front are then
trained by the full recipe from three seeds, on all that is not for testing, and timed side by side.
Everything is kept in benchmarks/results/beats_the_hand-DATA/, so that it goes on where it ended.
Prints a table and writes beats_the_hand-DATA.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from provenance import provenance

from nas.cli.main import main as fasternas
from nas.ray_pool import joined
from nas.study import journal
from predictors.backends.model import config_model
from predictors.devices.registry import open_device
from predictors.measurement import compare
from predictors.training.recipe import SHORT
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.formats import load_config

RESULTS = Path(__file__).parent / "results"
EMBEDDINGS = (16, 20, 24)
SEEDS = (0, 1, 2)


def main() -> None:
    """Search under each bar's latency, train, time, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="as `fasternas search --data` takes it")
    parser.add_argument("--trials", type=int, default=36)
    parser.add_argument("--search-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=16, help="of the full recipe")
    options = parser.parse_args()
    folder = RESULTS / f"beats_the_hand-{Path(options.data).stem}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(folder, options, width) for width in EMBEDDINGS]
    for row in rows:
        print(
            f"{row['bar_ms']:.3f} ms: hand {row['hand']['mean']:.2f} %, found "
            f"{row['found']['mean']:.2f} %, {row['gain']:+.2f} points in "
            f"{row['times_the_bar']['ratio']:.3f} of the time"
        )
    gain = fmean(row["gain"] for row in rows)
    print(f"on average {gain:+.2f} points")
    document = {
        "epochs": options.epochs,
        "trials": options.trials,
        "rows": rows,
        "gain": gain,
        "seeds": SEEDS,
        **provenance("torch", "onnxruntime", "optuna", "ray"),
    }
    folder.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")


def by_hand(width: int) -> FasterNetConfig:
    """FasterNet scaled to images of 32 px as a hand would: T0, but narrower, and a finer stem."""
    return replace(
        FASTERNET["t0"],
        widths=(width, 2 * width, 4 * width, 8 * width),
        resolution=32,
        stem_stride=2,
        head_width=256,
        classes=10,
        activation="relu",
    )


def _row(folder: Path, options: argparse.Namespace, width: int) -> dict[str, Any]:
    hand = by_hand(width)
    bar_ms = _bar_ms(folder, hand, width)
    found = _searched(folder, options, bar_ms, width)
    accuracies = {
        name: _trained(folder, config, options)
        for name, config in (("hand", hand), ("found", found))
    }
    first, second = open_device("cpu").measure_each([config_model(hand), config_model(found)])
    ratio = compare(first, second)
    means = {name: fmean(values) for name, values in accuracies.items()}
    return {
        "width": width,
        "bar_ms": bar_ms,
        "found_config": asdict(found),
        **{
            name: {"accuracies": values, "mean": means[name], "deviation": stdev(values)}
            for name, values in accuracies.items()
        },
        "gain": means["found"] - means["hand"],
        "times_the_bar": {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high},
    }


def _bar_ms(folder: Path, hand: FasterNetConfig, width: int) -> float:
    """The latency of the bar, timed once."""
    file = folder / f"bar-{width}.json"
    if not file.exists():
        file.write_text(json.dumps(open_device("cpu").measure(config_model(hand)).median_ms))
    return float(json.loads(file.read_text()))


def _searched(
    folder: Path, options: argparse.Namespace, bar_ms: float, width: int
) -> FasterNetConfig:
    """The most accurate network of the front, searched or gone on with."""
    run = folder / f"run-{width}"
    command = [
        "search",
        "--device",
        "cpu",
        "--budget",
        f"{bar_ms}ms",
        "--space",
        "fasternet-32",
        "--data",
        options.data,
        "--accuracy",
        "train",
        "--trials",
        str(options.trials),
        "--epochs",
        str(options.search_epochs),
        "--out",
        str(run),
    ]
    if not (run / "pareto.csv").exists():
        resumed = ["--resume"] if (run / "run.json").exists() else []
        if fasternas([*command, *resumed]) != 0:
            raise RuntimeError(f"The search in {run} must end well, but did not.")
    *_, best = (run / "pareto.csv").read_text().splitlines()  # the slowest is the most accurate
    config: FasterNetConfig = load_config(run / best.split(",")[0])
    return config


def _trained(folder: Path, config: FasterNetConfig, options: argparse.Namespace) -> Sequence[float]:
    """Test accuracies by the full recipe, one for each seed; trained side by side."""
    from pconv_bench_32 import trained_config

    file = folder / "trainings.jsonl"
    config_json = json.loads(json.dumps(asdict(config)))
    known = {
        row["seed"]: row["accuracy"]
        for row in journal.read(file)
        if row["config"] == config_json and row["epochs"] == options.epochs
    }
    with joined(None) as ray:
        task = partial(ray.remote(num_cpus=1)(trained_config).remote, options.data)
        waiting = {
            seed: task(replace(SHORT, epochs=options.epochs, seed=seed), config)
            for seed in SEEDS
            if seed not in known
        }
        for seed, result in waiting.items():
            known[seed] = ray.get(result)["accuracies"][-1]
            journal.append(
                file,
                [
                    {
                        "config": config_json,
                        "seed": seed,
                        "epochs": options.epochs,
                        "accuracy": known[seed],
                    }
                ],
            )
    return [known[seed] for seed in SEEDS]


if __name__ == "__main__":
    main()
