"""Networks as text: their latencies, costs and stages in words, and the tables of them."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from nas.candidates import Candidate
from nas.quantities import format_bytes, format_count, format_ms
from predictors.accuracy import AccuracyKind
from predictors.cost import NO_LIMITS, Limits, cost
from predictors.devices.device import threads_of
from predictors.measurement import CONFIDENCE, Backend, Latencies, Latency, Ratio, Source
from search_spaces.fasternet import INGREDIENTS, FasterNetConfig
from search_spaces.fasternet_layers import stem_side

if TYPE_CHECKING:  # it imports torch
    from predictors.training.evaluate import ValidationSplit

Unit = Literal["ms", "ratio"]
INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
NUMBER = {
    "estimated": "estimated top-1",
    "score": "training-free score",
    "trained": "accuracy",
}
HEADING: dict[Unit, str] = {"ms": "latency ms", "ratio": "worst ratio"}
HEADINGS = {
    "estimated": "estimated top-1 %",
    "score": "training-free score",
    "trained": "accuracy %",
}
LARGEST_CLASS = "largest class %"  # what always guessing it reaches
_COMMENTS = {
    "estimated": "estimated ImageNet-1k top-1 in %",
    "score": "training-free score",
    "trained": "accuracy",
}
_BACKEND = ("runtime", "precision")
_ENDS = ("accuracy_low", "accuracy_high")
_COSTS = ("macs", "params", "file_bytes", "memory_bytes")


class Reading(NamedTuple):
    """A latency on a device in ms or, of several devices, the worst latency/budget ratio."""

    device: str  # none of a ratio
    unit: Unit
    median: float
    low: float
    high: float
    source: Source
    unstable: bool
    run_in: Backend | None = None  # none of a ratio, nor of a prediction for several backends

    @property
    def quantity(self) -> str:
        return f"{format_ms(self.median)} {'ms' if self.unit == 'ms' else 'of a budget'}"

    @property
    def origin(self) -> str:
        """Where it is from, and whether the timing was unstable; of a ratio its parts say so."""
        return self.source + (", unstable" if self.unstable and self.unit == "ms" else "")

    @property
    def backend(self) -> str:
        """The runtime and the precision, where they are known."""
        return f"{self.run_in.runtime} {self.run_in.precision}" if self.run_in else ""

    @property
    def words(self) -> str:
        """All of it but where it is from: 9.1 ms [8.9 to 9.3]."""
        return f"{self.quantity} [{format_ms(self.low)} to {format_ms(self.high)}]"

    @property
    def origin_words(self) -> str:
        """Where it is from, and the backend where that is not the usual one."""
        usual = self.backend in ("", "onnxruntime fp32")
        return self.origin + ("" if usual else f" in {self.backend}")


Readings = tuple[Reading, ...]  # of one network: of several devices the ratio, then each


def readings_of(latencies: Latencies, ratio: Ratio | None = None) -> Readings:
    """Return the latency on each device and, of several, before them the worst ratio."""
    on_each = tuple(map(reading_of, latencies.by_device.values()))
    if ratio is None or len(on_each) == 1:
        return on_each
    ends, stable = (ratio.median, ratio.low, ratio.high), (latencies.source, latencies.unstable)
    return (Reading("", "ratio", *ends, *stable), *on_each)


def on_devices(readings: Readings) -> Readings:
    """Return the latencies in milliseconds alone."""
    return tuple(one for one in readings if one.unit == "ms")


def reading_of(latency: Latency) -> Reading:
    """Return a latency on one device."""
    ends_ms = latency.median_ms, latency.low_ms, latency.high_ms
    stable = latency.source, latency.unstable
    return Reading(latency.device, "ms", *ends_ms, *stable, latency.backend)


def latency_words(readings: Readings) -> str:
    """Return a latency with its interval and where it is from; of several devices, each."""
    first, *parts = [f"{one.words} {one.origin_words}" for one in readings]
    names = [one.device for one in readings[1:]]
    return "; ".join([first, *map(": ".join, zip(names, parts, strict=True))])


def predicted_words(latencies: Sequence[Readings]) -> str:
    """Say how many are predicted and, of several devices, on which; nothing if none is."""
    if all(readings[0].source == "measured" for readings in latencies):
        return ""
    columns = [list(column) for column in zip(*map(on_devices, latencies), strict=True)]
    columns.sort(key=lambda column: all(one.source == "measured" for one in column))
    return "; ".join(_predicted_on(column, several=len(columns) > 1) for column in columns)


def _predicted_on(column: Sequence[Reading], *, several: bool) -> str:
    predicted, every = sum(one.source == "predicted" for one in column), len(column)
    where = f" on {column[0].device}" if several else ""
    if not predicted:
        return f"those{where} are measured"
    count = "Latencies" if predicted == every else f"{predicted} of {every} latencies"
    return f"{count}{where} PREDICTED, not measured"


def backends_differ(latencies: Sequence[Readings]) -> bool:
    """Whether backends are to be shown: several on a device, or another precision than fp32."""
    known = [one for readings in latencies for one in on_devices(readings) if one.run_in]
    backends = {(one.device, one.backend) for one in known}
    devices = {device for device, _ in backends}
    return len(backends) > len(devices) or any(not b.endswith(" fp32") for _, b in backends)


def count_words(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """Return a share in percent for a table; a dash where it is not known."""
    return "-" if share is None else f"{share:.2f}"


def accuracy_number(accuracy: float, kind: AccuracyKind, *, decimals: int = 2) -> str:
    """Return it without a unit: an estimate is not exact."""
    if kind == "score":
        return f"{accuracy:.3g}"
    return f"{accuracy:.{1 if kind == 'estimated' else decimals}f}"


def architecture_words(config: FasterNetConfig) -> list[str]:
    """Say what a network is built of, one field a line."""
    ingredients = [name for name in INGREDIENTS if name in config.unpublished]
    lines = []
    for name in ("widths", "depths", "partial_ratios", "expansions", *ingredients):
        values = " ".join(map(_value_words, getattr(config, name)[: config.stages]))
        lines.append(f"{name.replace('_', ' ')} {values}")
    activations = " ".join(dict.fromkeys((*_activations_of(config), config.activation)))
    stem = f"stem stride {config.stem_stride}{', two 3x3' if config.stem == 'convs' else ''}"
    head = f"head {config.head_width}" if config.head_width else "no head"
    return [*lines, f"{activations}, {config.resolution} px, {stem}, {head}"]


def _value_words(value: object) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _activations_of(config: FasterNetConfig) -> tuple[str, ...]:
    return config.stage_activations[: config.stages]


class StageRow(NamedTuple):
    """A stage as it is shown."""

    number: int
    side: int  # of the map, in its pixels
    width: int
    convolved: int  # channels that are mixed over space: all of them where PConv is fused
    ratio: float
    depth: int
    hidden: int
    expansion: float
    fused: bool  # PConv and the first 1x1 are one convolution
    attention: bool  # in the place of the partial convolution
    gate: bool  # on the other channels
    star: bool
    ingredients: tuple[str, ...]  # in words, those unlike FasterNet as it was published


def stages_of(config: FasterNetConfig) -> list[StageRow]:
    """Return the stages, the first one first."""
    return [_stage_of(config, i) for i in range(config.stages)]


def _stage_of(config: FasterNetConfig, i: int) -> StageRow:
    width, fused = config.widths[i], config.expands[i] == "fused"
    convolved = width if fused else config.partial_widths[i]
    row = StageRow(
        number=i + 1,
        side=stem_side(config.resolution, config.stem_stride, config.stem) // 2**i,
        width=width,
        convolved=convolved,
        ratio=1.0 if fused else config.partial_ratios[i],
        depth=config.depths[i],
        hidden=config.hidden_widths[i],
        expansion=config.expansions[i],
        fused=fused,
        attention=config.mixers[i] == "attention" and not fused,
        gate=config.untouched[i] == "gate" and convolved < width,
        star=config.mlps[i] == "star",
        ingredients=(),
    )
    return row._replace(ingredients=tuple(_ingredients(config, row)))


def _ingredients(config: FasterNetConfig, row: StageRow) -> Iterator[str]:
    """Say what a stage has that none of FasterNet as it was published has."""
    i = row.number - 1
    kernel, groups = config.kernels[i], config.partial_groups[i]
    side = f"{kernel}x{kernel}"
    if row.fused:
        yield f"fused {side}"
    elif row.attention:
        yield f"attention on {row.convolved}"
    else:
        yield from [f"kernel {side}"] * (kernel != INGREDIENTS["kernels"])
        yield from [count_words(groups, "group")] * (groups != INGREDIENTS["groups"])
    yield from [f"gate on {row.width - row.convolved}"] * row.gate
    yield from ["star"] * row.star
    if len({*_activations_of(config), config.activation}) > 1:
        yield config.stage_activations[i]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network as it is shown; `x` is its latency or, of several devices, its worst ratio."""

    name: str
    config: FasterNetConfig
    accuracy: float
    accuracy_kind: AccuracyKind
    fp32_accuracy: float
    readings: Readings
    ratio: Ratio
    macs: int
    params: int
    file_bytes: int  # as estimated
    memory_bytes: int  # of activations, at the peak, as computed
    feasible: bool
    on_front: bool = False
    largest_class: float | None = None  # of trained ones: what always guessing it reaches, in %
    accuracy_ends: tuple[float, float] | None = None  # 90 % of an estimate, 95 % of a training

    @property
    def x(self) -> float:
        """Where it lies on the latency axis."""
        return self.readings[0].median

    @property
    def measured(self) -> bool:
        """Whether a clock gave all of its latencies."""
        return self.readings[0].source == "measured"

    @property
    def unstable(self) -> bool:
        return self.readings[0].unstable

    @property
    def accuracy_words(self) -> str:
        """The accuracy or score without its unit; the named sizes may have none."""
        if math.isnan(self.accuracy):
            return "\u2013"
        if self.accuracy_ends is None:
            return accuracy_number(self.accuracy, self.accuracy_kind)
        width = self.accuracy_ends[1] - self.accuracy_ends[0]
        number, low, high = (
            accuracy_number(value, self.accuracy_kind, decimals=1 if width >= 2 else 2)
            for value in (self.accuracy, *self.accuracy_ends)
        )
        return f"{number} [{low} to {high}]"

    @property
    def bytes_moved(self) -> int:
        return cost(self.config).memory_bytes

    @property
    def words(self) -> list[str]:
        """Its accuracy with its unit, its latency, and its costs."""
        number = f"{self.accuracy_words}{' %' * (self.accuracy_kind != 'score')}"
        costs = f"{format_count(self.macs)} MACs, {format_count(self.params)} parameters"
        return [f"{NUMBER[self.accuracy_kind]} {number}", latency_words(self.readings), costs]

    @property
    def summary(self) -> str:
        return "; ".join(self.words)

    def lines(self, name: str) -> str:
        """Everything, one thing a line."""
        accuracy, latency, costs = self.words
        known = [] if math.isnan(self.accuracy) else [accuracy]
        costs += f", {format_count(self.bytes_moved)} bytes moved"
        return "\n".join([name, *known, latency, costs, *architecture_words(self.config)])


