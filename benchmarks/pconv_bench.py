"""PConv-Bench-Photos: PConv networks of 15 to 900 MMACs that were really trained on photos.

    python benchmarks/pconv_bench.py --networks hand
    python benchmarks/pconv_bench.py --networks hand spread --count 64 --seeds 2
    python benchmarks/pconv_bench.py --networks proposed --runs run-a run-b
    python benchmarks/pconv_bench.py                          says what the table holds

By hand: T0 to T2, the paper's ablations of T0, T0 narrowed down to a sixteenth of its MACs. Spread:
one network for each of equal intervals of log MACs, by turns of the spaces `fasternet` and `pconv`.
Proposed: the fronts of runs of `fasternas search`. All are trained by the recipe of
`photo_training.py`, the first seed of all networks before the second of any. A line of
benchmarks/results/photos/trainings.jsonl is a training, so that it goes on where it ended.
"""

import argparse
import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np
from ingredients import VARIANTS, distortion, pooled_deviation
from photo_images import PHOTOS
from photo_training import (
    TRAININGS,
    Job,
    PhotoRecipe,
    Trained,
    config_of,
    read_trained,
    train_all,
)
from rank_correlation import kendall, kendall_in_bands

from predictors.cost import cost, costs
from search_spaces.fasternet import FASTERNET, INGREDIENTS, SPACES, FasterNetConfig
from search_spaces.formats import load_config
from search_spaces.io import atomic_write
from search_spaces.space import Space

Kind = Literal["hand", "spread", "proposed"]
Named = Mapping[str, FasterNetConfig]

