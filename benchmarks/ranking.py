"""How well does each score rank PConv networks that were really trained? Judged on PConv-Bench.

    python benchmarks/ranking.py [--bench benchmarks/results/pconv_bench-NAME]

Kendall's tau and Spearman's rho over all networks and within bands of +-15 % of latency, each with
a bootstrap 95 % interval. Truth is the accuracy after the last epoch, averaged over seeds. What is
fitted (weights of the training-free scores, the predictor) is fitted on some networks and judged on
the others. The default was chosen by looking at the networks that are spread over the space, so it
is judged once more on the others alone. Prints the table and the weights that all networks together
give, and writes benchmarks/results/ranking.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from pconv_bench import EARLY, Plan, spread_over
from scipy.optimize import nnls

from nas.studies import journal
from predictors.accuracy import ProxyEstimator, binomial_error
from predictors.accuracy_predictor import AccuracyPredictor
from predictors.proxies import PROXIES
from predictors.ranking import STATISTICS, Correlation, Statistic, bootstrapped, difference
from predictors.structure import STRUCTURE
from search_spaces.catalogue import SPACES
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.network import build
from search_spaces.space import Genes

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
BENCH = "pconv_bench-cifar10_10k_2k"
SPACE = SPACES["fasternet-32"]
COUNTS = ("parameters", "macs", "latency")
TRAINED = 40  # networks that the predictor is fitted to
SPLITS = 20  # into those and the others
AVERAGED = "an eighth of a training, averaged weights"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The networks of PConv-Bench, latencies and, by seed, accuracies after each epoch."""

    genes: Sequence[Genes]
    latencies_ms: Array
    accuracies: Sequence[Mapping[int, Sequence[float]]]

    @property
    def configs(self) -> list[FasterNetConfig]:
        """The networks."""
        return [SPACE.decode(genes) for genes in self.genes]

    @property
    def truth(self) -> Array:
        """The accuracy after the last epoch, averaged over seeds."""
        return self.after(-1)

    def part(self, chosen: NDArray[np.bool_]) -> "Bench":
        """The networks for which that is true."""
        at = np.flatnonzero(chosen).tolist()
        return Bench(genes=[self.genes[i] for i in at], latencies_ms=self.latencies_ms[at],
                     accuracies=[self.accuracies[i] for i in at])  # fmt: skip

    def after(self, epoch: int) -> Array:
        """The accuracy at an index of the epochs, averaged over seeds."""
        return np.array([fmean(run[epoch] for run in runs.values()) for runs in self.accuracies])


def main() -> None:
    """Score, correlate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path, default=RESULTS / BENCH)
    parser.add_argument("--images", type=int, default=2000, help="test images of the bench")
    options = parser.parse_args()
    folder = options.bench
    bench = read_bench(folder)
    proxies = _counts_and_proxies(bench)
    told = np.column_stack([proxies[name] for name in (*PROXIES, *STRUCTURE)])
    scores = {
        **proxies, "default": _scored(bench, ProxyEstimator()),
        "all scores, weighted by the other half": cross_fitted(told, bench.truth),
        "an eighth of a training, latest weights": _first_seed(bench),
        **_known(folder / "early.jsonl", bench, AVERAGED),
        **_known(folder / "supernet.jsonl", bench, "supernet"),
    }  # fmt: skip
    error = binomial_error(bench.truth, options.images)
    rows = {
        "seeds against seeds": _ceiling(bench),
        **{name: _correlations(bench, values) for name, values in scores.items()},
        **{name: _predictor(bench, np.column_stack(told), error)
           for name, told in _told(scores).items()},
    }  # fmt: skip
    for name, row in rows.items():
        print(_line(name, row))
    later = _unseen(bench)
    print(f"the {sum(later)} networks that nobody had looked at when the default was chosen:")
    unseen = {name: _correlations(bench.part(later), scores[name][later])
              for name in (*COUNTS, "default")}  # fmt: skip
    for name, row in unseen.items():
        print(_line(name, row))
    gains = {
        "all": _gains(bench, scores),
        "unseen": _gains(bench.part(later), {n: s[later] for n, s in scores.items()}),
    }
    for which, above in gains.items():
        for name, gain in above.items():
            print(f"{which}, {name}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    found = fitted(told, bench.truth) * _t0_to_t2()
    weights = dict(zip((*PROXIES, *STRUCTURE), found.tolist(), strict=True))
    print("weights:", ", ".join(f"{name} {w / sum(weights.values()):.3f}"
                                for name, w in weights.items()))  # fmt: skip
    document = {
        "networks": len(bench.genes), "networks_unseen": int(sum(later)),
        "statistics": list(STATISTICS), "weights": weights,
        "rows": {name: {k: asdict(c) for k, c in row.items()} for name, row in rows.items()},
        "unseen": {name: {k: asdict(c) for k, c in row.items()} for name, row in unseen.items()},
        "default_above_best_count": {
            which: {name: asdict(gain) for name, gain in found.items()}
            for which, found in gains.items()
        },
    }  # fmt: skip
    (RESULTS / "ranking.json").write_text(json.dumps(document, indent=2) + "\n")


def _line(name: str, row: Mapping[str, Correlation]) -> str:
    return f"{name:42}" + "".join(f"  {c.value:6.3f} [{c.low:6.3f}, {c.high:6.3f}]"
                                  for c in row.values())  # fmt: skip


def _unseen(bench: Bench) -> NDArray[np.bool_]:
    """Which networks are near the front: the default was chosen on those that are spread."""
    spread = set(spread_over(Plan()))
    return np.array([genes not in spread for genes in bench.genes])


def _t0_to_t2() -> Array:
    """By how much each training-free score rises from T0 to T2."""
    torch.manual_seed(0)
    t0, t2 = (build(FASTERNET[name]) for name in ("t0", "t2"))
    built = [proxy(t2) - proxy(t0) for proxy in PROXIES.values()]
    shapes = [score(t2.config) - score(t0.config) for score in STRUCTURE.values()]
    return np.array([*built, *shapes])


def fitted(columns: Array, truth: Array) -> Array:
    """Weights of scores [n, k], none negative, whose sum comes nearest to the truth [n]."""
    centred = columns - columns.mean(axis=0)
    spread = centred.std(axis=0)
    weights: Array = nnls(centred / spread, truth - truth.mean())[0] / spread
    return weights


def cross_fitted(columns: Array, truth: Array, seed: int = 0) -> Array:
    """Each half's sums by the weights that the other half gives, standardised half by half."""
    order = np.random.default_rng(seed).permutation(len(truth))
    halves = order[::2], order[1::2]
    found = np.empty(len(truth))
    for fit, test in (halves, halves[::-1]):
        sums = columns[test] @ fitted(columns[fit], truth[fit])
        found[test] = (sums - sums.mean()) / max(sums.std(), 1e-12)
    return found


