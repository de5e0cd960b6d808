"""What searchers are compared on: tables of trained networks, and what one foretells of others."""

import csv
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pconv_bench_32 import Plan
from pconv_records import SPACE, read_bench
from proxies import STRUCTURE

from nas.search.pareto import area
from nas.search.trial import Scores
from predictors.cost import costs
from predictors.features import gene_features
from predictors.latency import LatencyPredictor, Prediction
from search_spaces.space import Space, each, oneof

Array = NDArray[np.float64]
Points = Sequence[tuple[float, float]]  # accuracy, cost

DRAWN = 50_000  # networks, of which those of the bench's sizes stand for its space


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The operations of a network, a number for each layer."""

    operations: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """A space in which accuracy and cost of every network are known.

    `known`, of shape [n, 2], has the accuracies and costs of all of them, or of many random ones.
    """

    space: Space[Any]
    look_up: Callable[[Sequence[Any]], Array]  # accuracies and costs, of shape [n, 2]
    known: Array

    @property
    def reference(self) -> tuple[float, float]:
        """Of the hypervolume: the 5th percentile of accuracy and the 95th of cost."""
        accuracies, costs = self.known.T
        return float(np.percentile(accuracies, 5)), float(np.percentile(costs, 95))

    @property
    def limit(self) -> float:
        """The cost that 40 % of the networks keep."""
        return float(np.percentile(self.known[:, 1], 40))

    def hypervolume(self, points: Points) -> float:
        """Return what accuracies and costs dominate."""
        return area(points, self.reference)

    def best(self, points: Points) -> float:
        """Return the best accuracy within the limit; 0 where nothing keeps it."""
        return max((accuracy for accuracy, cost in points if cost <= self.limit), default=0.0)

    def evaluate(self, config: Any) -> Scores:
        """Look a network up."""
        ((accuracy, cost),) = self.look_up([config]).tolist()
        return Scores(accuracy=accuracy, latency_ms=cost)

    def predict(self, configs: Sequence[Any]) -> Prediction:
        """Return the costs, which are known before."""
        costs = self.look_up(configs)[:, 1]
        return Prediction(costs, costs, costs)

    def predict_wrong(self, configs: Sequence[Any]) -> Prediction:
        """Return half of the costs where the first choice is the last one, and all elsewhere."""
        last = self.space.cardinalities[0] - 1
        halved = np.array([self.space.encode(config)[0] == last for config in configs])
        costs = self.predict(configs).mean_ms * np.where(halved, 0.5, 1.0)
        return Prediction(costs, costs, costs)


@cache
def search_task(path: str) -> SearchTask:
    """Return the task of a table's file or of PConv-Bench's folder, once in a process."""
    return _pconv_bench(Path(path)) if Path(path).is_dir() else _table(path)


def _table(path: str) -> SearchTask:
    """A table of all networks: columns arch (a digit a layer), mean_acc, flops."""
    opened = gzip.open(path, "rt") if path.endswith(".gz") else Path(path).open()  # noqa: SIM115
    with opened as file:
        rows = {
            tuple(map(int, row["arch"])): (float(row["mean_acc"]), float(row["flops"]) / 1e6)
            for row in csv.DictReader(file)
        }
    choices = [sorted(set(column)) for column in zip(*rows, strict=True)]
    return SearchTask(
        space=Space(Cells, operations=each(*(oneof(*column) for column in choices))),
        look_up=lambda configs: np.array([rows[config.operations] for config in configs]),
        known=np.array(list(rows.values())),
    )


def _pconv_bench(folder: Path) -> SearchTask:
    """What PConv-Bench foretells of all networks of its space (as in arXiv 2008.09777).

    Accuracies are by boosted trees fitted to all its trained networks, which are no relatives of
    the searchers' own models, and have no noise; latencies by the predictor fitted to all that it
    timed. The reference and the limit are those of networks of the sizes that it has.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    bench, plan = read_bench(folder), Plan()
    trees = GradientBoostingRegressor(
        n_estimators=100, learning_rate=0.05, subsample=0.5, random_state=0
    )
    trees.fit(_features(bench.configs), bench.truth)
    latencies = LatencyPredictor.fit(SPACE, bench.configs, bench.latencies_ms.tolist())

    def look_up(configs: Sequence[Any]) -> Array:
        accuracies = trees.predict(_features(configs))
        return np.column_stack([accuracies, latencies.predict(configs).mean_ms])

    rng = Random(0)
    drawn = [SPACE.sample(rng) for _ in range(DRAWN)]
    macs = np.asarray(costs(drawn).macs)
    within = np.flatnonzero((plan.least_macs <= macs) & (macs <= plan.most_macs))
    return SearchTask(space=SPACE, look_up=look_up, known=look_up([drawn[i] for i in within]))


def _features(configs: Sequence[Any]) -> Array:
    """The choices, the costs and the scores of the shape."""
    found = costs(configs)
    shapes = [[score(config) for score in STRUCTURE.values()] for config in configs]
    return np.column_stack(
        [
            gene_features(SPACE, configs),
            np.log(found.macs),
            np.log(found.params),
            np.log(found.memory_bytes),
            shapes,
        ]
    )
