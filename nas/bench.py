"""Benchmarks: many networks timed on one device, kept as they come, gone on with where they ended.

Networks are timed in groups, each beside the same reference networks. A latency is relative to
those, so latencies of different groups, and of runs on different days, are comparable.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from nas.networks import LAYERS, Row, Subject
from nas.quantities import format_count, format_ms
from nas.report import sheet as sheets
from nas.report.sheet import ALARM, GREY, PALETTE, SLIDE, TALL, Box, Label, Look, Obstacle, save
from nas.report.tables import INTERVAL, as_csv
from nas.study import journal
from predictors.backends.model import Model
from predictors.devices.connection import DeviceLostError, OverwhelmedError
from predictors.devices.device import Device
from predictors.devices.profiled import ProfiledDevice
from predictors.devices.registry import KINDS
from predictors.measurement import Latency, TimingProtocol
from search_spaces.extensions import extensions_named
from search_spaces.io import atomic_write, make_folders, reason, remove_empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; the markers say it again.
_OPERATORS: dict[str, Look] = {
    "Conv3x3": {"color": "#555555", "marker": "s"},
    "GConv3x3": {"color": "#009E73", "marker": "^"},
    "DWConv3x3": {"color": "#0072B2", "marker": "v"},
    "PConv3x3": {"color": PALETTE["named"], "marker": "D"},
}
_FAMILIES = ("#0072B2", "#00795A", "#A5447A", "#555555", "#2C6E91", "#8A3B00")  # others' families
_OURS = "FasterNet"
_CROSS: Look = {"linestyle": "none", "marker": "x", "markersize": 9.5, "color": ALARM}
_CROSS["markeredgewidth"] = 1.6
_STEP = 0.13  # between the operators at one size, of the distance between sizes
_ROOM = 0.1  # of the axes at each side, for labels
_COVERED = 1000.0  # the cost of a marker under a label: too much for one that is not required
_HALVES: tuple[Box, Box] = ((0.075, 0.15, 0.41, 0.6), (0.575, 0.15, 0.41, 0.6))
_FLOORS: tuple[Box, Box] = ((0.075, 0.505, 0.905, 0.36), (0.075, 0.065, 0.905, 0.38))


class _Point(NamedTuple):
    """A row in a panel, with the ends of its interval."""

    row: Row
    x: float
    low: float
    y: float
    high: float


def operators_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of the operators: latency of a layer and GFLOPS at each map size."""
    shapes = list(dict.fromkeys(row.subject.model.shape for row in rows))
    known, size = [row for row in rows if row.subject.kind in _OPERATORS], _batch_size(rows)
    layer = f"one layer, batch of {size}," if size > 1 else "one layer"
    with sheets.style():
        figure = sheets.new_figure(SLIDE, operators_title(rows), [device])
        left, right = (figure.add_axes(box) for box in _HALVES)
        _draw_operators(left, [_point(row, _place(row, shapes), _layer_ms) for row in known])
        _draw_operators(right, [_point(row, _place(row, shapes), _gflops) for row in known])
        left.set_title(f"latency of {layer} in ms", loc="left", fontsize=13)
        right.set_title("GFLOPS", loc="left", fontsize=13)
        for axes in (left, right):
            axes.set_xticks(range(len(shapes)), [_map(shape) for shape in shapes])
            axes.set_xlim(-0.5, len(shapes) - 0.5)
            axes.set_xlabel("channels, and height x width of the map")
            axes.grid(visible=False, axis="x")
        left.set_yscale("log")
        sheets.plain_ticks(left.yaxis, left.get_ylim())
        right.set_ylim(bottom=0)
        _explain_marks(left, rows)
        sheets.explain_above(left, SLIDE)
    return figure


def _place(row: Row, shapes: Sequence[Sequence[int]]) -> float:
    """Where an operator lies: about the place of its map size, beside the other operators."""
    aside = list(_OPERATORS).index(row.subject.kind) - (len(_OPERATORS) - 1) / 2
    return shapes.index(row.subject.model.shape) + _STEP * aside


