"""A searcher: what to evaluate next, and what came of it.

fasternas search --searcher climbing ...        or        fn.search(..., searcher=Climbing(...))
"""

from random import Random

import fasternas as fn


class Climbing:
    """Changes one choice of the most accurate config within the budget so far."""

    def __init__(self, cardinalities: tuple[int, ...], *, seed: int) -> None:
        self._cardinalities = cardinalities  # how many choices each gene has
        self._seed = seed
        self._best: tuple[int, ...] | None = None
        self._accuracy = float("-inf")

    def ask(self, number: int, admit: fn.Admit) -> tuple[int, ...] | None:
        """Return what was admitted; it is new, and predicted to keep the budget."""
        rng = Random(f"{self._seed}/{number}")  # nothing else may be random: runs can be resumed
        genes = list(self._best or map(rng.randrange, self._cardinalities))
        place = rng.randrange(len(genes))
        genes[place] = rng.randrange(self._cardinalities[place])
        return admit(tuple(genes), rng)

    def tell(self, genes: tuple[int, ...], found: fn.Objectives | None) -> None:
        """Remember the best; `found` is None where an evaluation failed."""
        if found is not None and found.feasible and found.accuracy > self._accuracy:
            self._best, self._accuracy = genes, found.accuracy


def open_climbing(problem: fn.SearchProblem) -> Climbing:
    """Open it for a search; what the entry point names."""
    return Climbing(problem.space.cardinalities, seed=problem.seed)


def main() -> None:
    """Look for large networks of few MACs; both are computed, nothing is trained."""
    space = fn.SPACES["fasternet-32"]

    def evaluate(config: fn.FasterNetConfig) -> fn.Scores:
        cost = fn.cost(config)
        return fn.Scores(accuracy=cost.params / 1e6, latency_ms=cost.macs / 1e7)

    searcher = Climbing(space.cardinalities, seed=0)
    trials = list(fn.search(space, evaluate, trials=40, budget_ms=2.0, searcher=searcher))
    for trial in fn.pareto_front(trials):
        assert trial.scores is not None
        print(
            f"trial {trial.number}: {trial.scores.accuracy:.2f} M parameters, "
            f"{trial.scores.latency_ms:.2f} ms"
        )


if __name__ == "__main__":
    main()
