"""The report of a run: one HTML file that needs nothing else, neither network nor JavaScript."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nas.quantities import format_bytes, format_count, format_ms
from nas.report import tables
from nas.report.figures import PREDICTED_INTERVAL, calibration_figure, progress_figure
from nas.report.front import front_figure
from nas.report.importance import FEWEST
from nas.report.model import ReportModel
from nas.report.sheet import NARROW, PALETTE, WIDE, Sheet, printable, style
from nas.report.tables import Network, architecture_words, stages_of
from nas.study.options import OF_TRAININGS, SearchOptions
from predictors.devices.device import DeviceSpec
from search_spaces.io import atomic_write, check_replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "report.html"
_SQUARE = Sheet(5.6, 6.4, page=True)
_LOW = Sheet(10.4, 3.4, page=True), Sheet(5.1, 3.4, page=True)
_HEAD = 4096  # bytes in which a report has had its title
_BLOCK = 8.0  # pixels across, at the most
_COLOURS = {colour.lower(): name for name, colour in PALETTE.items()}
_DEFAULTS = SearchOptions(devices=(DeviceSpec(name="cpu", budget_ms=1.0),))
_ALWAYS = ("space", "trials", "seed", "searcher", "accuracy")  # whatever they are
_UNLESS_DEFAULT = ("parallel", "data", "epochs", "progressive", "flip", "init")
_LIMITS = {  # the option of each, and the unit of its number
    "params": ("max-params", ""),
    "macs": ("max-macs", ""),
    "file_bytes": ("max-file", "B"),
    "memory_bytes": ("max-memory", "B"),
}
_SPELLED = {"resolutions": "resolution", "activations": "activation"}


def write_html(model: ReportModel, path: Path) -> None:
    """Write the report of a run, finished or not; what is there must be an earlier one."""
    target = check_replaced(path, _is_report, name="out", what="a report")
    atomic_write(target, html_report(model))


def _is_report(path: Path) -> bool:
    """Whether a file begins as a report does, of whichever run."""
    with path.open("rb") as file:
        start = file.read(_HEAD)
    return start.startswith(b"<!DOCTYPE html>") and b"fasternas</title>" in start


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
        legend=_legend(model.front),
        FEWEST=FEWEST,
        tables=tables,
        PREDICTED_INTERVAL=PREDICTED_INTERVAL,
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
        "bytes": format_bytes,
        "prose": _prose,
        "plain": _plain,
        "fraction": _fraction,
        "stages": stages_of,
        "architecture": architecture_words,
    }
    return environment


def _front_figures(model: ReportModel) -> list[Markup]:
    label = "Networks by latency and accuracy; the table below lists the front"
    wide, narrow = (front_figure(model.view, sheet=sheet) for sheet in (WIDE, NARROW))
    return _wide_and_narrow(wide, narrow, name="front", label=label)


def _progress_figures(model: ReportModel) -> list[Markup]:
    label, curve, trials = model.progress_words, model.progress, model.options.trials
    if not label:
        return []
    wide, narrow = (progress_figure(curve, trials=trials, sheet=sheet) for sheet in _LOW)
    return _wide_and_narrow(wide, narrow, name="progress", label=label)


def _wide_and_narrow(wide: "Figure", narrow: "Figure", *, name: str, label: str) -> list[Markup]:
    """One for a desk and one for a phone."""
    pair = {"wide": wide, "narrow": narrow}
    return [
        inline_svg(figure, name=f"{name}-{look}", label=label, look=look)
        for look, figure in pair.items()
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
    width: int = 340
    map: int = 40  # the largest
    bars: int = 96  # the highest
    between: int = 8  # maps and bars
    gap: int = 10  # between stages
    height: int = 160  # with the numbers at the foot

    @property
    def sample(self) -> int:
        """A round number of channels for the legend."""
        return next(c for c in (512, 256, 128, 64, 32, 16, 8, 1) if c * self.channel <= self.bars)


def scale_of(networks: Sequence[Network]) -> NetworkScale:
    """Return the scale in which every one of these networks has room."""
    every = [stages_of(network.config) for network in networks]
    stages = [stage for network in every for stage in network]
    whole = NetworkScale
    blocks_width = [whole.width - whole.gap * len(n) - whole.map * 2 for n in every]
    room = min(w / sum(s.depth for s in n) for w, n in zip(blocks_width, every, strict=True))
    return NetworkScale(
        channel=whole.bars / max(stage.width for stage in stages),
        pixel=whole.map / max(stage.side for stage in stages),
        block=min(max(room, 0.5), _BLOCK),
    )


def _legend(networks: Sequence[Network]) -> dict[str, str]:
    """What a drawing shows of these networks beside PConv: the look of it, and what it is."""
    stages = [stage for network in networks for stage in stages_of(network.config)]
    words = {
        "attended": "mixed by attention, in the place of the convolution",
        "gated": "scaled by a gate before it passes through",
        "star": "a star: the hidden channels are the product of two branches",
    }
    some = {
        "attended": any(s.attention for s in stages),
        "gated": any(s.gate for s in stages),
        "star": any(s.star for s in stages),
    }
    return {look: said for look, said in words.items() if some[look]}


def _prose(words: str) -> Markup:
    """Text in which `code` stands as in Markdown."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(printable(words)))))


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


