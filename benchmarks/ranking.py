"""How well does each score rank PConv networks that were really trained? Judged on PConv-Bench.

    python benchmarks/ranking.py [--bench benchmarks/results/pconv_bench-NAME]

Kendall's tau and Spearman's rho over all networks and within bands of +-15 % of latency, each with
a bootstrap 95 % interval. Truth is the accuracy after the last epoch, averaged over seeds. What is
fitted (weights of the training-free scores, the predictor) is fitted on some networks and evaluated
on the others; the predictor's interval is that of its splits. The first eighth of a training is
that of the first seed, so that it shares its luck with the end, as in a search that goes on. The
likelihoods of a supernet are from before it was removed: nothing here makes them any more. The
default was chosen by looking at the networks that are spread over the space, so it, and the
predictor which knows of it, are evaluated once more on the others alone. Prints the table and the
weights that all networks together give, and writes benchmarks/results/ranking.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from pconv_bench_32 import Plan, early, spread_over
from pconv_records import SPACE, Bench, read_bench
from provenance import provenance
from proxies import PROXIES, STRUCTURE, structure_score
from rank_correlation import STATISTICS, Correlation, Statistic, bootstrapped, difference
from scipy.optimize import nnls

from nas.study import journal
from predictors.accuracy import AccuracyPredictor, binomial_error
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.network import build

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
BENCH = "pconv_bench-cifar10_10k_2k"
COUNTS = ("parameters", "macs", "latency")
TRAINED = 40  # networks that the predictor is fitted to
SPLITS = 20  # into those and the others
WIDTH = 54  # of a name
AVERAGED = "first eighth of the training, averaged weights"

Rows = Mapping[str, Mapping[str, Correlation]]  # by name, then by statistic


def main() -> None:
    """Score, correlate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", type=Path, default=RESULTS / BENCH)
    parser.add_argument("--images", type=int, default=2000, help="test images of the bench")
    options = parser.parse_args()
    bench = read_bench(folder := options.bench)
    proxies = _counts_and_proxies(bench)
    known = np.column_stack([proxies[name] for name in (*PROXIES, *STRUCTURE)])
    scores = {
        **proxies,
        "default": _scored(bench, structure_score),
        "all scores, weighted by the other half": cross_fitted(known, bench.truth),
        "first eighth of the training, latest weights": _first_eighth(bench),
        **_known(folder / "early.jsonl", bench, AVERAGED, key="accuracies"),
        **_known(folder / "supernet.jsonl", bench, "supernet", key="likelihood"),
    }
    error = binomial_error(bench.truth, options.images)
    rows = _rows(bench, scores, error)
    later = _unseen(bench)
    unseen = _unseen_rows(bench, scores, error, later)
    print(" " * WIDTH + "".join(f"  {name:23}" for name in STATISTICS))
    for name, row in rows.items():
        print(_line(name, row))
    print(f"the {sum(later)} networks that nobody had looked at when the default was chosen:")
    for name, row in unseen.items():
        print(_line(name, row))
    gains = {"all": _gains(bench, scores)}
    if unseen:
        later_scores = {name: values[later] for name, values in scores.items()}
        gains["unseen"] = _gains(bench.part(later), later_scores)
    for which, above in gains.items():
        for name, gain in above.items():
            print(f"{which}, {name}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    found = fitted(known, bench.truth) * _t0_to_t2()
    weights = dict(zip((*PROXIES, *STRUCTURE), found.tolist(), strict=True))
    shares = [f"{name} {w / sum(weights.values()):.3f}" for name, w in weights.items()]
    print("weights:", ", ".join(shares))
    document = {
        "networks": len(bench.genes),
        "networks_unseen": int(sum(later)),
        "half_width_percent": 100 * bench.half_width,
        **provenance("torch", "scipy"),
        "statistics": list(STATISTICS),
        "weights": weights,
        "rows": _plain(rows),
        "unseen": _plain(unseen),
        "default_above_best_count": _plain(gains),
    }
    (RESULTS / "ranking.json").write_text(json.dumps(document, indent=2) + "\n")


def _rows(bench: Bench, scores: Mapping[str, Array], error: float) -> Rows:
    """The ceiling, each score, and the predictors."""
    several = [i for i, runs in enumerate(bench.accuracies) if len(runs) > 1]
    ceiling = f"seeds against seeds ({len(several)} networks)"
    return {
        **({ceiling: _ceiling(bench, several)} if len(several) > 1 else {}),
        **{name: _correlations(bench, values) for name, values in scores.items()},
        **{name: _predictor(bench, known, error) for name, known in _features(scores).items()},
    }


def _unseen_rows(
    bench: Bench, scores: Mapping[str, Array], error: float, later: NDArray[np.bool_]
) -> Rows:
    """The counts, the default and the predictors, evaluated on some of the networks."""
    if sum(later) < 2:
        return {}
    part = bench.part(later)
    return {
        **{name: _correlations(part, scores[name][later]) for name in (*COUNTS, "default")},
        **{
            name: _predictor(bench, known, error, among=later)
            for name, known in _features(scores).items()
        },
    }


def _plain(rows: Rows) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {key: asdict(c) for key, c in row.items()} for name, row in rows.items()}


