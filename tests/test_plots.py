import errno
import math
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from specs import candidate, each, latency

from nas.candidates import Candidate
from nas.report.figures import CalibrationView, calibration_figure, compared
from nas.report.front import FrontView, front_figure, view_of
from nas.report.sheet import save
from nas.report.tables import network_of
from predictors.accuracy import AccuracyKind
from predictors.cost import cost
from predictors.latency import Prediction
from predictors.measurement import Latency, Ratio, Source
from search_spaces.fasternet import FASTERNET, SPACES

DEVICE = "Intel(R) Xeon(R) Processor @ 2.10GHz, onnxruntime 1.31.1, 1 thread(s)"
T0_TO_L_MS = (9.05, 19.3, 38.8, 95.0, 187.0, 330.0)


def _latency(ms: float, source: Source = "measured") -> Latency:
    return replace(latency(ms, source=source), low_ms=0.97 * ms, high_ms=1.03 * ms)


def _on_cpu(candidate: Candidate) -> Latency:
    return candidate.latencies.by_device["cpu"]


def _candidates(
    n: int,
    *,
    budget_ms: float | None = 10.0,
    source: Source = "measured",
    kind: AccuracyKind = "estimated",
    front: Source | None = None,
) -> list[Candidate]:
    """Small networks as a search finds them; `front` is the source of the front's latencies."""
    rng, space = random.Random(n + 2), SPACES["fasternet"]
    found = []
    for i in range(n):
        power = rng.choice((2, 3, 5))
        config = space.decode([int(k * rng.random() ** power) for k in space.cardinalities])
        total = cost(config)
        ms = 0.4 + total.macs / 30e6 * rng.lognormvariate(0, 0.15)
        if budget_ms and ms > 1.3 * budget_ms:  # a search looks where the budget allows
            ms = budget_ms * rng.uniform(0.5, 1.05)
        score = 190 + 8 * math.log(ms) + rng.gauss(0, 4)
        latencies, budgets_ms = each(_latency(ms, source)), {"cpu": budget_ms or math.inf}
        found.append(candidate(f"trial-{i:04d}", config, score, latencies, budgets_ms, kind=kind))
    return _with_front(found, front or source)


def _with_front(candidates: Sequence[Candidate], source: Source) -> list[Candidate]:
    marked, best = [], -math.inf
    for c in sorted(candidates, key=lambda c: c.latencies.by_device["cpu"].median_ms):
        if c.feasible and c.accuracy > best:
            best = c.accuracy
            found = replace(c.latencies.by_device["cpu"], source=source)
            c = replace(c, on_front=True, latencies=each(found))
        marked.append(c)
    return marked


def _named(source: Source = "measured", kind: AccuracyKind = "estimated") -> list[Candidate]:
    return [
        candidate(name, config, 214 + 6.0 * i, each(_latency(ms, source)), {"cpu": 10.0}, kind=kind)
        for i, ((name, config), ms) in enumerate(zip(FASTERNET.items(), T0_TO_L_MS, strict=True))
    ]


def _figure(
    candidates: Sequence[Candidate], named: Sequence[Candidate] = (), budget_ms: float | None = 10.0
) -> Figure:
    return front_figure(_view(candidates, named, budget_ms), device=DEVICE)


def _view(
    candidates: Sequence[Candidate], named: Sequence[Candidate] = (), budget_ms: float | None = 10.0
) -> FrontView:
    return view_of(list(map(network_of, candidates)), list(map(network_of, named)), budget_ms)


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def _faces(figure: Figure, label: str) -> set[tuple[float, float, float]]:
    """The colours inside the markers of all the scatters with this label."""
    dots: Any = [c for c in figure.axes[0].collections if c.get_label() == label]
    return {to_rgb(face) for scatter in dots for face in scatter.get_facecolor()}


def _prediction(n: int = 40) -> tuple[Prediction, list[Latency]]:
    rng = np.random.default_rng(0)
    true = np.exp(rng.uniform(0.1, 2.5, n))
    mean = true * np.exp(rng.normal(0, 0.04, n))
    return Prediction(mean, mean * 0.93, mean * 1.07), [_latency(float(ms)) for ms in true]


def _calibration(prediction: Prediction, measured: Sequence[Latency]) -> Figure:
    rows = compared(prediction, measured)
    return calibration_figure(CalibrationView(device="cpu", description=DEVICE, rows=rows))