def read_bench(folder: Path) -> Bench:
    """Return the networks that were both trained and timed."""
    latencies = {tuple(row["genes"]): row["median_ms"]
                 for row in journal.read(folder / "latencies.jsonl")}  # fmt: skip
    runs: dict[Genes, dict[int, list[float]]] = {}
    for row in journal.read(folder / "trainings.jsonl"):
        runs.setdefault(tuple(row["genes"]), {})[row["seed"]] = row["accuracies"]
    both = [genes for genes in runs if genes in latencies]
    return Bench(
        genes=both,
        latencies_ms=np.array([latencies[genes] for genes in both]),
        accuracies=[runs[genes] for genes in both],
    )  # fmt: skip


def _counts_and_proxies(bench: Bench) -> dict[str, Array]:
    torch.manual_seed(0)
    networks = [build(config) for config in bench.configs]
    found = {name: np.array([proxy(network) for network in networks])
             for name, proxy in PROXIES.items()}  # fmt: skip
    shapes = {name: _scored(bench, score) for name, score in STRUCTURE.items()}
    return {**found, **shapes, "latency": bench.latencies_ms}


def _scored(bench: Bench, estimator: Callable[[FasterNetConfig], float]) -> Array:
    return np.array([estimator(config) for config in bench.configs])


def _first_seed(bench: Bench) -> Array:
    """The accuracies after an eighth of the epochs of the first seed."""
    return np.array([runs[0][max(len(runs[0]) // EARLY, 1) - 1] for runs in bench.accuracies])


def _known(file: Path, bench: Bench, name: str) -> dict[str, Array]:
    """The accuracies in a file, under that name, once all networks are in it."""
    known = {tuple(row["genes"]): row["accuracies"][-1] for row in journal.read(file)}
    if not all(genes in known for genes in bench.genes):
        return {}
    return {name: np.array([known[genes] for genes in bench.genes])}


def _correlations(bench: Bench, scores: Array) -> dict[str, Correlation]:
    return {name: bootstrapped(statistic, scores, bench.truth, bench.latencies_ms)
            for name, statistic in STATISTICS.items()}  # fmt: skip


def _ceiling(bench: Bench) -> dict[str, Correlation]:
    """One seed against another, the mean over pairs, of the networks trained from several."""
    most = max(len(runs) for runs in bench.accuracies)
    several = [i for i, runs in enumerate(bench.accuracies) if len(runs) == most]
    ends = np.array([[run[-1] for run in bench.accuracies[i].values()] for i in several])

    def between(of: Statistic) -> Statistic:
        return lambda runs, _, ms: fmean(of(a, b, ms) for a, b in combinations(runs.T, 2))

    return {name: bootstrapped(between(of), ends, ends, bench.latencies_ms[several])
            for name, of in STATISTICS.items()}  # fmt: skip


def _gains(bench: Bench, scores: Mapping[str, Array]) -> dict[str, Correlation]:
    """By how much the default ranks better than the best of the plain counts."""
    found = {}
    for name in ("kendall", "kendall in bands"):
        of = STATISTICS[name]
        best = max(COUNTS, key=lambda c: of(scores[c], bench.truth, bench.latencies_ms))
        pair = (scores["default"], scores[best])
        found[f"{name}, above {best}"] = difference(of, pair, bench.truth, bench.latencies_ms)
    return found


def _told(scores: Mapping[str, Array]) -> dict[str, list[Array]]:
    """What predictors are told of every network, beside its choices and costs."""
    name = f"predictor after {TRAINED}"
    found = {name: [scores["default"]]}
    if AVERAGED in scores:
        found[f"{name}, told an eighth of a training"] = [scores["default"], scores[AVERAGED]]
    return found


def _predictor(bench: Bench, told: Array, noise: float) -> dict[str, Correlation]:
    """Fitted to some networks, judged on the others: the mean over splits, and their spread."""
    configs = bench.configs
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(configs))
        fit, test = order[:TRAINED], order[TRAINED:]
        predictor = AccuracyPredictor.fit(
            SPACE, [configs[i] for i in fit], bench.truth[fit], scores=told[fit],
            least_noise=noise,
        )  # fmt: skip
        predicted = predictor.predict([configs[i] for i in test], scores=told[test]).mean
        for name, statistic in STATISTICS.items():
            found[name].append(statistic(predicted, bench.truth[test], bench.latencies_ms[test]))
    return {name: _spread(values) for name, values in found.items()}


def _spread(values: Sequence[float]) -> Correlation:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Correlation(value=float(np.nanmean(values)), low=float(low), high=float(high))


if __name__ == "__main__":
    main()
