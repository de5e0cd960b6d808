"""What a searcher is: it proposes genes and is told what became of them.

Every proposal is drawn from a generator seeded by (seed, number), so that a resumed search, which
tells the searcher the same results in the same order, proposes the same.
"""

from collections.abc import Callable
from random import Random
from typing import Protocol

from nas.searching.trial import Scores
from search_spaces.space import Genes

Admit = Callable[[Genes, Random], Genes | None]
"""Turns a proposal into a new one within the budget near it; None where there is none left."""


class Searcher(Protocol):
    """Proposes what to evaluate next."""

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Return the proposal of that number as it was admitted; None ends the search."""

    def tell(self, genes: Genes, scores: Scores | None) -> None:
        """Take in what an evaluation found, in the order of asking; None where it failed."""


def generator(seed: int, number: int) -> Random:
    """Return the generator of one proposal."""
    return Random(f"{seed}/{number}")
