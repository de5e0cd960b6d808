"""How few evaluations does each searcher need? On networks whose accuracies are known.

    python benchmarks/searchers.py --table nas_bench_macro.csv.gz [--seeds 20] [--workers 2]
    python benchmarks/searchers.py --table benchmarks/results/pconv_bench-NAME

The first table is NAS-Bench-Macro's (arXiv 2103.11922); the second is what models fitted to
PConv-Bench foretell of all networks of `fasternet-32`. Two tasks: the front of accuracy and cost
(FLOPs or latency), as a fraction of the largest hypervolume known (reference point: the 5th
percentile of accuracy and the 95th of cost); and the best accuracy under the 40th percentile of
cost, as regret in points. `guided` knows costs before it evaluates, as a search knows predicted
latencies; `guided, told wrong` is told half of what the networks cost whose first choice is the
last one there is. The others, `guided, untold` too, are as they are outside fasternas and learn
costs from the trials, though a search would keep them too from what is predicted to miss the
budget. None is told a score. Each proposes knowing all results before, but pymoo, which proposes 20
at a time. Prints medians and quartiles over seeds and writes results/searchers-TABLE.json.
It goes on where it ended; delete searchers-TABLE/ when a searcher has changed.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
from provenance import provenance
from search_tasks import Points, SearchTask, search_task

from nas.search.loop import search
from nas.search.searchers import SearcherName
from nas.study import journal

RESULTS = Path(__file__).parent / "results"
COUNTS = (25, 50, 100, 200)  # evaluations
OURS, UNTOLD, WRONG = "guided", "guided, untold", "guided, told wrong"

Job = tuple[str, str, bool, int]  # table, searcher, whether under the limit, seed
Searcher = Callable[[SearchTask, float | None, int], Iterator[tuple[float, float]]]


def main() -> None:
    """Run every searcher from every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    stem = Path(options.table).name.partition(".")[0]
    there = [name for name in get_args(SearcherName) if "nni" not in name or find_spec("nni")]
    jobs = [
        (options.table, name, limited, seed)
        for seed in range(options.seeds)
        for limited in (False, True)
        for name in (*there, UNTOLD, WRONG, *_foreign())
    ]
    file = RESULTS / f"searchers-{stem}" / "runs.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = {_key(run) for run in journal.read(file)}
    waiting = [job for job in jobs if job[1:] not in known]
    with ProcessPoolExecutor(options.workers) as pool:
        for run in pool.map(_run, waiting):
            journal.append(file, [run])
            print(run["searcher"], run["limited"], run["seed"], flush=True)
    wanted = {job[1:] for job in jobs}
    runs = [run for run in journal.read(file) if _key(run) in wanted]
    document = _document(search_task(options.table), runs)
    for task, rows in document.items():
        print(f"{task:14}" + "".join(f"{count:>24}" for count in COUNTS))
        for name, quartiles in rows.items():
            print(
                f"{name:14}" + "".join(f"{q[1]:10.3f} [{q[0]:.3f}, {q[2]:.3f}]" for q in quartiles)
            )
    content = {
        "seeds": options.seeds,
        "evaluations": COUNTS,
        "quartiles": document,
        **provenance("numpy", "scipy", "scikit-learn", "optuna"),
    }
    (RESULTS / f"searchers-{stem}.json").write_text(json.dumps(content, indent=2) + "\n")


def _key(run: Mapping[str, Any]) -> tuple[str, bool, int]:
    return run["searcher"], run["limited"], run["seed"]


def _run(job: Job) -> dict[str, Any]:
    """Search; keep what was reached after each number of evaluations, and what is best of all."""
    path, name, limited, seed = job
    task = search_task(path)
    searcher = _foreign().get(name) or partial(_ours, name)
    points = list(searcher(task, task.limit if limited else None, seed))
    reached = task.best if limited else task.hypervolume
    return {
        "searcher": name,
        "limited": limited,
        "seed": seed,
        "reached": [reached(points[:count]) for count in COUNTS],
        "front": _front(points),
    }


def _front(points: Points) -> list[tuple[float, float]]:
    """Those that are more accurate than all that cost less."""
    found: list[tuple[float, float]] = []
    for accuracy, cost in sorted(points, key=lambda p: (p[1], -p[0])):
        if not found or accuracy > found[-1][0]:
            found.append((accuracy, cost))
    return found


