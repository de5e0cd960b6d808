"""Searchers that change single choices of what was good so far: evolution and local search."""

from collections import deque
from random import Random
from typing import Any

from nas.searching.feasible import changed, neighbours
from nas.searching.pareto import dominates
from nas.searching.searcher import Admit, generator
from nas.searching.trial import Scores
from search_spaces.space import Genes, Space

POPULATION, SAMPLE = 20, 5
START = 8  # random configs before local search begins


class EvolutionSearcher:
    """Regularised evolution (arXiv 1802.01548): the best of a sample has a child, the oldest dies.

    Best is what no other of the sample beats in accuracy and latency, within the budget first.
    """

    def __init__(self, space: Space[Any], *, budget_ms: float | None, seed: int) -> None:
        self._space = space
        self._budget_ms = budget_ms
        self._seed = seed
        self._population: deque[tuple[Genes, Scores]] = deque(maxlen=POPULATION)

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Change one choice of a parent."""
        rng = generator(self._seed, number)
        if number < POPULATION or not self._population:
            return admit(self._space.random_genes(rng), rng)
        sample = rng.choices(self._population, k=SAMPLE)
        parent, _ = rng.choice(front_of(sample, self._budget_ms))
        return admit(changed(self._space, parent, rng), rng)

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Take a child into the population."""
        if scores is not None:
            self._population.append((genes, scores))


class LocalSearcher:
    """Pareto local search: the untried neighbours of the front, then a new start.

    For one objective this is the local search of arXiv 2004.08996.
    """

    def __init__(self, space: Space[Any], *, budget_ms: float | None, seed: int) -> None:
        self._space = space
        self._budget_ms = budget_ms
        self._seed = seed
        self._asked: set[Genes] = set()
        self._known: list[tuple[Genes, Scores]] = []

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Propose a neighbour of a member of the front."""
        rng = generator(self._seed, number)
        proposal = self._space.random_genes(rng) if number < START else self._neighbour(rng)
        admitted = admit(proposal, rng)
        if admitted is not None:
            self._asked.add(admitted)
        return admitted

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Remember what may be on the front."""
        if scores is not None:
            self._known = front_of([*self._known, (genes, scores)], self._budget_ms)

    def _neighbour(self, rng: Random) -> Genes:
        for genes, _ in rng.sample(self._known, len(self._known)):
            untried = [n for n in neighbours(self._space, genes) if n not in self._asked]
            if untried:
                return rng.choice(untried)
        return self._space.random_genes(rng)


def front_of(
    known: list[tuple[Genes, Scores]], budget_ms: float | None
) -> list[tuple[Genes, Scores]]:
    """Return what no other beats; where none meets the budget, the fastest."""
    if budget_ms is not None:
        within = [pair for pair in known if pair[1].upper_ms <= budget_ms]
        known = within or sorted(known, key=lambda pair: pair[1].upper_ms)[:1]
    return [(genes, scores) for genes, scores in known
            if not any(dominates(other, scores) for _, other in known)]  # fmt: skip
