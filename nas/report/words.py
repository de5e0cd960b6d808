"""Networks and runs in words: latencies, architectures, the command that repeats a run."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nas.quantities import format_ms, format_score
from nas.study.options import SearchOptions
from nas.study.targets import Target
from predictors.accuracy import AccuracyKind
from predictors.cost import cost_by_layer
from predictors.devices.device import threads_of
from predictors.measurement import CONFIDENCE, Latency, Source
from search_spaces.fasternet import FasterNetConfig

Unit = Literal["ms", "%"]
AXIS: dict[Unit, str] = {"ms": "latency in ms", "%": "largest share of a budget in %"}
HEADING: dict[Unit, str] = {"ms": "latency ms", "%": "largest share %"}
INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
NUMBER = {"proxy": "score", "trained": "accuracy", "supernet": "shared-weights likelihood"}
_UNIT = {"proxy": "", "trained": " %", "supernet": " %"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A latency on a device in ms or, of several devices, the largest share of a budget in %."""

    device: str  # none of a share
    unit: Unit
    median: float
    low: float
    high: float
    source: Source
    unstable: bool
    runtime: str
    precision: str
    threads: int

    @property
    def quantity(self) -> str:
        """The median with its unit."""
        return f"{format_ms(self.median)} {self.unit}"

    @property
    def origin(self) -> str:
        """Where it is from, and whether the timing was unstable; of a share its parts say so."""
        return self.source + (", unstable" if self.unstable and self.unit == "ms" else "")

    @property
    def backend(self) -> str:
        """The runtime and the precision; a share has none."""
        return f"{self.runtime} {self.precision}" if self.unit == "ms" else ""

    @property
    def words(self) -> str:
        """All of it but where it is from: 9.1 ms [8.9 to 9.3]."""
        of = " of a budget" if self.unit == "%" else ""
        return f"{self.quantity}{of} [{format_ms(self.low)} to {format_ms(self.high)}]"

    @property
    def origin_words(self) -> str:
        """Where it is from, and the backend where that is not the usual one."""
        usual = self.backend in ("", "onnxruntime fp32") or "," in self.backend
        return self.origin + ("" if usual else f" in {self.backend}")


Readings = tuple[Reading, ...]  # of one network: of several devices the share, then each


def readings_of(latency: Latency) -> Readings:
    """Return the latency on each device and, of several, before them the largest share."""
    on_each = tuple(_reading(name, "ms", one) for name, one in latency.on_each)
    return (_reading("", "%", latency), *on_each) if latency.parts else on_each


def on_devices(readings: Readings) -> Readings:
    """Return the latencies in milliseconds alone."""
    return tuple(one for one in readings if one.unit == "ms")


def _reading(device: str, unit: Unit, latency: Latency) -> Reading:
    return Reading(
        device=device,
        unit=unit,
        median=latency.median_ms,
        low=latency.low_ms,
        high=latency.high_ms,
        source=latency.source,
        unstable=latency.unstable,
        runtime=latency.backend.runtime,
        precision=latency.backend.precision,
        threads=latency.backend.threads,
    )


def latency_words(readings: Readings) -> str:
    """Return a latency with its interval and where it is from; of several devices, each."""
    first, *parts = [f"{one.words} {one.origin_words}" for one in readings]
    names = [one.device for one in readings[1:]]
    return "; ".join([first, *map(": ".join, zip(names, parts, strict=True))])


def latency_comment(readings: Readings) -> str:
    """Return the latencies with what a config file should say of how they came about."""
    return "; ".join(
        f"{m.median:.4g} ms [{m.low:.4g}, {m.high:.4g}] {m.source} on {m.device}, {m.runtime}"
        f"{'' if m.precision == 'fp32' else f' in {m.precision}'}, {threads_of(m.threads)}"
        for m in on_devices(readings)
    )


def predicted_words(latencies: Sequence[Readings]) -> str:
    """Say how many are predicted and, of several devices, on which; nothing if none is."""
    if all(readings[0].source == "measured" for readings in latencies):
        return ""
    columns = [list(column) for column in zip(*map(on_devices, latencies), strict=True)]
    columns.sort(key=lambda column: all(one.source == "measured" for one in column))
    return "; ".join(_predicted_on(column, several=len(columns) > 1) for column in columns)


def _predicted_on(column: Sequence[Reading], *, several: bool) -> str:
    predicted = sum(one.source == "predicted" for one in column)
    where = f" on {column[0].device}" if several else ""
    if not predicted:
        return f"those{where} are measured"
    every = predicted == len(column)
    count = "Latencies" if every else f"{predicted} of {len(column)} latencies"
    return f"{count}{where} PREDICTED, not measured"


def backends_differ(latencies: Sequence[Readings]) -> bool:
    """Whether backends are to be shown: several on a device, or another precision than fp32."""
    backends = {(one.device, one.backend) for readings in latencies for one in on_devices(readings)}
    devices = {device for device, _ in backends}
    return len(backends) > len(devices) or any(not b.endswith(" fp32") for _, b in backends)


def budget_words(budget: float, unit: Unit) -> str:
    """Name the budget."""
    return "every budget" if unit == "%" else f"budget {format_ms(budget)} ms"


def within_words(budget: float, unit: Unit) -> str:
    """Say that the budget is kept."""
    return "within every budget" if unit == "%" else f"within {format_ms(budget)} ms"


def over_words(budget: float | None, unit: Unit) -> str:
    """Say that the budget is not kept; of several devices one may be enough."""
    if budget is None:
        return "infeasible"
    return "over a budget" if unit == "%" else "over the budget"


