"""Benchmarks: many networks timed on one device, kept as they come, gone on with where they ended.

Networks are timed in groups, each beside the same reference networks. A latency is relative to
those, so latencies of different groups, and of runs on different days, are comparable.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from nas.networks import LAYERS, Row, Subject
from nas.quantities import format_count, format_ms
from nas.report.bench_figures import models_figure, operators_figure
from nas.report.sheet import save
from nas.study import journal
from predictors.backends.model import Model
from predictors.devices.connection import DeviceLostError, OverwhelmedError
from predictors.devices.device import Device
from predictors.measurement import Latency, TimingProtocol
from search_spaces.io import atomic_write, make_folders, remove_empty

JOURNAL = "bench.jsonl"
GROUP = TimingProtocol().group  # networks that are timed beside one another
Topic = Literal["operators", "models"]
_FIGURES = {"operators": operators_figure, "models": models_figure}


def bench(
    subjects: Sequence[Subject], device: Device, folder: Path, *, repeats: int | None = None
) -> Iterator[Row]:
    """Time the networks; the iterator yields a row for each, those first that the folder holds.

    Each measurement is appended to the folder's journal before its row is yielded; those of one
    group come together. A network that cannot be exported or run has a row that says why, and the
    rest goes on.

    Raises:
        ValueError: if the device's latencies are not measured, or the journal is corrupt.
        RuntimeError: while iterating, if the device is out of reach, or of several networks in a
            group none can be timed: then it is the device that fails.
        OSError: if the folder cannot be written.
    """
    check_timed(device)
    kept = kept_measurements(folder, device.description)
    return _rows(subjects, device, folder, kept, repeats)


def check_timed(device: Device) -> None:
    """Refuse a device that has no clock.

    Raises:
        ValueError: if its latencies are predicted.
    """
    if device.source != "measured":
        raise ValueError(
            f"`device` must be one that is timed, but {device.name} is a profile, which knows no "
            "networks but FasterNet's. Use --device cpu, or attach a board with `fasternas devices "
            "add NAME --ssh USER@HOST`."
        )


def in_order(rows: Sequence[Row], subjects: Sequence[Subject]) -> list[Row]:
    """Return the rows in the order of the subjects."""
    by_identity: Mapping[str, Row] = {row.subject.model.identity: row for row in rows}
    return [by_identity[subject.model.identity] for subject in subjects]


def _rows(
    subjects: Sequence[Subject],
    device: Device,
    folder: Path,
    kept: Mapping[str, Latency],
    repeats: int | None,
) -> Iterator[Row]:
    for subject in subjects:
        if subject.model.identity in kept:
            yield Row(subject=subject, latency=kept[subject.model.identity], done=True)
    waiting = [subject for subject in subjects if subject.model.identity not in kept]
    with _made(folder):
        for row in _time_each(waiting, device, repeats):
            if row.latency is not None:
                keep_measurement(folder, device.description, row.subject.model, row.latency)
            yield row


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, before minutes are spent on what it could not hold; drop it if it is empty."""
    made = make_folders(folder)
    try:
        yield
    finally:
        remove_empty(made)


def _time_each(subjects: Sequence[Subject], device: Device, repeats: int | None) -> Iterator[Row]:
    """Time group by group; of several networks in a group one at least must be possible."""
    for start in range(0, len(subjects), GROUP):
        group = subjects[start : start + GROUP]
        failed = []
        for row in _time_beside(group, device, repeats):
            failed += [row.failed] if row.failed else []
            yield row
        if len(failed) == len(group) > 1:
            raise RuntimeError(
                f"`device` must be able to time one of {len(group)} networks, but {device.name} "
                f"could time none; the first: {failed[0]}"
            )


def _time_beside(group: Sequence[Subject], device: Device, repeats: int | None) -> Iterator[Row]:
    """Time networks beside one another; where that fails each half, down to those that fail."""
    models = [subject.model for subject in group]
    try:
        found = list(device.measure_each(models, repeats=repeats))
    except OverwhelmedError as error:  # by one of them, it may be
        reason = _reason(error)
    except DeviceLostError:
        raise
    except Exception as error:  # exporters raise whatever they like
        reason = _reason(error)
    else:
        for subject, latency in zip(group, found, strict=True):
            yield Row(subject=subject, latency=latency)
        return
    if len(group) == 1:
        yield Row(subject=group[0], failed=reason)
        return
    half = len(group) // 2
    yield from _time_beside(group[:half], device, repeats)
    yield from _time_beside(group[half:], device, repeats)


def _reason(error: Exception) -> str:
    """The first line of what an error says, or what it is called."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else type(error).__name__


def keep_measurement(folder: Path, device: str, model: Model, latency: Latency) -> None:
    """Append a measurement with all its samples; `device` is the device's description.

    Raises:
        OSError: if it cannot be written.
    """
    entry = {"identity": model.identity, "device": device, "measurement": latency.as_json()}
    journal.append(folder / JOURNAL, [entry])


def kept_measurements(folder: Path, device: str) -> dict[str, Latency]:
    """Return what the folder holds of the device of that description, by the models' identities.

    A last line that was cut off is dropped: its network is timed again.

    Raises:
        ValueError: if another line is no such measurement; the message says which.
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

    Raises:
        OSError: if a file cannot be written; one of before is then as it was.
    """
    records = [row.as_json() for row in rows]
    atomic_write(folder / f"{topic}.csv", _csv(records))
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
    header = [topic.removesuffix("s"), unit, "95 % interval", "source", "MACs", "GFLOPS", "params"]
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


def _csv(records: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
