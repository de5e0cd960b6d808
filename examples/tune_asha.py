"""Ray Tune searches a space of ours with its own scheduler: ASHA on scikit-learn's digits.

The trainable is yours: here perceptrons of scikit-learn, each timed on one image. `FasternasSearch`
proposes what to train next, towards high accuracy and low latency within a budget; ASHA stops what
falls behind early.

    python examples/tune_asha.py
"""

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

import fasternas as fn
from fasternas.tune import FasternasSearch, config_of

EPOCHS = 9
BUDGET_MS = 2.0


@dataclass(frozen=True, kw_only=True)
class Perceptron:
    """The hidden layers of a perceptron, and how it learns."""

    widths: tuple[int, ...]
    activation: str
    lr: float


SPACE = fn.Space(
    Perceptron,
    widths=fn.each(fn.oneof(8, 16, 32, 64), fn.oneof(8, 16, 32, 64)),
    activation=fn.oneof("relu", "tanh"),
    lr=fn.oneof(0.001, 0.003, 0.01),
)


def train(params: dict[str, Any]) -> None:
    """Train a config; report its accuracy in percent and its latency after each epoch."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    config = config_of(SPACE, params)
    images, labels = load_digits(return_X_y=True)
    x, x_validation, y, y_validation = train_test_split(images / 16, labels, random_state=0)
    network = MLPClassifier(
        config.widths, activation=config.activation, learning_rate_init=config.lr, random_state=0
    )
    for _ in range(EPOCHS):
        network.partial_fit(x, y, classes=range(10))
        accuracy = 100 * network.score(x_validation, y_validation)
        tune.report({"accuracy": accuracy, "latency_ms": latency_ms(network, x[:1])})


def latency_ms(network: Any, image: Any) -> float:
    """Return the median of some inferences: good enough for an example."""
    times = []
    for _ in range(30):
        start = time.perf_counter()
        network.predict(image)
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def main(trials: int = 16) -> tune.ResultGrid:
    """Search, and print the most accurate networks within the budget."""
    search = FasternasSearch(SPACE, budget_ms=BUDGET_MS, seed=0)
    scheduler = ASHAScheduler(metric="accuracy", mode="max", max_t=EPOCHS, reduction_factor=3)
    how = tune.TuneConfig(
        search_alg=search, scheduler=scheduler, num_samples=trials, reuse_actors=True
    )
    results = tune.Tuner(train, tune_config=how).fit()
    rows = [results[i].metrics or {} for i in range(len(results))]
    kept = [row for row in rows if row.get("latency_ms", BUDGET_MS + 1) <= BUDGET_MS]
    for row in sorted(kept, key=lambda row: -row["accuracy"])[:5]:
        epochs, config = row["training_iteration"], config_of(SPACE, row["config"])
        latency = f"{row['latency_ms']:.3f} ms"
        print(f"{row['accuracy']:.1f} % in {latency} after {epochs} epochs: {config}")
    return results


if __name__ == "__main__":
    main()
