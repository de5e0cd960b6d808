"""Which short trainings rank as whole ones do: of small images, few classes, from given weights?

    python benchmarks/shorter_trainings.py --train      # goes on where it ended
    python benchmarks/shorter_trainings.py              # prints the table

The networks of PConv-Bench-Photos that were trained whole from two seeds or more are trained three
times more, from a seed of its own: for 8 of the 15 epochs on images of 4/7 of the side, or on half
of the classes; and for 2 epochs from the weights of a T1 that was trained whole on the same photos,
which are sliced as `--init` does, without the classifier. Truth is the accuracy at the end of the
whole trainings, but for that of the first seed, whose accuracies after some epochs are the short
trainings as the whole ones begin. Kendall's tau with the truth has a bootstrap 95 % interval, and
so has what a training is above another. A training's cost is the pixels that it sees, as a share of
those of a whole one. Writes benchmarks/results/shorter_trainings.json.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from fit_top1 import RESULTS as ESTIMATES, read_bench, read_latencies
from numpy.typing import NDArray
from photo_images import PHOTOS
from photo_training import (
    TRAININGS,
    Job,
    PhotoRecipe,
    PhotoTrained,
    missing,
    read_trained,
    train_all,
)
from provenance import provenance
from rank_correlation import STATISTICS, bootstrapped, difference

from predictors.cost import cost
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import atomic_write

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "shorter_trainings.json"
SHORTER = TRAININGS.with_name("shorter.jsonl")
WHOLE = PhotoRecipe()
SMALLER = PhotoRecipe(resolution=72, ended=8)
FEWER = PhotoRecipe(classes=56, ended=8)
BEGUN = PhotoRecipe(init="t1", ended=2)
GIVEN = FASTERNET[BEGUN.init]
SEED = 9  # from which no other network is trained whole
EPOCHS = {SMALLER: (1, 2, 4, 8), BEGUN: (1, 2), FEWER: (2, 4, 8)}
CLASSES = 112  # of the photos
TAUS = {"tau": STATISTICS["kendall"], "tau_in_bands": STATISTICS["kendall in bands"]}

Array = NDArray[np.float64]
BySeed = Mapping[int, PhotoTrained]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """What networks are ranked by: a number for each, and what a training for it costs."""

    about: Mapping[str, Any]
    cost: float  # the pixels that it sees, of those of a whole training
    scores: Array


def main() -> None:
    """Train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train what is not trained yet")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folders of classes")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once")
    options = parser.parse_args()
    networks = trained_whole()
    if options.train:
        for jobs in _jobs(networks):
            train_all(jobs, SHORTER, options.photos, workers=options.workers)
    shorter: dict[PhotoRecipe, dict[FasterNetConfig, PhotoTrained]] = defaultdict(dict)
    for config, row in read_trained(SHORTER):
        if row.recipe in EPOCHS and config in networks and not row.error:
            shorter[row.recipe][config] = row
    done = [config for config in networks if all(config in rows for rows in shorter.values())]
    found = judged({config: networks[config] for config in done}, shorter)
    atomic_write(FILE, json.dumps(found, indent=1) + "\n")
    for row in (*found["rows"], *found["differences"]):
        print(json.dumps(row))


def _jobs(networks: Mapping[FasterNetConfig, BySeed]) -> Iterator[list[Job]]:
    """Yield what is trained at once; what starts from weights comes after those."""
    given = Job(name=BEGUN.init, config=GIVEN, seed=SEED, recipe=WHOLE, kept=True)
    for recipe in EPOCHS:
        jobs = [
            Job(name=next(iter(rows.values())).name, config=config, seed=SEED, recipe=recipe)
            for config, rows in networks.items()
        ]
        if missing(jobs, SHORTER):
            yield [given] if recipe.init else []
            yield jobs


def trained_whole() -> dict[FasterNetConfig, BySeed]:
    """Return the networks with two whole trainings or more, by seed."""
    found: dict[FasterNetConfig, dict[int, PhotoTrained]] = {}
    for config, row in read_trained(TRAININGS):
        if row.recipe == WHOLE and not row.error:
            found.setdefault(config, {})[row.seed] = row
    return {config: rows for config, rows in found.items() if len(rows) > 1}


