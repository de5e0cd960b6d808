"""How few evaluations does each searcher need? On a table of trained networks.

    python benchmarks/searchers.py --table nas_bench_macro.csv.gz [--seeds 20] [--workers 2]

The table is NAS-Bench-Macro's (arXiv 2103.11922): columns arch (a digit a layer), mean_acc, flops.
Two tasks: the front of accuracy and FLOPs, as a fraction of the true hypervolume (reference point:
the 5th percentile of accuracy and the 95th of FLOPs over the table); and the best accuracy under
the 40th percentile of FLOPs, as regret in points. Ours knows FLOPs before it evaluates, as a search
knows predicted latencies; the others, which have no place for that, learn them from the trials.
Every searcher proposes knowing all results before. Prints medians and quartiles over seeds and
writes benchmarks/results/searchers-TABLE.json.
"""

import argparse
import csv
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np

from nas.searching.loop import search
from nas.searching.pareto import area
from nas.searching.searchers import SearcherName
from nas.searching.trial import Scores
from predictors.latency import Prediction
from search_spaces.space import Space, each, oneof

RESULTS = Path(__file__).parent / "results"
COUNTS = (25, 50, 100, 200)  # evaluations
OURS = "guided"

Points = Sequence[tuple[float, float]]  # accuracy, cost
Searcher = Callable[["Table", float | None, int], Iterator[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The operations of a network, a number for each layer."""

    operations: tuple[int, ...]


class Table:
    """What is known of every network of a space."""

    def __init__(self, path: str) -> None:
        opened = gzip.open(path, "rt") if path.endswith(".gz") else Path(path).open()  # noqa: SIM115
        with opened as file:
            self.rows = {tuple(map(int, row["arch"])): (float(row["mean_acc"]),
                                                        float(row["flops"]) / 1e6)
                         for row in csv.DictReader(file)}  # fmt: skip
        choices = [sorted(set(column)) for column in zip(*self.rows, strict=True)]
        self.space = Space(Cells, operations=each(*(oneof(*column) for column in choices)))
        accuracies, costs = np.array(list(self.rows.values())).T
        self.reference = (float(np.percentile(accuracies, 5)), float(np.percentile(costs, 95)))
        self.limit = float(np.percentile(costs, 40))
        self.best = float(accuracies[costs <= self.limit].max())
        self.hypervolume = area(list(self.rows.values()), self.reference)

    def evaluate(self, cells: Cells) -> Scores:
        """Look the network up."""
        accuracy, cost = self.rows[cells.operations]
        return Scores(accuracy=accuracy, latency_ms=cost)

    def predict(self, configs: Sequence[Cells]) -> Prediction:
        """Return the costs, which are known."""
        costs = np.array([self.rows[config.operations][1] for config in configs])
        return Prediction(costs, costs, costs)


@cache
def table(path: str) -> Table:
    """Return the table of a file, read once in a process."""
    return Table(path)


def main() -> None:
    """Run every searcher from every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    there = [name for name in get_args(SearcherName) if "nni" not in name or find_spec("nni")]
    names = [*there, *_foreign()]
    jobs = [(options.table, name, limited, seed) for name in names for limited in (False, True)
            for seed in range(options.seeds)]  # fmt: skip
    found: dict[str, dict[str, list[list[float]]]] = {}
    with ProcessPoolExecutor(options.workers) as pool:
        for job, values in zip(jobs, pool.map(_measured, jobs), strict=True):
            _, name, limited, _ = job
            found.setdefault(name, {}).setdefault("regret" if limited else "hypervolume",
                                                  []).append(values)  # fmt: skip
    document = {name: {task: _quartiles(runs) for task, runs in tasks.items()}
                for name, tasks in found.items()}  # fmt: skip
    for task in ("hypervolume", "regret"):
        print(f"{task:14}" + "".join(f"{count:>24}" for count in COUNTS))
        for name, tasks in document.items():
            print(f"{name:14}" + "".join(f"{q[1]:10.3f} [{q[0]:.3f}, {q[2]:.3f}]"
                                         for q in tasks[task]))  # fmt: skip
    stem = Path(options.table).name.partition(".")[0]
    content = {"seeds": options.seeds, "evaluations": COUNTS, "quartiles": document}
    (RESULTS / f"searchers-{stem}.json").write_text(json.dumps(content, indent=2) + "\n")


def _measured(job: tuple[str, str, bool, int]) -> list[float]:
    """The fraction of the hypervolume, or the regret, after each number of evaluations."""
    path, name, limited, seed = job
    known = table(path)
    searcher = _foreign().get(name) or partial(_ours, name)
    points = list(searcher(known, known.limit if limited else None, seed))
    if limited:
        within = [accuracy if cost <= known.limit else 0.0 for accuracy, cost in points]
        return [known.best - max(within[:count]) for count in COUNTS]
    return [area(points[:count], known.reference) / known.hypervolume for count in COUNTS]


def _ours(name: str, known: Table, limit: float | None, seed: int) -> Iterator[tuple[float, float]]:
    predict = known.predict if name == OURS else None
    for trial in search(known.space, known.evaluate, trials=max(COUNTS), budget_ms=limit, seed=seed,
                        searcher=name, predict_latency=predict):  # type: ignore[arg-type]  # fmt: skip
        assert trial.scores is not None
        yield trial.scores.accuracy, trial.scores.latency_ms


def _foreign() -> dict[str, Searcher]:
    """Searchers of other packages, as far as they are installed."""
    try:
        import pymoo  # noqa: F401
    except ImportError:
        return {}
    return {"pymoo nsga2": _pymoo}


def _pymoo(known: Table, limit: float | None, seed: int) -> Iterator[tuple[float, float]]:
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    seen: list[tuple[float, float]] = []
    space = known.space

    class Networks(ElementwiseProblem):  # type: ignore[misc]
        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            scores = known.evaluate(space.decode(tuple(int(i) for i in x)))
            seen.append((scores.accuracy, scores.latency_ms))
            out["F"] = [-scores.accuracy, scores.latency_ms]
            out["G"] = [] if limit is None else [scores.latency_ms - limit]

    problem = Networks(n_var=len(space.genes), n_obj=2, n_ieq_constr=0 if limit is None else 1,
                       xl=0, xu=np.array(space.cardinalities) - 1, vtype=int)  # fmt: skip
    algorithm = NSGA2(
        pop_size=20, sampling=IntegerRandomSampling(), eliminate_duplicates=True,
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
    )  # fmt: skip
    minimize(problem, algorithm, ("n_eval", max(COUNTS)), seed=seed)
    yield from seen


def _quartiles(runs: Sequence[Sequence[float]]) -> list[list[float]]:
    found: list[list[float]] = np.percentile(np.array(runs), [25, 50, 75], axis=0).T.tolist()
    return found


if __name__ == "__main__":
    main()