def are_published(sizes: Sequence[Network]) -> bool:
    """Whether accuracies of the named sizes beside estimates are those that were published."""
    kinds = {c.accuracy_kind for c in sizes}
    return kinds == {"estimated"} and all(c.accuracy_ends is None for c in sizes)


def network_of(candidate: Candidate, judged_by: "ValidationSplit | None" = None) -> Network:
    """Return a network of a run as it is shown; trained ones are `judged_by` so many images."""
    candidate = _from_zero(candidate)
    fp32, ends = candidate.fp32_accuracy, candidate.accuracy_ends
    if judged_by is not None:
        ends = judged_by.interval(candidate.accuracy)
    return Network(
        name=candidate.name,
        config=candidate.config,
        accuracy=candidate.accuracy,
        accuracy_kind=candidate.accuracy_kind,
        fp32_accuracy=candidate.accuracy if fp32 is None else fp32,
        readings=readings_of(candidate.latencies, candidate.ratio),
        ratio=candidate.ratio,
        macs=candidate.macs,
        params=candidate.params,
        file_bytes=candidate.file_bytes,
        memory_bytes=candidate.memory_bytes,
        feasible=candidate.feasible,
        on_front=candidate.on_front,
        largest_class=None if judged_by is None else judged_by.largest_class,
        accuracy_ends=ends,
    )