def inline_svg(figure: "Figure", *, name: str, label: str, look: str = "") -> Markup:
    """Return the figure as an element of a page; `name` keeps its ids apart from others'."""
    image = BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with style(WIDE):
        figure.savefig(image, format="svg", facecolor="none", metadata=metadata)
    root = ET.fromstring(image.getvalue())
    for element in list(root.iter()):
        _simplify(element, name)
        if element.tag == "a":
            _name_point(element)
    root.remove(root[0])  # a style, which would be the whole page's
    points = root.find(".//g[@class='point']") is not None
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {
        "viewBox": view,
        "class": f"figure {look}".strip(),
        "role": "group" if points else "img",
        "aria-label": label,
    }
    return Markup(ET.tostring(root, encoding="unicode"))


def _simplify(element: ET.Element, name: str) -> None:
    """Drop namespaces and needless ids, shorten numbers, put the page's colours in."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag not in ("path", "clipPath"):
        attributes.pop("id", None)
    element.attrib.clear()
    element.attrib |= {key: _attribute(key, value, name) for key, value in attributes.items()}
    if element.tag != "text":
        element.text = None


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "style":
        value = re.sub("#[0-9a-f]{6}", lambda c: f"var(--{_COLOURS.get(c[0], 'ink')})", value)
        return re.sub("'DejaVu Sans'[^;]*", "system-ui, sans-serif", value)
    return re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", value)).strip()


def _name_point(element: ET.Element) -> None:
    """Turn a link into a group with a title."""
    kind, _, words = element.attrib.pop("href").partition(":")
    element.tag = "g"
    element.attrib.clear()
    element.attrib |= {"class": "point", "role": "img"}
    if kind == "stop":
        element.set("tabindex", "0")
    title = ET.Element("title")
    title.text = unquote(words)
    element.insert(0, title)


def command_of(options: SearchOptions) -> str:
    """Return the command for a shell, one option a line; it begins a new folder."""
    values, devices = options.as_json(), options.devices
    given = {"budget": _each(devices, lambda d: f"{str(d.budget_ms).removesuffix('.0')}ms")}
    given |= {name: _word(values[name]) for name in _ALWAYS}
    given["runtime"] = _shared(devices, lambda d: _distinct(b.runtime for b in d.backends))
    given["precision"] = _shared(devices, lambda d: _distinct(b.precision for b in d.backends))
    given["threads"] = _shared(devices, lambda d: str(d.backends[0].threads))
    if any(device.cores for device in devices):
        given["cores"] = _each(devices, lambda d: _distinct(map(str, d.cores)))
    idle = OF_TRAININGS if options.accuracy == "estimate" else ()  # which a new run refuses
    for name in (*_UNLESS_DEFAULT, *_SPELLED):
        if name not in idle and getattr(options, name) != getattr(_DEFAULTS, name):
            given[_SPELLED.get(name, name)] = _word(values[name])
    if options.classes is not None and not options.data:  # else they are the data's
        given["classes"] = str(options.classes)
    for name, limit in options.limits.given.items():
        option, unit = _LIMITS[name]
        given[option] = f"{limit}{unit}"
    names = [("device", device.name) for device in devices]
    lines = [shlex.join([f"--{name}", word]) for name, word in (*names, *given.items())]
    if options.choices:
        lines.append(shlex.join(["--set-space", *(choice.words for choice in options.choices)]))
    return " \\\n  ".join(["fasternas search", *lines])


def _each(devices: Sequence[DeviceSpec], word: Callable[[DeviceSpec], str]) -> str:
    """A word for each device: pi=10ms,cpu=3ms; of one alone, the word."""
    if len(devices) == 1:
        return word(devices[0])
    return ",".join(f"{device.name}={word(device)}" for device in devices)


def _shared(devices: Sequence[DeviceSpec], word: Callable[[DeviceSpec], str]) -> str:
    """What is the same on all devices, once; else for each."""
    words = set(map(word, devices))
    return words.pop() if len(words) == 1 else _each(devices, word)


def _distinct(words: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(words))


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
