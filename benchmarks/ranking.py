"""How well does each score rank PConv networks that were really trained? Judged on PConv-Bench.

    python benchmarks/ranking.py [--bench benchmarks/results/pconv_bench-NAME]

Kendall's tau and Spearman's rho over all networks and within bands of +-15 % of latency, each with
a bootstrap 95 % interval. Truth is the accuracy after the last epoch, averaged over seeds. What is
fitted (the default score, the predictor) is fitted on some networks and judged on the others.
Prints the table and writes benchmarks/results/ranking.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from nas import journal
from predictors.accuracy import ProxyEstimator
from predictors.accuracy_predictor import AccuracyPredictor
from predictors.proxies import PROXIES
from predictors.ranking import STATISTICS, Correlation, bootstrapped, difference
from search_spaces.catalogue import SPACES
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import build
from search_spaces.space import Genes

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
SPACE = SPACES["fasternet-32"]
COUNTS = ("parameters", "macs", "latency")
TRAINED = 40  # networks that the predictor is fitted to
SPLITS = 20  # into those and the others


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The networks of PConv-Bench: configs, latencies and, by seed, accuracies after each epoch."""

    configs: Sequence[FasterNetConfig]
    latencies_ms: Array
    accuracies: Sequence[Mapping[int, Sequence[float]]]

    @property
    def truth(self) -> Array:
        """The accuracy after the last epoch, averaged over seeds."""
        return self.after(-1)

    def after(self, epoch: int) -> Array:
        """The accuracy at an index of the epochs, averaged over seeds."""
        return np.array([fmean(run[epoch] for run in runs.values()) for runs in self.accuracies])


def main() -> None:
    """Score, correlate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path, required=True)
    bench = read_bench(parser.parse_args().bench)
    scores = {**_counts_and_proxies(bench), "default": _scored(bench, ProxyEstimator())}
    epochs = len(next(iter(bench.accuracies[0].values())))
    scores[f"trained for 1 of {epochs} epochs"] = _first_seed(bench, max(epochs // 8, 1) - 1)
    rows = {name: _correlations(bench, values) for name, values in scores.items()}
    rows = {"seeds against seeds": _ceiling(bench), **rows,
            f"predictor after {TRAINED}": _predictor(bench, scores)}  # fmt: skip
    for name, row in rows.items():
        print(f"{name:32}" + "".join(f"  {c.value:6.3f} [{c.low:6.3f}, {c.high:6.3f}]"
                                     for c in row.values()))  # fmt: skip
    gains = _gains(bench, scores)
    for name, gain in gains.items():
        print(f"{name}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    document = {
        "networks": len(bench.configs), "statistics": list(STATISTICS),
        "rows": {name: {k: asdict(c) for k, c in row.items()} for name, row in rows.items()},
        "default_above_best_count": {name: asdict(gain) for name, gain in gains.items()},
    }  # fmt: skip
    (RESULTS / "ranking.json").write_text(json.dumps(document, indent=2) + "\n")


def read_bench(folder: Path) -> Bench:
    """Return the networks that were both trained and timed."""
    latencies = {tuple(row["genes"]): row["median_ms"]
                 for row in journal.read(folder / "latencies.jsonl")}  # fmt: skip
    runs: dict[Genes, dict[int, list[float]]] = {}
    for row in journal.read(folder / "trainings.jsonl"):
        runs.setdefault(tuple(row["genes"]), {})[row["seed"]] = row["accuracies"]
    both = [genes for genes in runs if genes in latencies]
    return Bench(
        configs=[SPACE.decode(genes) for genes in both],
        latencies_ms=np.array([latencies[genes] for genes in both]),
        accuracies=[runs[genes] for genes in both],
    )  # fmt: skip


def _counts_and_proxies(bench: Bench) -> dict[str, Array]:
    torch.manual_seed(0)
    networks = [build(config) for config in bench.configs]
    found = {name: np.array([proxy(network) for network in networks])
             for name, proxy in PROXIES.items()}  # fmt: skip
    return {**found, "latency": bench.latencies_ms}


def _scored(bench: Bench, estimator: Callable[[FasterNetConfig], float]) -> Array:
    return np.array([estimator(config) for config in bench.configs])


def _first_seed(bench: Bench, epoch: int) -> Array:
    return np.array([runs[0][epoch] for runs in bench.accuracies])


def _correlations(bench: Bench, scores: Array) -> dict[str, Correlation]:
    return {name: bootstrapped(statistic, scores, bench.truth, bench.latencies_ms)
            for name, statistic in STATISTICS.items()}  # fmt: skip


def _ceiling(bench: Bench) -> dict[str, Correlation]:
    """One seed against another, of the networks that were trained from several."""
    several = [i for i, runs in enumerate(bench.accuracies) if len(runs) > 1]
    first, second = (np.array([bench.accuracies[i][seed][-1] for i in several]) for seed in (0, 1))
    return {name: bootstrapped(statistic, first, second, bench.latencies_ms[several])
            for name, statistic in STATISTICS.items()}  # fmt: skip


def _gains(bench: Bench, scores: Mapping[str, Array]) -> dict[str, Correlation]:
    """By how much the default ranks better than the best of the plain counts."""
    found = {}
    for name in ("kendall", "kendall in bands"):
        of = STATISTICS[name]
        best = max(COUNTS, key=lambda c: of(scores[c], bench.truth, bench.latencies_ms))
        pair = (scores["default"], scores[best])
        found[f"{name}, above {best}"] = difference(of, pair, bench.truth, bench.latencies_ms)
    return found


def _predictor(bench: Bench, scores: Mapping[str, Array]) -> dict[str, Correlation]:
    """Fitted to some networks, judged on the others: the mean over splits, and their spread."""
    told = np.column_stack([scores[name] for name in PROXIES])
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(bench.configs))
        fit, test = order[:TRAINED], order[TRAINED:]
        predictor = AccuracyPredictor.fit(
            SPACE, [bench.configs[i] for i in fit], bench.truth[fit], scores=told[fit]
        )
        predicted = predictor.predict([bench.configs[i] for i in test], scores=told[test]).mean
        for name, statistic in STATISTICS.items():
            found[name].append(statistic(predicted, bench.truth[test], bench.latencies_ms[test]))
    return {name: _spread(values) for name, values in found.items()}


def _spread(values: Sequence[float]) -> Correlation:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Correlation(value=float(np.nanmean(values)), low=float(low), high=float(high))


if __name__ == "__main__":
    main()