def _draw_operators(axes: "Axes", points: Sequence[_Point]) -> None:
    for kind, look in _OPERATORS.items():
        _draw(axes, points, kind, {**look, "label": kind})


def models_figure(rows: Sequence[Row], *, device: str) -> "Figure":
    """Return the plot of many networks: GFLOPS and latency against MACs (the paper's figure 2).

    Rows without MACs are left out.
    """
    shown = sorted((row for row in rows if row.gflops), key=_macs)
    size = _batch_size(shown)
    latency = f"latency of a batch of {size}" if size > 1 else "latency"
    with sheets.style():
        figure = sheets.new_figure(TALL, models_title(rows), [device])
        upper, lower = (figure.add_axes(box) for box in _FLOORS)
        _draw_models(upper, [_point(row, _macs(row), _gflops) for row in shown])
        _draw_models(lower, [_point(row, _macs(row), _ms) for row in shown], logarithmic=True)
        upper.set_title("GFLOPS", loc="left", fontsize=13)
        lower.set_title(f"{latency} in ms", loc="left", fontsize=13)
        lower.set_xlabel("MACs in G" + (" for one image" if size > 1 else ""))
        _explain_marks(upper, shown)
        sheets.explain_above(upper, TALL)
    return figure


def _draw_models(axes: "Axes", points: Sequence[_Point], *, logarithmic: bool = False) -> None:
    looks = _looks([point.row for point in points])
    for kind, look in looks.items():
        _draw(axes, points, kind, look)
    if points:
        _set_scales(axes, points, logarithmic=logarithmic)
        _write_labels(axes, points, looks)
    else:
        axes.set(xticks=[], yticks=[])


def operators_title(rows: Sequence[Row]) -> str:
    """The finding in one line: how PConv's and DWConv's speed compares with a convolution's."""
    speed = {(row.subject.kind, row.subject.model.shape): row.gflops or 0.0 for row in rows}
    plain = {shape: gflops for (kind, shape), gflops in speed.items() if kind == "Conv3x3"}
    findings = []
    for kind in ("PConv", "DWConv"):
        keys = {shape: (f"{kind}3x3", shape) for shape in plain}
        ratios = [speed[key] / plain[shape] for shape, key in keys.items() if key in speed]
        findings += [f"{kind} at {100 * median(ratios):.0f} %"] if ratios else []
    return f"{', '.join(findings)} of Conv's GFLOPS" if findings else "GFLOPS of operators"


def models_title(rows: Sequence[Row]) -> str:
    """The finding in one line: the range of speeds of FasterNet and of the others."""
    findings = []
    for who, ours in ((_OURS, True), ("the others", False)):
        speeds = [row.gflops for row in rows if row.gflops and (row.subject.kind == _OURS) == ours]
        findings += [f"{who} at {_span(speeds)}"] if speeds else []
    return f"{', '.join(findings)} GFLOPS" if findings else "No network whose MACs are known"


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    """How each family looks; FasterNet comes last, so that it lies on top."""
    kinds = dict.fromkeys(row.subject.kind for row in rows)
    thin: Look = {"linewidth": 0.8, "markersize": 6}
    looks = {
        kind: {"color": _FAMILIES[i % len(_FAMILIES)], "marker": "osv^P"[i % 5], **thin}
        for i, kind in enumerate(kind for kind in kinds if kind != _OURS)
    }
    ours: Look = {"marker": "D", "linewidth": 2.6, "markersize": 8, "label": _OURS}
    return looks | {_OURS: {**ours, "color": PALETTE["named"]}} if _OURS in kinds else looks