T0 = FASTERNET["t0"]
SPREAD = ("fasternet", "pconv")
MACS = (15e6, 900e6)  # of the networks that are spread, at their own resolution
FRACTIONS = (3 / 4, 1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of T0's MACs
DRAWN, DRAWS = 4000, 16  # networks at once, and how often
PUBLISHED = 0.5  # how likely an ingredient is as published in all stages
CONCENTRATION = 4.0  # of the sizes of a network's stages about a common one


def main() -> None:
    """Train what is missing, and say what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=get_args(Kind), default=[])
    parser.add_argument("--count", type=int, default=64, help="networks that are spread")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="folders of searches")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folders of classes")
    parser.add_argument("--epochs", type=int, default=PhotoRecipe.epochs)
    parser.add_argument("--resolution", type=int, default=PhotoRecipe.resolution)
    parser.add_argument("--images", type=int, default=0, help="to train on; 0: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once")
    parser.add_argument("--trainings", type=Path, default=TRAININGS, help="the table")
    options = parser.parse_args()
    recipe = PhotoRecipe(
        epochs=options.epochs, resolution=options.resolution, images=options.images
    )
    networks = {
        name: config
        for kind in options.networks
        for name, config in _networks(
            kind, options.count, options.runs, options.trainings.parent
        ).items()
    }
    if networks:
        jobs = planned(networks, options.seeds, recipe)
        train_all(jobs, options.trainings, options.photos, workers=options.workers)
    for line in summary(read_trained(options.trainings), recipe):
        print(line)


def planned(networks: Named, seeds: int, recipe: PhotoRecipe) -> list[Job]:
    """Return the trainings in order: all networks from the first seed, then from the next one."""
    return [
        Job(name=name, config=config, seed=seed, recipe=recipe)
        for seed in range(seeds)
        for name, config in networks.items()
    ]


def _networks(kind: Kind, count: int, runs: Sequence[Path], folder: Path) -> Named:
    if kind == "hand":
        return by_hand()
    return proposed(runs) if kind == "proposed" else kept_spread(count, folder)


def by_hand() -> Named:
    """Return published networks, ablations of T0, and T0 narrowed; the last ones first."""
    halved = (0.5,) * 4
    eighth = replace(T0, widths=(42, 84, 168, 336), partial_ratios=(0.125,) * 4)
    return {
        **{f"t0 x {fraction:g}": narrowed(fraction) for fraction in FRACTIONS},
        **{name: FASTERNET[name] for name in ("t0", "t1", "t2")},
        "t0, relu": replace(T0, activation="relu"),
        "t0, r = 1/2": replace(T0, partial_ratios=halved),
        "t0, r = 1/8": eighth,
    }


def narrowed(fraction: float) -> FasterNetConfig:
    """Return T0 with widths that give it that fraction of its MACs, as nearly as they can."""
    goal = math.log(fraction * cost(T0).macs)
    log_macs = VARIANTS["base"].widths
    return min(log_macs, key=lambda c: abs(log_macs[c] - goal) + distortion(c.widths))


def kept_spread(count: int, folder: Path) -> Named:
    """Return what is spread, as it was drawn when it was first asked for: spaces change."""
    file = folder / f"spread-{count}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn = {name: asdict(config) for name, config in spread(count).items()}
        atomic_write(file, json.dumps(drawn, indent=1) + "\n")
    return {name: config_of(values) for name, values in json.loads(file.read_text()).items()}


def spread(count: int) -> Named:
    """Return one network for each of equal intervals of log MACs.

    They come in an order of which every beginning is spread over all sizes and both spaces. An
    interval in which hardly any network lies may have none.
    """
    edges = np.geomspace(*MACS, count + 1)
    found: dict[int, FasterNetConfig] = {}
    rng = Random(0)
    for _ in range(DRAWS):
        for turn, name in enumerate(SPREAD):
            configs = [_drawn(SPACES[name], rng) for _ in range(DRAWN)]
            places = np.searchsorted(edges, np.asarray(costs(configs).macs), side="right") - 1
            inside = [p for p in range(count) if _turn(p) == turn and p in places]
            found |= {p: configs[int(np.argmax(places == p))] for p in inside if p not in found}
        if len(found) == count:
            break
    order = sorted(found, key=lambda place: _reversed_bits(place, count))
    return {f"spread {p} of {count}, {SPREAD[_turn(p)]}": found[p] for p in order}


def _turn(place: int) -> int:
    """Which space has that place: either half of them in every part of the sizes and the order."""
    return place.bit_count() % len(SPREAD)


def _reversed_bits(place: int, count: int) -> int:
    """Where a place comes if every beginning of the order is to be spread over all places."""
    bits = max(count - 1, 1).bit_length()
    return int(f"{place:0{bits}b}"[::-1], 2)


def _drawn(space: Space[Any], rng: Random) -> FasterNetConfig:
    """A network whose stages are of like sizes, small or large; half of the ingredients are T0's.

    Drawn uniformly, hardly any would be small, and none without all of the ingredients.
    """
    size = rng.random()
    genes = [
        min(
            int(n * rng.betavariate(CONCENTRATION * size + 0.1, CONCENTRATION * (1 - size) + 0.1)),
            n - 1,
        )
        if name.startswith(("widths", "depths", "expansions"))
        else rng.randrange(n)
        for name, n in zip(space.names, space.cardinalities, strict=True)
    ]
    config: FasterNetConfig = space.decode(tuple(genes))
    plain = [name for name in (*INGREDIENTS, "stem", "head_width") if rng.random() < PUBLISHED]
    published: dict[str, Any] = {name: getattr(T0, name) for name in plain}
    return replace(config, **published)


def proposed(runs: Sequence[Path]) -> Named:
    """Return the networks of the fronts of run folders."""
    found: dict[str, FasterNetConfig] = {}
    for run in runs:
        with (run / "pareto.csv").open(newline="") as file:
            files = [row[0] for row in csv.reader(file)][1:]
        found |= {f"{run.name}/{name}": load_config(run / name) for name in files}
    return found


def summary(trained: Sequence[Trained], recipe: PhotoRecipe) -> list[str]:
    """Return a line for each network by MACs, then how well one seed ranks them as another does."""
    runs: dict[FasterNetConfig, dict[int, float]] = {}
    names: dict[FasterNetConfig, str] = {}
    for config, row in trained:
        if row.recipe == recipe and not row.error:
            runs.setdefault(config, {})[row.seed] = row.accuracy
            names[config] = row.name
    macs = {config: cost(config).macs for config in runs}
    lines = [
        f"{macs[config] / 1e6:6.0f} MMACs  {fmean(runs[config].values()):6.2f} %  "
        f"{len(runs[config])} seeds  {names[config]}"
        for config in sorted(runs, key=lambda config: macs[config])
    ]
    both = [config for config, seeds in runs.items() if {0, 1} <= seeds.keys()]
    if len(both) < 2:
        return [*lines, f"{asdict(recipe)}: seeds cannot be compared yet."]
    first, second = (np.array([runs[config][seed] for config in both]) for seed in (0, 1))
    sizes = np.array([float(macs[config]) for config in both])
    deviation, _ = pooled_deviation([list(seeds.values()) for seeds in runs.values()])
    return [
        *lines,
        f"{asdict(recipe)}",
        f"{len(both)} networks of two seeds: tau {kendall(first, second):.3f}, within 15 % of "
        f"MACs {kendall_in_bands(first, second, sizes):.3f}; deviation {deviation:.2f} points.",
    ]


if __name__ == "__main__":
    main()