def count_words(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def accuracy_number(accuracy: float, kind: AccuracyKind) -> str:
    """Return it without a unit: a score is no more exact than a latency."""
    return format_score(accuracy) if kind == "proxy" else f"{accuracy:.5g}"


def format_accuracy(accuracy: float, kind: AccuracyKind) -> str:
    """Return an accuracy or score with its unit."""
    return f"{accuracy_number(accuracy, kind)}{_UNIT[kind]}"


def architecture_words(config: FasterNetConfig) -> list[str]:
    """Say what a network is built of, one field a line."""
    fields = ("widths", "depths", "partial_ratios", "expansions")
    rows = [(name, " ".join(f"{value:g}" for value in getattr(config, name))) for name in fields]
    return [
        *(f"{name.replace('_', ' ')} {values}" for name, values in rows),
        f"{config.activation}, {config.resolution} px, stem stride {config.stem_stride}",
    ]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as it is shown."""

    number: int
    side: int  # of the map, in its pixels
    width: int
    convolved: int  # channels that PConv convolves
    ratio: float
    depth: int
    hidden: int
    expansion: float


def stages_of(config: FasterNetConfig) -> list[Stage]:
    """Return the stages, the first one first."""
    return [
        Stage(
            number=i + 1,
            side=config.resolution // config.stem_stride // 2**i,
            width=width,
            convolved=config.partial_widths[i],
            ratio=config.partial_ratios[i],
            depth=config.depths[i],
            hidden=config.hidden_widths[i],
            expansion=config.expansions[i],
        )
        for i, width in enumerate(config.widths)
    ]


_CELLS = 12  # of the bar that a stage's channels are
_HEADER = ("", "map", "channels", "PConv convolves", "hidden", "blocks", "MACs")


def rendered(config: FasterNetConfig) -> str:
    """Return a line for the stem, each stage and merging, and the head, under a header."""
    rows = [_HEADER, *_rows(config)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def bar(ratio: float) -> str:
    """Return the channels of a stage as a bar, those that PConv convolves filled."""
    filled = min(max(round(_CELLS * ratio), 1), _CELLS)
    return "\u2588" * filled + "\u2591" * (_CELLS - filled)


def _rows(config: FasterNetConfig) -> list[Sequence[str]]:
    shares, stages, k = _shares(config), stages_of(config), config.stem_stride
    stem = f"3 to {config.widths[0]}", f"conv {k}x{k}, stride {k}"
    rows: list[Sequence[str]] = [("stem", _map(stages[0].side), *stem, "", "", shares["stem"])]
    for i, s in enumerate(stages):
        if i:
            merging = f"{stages[i - 1].width} to {s.width}", "conv 2x2, stride 2"
            share = shares[f"stages.{i}.merging"]
            rows.append(("merging", _map(s.side), *merging, "", "", share))
        blocks = f"{bar(s.ratio)} {s.convolved}", f"{s.hidden} (x{s.expansion:.3g})", str(s.depth)
        share = shares[f"stages.{i}.block"]
        rows.append((f"stage {s.number}", _map(s.side), str(s.width), *blocks, share))
    head = f"pool, conv 1x1, {config.activation}, linear to {config.classes}"
    channels = f"{config.widths[-1]} to {config.head_width}"
    return [*rows, ("head", _map(1), channels, head, "", "", shares["head"])]


def _shares(config: FasterNetConfig) -> dict[str, str]:
    """The share of the MACs by part: stem, stages.0.block, stages.1.merging, ..., head."""
    macs: Counter[str] = Counter()
    for layer in cost_by_layer(config):
        parts = layer.name.split(".")
        macs[".".join(parts[:3]) if parts[0] == "stages" else parts[0]] += layer.macs
    total = macs.total()
    return {part: f"{100 * count / total:.1f} %" for part, count in macs.items()}


def _map(side: int) -> str:
    return f"{side}x{side}"


_DEFAULTS = SearchOptions(device="cpu", budget_ms=1.0)
_ALWAYS = ("space", "trials", "seed", "searcher", "accuracy")  # whatever they are
_TIMING = ("runtime", "precision", "threads")
_UNLESS_DEFAULT = ("parallel", "data", "epochs", "progressive", "weights")
_SPELLED = {"resolutions": "resolution", "activations": "activation"}


def command_of(options: SearchOptions) -> str:
    """Return the command for a shell, one option a line; it begins a new folder."""
    values = options.as_json()
    targets = options.targets
    devices = [("device", target.device) for target in targets]
    given = {"budget": _each(targets, lambda t: f"{str(t.budget_ms).removesuffix('.0')}ms")}
    given |= {name: _word(values[name]) for name in _ALWAYS}
    given |= {name: _shared(targets, name) for name in _TIMING}
    for name in (*_UNLESS_DEFAULT, *_SPELLED):
        if getattr(options, name) != getattr(_DEFAULTS, name):
            given[_SPELLED.get(name, name)] = _word(values[name])
    if options.classes is not None and not options.data:  # else they are the data's
        given["classes"] = str(options.classes)
    lines = [shlex.join([f"--{name}", word]) for name, word in (*devices, *given.items())]
    return " \\\n  ".join(["fasternas search", *lines])


def _each(targets: Sequence[Target], word: Callable[[Target], str]) -> str:
    """A word for each device: pi=10ms,cpu=3ms; of one alone, the word."""
    if len(targets) == 1:
        return word(targets[0])
    return ",".join(f"{target.device}={word(target)}" for target in targets)


def _shared(targets: Sequence[Target], name: str) -> str:
    """What is the same on all devices, once; else for each."""
    values = [str(getattr(target, name)) for target in targets]
    if len(set(values)) == 1:
        return values[0]
    return _each(targets, lambda target: str(getattr(target, name)))


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
