"""`fasternas measure`: the latency of networks on a device, side by side."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nas.bench import (
    GROUP,
    Topic,
    bench,
    bench_table,
    check_timed,
    default_folder,
    in_order,
    write_bench,
)
from nas.cli.arguments import add_action, add_json, word
from nas.cli.progress import print_table
from nas.cli.specs import add_device, add_timing, open_asked
from nas.networks import Row, Subject, find_network, model_subjects, operator_subjects
from nas.quantities import format_count, format_ms
from nas.report.tables import backends_differ, reading_of
from predictors.backends.model import Model, batched
from predictors.devices.device import HOW_TO_ATTACH, Device
from predictors.measurement import Latency, compare
from search_spaces.fasternet import FASTERNET

Timed = tuple[Model, Latency]


def add_measure_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas measure` takes."""
    text = "a config or ONNX file, t0 to l, a timm model, NAME@PX"
    parser.add_argument("networks", metavar="NETWORK", nargs="+", help=text)
    add_device(parser)
    add_timing(parser)
    add_json(parser)


def run_measure(arguments: argparse.Namespace) -> int:
    """Time the networks, print a table, and compare the first with the others."""
    models = [batched(find_network(name), arguments.batch) for name in arguments.networks]
    device = open_asked(arguments, models)
    measured = device.measure_each(models, repeats=arguments.repeats)
    timed = list(zip(models, _watched(measured, device, len(models)), strict=True))
    for remark in device.remarks:
        print(remark, file=sys.stderr)
    if arguments.json:
        print(json.dumps([_record(model, m, timed[0]) for model, m in timed], indent=2))
        return 0
    tell = backends_differ([(reading_of(m),) for _, m in timed])
    backend, numbers = ["in"] * tell, ["MACs", "GFLOPS", "params"]
    header = ["network", "latency ms", "interval", "images/s", "source", *backend, *numbers]
    print_table(header, [_cells(model, m, tell_backend=tell) for model, m in timed])
    (first, reference), *others = timed
    for model, m in others:
        print(compare(reference, m).words(first.name, model.name))
    print(device.description, file=sys.stderr)
    for remark in how_measured([m for _, m in timed]):
        print(remark, file=sys.stderr)
    if device.source == "predicted":
        print(HOW_TO_ATTACH, file=sys.stderr)
    return 0


def ran_on_of(measurements: Sequence[Latency]) -> list[str]:
    """On which cores each was timed, and why on these."""
    return [m.context.ran_on for one in measurements for m in (one, *one.slower)]


def how_measured(measurements: Sequence[Latency]) -> list[str]:
    """What is to be known of how the measurements came about, one line each."""
    sessions = {m.context.session: m.context for m in measurements if m.context.session}
    counts: Counter[str] = Counter()
    for context in sessions.values():
        counts.update(context.counts)
    found = [f"timed on {where}." for where in dict.fromkeys(ran_on_of(measurements)) if where]
    if counts["left_out"]:
        found.append(
            f"{counts['left_out']} of {counts['samples']} samples were preempted and left out."
        )
    if counts["rounds_left_out"]:
        found.append(
            f"{counts['rounds_left_out']} of {counts['rounds']} rounds, in which the machine was "
            "slowed down, were left out."
        )
    if any(m.unstable for m in measurements):
        found.append("unstable: +-2 % was not reached in the time that a measurement may take.")
    return found


def _cells(model: Model, m: Latency, *, tell_backend: bool) -> list[str]:
    speed = model.gflops(m.median_ms)
    return [
        model.name,
        format_ms(m.median_ms),
        f"{format_ms(m.low_ms)} - {format_ms(m.high_ms)}",
        format_count(model.images_per_s(m.median_ms)),
        m.source + (", unstable" if m.unstable else ""),
        *([reading_of(m).backend] * tell_backend),
        "-" if model.macs is None else format_count(model.macs),
        "-" if speed is None else format_ms(speed),
        "-" if model.params is None else format_count(model.params),
    ]


