"""A record of trials that is no file."""

from nas.search.trial import Outcome, Scores
from search_spaces.space import Genes


class Memory:
    """Keeps each trial, once."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Genes, Outcome[Scores]]] = {}

    def recall(self, number: int) -> tuple[Genes, Outcome[Scores]] | None:
        return self.kept.get(number)

    def keep(self, genes: Genes, outcome: Outcome[Scores]) -> None:
        assert outcome.number not in self.kept
        self.kept[outcome.number] = (genes, outcome)
