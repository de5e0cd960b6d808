"""What plots and reports say of several devices, whose latencies are shares of their budgets."""

from nas.candidate import Candidate
from nas.report.front import front_figure, view_of
from nas.report.sheet import SLIDE, WIDE
from nas.report.tables import network_of
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FASTERNET


def _network(share: float) -> Candidate:
    """One that takes so many per cent of the budget of its slower device."""
    part = Latency(median_ms=1.0, low_ms=1.0, high_ms=1.0, source="measured",
                       device="cpu", backend=Backend("onnxruntime"))  # fmt: skip
    shares = Latency(median_ms=share, low_ms=share, high_ms=share, source="measured",
                         device="quick,slow", backend=Backend("onnxruntime"),
                         parts=(("quick", part), ("slow", part)))  # fmt: skip
    return Candidate(name="trial-0", config=FASTERNET["t0"], accuracy=90.0, accuracy_kind="trained",
                     latency=shares, macs=1, params=1, feasible=share <= 100)  # fmt: skip


def test_what_no_budget_allows_is_said_of_all_of_them() -> None:
    view = view_of([network_of(_network(130.0)), network_of(_network(150.0))], [], 100.0, "%")
    wanted = "No network within every budget; the fastest so far takes 130 % of a budget"
    assert view.title == wanted
    for sheet in (SLIDE, WIDE):
        (legend,) = front_figure(view, sheet=sheet).legends
        assert "over a budget" in [text.get_text() for text in legend.get_texts()]
