"""Does a Tuner over our searcher find what `fasternas.search` finds? On NAS-Bench-Macro.

    python benchmarks/tune_searcher.py --table nas_bench_macro.csv.gz [--seeds 10]

All search the same table of trained networks (arXiv 2103.11922) with the guided searcher, which
knows FLOPs before. `search` proposes each network knowing all before. A Tuner has two trials at a
time, so it proposes without knowing the one that runs, and results come in any order: like
`search, 2 at once` it knows one less. Prints the hypervolume reached of each seed, as a fraction of
that of the whole table, with medians and quartiles, and writes them into
benchmarks/results/tune_searcher.json. It goes on where it ended; delete that file when a searcher
has changed.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance
from ray import tune
from search_tasks import SearchTask, search_task

from fasternas.tune import FasternasSearch
from nas.ray_pool import joined
from nas.search.feasibility import all_genes
from nas.search.loop import search
from nas.search.trial import InProcess

FILE = Path(__file__).parent / "results" / "tune_searcher.json"
EVALUATIONS, AT_ONCE = 50, 2
TWO = "search, 2 at once"
Rows = dict[str, dict[str, float]]  # by seed, by what searches


def main() -> None:
    """Search from every seed, by all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    task = search_task(options.table)
    most = task.hypervolume([(float(a), float(cost)) for a, cost in task.known])
    rows: Rows = json.loads(FILE.read_text())["seeds"] if FILE.exists() else {}
    with joined(None), tempfile.TemporaryDirectory() as folder:
        tuned = partial(_tuned, known=_scores(task), folder=Path(folder))
        ways: dict[str, Callable[[SearchTask, int], float]] = {
            "search": _searched,
            TWO: _searched_two,
            "Tuner": tuned,
        }
        for seed in range(options.seeds):
            row = rows.setdefault(str(seed), {})
            for name in ways.keys() - row.keys():
                row[name] = ways[name](task, seed) / most
                _write(rows)
            print(f"seed {seed}: " + ", ".join(f"{name} {row[name]:.4f}" for name in ways))
        for name in ways:
            low, median, high = np.percentile([row[name] for row in rows.values()], [25, 50, 75])
            print(f"{name:18} {median:.4f} [{low:.4f}, {high:.4f}]")


def _searched(task: SearchTask, seed: int, **options: Any) -> float:
    """The hypervolume that `search` reaches in this process."""
    trials = search(
        task.space,
        task.evaluate,
        trials=EVALUATIONS,
        seed=seed,
        predict_latency=task.predict,
        **options,
    )
    found = [(t.scores.accuracy, t.scores.latency_ms) for t in trials if t.scores]
    return task.hypervolume(found)


def _searched_two(task: SearchTask, seed: int) -> float:
    """The same, each proposed without knowing the one before."""
    return _searched(task, seed, pool=InProcess(task.evaluate), parallel=AT_ONCE)


def _tuned(
    task: SearchTask,
    seed: int,
    *,
    known: Mapping[tuple[int, ...], dict[str, float]],
    folder: Path,
) -> float:
    """The hypervolume that a Tuner reaches; its trials look the networks up."""
    names = task.space.names

    def look_up(params: dict[str, Any], known: Mapping[tuple[int, ...], dict[str, float]]) -> None:
        tune.report(known[tuple(params[name] for name in names)])

    own = FasternasSearch(task.space, seed=seed, predict_latency=task.predict)
    how = tune.TuneConfig(
        search_alg=own, num_samples=EVALUATIONS, reuse_actors=True, max_concurrent_trials=AT_ONCE
    )
    where = tune.RunConfig(name=f"seed-{seed}", storage_path=str(folder), verbose=0)
    trainable = tune.with_parameters(look_up, known=known)
    results = tune.Tuner(trainable, tune_config=how, run_config=where).fit()
    metrics = [results[i].metrics or {} for i in range(len(results))]
    return task.hypervolume([(row["accuracy"], row["latency_ms"]) for row in metrics])


def _scores(task: SearchTask) -> dict[tuple[int, ...], dict[str, float]]:
    """What a trial of each network reports, by its operations."""
    configs = [task.space.decode(genes) for genes in all_genes(task.space)]
    pairs = zip(configs, task.look_up(configs).tolist(), strict=True)
    return {c.operations: {"accuracy": pair[0], "latency_ms": pair[1]} for c, pair in pairs}


def _write(rows: Rows) -> None:
    content = {
        "evaluations": EVALUATIONS,
        "at_once": AT_ONCE,
        "seeds": rows,
        **provenance("numpy", "ray", "scipy"),
    }
    FILE.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
