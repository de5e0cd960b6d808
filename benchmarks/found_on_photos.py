"""Are the networks that a search finds without data better than FasterNet-T0 on photos?

    python benchmarks/found_on_photos.py --search --device cpu --device arm    # a quiet machine
    python benchmarks/found_on_photos.py --train
    python benchmarks/found_on_photos.py                                       # prints the table

The bars are T0, T0 narrowed to half of its latency on this processor, T1, and three networks that
others published for phones and CPUs, made by timm without their weights. For each device and bar
one search gets that latency as its budget, and no data; of its front the network with the highest
estimate counts that is no slower. On this processor they are timed side by side; for ARM latencies
are those of the profile. All are trained alike on photos (`photo_training.py`), from `--seeds`
seeds; a training is kept in the table of PConv-Bench-Photos, so that it goes on where it ended.
What an earlier search had found, and was trained, stays. Gains have 95 % intervals by the deviation
between seeds of all networks. Writes benchmarks/results/found_on_photos.json.
"""

import argparse
import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from ingredients import NETWORKS, deviation_of, gain, read_networks
from photo_images import PHOTOS
from photo_training import (
    TRAININGS,
    Job,
    Network,
    PhotoRecipe,
    PhotoTrained,
    TimmModel,
    network_of,
    read_all,
    train_all,
)
from provenance import provenance

from nas.cli.main import main as fasternas
from nas.networks import find_network
from predictors.backends.model import Model
from predictors.devices.registry import open_device
from predictors.measurement import compare
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.formats import load_config
from search_spaces.io import atomic_write

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "found_on_photos.json"
CASE = ("device", "space", "bar")
ENDS = ("accuracy_low", "accuracy_high")


def main() -> None:
    """Search, train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", action="store_true", help="search for networks, anew")
    parser.add_argument("--train", action="store_true", help="train what is not trained yet")
    parser.add_argument("--device", action="append", default=[], choices=["cpu", "arm"])
    parser.add_argument("--bar", action="append", choices=list(bars()), help="all by default")
    parser.add_argument("--space", default="fasternet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folders of classes")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once")
    parser.add_argument("--runs", type=Path, default=Path("runs", "found_on_photos"))
    options = parser.parse_args()
    if options.search != bool(options.device):
        parser.error("--search must come with --device, and --device with --search.")
    cases: list[dict[str, Any]] = json.loads(FILE.read_text())["rows"] if FILE.exists() else []
    for device in options.device if options.search else ():
        names = options.bar or list(bars())
        found = searched(device, names, options.runs / device, options.space)
        cases = [*superseded(cases, found), *found]
        write(with_accuracies(cases, read_all(TRAININGS)))
    if options.train:
        train_all(planned(cases, options.seeds), TRAININGS, options.photos, workers=options.workers)
    rows = with_accuracies(cases, read_all(TRAININGS))
    write(rows)
    for row in rows:
        print(words(row))


def bars() -> dict[str, Network]:
    """Return what is to be beaten, by name."""
    half, _ = read_networks(RESULTS / "ingredients" / NETWORKS)["base"]
    return {
        "T0": FASTERNET["t0"],
        "T0 at half the latency": half,
        "T1": FASTERNET["t1"],
        "CPUBone-T0": TimmModel(timm="cpubone_t0"),
        "MobileNetV3-Small": TimmModel(timm="mobilenetv3_small_100"),
        "MobileNetV3-Large": TimmModel(timm="mobilenetv3_large_100"),
    }


def timed(bar: Network) -> FasterNetConfig | Model:
    """Return a network as devices take it."""
    return find_network(bar.timm) if isinstance(bar, TimmModel) else bar


def searched(device: str, names: Sequence[str], runs: Path, space: str) -> list[dict[str, Any]]:
    """Search within the latency of each bar that is named; return a case for each.

    Raises:
        RuntimeError: if a search does not end well, or finds nothing as fast.
    """
    opened, cases = open_device(device), []
    chosen = {name: bar for name, bar in bars().items() if name in names}
    hand = opened.measure_each([timed(bar) for bar in chosen.values()])
    for (name, bar), latency in zip(chosen.items(), hand, strict=True):
        run = runs / name.replace(" ", "_")
        budget = f"{latency.high_ms:.4f}ms"  # upper ends of intervals are to keep it
        command = ["search", "--device", device, "--space", space, "--budget", budget]
        if fasternas([*command, "--out", str(run)]) != 0:
            raise RuntimeError(f"The search in {run} must end well, but did not.")
        front = list(csv.DictReader((run / "pareto.csv").read_text().splitlines()))
        within = [row for row in front if float(row["latency_ms"]) <= latency.median_ms]
        if not within:
            raise RuntimeError(f"The front of {run} must have a network as fast as {name}.")
        best = max(within, key=lambda row: float(row["accuracy_low"]))
        found: FasterNetConfig = load_config(run / best["config"])
        ratio = compare(*opened.measure_each([timed(bar), found]))
        cases.append(
            {
                "device": device,
                "space": space,
                "bar": name,
                "bar_ms": latency.median_ms,
                "hand": asdict(bar),
                "found": asdict(found),
                "estimated": [float(best[key]) for key in ("accuracy", *ENDS)],
                "times_the_bar": [ratio.ratio, ratio.low, ratio.high],
                "source": ratio.source,
            }
        )
    return cases


def superseded(
    cases: Sequence[dict[str, Any]], anew: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return older cases; of those that are searched anew, the ones whose find was trained.

    They are marked as `earlier`, for what led that search knew less.
    """
    kept = []
    for case in cases:
        same = [one for one in anew if all(one[key] == case[key] for key in CASE)]
        if not same:
            kept.append(case)
        elif case["gain"] and case["found"] not in [one["found"] for one in same]:
            kept.append({**case, "earlier": True})
    return kept