def _draw(axes: "Axes", points: Sequence[_Point], kind: str, look: Look) -> None:
    """Connected points with a bar for each interval, and a cross on what was unstable."""
    own = [point for point in points if point.row.subject.kind == kind]
    if not own:
        return
    x = [point.x for point in own]
    axes.plot(x, [point.y for point in own], **{"linewidth": 1.2, "markersize": 7, **look})
    ends = [point.low for point in own], [point.high for point in own]
    axes.vlines(x, *ends, colors=look["color"], linewidth=2.2, alpha=0.6)
    crosses = [point for point in own if point.row.latency and point.row.latency.unstable]
    axes.plot([p.x for p in crosses], [p.y for p in crosses], zorder=5, **_CROSS)


def _explain_marks(axes: "Axes", rows: Sequence[Row]) -> None:
    """Entries of the legend for what all have in common."""
    axes.plot([], [], color=GREY, linewidth=2.2, label=_interval(rows))
    if any(row.latency and row.latency.unstable for row in rows):
        axes.plot([], [], label="unstable timing", **_CROSS)


def _interval(rows: Sequence[Row]) -> str:
    """What the intervals hold; those of a profile are as wide as the error that was found."""
    predicted = any(row.latency and row.latency.source == "predicted" for row in rows)
    return "interval: error found" if predicted else INTERVAL


def _set_scales(axes: "Axes", points: Sequence[_Point], *, logarithmic: bool) -> None:
    """Room for labels at the sides."""
    x = _with_room([point.x for point in points])
    axes.set(xscale="log", xlim=x)
    sheets.plain_ticks(axes.xaxis, x)
    ends = [end for point in points for end in (point.low, point.high)]
    if logarithmic:
        y = _with_room(ends)
        axes.set(yscale="log", ylim=y)
        sheets.plain_ticks(axes.yaxis, y)
    else:
        room = 0.12 * max(ends)
        axes.set_ylim(max(min(ends) - room, 0), max(ends) + room)


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max((high / low) ** _ROOM, 1.2)
    return low / room, high * room


def _write_labels(axes: "Axes", points: Sequence[_Point], looks: Mapping[str, Look]) -> None:
    """Name the networks, FasterNet's sizes first; others only where no marker is in the way."""
    ours, others, obstacles = [], [], [Obstacle(p.x, p.y, _COVERED) for p in points]
    for kind in looks:
        own = [p for p in points if p.row.subject.kind == kind]
        obstacles += [Obstacle(x, y, 4) for x, y in _along(own)]
    for p in points:
        subject = p.row.subject
        if subject.kind == _OURS:
            ours.append(Label(x=p.x, y=p.y, text=subject.label, colour=PALETTE["named-text"]))
        else:
            colour = looks[subject.kind]["color"]
            others.append(Label(x=p.x, y=p.y, text=subject.label, colour=colour, required=False))
    sheets.place_labels(axes, [*ours, *others], obstacles)


def _along(points: Sequence[_Point]) -> list[tuple[float, float]]:
    """Points along the lines between those given."""
    return [
        (float(x), float(y))
        for a, b in pairwise(points)
        for x, y in zip(np.geomspace(a.x, b.x, 16), np.geomspace(a.y, b.y, 16), strict=True)
    ]


def _point(row: Row, x: float, quantity: Callable[[Row, float], float]) -> _Point:
    """A row at x and, at its latency in ms, the height that the quantity says."""
    name, latency = row.subject.model.name, row.latency
    if latency is None:
        raise ValueError(f"`rows` must have latencies, but {name} has none. Leave it out.")
    ends_ms = (latency.low_ms, latency.median_ms, latency.high_ms)
    return _Point(row, x, *(quantity(row, ms) for ms in ends_ms))


def _macs(row: Row) -> float:
    """In 10^9."""
    return (row.subject.model.macs or 0) / 1e9


def _ms(_: Row, ms: float) -> float:
    return ms


def _layer_ms(_: Row, ms: float) -> float:
    return ms / LAYERS


def _gflops(row: Row, ms: float) -> float:
    return row.subject.model.gflops(ms) or 0.0


