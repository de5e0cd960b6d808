"""The plots of benchmarks say what was measured, and nothing in them covers anything else."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from nas.bench import models_figure, operators_figure
from nas.networks import MODELS, Row, Subject, operator_subjects
from predictors.backends.model import Model
from predictors.measurement import Backend, Latency

DEVICE = "Intel(R) Xeon(R) Processor @ 2.10GHz, onnxruntime 1.31.1, one thread: measured"
# GFLOPS at the four sizes, and (MACs in G, ms): about what ONNX Runtime reaches on one core.
SPEEDS = {
    "Conv3x3": (113, 113, 110, 90),
    "GConv3x3": (36, 46, 53, 83),
    "DWConv3x3": (73, 61, 47, 47),
    "PConv3x3": (52, 89, 98, 86),
}
NETWORKS = {
    "t0": (0.335, 9.05),
    "t1": (0.85, 19.3),
    "t2": (1.904, 38.8),
    "s": (4.55, 88),
    "l": (15.5, 300),
    "mobilenetv2_100": (0.301, 7.71),
    "mobilenetv3_large_100": (0.217, 6.2),
    "mobilevit_xxs": (0.264, 10.4),
    "mobilevit_xs": (0.7, 21),
    "mobilevit_s": (1.42, 37),
    "ghostnet_100": (0.141, 6.1),
    "edgenext_xx_small": (0.193, 8.4),
    "resnet18": (1.814, 34),
    "resnet50": (4.09, 80.5),
    "convnext_tiny": (4.45, 98),
    "repvit_m0_9": (0.816, 21.5),
    "starnet_s1": (0.425, 10.8),
    "mobileone_s0": (0.275, 6.7),
    "poolformer_s12": (1.81, 45),
    "swin_tiny_patch4_window7_224": (4.5, 118),
    "swin_base_patch4_window7_224": (15.4, 400),
}


def _latency(ms: float) -> Latency:
    return Latency(
        median_ms=ms,
        low_ms=0.96 * ms,
        high_ms=1.04 * ms,
        source="measured",
        device="cpu",
        backend=Backend("onnxruntime"),
    )


def _operators() -> list[Row]:
    found = []
    for i, subject in enumerate(operator_subjects()):
        gflops = SPEEDS[subject.kind][i // 4]
        found.append(
            Row(subject=subject, latency=_latency(2e-6 * (subject.model.macs or 0) / gflops))
        )
    return found


def _network(name: str, macs: float, ms: float) -> Row:
    kind, label = MODELS.get(name, ("other", name))
    model = Model(name=name, identity=name, shape=(3, 224, 224), macs=int(macs * 1e9))
    return Row(subject=Subject(model=model, kind=kind, label=label), latency=_latency(ms))


def _networks() -> list[Row]:
    return [_network(name, *numbers) for name, numbers in NETWORKS.items()]


def _unstable(row: Row) -> Row:
    assert row.latency is not None
    return replace(row, latency=replace(row.latency, unstable=True))


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _points(figure: Figure, panel: int, label: str) -> list[tuple[float, float]]:
    (line,) = [one for one in figure.axes[panel].lines if one.get_label() == label]
    data: Any = line.get_xydata()
    return [(float(x), float(y)) for x, y in data]


def test_operators_have_their_latency_a_layer_and_their_speed_at_each_size() -> None:
    figure = operators_figure(_operators(), device=DEVICE)
    latencies = [y for _, y in _points(figure, 0, "PConv3x3")]
    assert latencies == pytest.approx([0.6252, 0.3653, 0.3317, 0.3780], rel=1e-3)
    assert [y for _, y in _points(figure, 1, "PConv3x3")] == pytest.approx(SPEEDS["PConv3x3"])
    assert _legend(figure) == [*SPEEDS, "95 % interval"]
    assert figure.axes[0].get_yscale() == "log"
    assert "PConv at 84 %, DWConv at 53 % of Conv's GFLOPS" in _texts(figure)
    assert DEVICE in _texts(figure)


def test_models_have_their_speed_and_latency_over_macs_and_fasternet_is_one_line() -> None:
    figure = models_figure(_networks(), device=DEVICE)
    sizes = [NETWORKS[name] for name in ("t0", "t1", "t2", "s", "l")]
    assert _points(figure, 1, "FasterNet") == [(macs, float(ms)) for macs, ms in sizes]
    speeds = [y for _, y in _points(figure, 0, "FasterNet")]
    assert speeds == pytest.approx([2e3 * macs / ms for macs, ms in sizes])
    assert figure.axes[1].get_xscale() == figure.axes[1].get_yscale() == "log"
    assert "FasterNet at 74 to 103, the others at 46 to 107 GFLOPS" in _texts(figure)


def test_every_network_is_named_and_no_label_covers_another_or_a_marker() -> None:
    figure = models_figure(_networks(), device=DEVICE)
    figure.draw_without_rendering()
    named = {t.get_text() for a in figure.axes for t in a.texts if isinstance(t, Annotation)}
    assert named == {label for _, label in MODELS.values()}
    for axes in figure.axes:
        boxes = [Text.get_window_extent(t) for t in axes.texts if isinstance(t, Annotation)]
        assert len(boxes) >= 15
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        lines: Any = [one.get_xydata() for one in axes.lines]
        marks = [axes.transData.transform(point) for line in lines for point in line]
        assert len(marks) == len(NETWORKS)
        assert not [box for box in boxes for x, y in marks if box.contains(x, y)]


def test_unstable_timings_are_marked() -> None:
    operators = operators_figure([_unstable(row) for row in _operators()], device=DEVICE)
    models = models_figure([_unstable(row) for row in _networks()], device=DEVICE)
    assert "unstable timing" in _legend(operators)
    assert "unstable timing" in _legend(models)
    assert "unstable timing" not in _legend(models_figure(_networks(), device=DEVICE))


FILE = Row(
    subject=Subject(model=Model(name="f", identity="f", shape=(3, 8, 8)), kind="f", label="f"),
    latency=_latency(2.0),
)


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([FILE], "No network whose MACs are known"),
        (_networks()[:1], "FasterNet at 74 GFLOPS"),
        ([_network("$a_long\\name^" * 9, 1.0, 20.0), FILE], "the others at 100 GFLOPS"),
        ([_network(f"same{i}", 1.0, 20.0) for i in range(40)], "the others at 100 GFLOPS"),
    ],
    ids=["no MACs", "one", "odd name", "all the same"],
)
def test_every_edge_case_of_models_can_be_drawn(rows: Sequence[Row], title: str) -> None:
    figure = models_figure(rows, device=DEVICE)
    figure.draw_without_rendering()
    assert title in _texts(figure)


@pytest.mark.parametrize(
    ("chosen", "title"),
    [
        ([0], "GFLOPS of operators"),
        ([2], "GFLOPS of operators"),
        ([0, 2], "DWConv at 65 % of Conv's GFLOPS"),
        ([0, 3, 7], "PConv at 46 % of Conv's GFLOPS"),
    ],
)
def test_operators_can_be_drawn_where_some_have_failed(chosen: list[int], title: str) -> None:
    figure = operators_figure([_operators()[i] for i in chosen], device=DEVICE)
    figure.draw_without_rendering()
    assert title in _texts(figure)


def test_a_row_without_a_latency_is_refused() -> None:
    failed = replace(_operators()[0], latency=None, failed="cannot be run")
    with pytest.raises(ValueError, match="`rows` must have latencies, but Conv3x3 96x56x56 has no"):
        operators_figure([failed], device=DEVICE)
