"""PConv-Bench at 32 pixels: PConv networks that were really trained, all by one recipe, and timed.

    python benchmarks/pconv_bench_32.py --data images.npz            trains; goes on where it ended
    python benchmarks/pconv_bench_32.py --data images.npz --latency  times what was chosen so far
    python benchmarks/pconv_bench_32.py --data images.npz --early    trains all for an eighth too

Some networks are spread over the space, the others are neighbours of the front of those; some are
trained from several seeds, which shows how far accuracies differ by chance. Each is trained in a
Ray task of one core. Timing wants a machine that does nothing else, so it is a run of its own,
wanted once after the first networks and once at the end. `--early` is to see what a search sees
after its first epochs: the accuracy of averaged weights. All of it goes to
benchmarks/results/pconv_bench-DATA/: trainings.jsonl, early.jsonl, latencies.jsonl and, from the
first and the last, table.csv with its description.
"""

import argparse
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from pconv_table import write_table

from nas.ray_pool import joined
from nas.search.pareto import pareto_front
from nas.search.trial import Scores, Trial
from nas.study import journal
from predictors.cost import cost, costs
from predictors.data.datasets import ImageData, load_data
from predictors.devices.registry import open_device
from predictors.training.recipe import SHORT, Recipe
from predictors.training.trainer import Trainer
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.network import build
from search_spaces.space import Genes, Space

RESULTS = Path(__file__).parent / "results"
PROCESSES = 7  # that time each network
DRAWN = 20_000  # networks at once


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which networks are trained, and how often."""

    space: str = "fasternet-32"
    spread: int = 96  # networks spread over the space, by their MACs
    near: int = 54  # neighbours of the front of those
    seeded: int = 30  # of all these, trained from `seeds` seeds
    seeds: int = 3
    least_macs: float = 2e6
    most_macs: float = 8e6


def main() -> None:
    """Train, or time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="as `fasternas search --data` takes it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latency", action="store_true", help="time networks, train none")
    parser.add_argument(
        "--early", action="store_true", help="train each network for an eighth of its epochs"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no training after so long"
    )
    options = parser.parse_args()
    folder = RESULTS / f"pconv_bench-{Path(options.data).stem}"
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan()
    if options.latency:
        _time_all(folder, plan, options.device)
    else:
        _train_all(folder, plan, options)
    write_table(folder, SPACES[plan.space])