def _batch_size(rows: Sequence[Row]) -> int:
    """How many images all of them take at once."""
    return max((row.subject.model.batch_size for row in rows), default=1)


def _map(shape: Sequence[int]) -> str:
    channels, *sides = shape
    return f"{channels}\n{'x'.join(map(str, sides))}"


def _span(numbers: Sequence[float]) -> str:
    low, high = f"{min(numbers):.0f}", f"{max(numbers):.0f}"
    return low if low == high else f"{low} to {high}"


JOURNAL = "bench.jsonl"
GROUP = TimingProtocol().group  # networks that are timed beside one another
Topic = Literal["operators", "models"]
_FIGURES = {"operators": operators_figure, "models": models_figure}


def bench(
    subjects: Sequence[Subject],
    device: Device,
    folder: Path,
    *,
    repeats: int | None = None,
    cores: Sequence[int] = (),
) -> Iterator[Row]:
    """Time the networks; the iterator yields a row for each, those first that the folder holds.

    `cores` are those that the device was opened on, if they were asked for.

    Each measurement is appended to the folder's journal before its row is yielded; those of one
    group come together. A network that cannot be exported or run has a row that says why, and the
    rest goes on.
    """
    about = _about(device, cores)
    kept = kept_measurements(folder, about)
    return _rows(subjects, device, folder, kept, about=about, repeats=repeats)


def _about(device: Device, cores: Sequence[int]) -> str:
    """What a measurement must be of to be the device's: boards may be alike but for their names."""
    pinned = f", cores {','.join(map(str, cores))}" if cores else ""
    name = "" if device.name in KINDS else f"{device.name}: "
    return f"{name}{device.description}{pinned}"


def in_order(rows: Sequence[Row], subjects: Sequence[Subject]) -> list[Row]:
    """Return the rows in the order of the subjects."""
    by_identity: Mapping[str, Row] = {row.subject.model.identity: row for row in rows}
    return [by_identity[subject.model.identity] for subject in subjects]


def _rows(
    subjects: Sequence[Subject],
    device: Device,
    folder: Path,
    kept: Mapping[str, Latency],
    *,
    about: str,
    repeats: int | None,
) -> Iterator[Row]:
    for subject in subjects:
        if subject.model.identity in kept:
            latency = kept[subject.model.identity]
            yield Row(subject=counted(subject, device), latency=latency, done=True)
    waiting = [subject for subject in subjects if subject.model.identity not in kept]
    made = make_folders(folder)  # before minutes are spent on what it could not hold
    try:
        for row in _time_each(waiting, device, repeats, nothing_kept=not kept):
            if row.latency is not None:
                keep_measurement(folder, about, row.subject.model, row.latency)
            yield row
    finally:
        remove_empty(made)


def _time_each(
    subjects: Sequence[Subject], device: Device, repeats: int | None, *, nothing_kept: bool
) -> Iterator[Row]:
    """Time group by group; where nothing was kept, one network of the first must be possible."""
    for start in range(0, len(subjects), GROUP):
        group = subjects[start : start + GROUP]
        failed = []
        for row in time_beside(group, device, repeats):
            failed += [row.failed] if row.failed else []
            yield row
        if nothing_kept and len(failed) == len(group) > 1:
            raise RuntimeError(
                f"`device` must be able to time one of {len(group)} networks, but {device.name} "
                f"could time none; the first: {failed[0]}"
            )
        nothing_kept = False


def time_beside(
    group: Sequence[Subject], device: Device, repeats: int | None = None
) -> Iterator[Row]:
    """Time networks beside one another; where that fails each half, down to those that fail."""
    done = 0
    try:
        with extensions_named():
            for subject, latency in _timed(group, device, repeats):
                yield Row(subject=counted(subject, device), latency=latency)
                done += 1
    except OverwhelmedError as error:  # by one of them, it may be
        why = reason(error)
    except DeviceLostError:
        raise
    except Exception as error:  # exporters raise whatever they like
        why = reason(error)
    left = group[done:]
    if len(left) == 1:
        yield Row(subject=left[0], failed=why)
    elif left:
        half = len(left) // 2
        yield from time_beside(left[:half], device, repeats)
        yield from time_beside(left[half:], device, repeats)


