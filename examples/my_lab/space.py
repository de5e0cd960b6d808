"""A space: what may be built.

fasternas search --space small ...        or, without a package, --space space.py:SMALL
"""

from dataclasses import dataclass
from random import Random

import fasternas as fn

# The command line takes spaces of FasterNetConfig. A field that is not named keeps its default.
SMALL = fn.Space(
    fn.FasterNetConfig,
    widths=fn.each(fn.oneof(8, 16), fn.oneof(16, 32), fn.oneof(32, 64), fn.oneof(64, 96)),
    depths=fn.each(*[fn.oneof(1, 2)] * 4),
    partial_ratios=(0.5, 0.5, 0.25, 0.25),
    resolution=128,
    stem_stride=4,
    head_width=64,
    classes=10,
)


@dataclass(frozen=True, kw_only=True)
class Perceptron:
    """Any frozen dataclass may be a config of `fn.search`; of this one fasternas knows nothing."""

    widths: tuple[int, ...]
    dropout: float = 0.0


PERCEPTRONS = fn.Space(
    Perceptron,
    widths=fn.each(fn.oneof(16, 32, 64), fn.oneof(16, 32, 64)),
    dropout=fn.oneof(0.0, 0.1, 0.2),
)


def main() -> None:
    """Say how large the spaces are, draw from each, and search the second."""
    print(f"{SMALL.size} FasterNets, such as {SMALL.sample(Random(0)).widths}")
    print(f"{PERCEPTRONS.size} perceptrons, such as {PERCEPTRONS.sample(Random(0))}")

    def evaluate(config: Perceptron) -> fn.Scores:
        first, second = config.widths
        weights = 64 * first + first * second + 10 * second
        return fn.Scores(accuracy=weights**0.5 - 50 * config.dropout, latency_ms=weights / 1000)

    trials = fn.search(PERCEPTRONS, evaluate, trials=12, budget_ms=4.0, searcher="random")
    best = fn.pareto_front(trials)[-1]
    print(f"the best within 4 ms: {best.config}")


if __name__ == "__main__":
    main()