def _document(
    task: SearchTask, runs: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, list[list[float]]]]:
    """Quartiles of each searcher, against the best that the table or any run has."""
    every = [*map(tuple, task.known.tolist()), *(tuple(p) for run in runs for p in run["front"])]
    most, best = task.hypervolume(_front(every)), task.best(every)
    found: dict[str, dict[str, list[list[float]]]] = {"hypervolume": {}, "regret": {}}
    names = sorted({run["searcher"] for run in runs})
    for name in sorted(names, key=lambda name: name not in (OURS, UNTOLD, WRONG)):
        for limited, rows in zip((False, True), found.values(), strict=True):
            own = [r for r in runs if (r["searcher"], r["limited"]) == (name, limited)]
            reached = np.array([run["reached"] for run in own])
            values = best - reached if limited else reached / most
            rows[name] = np.percentile(values, [25, 50, 75], axis=0).T.tolist()
    return found


def _ours(
    name: str, task: SearchTask, limit: float | None, seed: int
) -> Iterator[tuple[float, float]]:
    predict = {OURS: task.predict, WRONG: task.predict_wrong}.get(name)
    searcher: Any = OURS if name in (UNTOLD, WRONG) else name
    for trial in search(
        task.space,
        task.evaluate,
        trials=max(COUNTS),
        budget_ms=limit,
        seed=seed,
        searcher=searcher,
        predict_latency=predict,
    ):
        assert trial.scores is not None
        yield trial.scores.accuracy, trial.scores.latency_ms


def _foreign() -> dict[str, Searcher]:
    """Searchers of other packages, as far as they are installed."""
    needed: dict[str, tuple[Searcher, tuple[str, ...]]] = {
        "pymoo nsga2": (_pymoo, ("pymoo",)),
        "syne tune ehvi": (_syne_tune, ("syne_tune", "botorch")),
    }
    return {name: run for name, (run, needs) in needed.items() if all(map(find_spec, needs))}


def _pymoo(task: SearchTask, limit: float | None, seed: int) -> Iterator[tuple[float, float]]:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    seen: list[tuple[float, float]] = []
    space = task.space

    class Networks(ElementwiseProblem):  # type: ignore[misc]
        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            scores = task.evaluate(space.decode(tuple(int(i) for i in x)))
            seen.append((scores.accuracy, scores.latency_ms))
            out["F"] = [-scores.accuracy, scores.latency_ms]
            out["G"] = [] if limit is None else [scores.latency_ms - limit]

    problem = Networks(
        n_var=len(space.genes),
        n_obj=2,
        n_ieq_constr=0 if limit is None else 1,
        xl=0,
        xu=np.array(space.cardinalities) - 1,
        vtype=int,
    )
    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        eliminate_duplicates=True,
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
    )
    minimize(problem, algorithm, ("n_eval", max(COUNTS)), seed=seed)
    yield from seen


def _syne_tune(task: SearchTask, limit: float | None, seed: int) -> Iterator[tuple[float, float]]:
    """Expected hypervolume improvement (arXiv 2006.05078); a limit is the reference's cost.

    It takes (2, 2) for the reference of what is to be large, so objectives are shifted there.
    """
    import torch

    spaces: Any = import_module("syne_tune.config_space")
    package = "syne_tune.optimizer.schedulers.multiobjective"
    ehvi: Any = import_module(f"{package}.expected_hyper_volume_improvement")

    torch.set_default_dtype(torch.float64)  # else it mixes both kinds
    names = [f"{name} {i}" for i, name in enumerate(task.space.names)]
    choices = {
        name: spaces.randint(0, n - 1) if gene.ordered else spaces.choice([*range(n)])
        for name, gene, n in zip(names, task.space.genes, task.space.cardinalities, strict=True)
        if n > 1
    }
    accuracy, cost = task.reference
    reference = np.array([accuracy, -(cost if limit is None else limit)])
    scale = np.ptp(task.known, axis=0)
    searcher = ehvi.ExpectedHyperVolumeImprovement(choices, random_seed=seed)
    for number in range(max(COUNTS)):
        suggested = searcher.suggest()
        config = task.space.decode([suggested.get(name, 0) for name in names])
        scores = task.evaluate(config)
        found = np.array([scores.accuracy, -scores.latency_ms])
        metrics = -(2 + (found - reference) / scale)
        searcher.on_trial_complete(number, suggested, metrics.tolist())
        yield scores.accuracy, scores.latency_ms


if __name__ == "__main__":
    main()