def _plot(path: Path) -> None:
    save(_figure(_candidates(30), _named()), path)


def test_both_plots_are_slides_and_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    paths = {tmp_path / "pareto.png", tmp_path / "calibration.png"}
    (tmp_path / "pareto.png").write_text("of a run before")
    _plot(tmp_path / "pareto.png")
    save(_calibration(*_prediction()), tmp_path / "calibration.png")
    assert set(tmp_path.iterdir()) == paths
    for content in [path.read_bytes() for path in paths]:
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", content[16:24]) == (1920, 1080)


def test_where_the_plot_cannot_be_written_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        _plot(tmp_path / "missing" / "pareto.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "pareto.png").mkdir()  # no file can be renamed over it
    with pytest.raises(OSError, match=r"pareto\.png"):
        _plot(tmp_path / "pareto.png")
    assert list(tmp_path.iterdir()) == [tmp_path / "pareto.png"]


def test_a_full_disk_leaves_the_plot_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "pareto.png"
    path.write_text("before")
    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OSError, match="No space left"):
        _plot(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_estimate_says_that_nothing_was_trained() -> None:
    figure = _figure(_candidates(30), _named())
    assert figure.axes[0].get_ylabel() == "ImageNet-1k top-1 in %,\nestimated, not trained"
    assert not [text for text in _texts(figure) if "accuracy" in text.lower()]
    trained = _figure(_candidates(30, kind="trained"), _named(kind="trained"))
    assert trained.axes[0].get_ylabel() == "top-1 accuracy in %"


def test_estimates_and_accuracies_do_not_mix() -> None:
    with pytest.raises(ValueError, match="`networks` and `named` must all have the same kind"):
        _figure(_candidates(30, kind="trained"), _named(kind="estimated"))


def test_predicted_latencies_are_hollow_and_said_aloud() -> None:
    figure = _figure(_candidates(60, source="predicted"), _named("predicted"))
    assert "predicted, not measured" in _legend(figure)
    assert "Latencies PREDICTED, not measured" in _texts(figure)
    assert figure.axes[0].get_xlabel() == "predicted latency in ms"
    assert any(text.endswith("predicted to stay within 10 ms") for text in _texts(figure))
    assert "T1 19.3 ms, T2 38.8 ms" in "\n".join(_texts(figure))
    assert "off the scale (latencies predicted)" in "\n".join(_texts(figure))
    for label in ("Pareto front", "other networks", "FasterNet T0 to L, published"):
        assert _faces(figure, label) == {(1.0, 1.0, 1.0)}


def test_measured_latencies_are_filled_and_nothing_is_called_predicted() -> None:
    figure = _figure(_candidates(60), _named())
    assert not [text for text in _texts(figure) if "predicted" in text.lower()]
    assert "95 % interval" in _legend(figure)
    for label in ("Pareto front", "other networks", "FasterNet T0 to L, published"):
        assert _faces(figure, label).isdisjoint({(1.0, 1.0, 1.0)})


def test_sizes_are_called_published_unless_they_are_estimated_too() -> None:
    assert "FasterNet T0 to L, published" in _legend(_figure(_candidates(30), _named()))
    smaller = [replace(size, accuracy_ends=(200.0, 250.0)) for size in _named()]
    assert "FasterNet T0 to L" in _legend(_figure(_candidates(30), smaller))
    trained = _figure(_candidates(30, kind="trained"), _named(kind="trained"))
    assert "FasterNet T0 to L" in _legend(trained)


def test_a_measured_front_among_predicted_networks_is_told_apart() -> None:
    figure = _figure(_candidates(60, source="predicted", front="measured"))
    assert _faces(figure, "other networks") == {(1.0, 1.0, 1.0)}
    assert _faces(figure, "Pareto front") == {to_rgb("#0072B2")}
    assert "predicted, not measured" in _legend(figure)
    assert "Every latency on the front is measured" in _texts(figure)


def test_a_front_measured_in_part_says_how_much_is_predicted() -> None:
    candidates = _candidates(60)
    first = next(c for c in candidates if c.on_front)
    guess = each(replace(_on_cpu(first), source="predicted"))
    mixed = [replace(c, latencies=guess) if c is first else c for c in candidates]
    count = sum(c.on_front for c in candidates)
    texts = _texts(_figure(mixed))
    assert f"1 of {count} latencies PREDICTED, not measured" in texts
    assert f"{count} networks within 10 ms" in texts


def test_unstable_timings_are_marked() -> None:
    assert "unstable timing" not in _legend(_figure(_candidates(30)))
    unstable = [
        replace(c, latencies=each(replace(_on_cpu(c), unstable=True))) for c in _candidates(30)
    ]
    assert "unstable timing" in _legend(_figure(unstable))


def test_latency_is_logarithmic_from_a_decade_on_and_its_ticks_are_plain() -> None:
    wide = _figure(_candidates(60))
    wide.draw_without_rendering()
    assert wide.axes[0].get_xscale() == "log"
    assert {"2", "5", "10"} <= {label.get_text() for label in wide.axes[0].get_xticklabels()}
    narrow = [c for c in _candidates(60) if _on_cpu(c).median_ms > 4]
    assert _figure(_with_front(narrow, "measured")).axes[0].get_xscale() == "linear"


def test_without_a_front_the_title_says_how_far_the_fastest_is() -> None:
    far = [replace(c, feasible=False, on_front=False) for c in _candidates(30)]
    finding = f"the fastest so far takes {_on_cpu(far[0]).median_ms:.3g} ms"
    assert f"No network within 0.1 ms; {finding}" in _texts(_figure(far, budget_ms=0.1))


@pytest.mark.parametrize("n", [1, 80, 300])
def test_no_label_covers_another(n: int) -> None:
    figure = _figure(_candidates(n), _named(), 40.0)
    figure.draw_without_rendering()
    notes: Any = [t for t in figure.axes[0].texts if isinstance(t, Annotation)]
    boxes = [Text.get_window_extent(text) for text in notes]
    assert len(boxes) >= 5  # the budget, T0 to T2, and one of the front
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(0 <= box.x0 < box.x1 <= 1920 and 0 <= box.y0 < box.y1 <= 1080 for box in boxes)


EQUAL = _with_front(
    [
        replace(c, latencies=each(_latency(5.0)), ratio=Ratio(median=0.5, low=0.5, high=0.5))
        for c in _candidates(12)
    ],
    "measured",
)
SAME = [replace(c, accuracy=200.0, on_front=True) for c in EQUAL]
UNSCORED = [replace(c, accuracy=-math.inf) for c in _candidates(2)]
ODD = [replace(c, name="$a$ long _name^ of a network's \\config{") for c in _candidates(5)]


@pytest.mark.parametrize(("budget_ms", "named"), [(None, []), (10, _named()), (0.01, _named())])
@pytest.mark.parametrize(
    "candidates",
    [
        [],
        _candidates(1),
        EQUAL,
        SAME,
        UNSCORED,
        ODD,
        [replace(c, on_front=False) for c in _candidates(20)],
    ],
    ids=["none", "one", "equal latencies", "all the same", "no scores", "odd names", "no front"],
)
def test_every_edge_case_can_be_drawn(
    candidates: list[Candidate], budget_ms: float | None, named: list[Candidate]
) -> None:
    figure = _figure(candidates, named, budget_ms)
    figure.draw_without_rendering()
    left, right = figure.axes[0].get_xlim()
    assert 0 <= left < right < math.inf


def test_the_calibration_says_its_median_error_and_coverage() -> None:
    measured = [_latency(ms) for ms in (1.0, 2.0, 4.0, 8.0)]
    mean = np.array([1.02, 2.08, 4.24, 6.0])
    figure = _calibration(Prediction(mean, mean * 0.9, mean * 1.1), measured)
    (corner,) = [text for text in _texts(figure) if text.startswith("median absolute error")]
    assert corner.splitlines() == [
        "median absolute error 5.0 %",
        "90 % interval covers 75 %",
        "networks: 4",
    ]
    axes = figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_aspect()) == ("log", "log", 1.0)
    none = np.array([])
    empty = _calibration(Prediction(none, none, none), [])
    assert "No prediction has met a measurement yet" in _texts(empty)


def test_a_users_settings_neither_change_the_plot_nor_are_changed() -> None:
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black"}):
        figure = _figure(_candidates(5))
        assert mpl.rcParams["font.size"] == 40
    assert to_rgb(figure.axes[0].get_facecolor()) == (1.0, 1.0, 1.0)


def test_importing_the_plots_loads_no_matplotlib_and_drawing_no_pyplot() -> None:
    code = (
        "import sys; from nas.report import front, html; "
        "assert 'matplotlib' not in sys.modules; "
        "front.front_figure(front.view_of([], [], 1.0)); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
