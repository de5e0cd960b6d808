"""Scores the networks of PConv-Bench with the weights of one supernet, for `ranking.py`.

    python benchmarks/pconv_supernet.py --data images.npz

The supernet is trained as `fasternas search --accuracy supernet` trains it, for what twelve of the
bench's trainings cost, on networks drawn between the bench's least and most MACs; its batch norms
and its likelihoods come from the training and the validation split, so that it never sees the test
split by which the bench evaluates. Goes on where it ended; begun again when the bench has grown, it
scores what is new. Writes benchmarks/results/pconv_bench-DATA/supernet.jsonl, a line a network.
"""

import argparse
import time
from pathlib import Path
from random import Random

import numpy as np
from pconv_bench_32 import RESULTS, Plan

from nas.estimators import SAMPLE, SUPERNET_FILE
from nas.study import journal
from predictors.cost import cost, costs
from predictors.data.datasets import located
from predictors.training.estimators import Sandwich, SupernetEstimator, SupernetTraining
from search_spaces.fasternet import SPACES, FasterNetConfig

DRAWN = 4096  # networks at once


def main() -> None:
    """Train, then score each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="as `fasternas search --data` takes it")
    data = parser.parse_args().data
    folder, plan = RESULTS / f"pconv_bench-{Path(data).stem}", Plan()
    rows = journal.read(folder / "trainings.jsonl")
    epochs = rows[0]["recipe"]["epochs"]
    space, file = SPACES[plan.space], folder.absolute() / SUPERNET_FILE
    training = SupernetTraining(
        space=space, sandwich=Sandwich(_drawn(plan)), data=located(data), epochs=epochs, seed=0,
        file=file,
    )  # fmt: skip
    start = time.monotonic()
    for at in training.run():
        print(f"epoch {at.done} of {at.total}: {at.accuracy:.2f} % for a large network, "
              f"{time.monotonic() - start:.0f} s", flush=True)  # fmt: skip
    known = {tuple(row["genes"]) for row in journal.read(folder / "supernet.jsonl")}
    estimate = SupernetEstimator(space=space, data=located(data), file=file)
    for genes in dict.fromkeys(tuple(row["genes"]) for row in rows):
        if genes not in known:
            found = estimate(space.decode(genes))
            journal.append(folder / "supernet.jsonl", [{"genes": genes, "likelihood": found}])
            print(f"likelihood {found:.2f} %", flush=True)
    print(f"The weights stay in {file}; delete them when all is scored.")


def _drawn(plan: Plan) -> list[FasterNetConfig]:
    """Networks from the bench's least MACs to its most, by ascending MACs."""
    space, rng = SPACES[plan.space], Random(2)
    found: list[FasterNetConfig] = []
    while len(found) < SAMPLE:
        configs = [space.sample(rng) for _ in range(DRAWN)]
        macs = np.asarray(costs(configs).macs)
        found += [config for config, count in zip(configs, macs, strict=True)
                  if plan.least_macs <= count <= plan.most_macs]  # fmt: skip
    return sorted(found[:SAMPLE], key=lambda config: cost(config).macs)


if __name__ == "__main__":
    main()