def planned(cases: Sequence[Mapping[str, Any]], seeds: int) -> list[Job]:
    """Return the trainings: of all networks from the first seed, then from the next one."""
    networks = {
        f"{case['device']}, {case['bar']}, {kind}": network_of(case[kind])
        for case in cases
        for kind in ("found", "hand")
        if not case.get("earlier")
    }
    unique = {network: name for name, network in networks.items()}
    return [
        Job(name=name, config=network, seed=seed, recipe=PhotoRecipe())
        for seed in range(seeds)
        for network, name in unique.items()
    ]


def with_accuracies(
    cases: Sequence[Mapping[str, Any]], trained: Sequence[tuple[Network, PhotoTrained]]
) -> list[dict[str, Any]]:
    """Return the cases with the accuracies of both networks, by seed, and with gains."""
    by_network: dict[Network, dict[int, float]] = {}
    for network, row in trained:
        if row.recipe == PhotoRecipe() and not row.error:
            by_network.setdefault(network, {})[row.seed] = row.accuracy
    error, freedom = deviation_of(trained, PhotoRecipe())
    rows = []
    for case in cases:
        both = {
            kind: list(by_network.get(network_of(case[kind]), {}).values())
            for kind in ("found", "hand")
        }
        difference = gain(both["found"], both["hand"], error, freedom)
        rows.append({**case, "accuracies": both, "gain": difference})
    return rows


def write(cases: Sequence[Mapping[str, Any]]) -> None:
    """Write the cases."""
    document = {
        "recipe": asdict(PhotoRecipe()),
        "rows": cases,
        **provenance("torch", "onnxruntime"),
    }
    atomic_write(FILE, json.dumps(document, indent=1) + "\n")


def words(row: Mapping[str, Any]) -> str:
    """Say what a case came to."""
    accuracies = [
        f"{kind} {fmean(values):.2f} % ({len(values)})" if values else f"{kind} not trained"
        for kind, values in row["accuracies"].items()
    ]
    found = row["gain"]
    points = (
        f"{found['points']:+.2f} points [{found['low']:+.2f}, {found['high']:+.2f}]"
        if found
        else "no gain to tell"
    )
    return (
        f"{row['device']}, {row['space']}, {row['bar']} ({row['bar_ms']:.2f} ms)"
        f"{', an earlier search' if row.get('earlier') else ''}: "
        f"{', '.join(accuracies)}: "
        f"{points} in {row['times_the_bar'][0]:.3f} of its time, {row['source']}"
    )


if __name__ == "__main__":
    main()
