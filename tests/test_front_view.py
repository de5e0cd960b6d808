"""Where the plane of the front ends, and what is said of the sizes that it does not show."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from specs import candidate, each, latency

from nas.candidates import Candidate
from nas.report.front import FrontView, front_figure, view_of
from nas.report.tables import network_of
from predictors.measurement import Source
from search_spaces.fasternet import FASTERNET

BUDGET_MS = 10.0


def _network(ms: float, *, name: str = "trial-0001", source: Source = "measured") -> Candidate:
    found = replace(latency(ms, source=source), low_ms=0.97 * ms, high_ms=1.03 * ms)
    one = candidate(name, FASTERNET["t0"], 50 + ms, each(found), {"cpu": BUDGET_MS})
    return replace(one, on_front=one.feasible)


def _sizes(*latencies_ms: float, source: Source = "measured") -> list[Candidate]:
    names = list(FASTERNET)[: len(latencies_ms)]
    return [
        _network(ms, name=name, source=source) for name, ms in zip(names, latencies_ms, strict=True)
    ]


def _view(networks: Sequence[Candidate], sizes: Sequence[Candidate] = ()) -> FrontView:
    named = [network_of(replace(c, on_front=False)) for c in sizes]
    return view_of(list(map(network_of, networks)), named, BUDGET_MS)


def test_the_axis_ends_a_tenth_past_the_budget_or_what_is_shown() -> None:
    front = [_network(ms) for ms in (3.0, 5.0, 9.0)]
    assert _view(front).edges[1] == pytest.approx(11)
    assert _view([*front, _network(14.0)]).edges[1] == pytest.approx(1.1 * 1.03 * 14)
    assert _view(front, _sizes(12.0, 40.0)).edges[1] == pytest.approx(1.1 * 1.03 * 12)
    far = _view([*front, _network(30.0), _network(400.0)], _sizes(70.0))
    assert far.edges[1] == pytest.approx(11)
    assert len(far.others_beyond) == 2


def test_the_sizes_that_are_off_the_scale_are_named_though_they_have_no_score() -> None:
    unscored = [replace(c, accuracy=math.nan) for c in _sizes(30.0, 70.0, source="predicted")]
    view = _view([_network(5.0), _network(30.0)], unscored)
    wanted = "T0 30 ms, T1 70 ms, 1 other network: off the scale (latencies predicted)"
    assert view.notes == [wanted]
    mixed = [*_sizes(19.3), *_sizes(1.0, 38.8, source="predicted")[1:]]
    assert _view([_network(5.0)], mixed).notes == [
        "T0 19.3 ms, T1 38.8 ms (predicted): off the scale"
    ]


def test_a_size_within_the_plane_that_has_no_accuracy_is_named_too() -> None:
    sizes = [replace(c, accuracy=math.nan, accuracy_kind="trained") for c in _sizes(8.0, 40.0)]
    view = _view([replace(_network(5.0), accuracy_kind="trained")], sizes)
    assert view.notes == ["T1 40 ms: off the scale", "T0 8 ms: no accuracy known"]
    assert _view([_network(5.0)], _sizes(8.0)).notes == []


@pytest.mark.parametrize("lines", [1, 2])
def test_the_front_has_most_of_the_sheet_and_no_words_cover_others(lines: int) -> None:
    device = "\n".join(["a board, onnxruntime 1.31.1, 1 thread(s)"] * lines)
    unstable = _network(6.0)
    found = replace(unstable.latencies.by_device["cpu"], unstable=True)
    unstable = replace(unstable, latencies=each(found))
    networks = [_network(2.5), unstable, _network(9.0, source="predicted"), _network(11.0)]
    sizes = [replace(c, on_front=False) for c in _sizes(8.0, 19.3, 38.8, 95.0, 187.0)]
    figure = front_figure(_view(networks, sizes), device=device)
    figure.draw_without_rendering()
    plane = figure.axes[0].get_position()
    assert plane.width > 0.85
    assert plane.height > 0.45
    assert "T1 19.3 ms, T2 38.8 ms, S 95 ms, M 187 ms: off the scale" in _words(figure)
    _stand_apart(figure)


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def _stand_apart(figure: Figure) -> None:
    """The legend lies within the sheet, clear of the axes with their words and of the notes."""
    (legend,) = figure.legends
    box, axes = legend.get_window_extent(), figure.axes[0].get_tightbbox()
    assert axes is not None
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert box.x1 <= 1920
    assert not box.overlaps(label)
    assert box.y0 >= figure.axes[0].bbox.y1
    assert not [text for text in figure.texts if text.get_window_extent().overlaps(axes)]
    assert not [text for text in figure.texts if text.get_window_extent().overlaps(box)]
