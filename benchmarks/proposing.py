"""What does thinking cost, beside measuring and training? CPU time on one core.

    python benchmarks/proposing.py

Prints two things and writes them to benchmarks/results/proposing.json. What proposals take in the
`fasternet` space under a budget: ours up to 400 trials, where latencies are told, where they are
told wrong and corrected by the trials, and where they are learned from these alone; and Optuna's
Gaussian process, whose share of 100 trials is enough to see. The mean and the most of all after the
first eight, and the median of the last twenty. And what costs and latencies of a million networks
take.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

import numpy as np
import torch
from provenance import provenance

from nas.search.loop import search
from nas.search.searchers import SearcherName
from nas.search.trial import Scores
from predictors.cost import cost, costs
from predictors.latency import LatencyPredictor, Prediction
from search_spaces.fasternet import SPACES, FasterNetConfig

RESULTS = Path(__file__).parent / "results"
SPACE = SPACES["fasternet"]
TRIALS = 400
GP_TRIALS = 100
FIRST = 8  # proposals that no model makes
LAST = 20  # proposals, of which the median is taken
NETWORKS = 1_000_000
FITTED = 50


Predict = Callable[[Sequence[FasterNetConfig]], Prediction]


def main() -> None:
    """Propose, then predict."""
    torch.set_num_threads(1)
    predictor = fitted()
    told: Predict = predictor.predict
    rows = {
        "guided, told": proposals("guided", TRIALS, told),
        "guided, told wrong": proposals("guided", TRIALS, lambda configs: _wrong(told(configs))),
        "guided, learned": proposals("guided", TRIALS, None),
        "gp": proposals("gp", GP_TRIALS, told),
    }
    document = {
        "proposal_ms": rows,
        "million_networks_s": million_s(predictor),
        "seed": 0,
        **provenance("numpy", "optuna"),
    }
    print(json.dumps(document, indent=2))
    (RESULTS / "proposing.json").write_text(json.dumps(document, indent=2) + "\n")


def fitted() -> LatencyPredictor:
    """A predictor as a search has it; the latencies are made up, which costs the same."""
    rng = Random(0)
    configs = [SPACE.sample(rng) for _ in range(FITTED)]
    macs = np.asarray(costs(configs).macs)
    noise = np.random.default_rng(0).normal(1, 0.03, FITTED)
    return LatencyPredictor.fit(SPACE, configs, (macs / 3e7 * noise).tolist())


def proposals(name: SearcherName, trials: int, predict: Predict | None) -> dict[str, float]:
    """CPU milliseconds from a result to the next proposal."""
    taken: list[float] = []
    start = time.process_time()
    for trial in search(
        SPACE, _evaluate, trials=trials, budget_ms=20.0, searcher=name, predict_latency=predict
    ):
        taken.append(1000 * (time.process_time() - start))
        assert trial.scores is not None
        start = time.process_time()
    modelled = taken[FIRST:]
    row = {
        "trials": trials,
        "mean": fmean(modelled),
        "most": max(modelled),
        "median": median(taken[-LAST:]),
    }
    print(name, "told" if predict else "untold", row, flush=True)
    return row


def _wrong(told: Prediction) -> Prediction:
    """A device that is half as fast."""
    return Prediction(told.mean_ms / 2, told.low_ms / 2, told.high_ms / 2)


def million_s(predictor: LatencyPredictor) -> dict[str, float]:
    """CPU seconds to draw a million networks, and to predict their costs and latencies."""
    rng = Random(1)
    seconds = {}
    start = time.process_time()
    configs = [SPACE.sample(rng) for _ in range(NETWORKS)]
    seconds["drawing"] = time.process_time() - start
    start = time.process_time()
    found = costs(configs)
    seconds["costs"] = time.process_time() - start
    start = time.process_time()
    latencies = predictor.predict(configs)
    seconds["latencies"] = time.process_time() - start
    assert len(np.asarray(found.macs)) == len(latencies.mean_ms) == NETWORKS
    return seconds


def _evaluate(config: FasterNetConfig) -> Scores:
    """An accuracy that costs nothing."""
    work = cost(config).macs
    return Scores(
        accuracy=70 + 3 * np.log10(work) + fmean(config.partial_ratios), latency_ms=work / 3e7
    )


if __name__ == "__main__":
    main()
