"""The report of a run: one HTML file that needs nothing else, neither network nor JavaScript."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nas.quantities import format_count, format_ms
from nas.report.figures import calibration_figure, progress_figure
from nas.report.front import Network
from nas.report.front_figure import front_figure
from nas.report.importance import FEWEST, signed
from nas.report.model import ReportModel
from nas.report.sheet import NARROW, WIDE, Sheet
from nas.report.svg import inline_svg, printable
from nas.report.tables import HEADINGS
from nas.report.words import HEADING, INTERVAL, architecture_words, command_of, stages_of
from predictors.latency import COVERAGE
from search_spaces.io import atomic_write

FILE = "report.html"
_SQUARE = Sheet(5.6, 6.4, page=True)
_LOW_WIDE, _LOW_NARROW = Sheet(10.4, 3.4, page=True), Sheet(5.1, 3.4, page=True)
_WIDTH, _MAP, _BARS = 340, 40, 96  # pixels: of a network, of the largest map, of the highest bar
_GAP, _BETWEEN, _FOOT = 10, 8, 16  # between stages, between maps and bars, for the numbers
_BLOCK = 8.0  # pixels across, at the most
_CODE = re.compile("`([^`]+)`")


def write_html(model: ReportModel, path: Path) -> None:
    """Write the report of a run, finished or not.

    Raises:
        OSError: if the file cannot be written; one of before is then as it was.
    """
    atomic_write(path, html_report(model))


def html_report(model: ReportModel) -> str:
    """Return the page."""
    template = _environment().get_template("report.html.j2")
    return template.render(
        model=model,
        version=version("fasternas"),
        front_figures=_front_figures(model),
        progress_figures=_progress_figures(model),
        calibration_figures=_calibration_figures(model),
        command=command_of(model.options),
        scale=scale_of(model.front) if model.front else None,
        FEWEST=FEWEST,
        HEADING=HEADING,
        HEADINGS=HEADINGS,
        INTERVAL=INTERVAL,
        COVERAGE=f"{100 * COVERAGE:.0f} % interval",
    )


def _environment() -> Environment:
    """Whatever a template shows is text: escaped, without control characters."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    environment.filters |= {
        "ms": format_ms,
        "count": format_count,
        "signed": signed,
        "prose": _prose,
        "plain": _plain,
        "fraction": _fraction,
        "stages": stages_of,
        "architecture": architecture_words,
    }
    return environment


def _front_figures(model: ReportModel) -> list[Markup]:
    """One for a desk and one for a phone."""
    label = "Networks by latency and accuracy; the table below lists the front"
    wide, narrow = (front_figure(model.view, sheet=sheet) for sheet in (WIDE, NARROW))
    return [
        inline_svg(wide, name="front-wide", label=label, look="wide"),
        inline_svg(narrow, name="front-narrow", label=label, look="narrow"),
    ]


def _progress_figures(model: ReportModel) -> list[Markup]:
    label, curve = model.progress_words, model.progress
    if not label:
        return []
    wide, narrow = (
        progress_figure(curve, trials=model.options.trials, sheet=sheet)
        for sheet in (_LOW_WIDE, _LOW_NARROW)
    )
    return [
        inline_svg(wide, name="progress-wide", label=label, look="wide"),
        inline_svg(narrow, name="progress-narrow", label=label, look="narrow"),
    ]


def _calibration_figures(model: ReportModel) -> list[Markup]:
    label = "Predicted over measured latencies; the table has them"
    figures = [calibration_figure(view, sheet=_SQUARE) for view in model.calibrations]
    return [
        inline_svg(figure, name=f"calibration-{i}", label=label, look="square")
        for i, figure in enumerate(figures)
    ]


@dataclass(frozen=True, kw_only=True)
class NetworkScale:
    """Pixels of a network's drawing for a channel, for a pixel of a map, and for a block."""

    channel: float
    pixel: float
    block: float
    width: int = _WIDTH
    map: int = _MAP
    bars: int = _BARS
    between: int = _BETWEEN
    gap: int = _GAP
    height: int = _MAP + _BETWEEN + _BARS + _FOOT

    @property
    def sample(self) -> int:
        """A round number of channels for the legend."""
        return next(c for c in (512, 256, 128, 64, 32, 16, 8, 1) if c * self.channel <= _BARS)


def scale_of(networks: Sequence[Network]) -> NetworkScale:
    """Return the scale in which every one of these networks has room."""
    every = [stages_of(network.config) for network in networks]
    stages = [stage for network in every for stage in network]
    room = min((_WIDTH - _GAP * len(n) - _MAP * 2) / sum(s.depth for s in n) for n in every)
    return NetworkScale(
        channel=_BARS / max(stage.width for stage in stages),
        pixel=_MAP / max(stage.side for stage in stages),
        block=min(max(room, 0.5), _BLOCK),
    )


def _prose(words: str) -> Markup:
    """Text in which `code` stands as in Markdown."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(printable(words)))))


def _plain(value: object) -> str:
    """A value of run.json as people read it."""
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "not given"
    return "not given" if value in (None, "") else str(value)


def _fraction(ratio: float) -> str:
    """A ratio as a fraction where it is a simple one."""
    simple = Fraction(ratio).limit_denominator(16)
    return str(simple) if abs(float(simple) - ratio) < 1e-6 else f"{ratio:g}"