def _from_zero(candidate: Candidate) -> Candidate:
    """The candidate with no estimate below 0 %: of networks that are far from all known ones."""
    if candidate.accuracy_kind != "estimated":
        return candidate
    fp32, ends = candidate.fp32_accuracy, candidate.accuracy_ends
    return replace(
        candidate,
        accuracy=_no_less(candidate.accuracy),
        fp32_accuracy=None if fp32 is None else _no_less(fp32),
        accuracy_ends=None if ends is None else (_no_less(ends[0]), _no_less(ends[1])),
    )


def _no_less(percent: float) -> float:
    return percent if math.isnan(percent) else max(percent, 0.0)


SIDE = "px"  # the heading of the side of the image

# Columns that are shown where there is such a limit: their headings, and what is in them.
LIMITED = {"file_bytes": "file (estimated)", "memory_bytes": "memory"}


def table(
    networks: Sequence[Network], limits: Limits = NO_LIMITS
) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read."""
    limited = [name for name in LIMITED if name in limits.given]
    kind = networks[0].accuracy_kind if networks else "estimated"
    latencies = [c.readings for c in networks]
    backends = backends_differ(latencies)
    guess = [LARGEST_CLASS] * knows_largest_class(networks)
    timed = _headings(latencies, backends=backends)
    sides = [SIDE] * sides_differ(networks)
    header = ["config", HEADINGS[kind], *guess, *timed, *sides, "MACs", "params"]
    lines = []
    for c in networks:
        accuracies = [c.accuracy_words, *(percent(c.largest_class) for _ in guess)]
        costs = [*(str(c.config.resolution) for _ in sides)]
        costs += [format_count(c.macs), format_count(c.params)]
        costs += [format_bytes(getattr(c, name)) for name in limited]
        lines.append([c.name, *accuracies, *_cells(c.readings, backends=backends), *costs])
    return header + [LIMITED[name] for name in limited], lines


def sides_differ(networks: Sequence[Network]) -> bool:
    """Whether the networks are for images of several sizes."""
    return len({c.config.resolution for c in networks}) > 1


def knows_largest_class(networks: Sequence[Network]) -> bool:
    """Whether tables of these networks say what always guessing the largest class reaches."""
    return any(c.largest_class is not None for c in networks)


def rows(networks: Sequence[Network]) -> list[dict[str, str | float]]:
    """Return the networks as flat records, for JSON and CSV."""
    return [
        {
            "config": f"configs/{c.name}.yaml",
            "accuracy": c.accuracy,
            **dict(zip(_ENDS, c.accuracy_ends or (), strict=False)),
            "accuracy_kind": c.accuracy_kind,
            "fp32_accuracy": c.fp32_accuracy,
            **({} if c.largest_class is None else {"largest_class": c.largest_class}),
            **latency_values(c.readings),
            "ratio": c.ratio.median,
            "ratio_low": c.ratio.low,
            "ratio_high": c.ratio.high,
            **{name: getattr(c, name) for name in _COSTS},
            "resolution": c.config.resolution,
        }
        for c in networks
    ]


def csv_text(networks: Sequence[Network], devices: Sequence[str]) -> str:
    """Return the records as CSV; `devices` are those of the study."""
    ends = _ENDS if any(c.accuracy_ends for c in networks) else ()
    first = ["config", "accuracy", *ends, "accuracy_kind", "fp32_accuracy"]
    first += ["largest_class"] * knows_largest_class(networks)
    last = ("ratio", "ratio_low", "ratio_high", *_COSTS, "resolution")
    return as_csv((*first, *latency_columns(devices), *last), rows(networks))


def as_csv(columns: Iterable[str], records: Iterable[Mapping[str, object]]) -> str:
    """Return records as CSV; what one of them lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def latency_columns(devices: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a latency's columns, on each of several devices."""
    if len(devices) == 1:
        return ("latency_ms", "low_ms", "high_ms", "source", *_BACKEND)
    fields = ("ms", "low_ms", "high_ms", "source", *_BACKEND)
    return tuple(f"{name}_{field}" for name in devices for field in fields)


def latency_values(readings: Readings) -> dict[str, str | float]:
    """Return what is in these columns."""
    values: list[str | float] = []
    for one in on_devices(readings):
        values += [one.median, one.low, one.high, one.source]
        values += [one.run_in.runtime, one.run_in.precision] if one.run_in else ["", ""]
    names = latency_columns([one.device for one in on_devices(readings)])
    return dict(zip(names, values, strict=True))


def _headings(latencies: Sequence[Readings], *, backends: bool) -> list[str]:
    """What heads the columns of latencies on the same devices."""
    if not latencies:
        return [HEADING["ms"], INTERVAL, "source"]
    headings: list[str] = []
    for i, column in enumerate(zip(*latencies, strict=True)):
        name = f"{column[0].device} ms" if i else HEADING[column[0].unit]
        measured = all(one.source == "measured" for one in column)
        headings += [name, INTERVAL if measured else "interval", "source"]
        headings += ["in"] * (backends and column[0].unit == "ms")
    return headings


def _cells(readings: Readings, *, backends: bool) -> list[str]:
    cells: list[str] = []
    for one in readings:
        interval = f"{format_ms(one.low)} - {format_ms(one.high)}"
        cells += [format_ms(one.median), interval, one.origin]
        cells += [one.backend] * (backends and one.unit == "ms")
    return cells


def config_comment(network: Network) -> str:
    """Return what a config file should say of the network: its accuracy, and how it was timed."""
    number = network.accuracy_words
    latencies = "; ".join(
        f"{one.median:.4g} ms [{one.low:.4g}, {one.high:.4g}] {one.source} on {one.device}"
        f"{_backend_comment(one.run_in)}"
        for one in on_devices(network.readings)
    )
    return f"{_COMMENTS[network.accuracy_kind]} {number}; {latencies}"


def _backend_comment(backend: Backend | None) -> str:
    if backend is None:
        return ""
    precision = "" if backend.precision == "fp32" else f" in {backend.precision}"
    return f", {backend.runtime}{precision}, {threads_of(backend.threads)}"