def _line(name: str, row: Mapping[str, Correlation]) -> str:
    return f"{name:{WIDTH}}" + "".join(
        f"  {c.value:6.3f} [{c.low:6.3f}, {c.high:6.3f}]" for c in row.values()
    )


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


def _counts_and_proxies(bench: Bench) -> dict[str, Array]:
    torch.manual_seed(0)
    networks = [build(config) for config in bench.configs]
    found = {
        name: np.array([proxy(network) for network in networks]) for name, proxy in PROXIES.items()
    }
    shapes = {name: _scored(bench, score) for name, score in STRUCTURE.items()}
    return {**found, **shapes, "latency": bench.latencies_ms}


def _scored(bench: Bench, estimator: Callable[[FasterNetConfig], float]) -> Array:
    return np.array([estimator(config) for config in bench.configs])


def _first_eighth(bench: Bench) -> Array:
    """The accuracies after an eighth of the epochs of the first seed."""
    return np.array([runs[0][early(len(runs[0])) - 1] for runs in bench.accuracies])


def _known(file: Path, bench: Bench, name: str, *, key: str) -> dict[str, Array]:
    """The (last) numbers in a file, under that name, once all networks are in it."""
    known = {tuple(row["genes"]): np.ravel(row[key])[-1] for row in journal.read(file)}
    if not all(genes in known for genes in bench.genes):
        return {}
    return {name: np.array([known[genes] for genes in bench.genes])}


def _correlations(bench: Bench, scores: Array) -> dict[str, Correlation]:
    return {
        name: bootstrapped(statistic, scores, bench.truth, bench.latencies_ms)
        for name, statistic in STATISTICS.items()
    }


def _ceiling(bench: Bench, several: Sequence[int]) -> dict[str, Correlation]:
    """One seed against another, the mean over pairs, of the networks trained from several."""
    seeds = set.intersection(*(set(bench.accuracies[i]) for i in several))
    ends = np.array([[bench.accuracies[i][s][-1] for s in sorted(seeds)] for i in several])

    def between(of: Statistic) -> Statistic:
        return lambda runs, _, ms: fmean(of(a, b, ms) for a, b in combinations(runs.T, 2))

    return {
        name: bootstrapped(between(of), ends, ends, bench.latencies_ms[list(several)])
        for name, of in STATISTICS.items()
    }


def _gains(bench: Bench, scores: Mapping[str, Array]) -> dict[str, Correlation]:
    """By how much the default ranks better than the best of the plain counts."""
    found = {}
    for name in ("kendall", "kendall in bands"):
        of = STATISTICS[name]
        best = max(COUNTS, key=lambda c: of(scores[c], bench.truth, bench.latencies_ms))
        pair = (scores["default"], scores[best])
        found[f"{name}, above {best}"] = difference(of, pair, bench.truth, bench.latencies_ms)
    return found


def _features(scores: Mapping[str, Array]) -> dict[str, Array]:
    """What predictors know of every network, beside its choices and costs: [n, k]."""
    name = f"predictor after {TRAINED} others"
    if len(scores["default"]) < 2 * TRAINED:
        return {}
    found = {name: scores["default"][:, None]}
    if AVERAGED in scores:
        both = np.column_stack([scores["default"], scores[AVERAGED]])
        found[f"{name}, told the first eighth too"] = both
    return found


def _predictor(
    bench: Bench, known: Array, noise: float, among: NDArray[np.bool_] | None = None
) -> dict[str, Correlation]:
    """Fitted to some networks, evaluated on the others (`among` some): the mean over splits."""
    configs = bench.configs
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(configs))
        fit, test = order[:TRAINED], order[TRAINED:]
        test = test if among is None else test[among[test]]
        predictor = AccuracyPredictor.fit(
            SPACE,
            [configs[i] for i in fit],
            bench.truth[fit],
            scores=known[fit],
            least_noise=noise,
        )
        predicted = predictor.predict([configs[i] for i in test], scores=known[test]).median
        for name, statistic in STATISTICS.items():
            found[name].append(statistic(predicted, bench.truth[test], bench.latencies_ms[test]))
    return {name: _spread(values) for name, values in found.items()}


def _spread(values: Sequence[float]) -> Correlation:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Correlation(value=float(np.nanmean(values)), low=float(low), high=float(high))


if __name__ == "__main__":
    main()