def planned(
    plan: Plan, accuracies: dict[Genes, float], latencies_ms: dict[Genes, float]
) -> list[tuple[Genes, int]]:
    """Return the networks to train with their seeds, in order, as far as they are known.

    The neighbours of the front are known when the networks that are spread are trained and timed.
    """
    space = SPACES[plan.space]
    first = spread_over(plan)
    known = all(genes in accuracies and genes in latencies_ms for genes in first)
    second = near_front(space, plan, first, accuracies, latencies_ms) if known else []
    every = max((plan.spread + plan.near) // plan.seeded, 1)
    again = [*first, *second][::every][: plan.seeded]
    return [
        *((genes, 0) for genes in [*first, *second]),
        *((genes, seed) for seed in range(1, plan.seeds) for genes in again),
    ]


@cache
def spread_over(plan: Plan) -> Sequence[Genes]:
    """Draw one network from each of equal intervals of log MACs."""
    space, rng = SPACES[plan.space], Random(0)
    edges = np.geomspace(plan.least_macs, plan.most_macs, plan.spread + 1)
    found: dict[int, Genes] = {}
    while len(found) < plan.spread:
        configs = [space.sample(rng) for _ in range(DRAWN)]
        macs = np.asarray(costs(configs).macs)
        places = np.searchsorted(edges, macs, side="right") - 1
        for config, place in zip(configs, places, strict=True):
            if 0 <= place < plan.spread:
                found.setdefault(int(place), space.encode(config))
    return [found[place] for place in range(plan.spread)]


def early(epochs: int) -> int:
    """Return how many of the epochs are an eighth of them, at least one."""
    return max(epochs // 8, 1)


def near_front(
    space: Space[Any],
    plan: Plan,
    first: Sequence[Genes],
    accuracies: dict[Genes, float],
    latencies_ms: dict[Genes, float],
) -> list[Genes]:
    """Change one or two choices of networks of the front, in turn, to a neighbouring choice."""
    trials = [
        Trial(
            number=i,
            config=genes,
            feasible=True,
            scores=Scores(accuracy=accuracies[genes], latency_ms=latencies_ms[genes]),
        )
        for i, genes in enumerate(first)
    ]
    front = [trial.config for trial in pareto_front(trials)]
    rng, found = Random(1), list(first)
    while len(found) < plan.spread + plan.near:
        genes = list(front[len(found) % len(front)])
        for i in rng.sample(range(len(genes)), rng.choice((1, 2))):
            genes[i] = min(max(genes[i] + rng.choice((-1, 1)), 0), space.cardinalities[i] - 1)
        macs = cost(space.decode(tuple(genes))).macs
        if tuple(genes) not in found and plan.least_macs <= macs <= plan.most_macs:
            found.append(tuple(genes))
    return found[len(first) :]


def trained(space: str, data: str, epochs: int, recipe: Recipe, genes: Genes) -> dict[str, Any]:
    """Train a network of a space for some epochs; return its test accuracy after each."""
    config = SPACES[space].decode(genes)
    return {"genes": genes, **trained_config(data, recipe, config, epochs)}


def trained_config(
    data: str, recipe: Recipe, config: FasterNetConfig, epochs: int | None = None
) -> dict[str, Any]:
    """Train a network from scratch on one core, on all that is not for testing."""
    import torch

    torch.set_num_threads(1)
    os.nice(5)
    torch.manual_seed(recipe.seed)
    trainer = Trainer(build(config), _data(data), recipe)
    start = time.monotonic()
    for _ in range(epochs or recipe.epochs):
        for _ in trainer.run_epoch():
            pass
    return {
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "accuracies": [row.accuracy for row in trainer.rows],
        "losses": [row.loss for row in trainer.rows],
        "seconds": time.monotonic() - start,
    }


def _data(name: str) -> ImageData:
    """The data, all that is not for testing as training split; the test split is to evaluate."""
    data = load_data(name)
    if data.test is None:
        raise ValueError(f"`data` must have a test split, but {name} has none.")
    whole = replace(
        data.train,
        labels=np.concatenate([data.train.labels, data.validation.labels]),
        rows=np.concatenate([data.train.rows, data.validation.rows]),
    )
    return replace(data, train=whole, validation=data.test)


def _train_all(folder: Path, plan: Plan, options: argparse.Namespace) -> None:
    file = folder / ("early.jsonl" if options.early else "trainings.jsonl")
    rows = journal.read(file)
    recipe = replace(SHORT, polynomial_averaging=options.early)
    epochs = early(recipe.epochs) if options.early else recipe.epochs
    missing = _not_begun if options.early else _missing
    end = time.monotonic() + 60 * options.minutes
    with joined(None) as ray:
        remote = ray.remote(num_cpus=1, max_calls=1)(trained).remote
        task = partial(remote, plan.space, options.data, epochs)
        while waiting := missing(folder, plan, rows):
            tasks = ((replace(recipe, seed=seed), genes) for genes, seed in waiting)
            coming = _run(ray, task, tasks, workers=options.workers, until=end)
            for row in coming:
                journal.append(file, [row])
                rows.append(row)
                print(
                    f"{len(rows)}: {row['accuracies'][-1]:.2f} % in {row['seconds']:.0f} s",
                    flush=True,
                )
            if time.monotonic() > end:
                return


def _missing(folder: Path, plan: Plan, rows: Sequence[dict[str, Any]]) -> list[tuple[Genes, int]]:
    done = {(tuple(row["genes"]), row["seed"]) for row in rows}
    accuracies = {
        genes: row["accuracies"][-1]
        for row in rows
        if row["seed"] == 0 and (genes := tuple(row["genes"]))
    }
    wanted = planned(plan, accuracies, _latencies_ms(folder))
    return [pair for pair in wanted if pair not in done]


def _not_begun(folder: Path, _: Plan, rows: Sequence[dict[str, Any]]) -> list[tuple[Genes, int]]:
    """Each network that was trained to the end and not yet for an eighth."""
    done = {tuple(row["genes"]) for row in rows}
    every = dict.fromkeys(tuple(r["genes"]) for r in journal.read(folder / "trainings.jsonl"))
    return [(genes, 0) for genes in every if genes not in done]


def _run(
    ray: Any, task: Any, waiting: Iterable[tuple[Recipe, Genes]], *, workers: int, until: float
) -> Iterator[dict[str, Any]]:
    """Train side by side, as many at once as there are workers; yield each when it is done."""
    running: list[Any] = []
    left = list(waiting)
    while running or left:
        while left and len(running) < workers and time.monotonic() < until:
            running.append(task(*left.pop(0)))
        if not running:
            return
        (done,), running = ray.wait(running, num_returns=1)
        yield ray.get(done)


def _time_all(folder: Path, plan: Plan, device_name: str) -> None:
    space, device = SPACES[plan.space], open_device(device_name)
    known = _latencies_ms(folder)
    rows = journal.read(folder / "trainings.jsonl")
    chosen = dict.fromkeys([*spread_over(plan), *(tuple(row["genes"]) for row in rows)])
    left = [genes for genes in chosen if genes not in known]
    measured = device.measure_each([space.decode(g) for g in left], repeats=PROCESSES)
    for number, (genes, m) in enumerate(zip(left, measured, strict=True), start=1):
        entry = {
            "genes": genes,
            "median_ms": m.median_ms,
            "low_ms": m.low_ms,
            "high_ms": m.high_ms,
            "unstable": m.unstable,
            "device": device.description,
        }
        journal.append(folder / "latencies.jsonl", [entry])
        print(f"{number} of {len(left)}: {m.median_ms:.3f} ms", flush=True)


def _latencies_ms(folder: Path) -> dict[Genes, float]:
    return {
        tuple(row["genes"]): row["median_ms"] for row in journal.read(folder / "latencies.jsonl")
    }


if __name__ == "__main__":
    main()
