"""`fasternas measure`: the latency of networks on a device, side by side."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    time_beside,
    write_bench,
)
from nas.cli.arguments import add_action, add_json, word
from nas.cli.progress import print_table
from nas.cli.specs import add_device, add_timing, open_asked
from nas.networks import (
    Row,
    Subject,
    find_each,
    find_network,
    model_subjects,
    operator_subjects,
)
from nas.quantities import format_count, format_ms
from nas.report.tables import backends_differ, reading_of
from predictors.backends.model import Model, batched
from predictors.devices.device import HOW_TO_ATTACH, Device
from predictors.devices.registry import forget_references
from predictors.measurement import Latency, compare
from search_spaces.fasternet import FASTERNET

Timed = tuple[Model, Latency]


def add_measure_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas measure` takes."""
    text = "a config, checkpoint or ONNX file, t0 to l, a timm model; NAME@PX, NAME@WxH"
    parser.add_argument("networks", metavar="NETWORK", nargs="+", help=text)
    add_device(parser)
    add_timing(parser)
    text = "time the reference networks anew, too, from which all milliseconds follow"
    parser.add_argument("--fresh", action="store_true", help=text)
    add_json(parser)


def run_measure(arguments: argparse.Namespace) -> int:
    """Time the networks, print a table, and compare the first with the others."""
    subjects, wrong = find_each(arguments.networks, _typed(arguments.batch))
    device = open_asked(arguments, [subject.model for subject in subjects])
    if arguments.fresh:
        forget_references(device)
    rows = _watched(
        _rows(subjects, device, arguments.repeats, alone=not wrong), device, len(subjects)
    )
    timed = []
    for row in rows:
        if row.latency is None:
            wrong[row.subject.label] = f"{row.failed}."
        else:
            timed.append((row.subject.model, row.latency))
    for remark in device.remarks:
        print(remark, file=sys.stderr)
    if timed:
        _print(timed, device, as_json=arguments.json)
    return say_wrong(wrong)


def say_wrong(wrong: Mapping[str, str]) -> int:
    """Say what is wrong with some of several networks, each as it was typed; return the code."""
    for name, line in wrong.items():
        said = line if name in line else f"{name}: {line}"
        print(f"fasternas: error: {said}", file=sys.stderr)
    return 2 if wrong else 0


def _typed(batch: int) -> Callable[[str], Subject]:
    """Return what finds a network as a subject with the label that was typed."""

    def find(name: str) -> Subject:
        return Subject(model=batched(find_network(name), batch), kind="", label=name)

    return find


def _rows(
    subjects: Sequence[Subject], device: Device, repeats: int, *, alone: bool
) -> Iterator[Row]:
    """Time them side by side; what is wrong with the only one is an error."""
    if len(subjects) > 1 or not alone:
        yield from time_beside(subjects, device, repeats)
        return
    for latency in device.measure_each([subjects[0].model], repeats=repeats):
        yield Row(subject=subjects[0], latency=latency)


def _print(timed: Sequence[Timed], device: Device, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_record(model, m, timed[0]) for model, m in timed], indent=2))
        return
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


def _watched(rows: Iterator[Row], device: Device, total: int) -> Iterator[Row]:
    """Say on a terminal how far the timing is; what comes next has a line of its own."""
    begun = False
    try:
        for done, row in enumerate(rows, start=1):
            if begun := sys.stderr.isatty():
                print(f"\rtiming on {device.name}: {done} of {total}", end="", file=sys.stderr)
            yield row
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
    subjects, wrong = _subjects(arguments)
    folder = _folder(arguments)
    coming = bench(subjects, device, folder, repeats=arguments.repeats)
    heading = f"{len(subjects)} networks, {GROUP} at a time, on {device.description}; {folder}"
    print(heading, file=sys.stderr)
    rows = list(_watched_rows(coming, len(subjects)))
    for remark in device.remarks:
        print(remark, file=sys.stderr)
    if not any(row.latency for row in rows):
        raise RuntimeError(
            f"`network` must be one that {device.name} can run, but got "
            f"{rows[0].subject.model.name}: {rows[0].failed}"
        )
    rows = in_order(rows, subjects)
    write_bench(folder, topic, rows, machine_facts({device.name: device}))
    if arguments.json:
        print(json.dumps([row.as_json() for row in rows], indent=2))
        return say_wrong(wrong)
    print_table(*bench_table(topic, rows))
    print(f"{folder}/{topic}.png, .csv and .json hold the results.", file=sys.stderr)
    return say_wrong(wrong)


def _subjects(arguments: argparse.Namespace) -> tuple[list[Subject], dict[str, str]]:
    operators = arguments.topic == "operators"
    found, wrong = (operator_subjects(), {}) if operators else model_subjects(arguments.networks)
    batch = arguments.batch
    return [replace(subject, model=batched(subject.model, batch)) for subject in found], wrong


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