def _record(model: Model, m: Latency, first: Timed) -> dict[str, object]:
    record: dict[str, object] = {
        "name": model.name,
        "median_ms": m.median_ms,
        "low_ms": m.low_ms,
        "high_ms": m.high_ms,
        "source": m.source,
        "unstable": m.unstable,
        "device": m.device,
        **(asdict(m.backend) if m.backend else {}),
        "batch": model.batch_size,
        "images_per_s": model.images_per_s(m.median_ms),
        "macs": model.macs,
        "params": model.params,
        "gflops": model.gflops(m.median_ms),
        "context": m.context.as_json(),
    }
    if model is not first[0]:
        found = compare(first[1], m)
        record["times_the_first"] = {"ratio": found.ratio, "low": found.low, "high": found.high}
    return record


def _watched(measured: Iterator[Latency], device: Device, total: int) -> Iterator[Latency]:
    """Say on a terminal how far the timing is; what comes next has a line of its own."""
    begun = False
    try:
        for done, measurement in enumerate(measured, start=1):
            if begun := sys.stderr.isatty():
                print(f"\rtiming on {device.name}: {done} of {total}", end="", file=sys.stderr)
            yield measurement
    finally:
        if begun:
            print(file=sys.stderr)


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas bench` takes: topics with options of their own."""
    topics = parser.add_subparsers(dest="topic", required=True, metavar="TOPIC")
    text = "Conv, GConv, DWConv and PConv at four map sizes"
    operators = add_action(topics, "operators", text)
    models = add_action(topics, "models", "FasterNet and its rivals, or the networks named")
    models.add_argument("networks", metavar="NETWORK", nargs="*", help="as measure takes, NAME@PX")
    for topic in (operators, models):
        add_device(topic)
        add_timing(topic)
        topic.add_argument("--out", type=word, metavar="DIR", help="the folder for results")
        add_json(topic)


def run_bench(arguments: argparse.Namespace) -> int:
    """Time them, print a table, write the table and the plot into the folder."""
    from nas.run_folder import machine_facts

    topic: Topic = arguments.topic
    device = open_asked(arguments, [FASTERNET["t0"]])
    check_timed(device)
    subjects = _subjects(arguments)
    folder = _folder(arguments)
    coming = bench(subjects, device, folder, repeats=arguments.repeats)
    heading = f"{len(subjects)} networks, {GROUP} at a time, on {device.description}; {folder}"
    print(heading, file=sys.stderr)
    rows = list(_watched_rows(coming, len(subjects)))
    if not any(row.latency for row in rows):
        raise RuntimeError(
            f"`network` must be one that {device.name} can run, but got "
            f"{rows[0].subject.model.name}: {rows[0].failed}"
        )
    rows = in_order(rows, subjects)
    write_bench(folder, topic, rows, machine_facts({device.name: device}))
    if arguments.json:
        print(json.dumps([row.as_json() for row in rows], indent=2))
        return 0
    print_table(*bench_table(topic, rows))
    print(f"{folder}/{topic}.png, .csv and .json hold the results.", file=sys.stderr)
    return 0


def _subjects(arguments: argparse.Namespace) -> Sequence[Subject]:
    operators = arguments.topic == "operators"
    found = operator_subjects() if operators else model_subjects(arguments.networks)
    return [replace(subject, model=batched(subject.model, arguments.batch)) for subject in found]


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.out is not None:
        return Path(arguments.out)
    threads = f"{arguments.threads}-threads" if arguments.threads else ""
    batch = f"batch-{arguments.batch}" if arguments.batch > 1 else ""
    backends = (*(arguments.runtime or ()), *(arguments.precision or ()))
    chosen = [word for word in (*backends, threads, batch) if word]
    return default_folder(arguments.topic, arguments.device, *chosen)


def _watched_rows(rows: Iterable[Row], total: int) -> Iterator[Row]:
    """Say of each network on standard error what came of it."""
    for number, row in enumerate(rows, start=1):
        found = f"{format_ms(row.latency.median_ms)} ms" if row.latency else f"failed: {row.failed}"
        before = ", timed before and not again" if row.done else ""
        print(f"{number} of {total}: {row.subject.model.name} {found}{before}", file=sys.stderr)
        yield row