def _timed(
    group: Sequence[Subject], device: Device, repeats: int | None
) -> Iterator[tuple[Subject, Latency]]:
    models = [subject.model for subject in group]
    return zip(group, device.measure_each(models, repeats=repeats), strict=True)


def counted(subject: Subject, device: Device) -> Subject:
    """The network with the multiply-accumulates that a profile counted, where it has none."""
    model = subject.model
    if model.macs is not None or not isinstance(device, ProfiledDevice):
        return subject
    macs = sum(part.macs for part in device.parts(model))
    return replace(subject, model=replace(model, macs=macs))


def keep_measurement(folder: Path, device: str, model: Model, latency: Latency) -> None:
    """Append a measurement with all its samples; `device` is the device's description."""
    entry = {"identity": model.identity, "device": device, "measurement": latency.as_json()}
    journal.append(folder / JOURNAL, [entry])


def kept_measurements(folder: Path, device: str) -> dict[str, Latency]:
    """Return what the folder holds of the device of that description, by the models' identities.

    A last line that was cut off is dropped: its network is timed again.
    """
    path = folder / JOURNAL
    journal.repair(path)
    found = {}
    for number, entry in enumerate(journal.read(path), start=1):
        try:
            if entry["device"] == device:
                found[entry["identity"]] = Latency.from_json(entry["measurement"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Line {number} of {path} must be a measurement, but is none: {error}. Delete that "
                "line to lose that measurement only."
            ) from None
    return found


def default_folder(topic: Topic, device: str, *setting: str) -> Path:
    """bench/DEVICE-TOPIC, with the setting between; without signs that some disks refuse."""
    return Path("bench") / plain_name(device, *setting, topic)


def plain_name(*words: str) -> str:
    """Return the words joined as the name of a file, without signs that some disks refuse."""
    return re.sub(r"[^\w.]+", "-", "-".join(words)).strip("-.")


def write_bench(folder: Path, topic: Topic, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write TOPIC.csv, TOPIC.json and, if anything was timed, TOPIC.png.

    `facts` are those of the machine, with its one device.
    """
    records = [row.as_json() for row in rows]
    atomic_write(folder / f"{topic}.csv", as_csv(records[0], records))
    document = {"machine": facts, "rows": records}
    atomic_write(folder / f"{topic}.json", json.dumps(document, indent=2) + "\n")
    timed = [row for row in rows if row.latency is not None]
    if timed:
        (device,) = facts["devices"].values()
        save(_FIGURES[topic](timed, device=device["description"]), folder / f"{topic}.png")


def bench_table(topic: Topic, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read; operators have latencies a layer."""
    layers = LAYERS if topic == "operators" else 1
    unit = "ms a layer" if layers > 1 else "latency ms"
    header = [topic.removesuffix("s"), unit, _interval(rows), "source", "MACs", "GFLOPS", "params"]
    return header, [_cells(row, layers) for row in rows]


def _cells(row: Row, layers: int) -> list[str]:
    model, m = row.subject.model, row.latency
    macs, params = (
        "-" if count is None else format_count(count / layers)
        for count in (model.macs, model.params)
    )
    if m is None:
        return [model.name, "-", "-", f"failed: {row.failed}", macs, "-", params]
    low, middle, high = (format_ms(ms / layers) for ms in (m.low_ms, m.median_ms, m.high_ms))
    speed = "-" if row.gflops is None else format_ms(row.gflops)
    source = m.source + (", unstable" if m.unstable else "")
    return [model.name, middle, f"{low} - {high}", source, macs, speed, params]
