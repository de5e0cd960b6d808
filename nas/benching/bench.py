"""Benchmarks: many networks timed on one device, kept as they come, gone on with where they ended.

Networks are timed in groups, each beside the same reference networks. A latency is relative to
those, so latencies of different groups, and of runs on different days, are comparable.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.benching.bench_journal import keep_measurement, kept_measurements
from nas.benching.bench_row import Row
from nas.benching.bench_subjects import Subject
from predictors.devices.connection import DeviceLostError, OverwhelmedError
from predictors.devices.device import Device
from predictors.measurement import Latency, TimingProtocol
from search_spaces.io import make_folders, remove_empty

GROUP = TimingProtocol().group  # networks that are timed beside one another


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
    subjects: Sequence[Subject], device: Device, folder: Path, kept: Mapping[str, Latency],
    repeats: int | None,
) -> Iterator[Row]:  # fmt: skip
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
    models: Sequence[Any] = [subject.model for subject in group]
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
