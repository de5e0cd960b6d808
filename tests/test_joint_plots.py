"""What plots and reports say of several devices, whose latencies are held against budgets."""

from specs import candidate, each, latency

from nas.candidates import Candidate
from nas.report.front import front_figure, view_of
from nas.report.sheet import SLIDE, WIDE
from nas.report.tables import network_of
from search_spaces.fasternet import FASTERNET


def _network(ratio: float) -> Candidate:
    """One that takes so much of the budget of its slower device."""
    found = each(latency(1.0, "quick"), latency(ratio, "slow"))
    return candidate("trial-0", FASTERNET["t0"], 90.0, found, {"quick": 1.0, "slow": 1.0})


def test_what_no_budget_allows_is_said_of_all_of_them() -> None:
    view = view_of([network_of(_network(1.3)), network_of(_network(1.5))], [], 1.0, "ratio")
    wanted = "No network within every budget; the fastest so far takes 1.3 of a budget"
    assert view.title == wanted
    for sheet in (SLIDE, WIDE):
        (legend,) = front_figure(view, sheet=sheet).legends
        assert "over a budget" in [text.get_text() for text in legend.get_texts()]
