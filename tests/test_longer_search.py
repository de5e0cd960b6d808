"""Every searcher goes on from a record: its own to more trials, or that of other searches."""

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any, get_args

import numpy as np
import pytest
from records import Memory

from nas.search.feasibility import all_genes
from nas.search.loop import search
from nas.search.searchers import SearcherName
from nas.search.trial import InProcess, Scores, Trial, evaluated
from predictors.latency import Prediction
from search_spaces.space import Space, each, oneof


@dataclass(frozen=True)
class Net:
    """A config of which the code knows nothing."""

    depth: int
    widths: tuple[int, ...]
    kind: str


WIDTHS = oneof(8, 16, 24, 32, 48, 64)
SPACE: Space[Net] = Space(
    Net, depth=oneof(1, 2, 3, 4, 6, 8), widths=each(WIDTHS, WIDTHS, WIDTHS), kind=oneof("a", "b")
)
# Enough for each to propose from what it has learned.
TRIALS: dict[SearcherName, int] = {"nsga2": 34, "evolution": 34, "gp": 15}
INSTALLED = [name for name in get_args(SearcherName) if find_spec("nni") or "nni" not in name]
every_searcher = pytest.mark.parametrize("searcher", INSTALLED)
either = pytest.mark.parametrize("known", [True, False])


def evaluate(net: Net) -> Scores:
    a, b, c = net.widths
    accuracy = (
        a**0.3 + b**0.4 + c**0.2 + net.depth**0.5 - (0.1 * net.depth if net.kind == "b" else 0)
    )
    return Scores(accuracy=accuracy, latency_ms=0.3 + net.depth * (a + b + c) / 40)


def predict(nets: Any) -> Prediction:
    mean = np.array([evaluate(net).latency_ms for net in nets])
    return Prediction(mean, 0.97 * mean, 1.03 * mean)


def _search(
    searcher: SearcherName, trials: int, record: Memory, *, known: bool
) -> list[Trial[Net]]:
    return list(
        search(
            SPACE,
            evaluate,
            trials=trials,
            budget_ms=8.0,
            searcher=searcher,
            record=record,
            predict_latency=predict if known else None,
            pool=InProcess(evaluate),
        )
    )


@either
@every_searcher
def test_a_finished_search_goes_on_as_if_all_had_been_asked_for(
    searcher: SearcherName, *, known: bool
) -> None:
    total, record = TRIALS.get(searcher, 20), Memory()
    shorter = _search(searcher, total - 7, record, known=known)
    longer = _search(searcher, total, record, known=known)
    assert longer[: total - 7] == shorter
    assert longer == _search(searcher, total, Memory(), known=known)


@either
@every_searcher
def test_trials_of_other_searches_are_gone_on_with(searcher: SearcherName, *, known: bool) -> None:
    record, genes = Memory(), list(islice(all_genes(SPACE), 0, None, 200))
    for number, some in enumerate(genes):
        record.keep(some, evaluated(evaluate, number, SPACE.decode(some)))
    trials = _search(searcher, len(genes) + 6, record, known=known)
    assert [trial.config for trial in trials[: len(genes)]] == [SPACE.decode(g) for g in genes]
    assert len({trial.config for trial in trials}) == len(genes) + 6
