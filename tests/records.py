"""A record of trials that is no file."""

from nas.search.trial import Outcome
from search_spaces.space import Genes


class Memory:
    """Keeps each trial, once."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Genes, Outcome]] = {}

    def recall(self, number: int) -> tuple[Genes, Outcome] | None:
        return self.kept.get(number)

    def keep(self, genes: Genes, outcome: Outcome) -> None:
        assert outcome.number not in self.kept
        self.kept[outcome.number] = (genes, outcome)
