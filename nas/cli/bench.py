"""`fasternas bench`: the paper's operators, or networks of many families, side by side."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from nas.networks import Row, Subject, model_subjects, operator_subjects
from nas.quantities import format_ms
from predictors.backends.model import batched
from search_spaces.fasternet import FASTERNET


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
    rows = list(_watched(coming, len(subjects)))
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


def _watched(rows: Iterable[Row], total: int) -> Iterator[Row]:
    """Say of each network on standard error what came of it."""
    for number, row in enumerate(rows, start=1):
        found = f"{format_ms(row.latency.median_ms)} ms" if row.latency else f"failed: {row.failed}"
        before = ", timed before and not again" if row.done else ""
        print(f"{number} of {total}: {row.subject.model.name} {found}{before}", file=sys.stderr)
        yield row