def judged(
    whole: Mapping[FasterNetConfig, BySeed],
    shorter: Mapping[PhotoRecipe, Mapping[FasterNetConfig, PhotoTrained]],
) -> dict[str, Any]:
    """Return how well each training ranks the networks, and what one is above another.

    Those on whole images of all classes from random weights are what others are compared with: of
    no less cost, or, where given weights save epochs, of the same. What needs no training is beside
    them.
    """
    networks = list(whole)
    first = {config: min(rows) for config, rows in whole.items()}
    truth = np.array(
        [
            fmean(row.accuracy for seed, row in rows.items() if seed != first[config])
            for config, rows in whole.items()
        ]
    )
    untrained = {one.about["by"]: one for one in known_before(networks)}
    of_first = {config: rows[first[config]] for config, rows in whole.items()}
    usual = [_after(WHOLE, epochs, networks, of_first) for epochs in (1, 2, 4, 8, WHOLE.epochs)]
    others = [
        _after(recipe, epochs, networks, rows)
        for recipe, rows in sorted(shorter.items(), key=lambda pair: list(EPOCHS).index(pair[0]))
        for epochs in EPOCHS[recipe]
    ]
    pairs = [
        (one, other)
        for one in others
        for other in usual
        if other.cost == one.cost or (other.cost > one.cost and not one.about["init"])
    ]
    pairs += [(one, untrained["estimate"]) for one in (*usual, *others)]
    beside = truth, untrained["latency"].scores
    return {
        "networks": len(networks),
        "rows": [_row(one, *beside) for one in (*untrained.values(), *usual, *others)],
        "differences": [_difference(one, other, *beside) for one, other in pairs],
        **provenance("torch"),
    }


def _row(one: Ranking, truth: Array, latencies_ms: Array) -> dict[str, Any]:
    taus = {
        name: asdict(bootstrapped(statistic, one.scores, truth, latencies_ms))
        for name, statistic in TAUS.items()
    }
    return {**one.about, "cost": one.cost, **taus}


def _difference(one: Ranking, other: Ranking, truth: Array, latencies_ms: Array) -> dict[str, Any]:
    scores = one.scores, other.scores
    taus = {
        name: asdict(difference(statistic, scores, truth, latencies_ms))
        for name, statistic in TAUS.items()
    }
    return {"first": one.about, "second": other.about, **taus}


def known_before(networks: Sequence[FasterNetConfig]) -> Iterator[Ranking]:
    """Yield what is known of networks without training; the estimate is of a fit without each."""
    rows = json.loads(ESTIMATES.read_text())["rows"]["bench, by tenths"]
    by_name = {row["name"]: float(row["median"]) for row in rows}
    estimated = {one.config: by_name[f"{one.name}, on photos"] for one in read_bench(TRAININGS)}
    timed, counted = read_latencies(), list(map(cost, networks))
    columns: Mapping[str, Sequence[float]] = {
        "estimate": [estimated[config] for config in networks],
        "parameters": [one.params for one in counted],
        "MACs": [one.macs for one in counted],
        "latency": [timed[config] for config in networks],
    }
    for name, values in columns.items():
        yield Ranking(about={"by": name}, cost=0.0, scores=np.array(values, dtype=float))


def _after(
    recipe: PhotoRecipe,
    epochs: int,
    networks: Iterable[FasterNetConfig],
    rows: Mapping[FasterNetConfig, PhotoTrained],
) -> Ranking:
    classes = recipe.classes or CLASSES
    about = {"by": "training", "side": recipe.resolution, "classes": classes}
    side = recipe.resolution / WHOLE.resolution
    return Ranking(
        about={**about, "init": recipe.init, "epochs": epochs},
        cost=epochs / WHOLE.epochs * side**2 * classes / CLASSES,
        scores=np.array([dict(rows[config].accuracies)[epochs] for config in networks]),
    )


if __name__ == "__main__":
    main()
