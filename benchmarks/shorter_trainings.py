"""Do short trainings rank networks as whole ones do, and those of smaller images for less?

    python benchmarks/shorter_trainings.py --train      # goes on where it ended
    python benchmarks/shorter_trainings.py              # prints the table

The networks of PConv-Bench-Photos that were trained whole from two seeds or more are trained once
more, from a seed of its own, on images of 4/7 of the side, and for 8 of the 15 epochs. Truth is the
accuracy at the end of the whole trainings, but for that of the first seed, whose accuracies after
some epochs are the short trainings on whole images. Kendall's tau with the truth has a bootstrap
95 % interval, and so has what a training is above another. A training's cost is the pixels that it
sees, as a share of those of a whole one. Writes benchmarks/results/shorter_trainings.json.
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from photo_training import (
    PHOTOS,
    TRAININGS,
    Job,
    PhotoRecipe,
    PhotoTrained,
    read_trained,
    train_all,
)
from provenance import provenance
from rank_correlation import bootstrapped, difference, kendall

from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import atomic_write

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "shorter_trainings.json"
SHORTER = TRAININGS.with_name("shorter.jsonl")
WHOLE = PhotoRecipe()
SMALLER = PhotoRecipe(resolution=72, ended=8)
SEED = 9  # from which no network is trained whole
EPOCHS = (1, 2, 4, 8)

Array = NDArray[np.float64]
BySeed = Mapping[int, PhotoTrained]


@dataclass(frozen=True, kw_only=True)
class Short:
    """The accuracies of networks after a short training of some side, in percent."""

    side: int  # of networks for 224 px
    epochs: int
    accuracies: Array

    @property
    def cost(self) -> float:
        """The pixels that it sees, of those of a whole training."""
        return self.epochs / WHOLE.epochs * (self.side / WHOLE.resolution) ** 2


def main() -> None:
    """Train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train what is not trained yet")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folders of classes")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once")
    options = parser.parse_args()
    networks = trained_whole()
    if options.train:
        jobs = [
            Job(name=next(iter(rows.values())).name, config=config, seed=SEED, recipe=SMALLER)
            for config, rows in networks.items()
        ]
        train_all(jobs, SHORTER, options.photos, workers=options.workers)
    smaller = {
        config: row
        for config, row in read_trained(SHORTER)
        if row.recipe == SMALLER and config in networks and not row.error
    }
    found = judged({config: networks[config] for config in smaller}, smaller)
    atomic_write(FILE, json.dumps(found, indent=1) + "\n")
    for row in found["rows"]:
        print(f"{row['side']} px, {row['epochs']} epochs, cost {row['cost']:.3f}: {row['tau']}")
    for row in found["differences"]:
        print(f"{row['first']} above {row['second']}: {row['tau']}")


def trained_whole() -> dict[FasterNetConfig, BySeed]:
    """Return the networks with two whole trainings or more, by seed."""
    found: dict[FasterNetConfig, dict[int, PhotoTrained]] = {}
    for config, row in read_trained(TRAININGS):
        if row.recipe == WHOLE and not row.error:
            found.setdefault(config, {})[row.seed] = row
    return {config: rows for config, rows in found.items() if len(rows) > 1}


def judged(
    whole: Mapping[FasterNetConfig, BySeed], smaller: Mapping[FasterNetConfig, PhotoTrained]
) -> dict[str, Any]:
    """Return how well each short training ranks the networks, and what one is above another."""
    first = {config: min(rows) for config, rows in whole.items()}
    truth = np.array(
        [
            fmean(row.accuracy for seed, row in rows.items() if seed != first[config])
            for config, rows in whole.items()
        ]
    )
    begun = [rows[first[config]] for config, rows in whole.items()]
    shorts = [_after(WHOLE, epochs, begun) for epochs in (*EPOCHS, WHOLE.epochs)]
    shorts += [_after(SMALLER, epochs, [smaller[config] for config in whole]) for epochs in EPOCHS]
    none = np.ones_like(truth)  # no latencies: all networks are compared

    def tau(scores: Array, accuracies: Array, _: Array) -> float:
        return kendall(scores, accuracies)

    small = [one for one in shorts if one.side == SMALLER.resolution]
    pairs = [(s, w) for s in small for w in shorts if w.side != s.side and w.cost >= s.cost]
    return {
        "networks": len(whole),
        "rows": [
            {
                "side": one.side,
                "epochs": one.epochs,
                "cost": one.cost,
                "tau": asdict(bootstrapped(tau, one.accuracies, truth, none)),
            }
            for one in shorts
        ],
        "differences": [
            {
                "first": [s.side, s.epochs],
                "second": [w.side, w.epochs],
                "tau": asdict(difference(tau, (s.accuracies, w.accuracies), truth, none)),
            }
            for s, w in pairs
        ],
        **provenance("torch"),
    }


def _after(recipe: PhotoRecipe, epochs: int, rows: list[PhotoTrained]) -> Short:
    accuracies = np.array([dict(row.accuracies)[epochs] for row in rows])
    return Short(side=recipe.resolution, epochs=epochs, accuracies=accuracies)


if __name__ == "__main__":
    main()
