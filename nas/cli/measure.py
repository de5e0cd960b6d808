"""`fasternas measure` and `fasternas bench`: the latency of networks on a device, side by side."""

import argparse
import json
import re
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
    counted,
    default_folder,
    in_order,
    time_beside,
    write_bench,
)
from nas.cli.arguments import add_action, add_flag, add_json, word
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
from predictors.aarch64.parts import Part, by_operator, costliest
from predictors.backends.model import Model, batched
from predictors.devices.device import HOW_TO_ATTACH, Device
from predictors.devices.profiled import ProfiledDevice
from predictors.devices.registry import forget_references
from predictors.measurement import Latency, compare
from search_spaces.fasternet import FASTERNET
from search_spaces.io import listed

Timed = tuple[Model, Latency]


def add_measure_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas measure` takes."""
    text = "a config, checkpoint or ONNX file, t0 to l, a timm model; NAME@PX, NAME@WxH"
    parser.add_argument("networks", metavar="NETWORK", nargs="+", help=text)
    add_device(parser)
    add_timing(parser)
    text = "time the reference networks anew, too, from which all milliseconds follow"
    parser.add_argument("--fresh", action="store_true", help=text)
    add_flag(parser, "--layers", "print where the instructions go, by a device that is a profile")
    text = "end with 1 if a network is slower than the first by more, as in 'slower 1%%'"
    parser.add_argument("--fail-if", type=_slower_than, metavar="RULE", help=text)
    add_json(parser)


def _slower_than(text: str) -> float:
    """Read slower 1%: how many times the first latency another may be."""
    match = re.fullmatch(r"slower (\d*\.?\d+) ?%", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like 'slower 1%', but got {text!r}.")
    return 1 + float(match[1]) / 100


def run_measure(arguments: argparse.Namespace) -> int:
    """Time the networks, print a table, and compare the first with the others."""
    if arguments.fail_if and len(arguments.networks) < 2:
        raise ValueError(
            "`networks` must be two or more for --fail-if, but got one. Name the network first "
            "with which the others are compared."
        )
    subjects, wrong = find_each(arguments.networks, _typed(arguments.batch))
    device = open_asked(arguments, [subject.model for subject in subjects])
    profile = _profile(device) if "layers" in arguments else None
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
        first = timed[0] if arguments.networks[0] not in wrong else None
        _print(timed, device, profile, first=first, as_json=arguments.json)
    return say_wrong(wrong) or _gate(timed, arguments.fail_if)


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
        yield Row(subject=counted(subjects[0], device), latency=latency)


def _print(
    timed: Sequence[Timed],
    device: Device,
    profile: ProfiledDevice | None,
    *,
    first: Timed | None,
    as_json: bool,
) -> None:
    """Print the table, or JSON; the others are compared with the first, if that was timed."""
    parts = [profile.parts(model) for model, _ in timed] if profile else []
    if as_json:
        records = [_record(model, m, first) for model, m in timed]
        for record, own in zip(records, parts, strict=False):
            record["layers"] = [asdict(part) | {"per_mac": part.per_mac} for part in own]
        print(json.dumps(records, indent=2))
        return
    tell = backends_differ([(reading_of(m),) for _, m in timed])
    count = any(m.context.instructions for _, m in timed)
    columns = [*["in"] * tell, *["instructions"] * count, "MACs", "GFLOPS", "params"]
    header = ["network", "latency ms", "interval", "images/s", "source", *columns]
    print_table(header, [_cells(model, m, tell_backend=tell, count=count) for model, m in timed])
    _print_comparisons(timed, first)
    print(device.description, file=sys.stderr)
    if isinstance(device, ProfiledDevice):
        print(device.counting, file=sys.stderr)
    for remark in how_measured([m for _, m in timed]):
        print(remark, file=sys.stderr)
    for (model, _), own in zip(timed, parts, strict=False):
        _print_parts(model, own)
    if device.source == "predicted":
        print(HOW_TO_ATTACH, file=sys.stderr)


def _print_comparisons(timed: Sequence[Timed], first: Timed | None) -> None:
    if first is None:
        return
    for model, m in timed[1:]:
        print(compare(first[1], m).words(first[0].name, model.name))


def _profile(device: Device) -> ProfiledDevice:
    """The device, if it knows where instructions go."""
    if not isinstance(device, ProfiledDevice):
        raise ValueError(
            f"`--layers` must be of a device that is a profile, but {device.name} is timed. "
            "Use --device arm where no ARM board is registered."
        )
    return device


def _print_parts(model: Model, parts: Sequence[Part]) -> None:
    total = sum(part.instructions for part in parts)
    print(f"\n{model.name}: {format_count(total)} instructions")
    header = ["operator", "nodes", "instructions", "share", "MACs", "a MAC", "the largest"]
    merged = by_operator(parts)
    print_table(header, [_part_cells(part, total) for part in merged])
    if (most := costliest(parts)) is not None:
        more = [part.operator for part in merged if (part.per_mac or 0) > (most.per_mac or 0)]
        rare = f" Left out: {listed(more)}, under 1 % of all." if more else ""
        print(f"Most instructions a MAC: {most.operator}, {most.per_mac:.2f}.{rare}")


def _part_cells(part: Part, total: float) -> list[str]:
    return [
        part.operator,
        str(part.repeat),
        format_count(part.instructions),
        f"{part.instructions / total:.1%}",
        format_count(part.macs) if part.macs else "-",
        f"{part.per_mac:.2f}" if part.per_mac is not None else "-",
        part.name,
    ]


def _gate(timed: Sequence[Timed], allowed: float | None) -> int:
    """1 if one of the others takes more than that many times as long as the first, else 0.

    Of what was timed the interval must say so; what is counted is sure.
    """
    (first, reference), *others = timed
    failed = 0
    for model, m in others if allowed else ():
        found = compare(reference, m)
        ratio = found.ratio if found.source == "predicted" else found.low
        if allowed and ratio > allowed:
            failed = 1
            text = f"{model.name} takes {ratio:.3f} times as long as {first.name}"
            print(f"{text}, more than the {allowed:.3f} that are allowed.", file=sys.stderr)
    return failed


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


def _cells(model: Model, m: Latency, *, tell_backend: bool, count: bool) -> list[str]:
    speed, instructions = model.gflops(m.median_ms), m.context.instructions
    return [
        model.name,
        format_ms(m.median_ms),
        f"{format_ms(m.low_ms)} - {format_ms(m.high_ms)}",
        format_count(model.images_per_s(m.median_ms)),
        m.source + (", unstable" if m.unstable else ""),
        *([reading_of(m).backend] * tell_backend),
        *(["-" if instructions is None else format_count(instructions)] * count),
        "-" if model.macs is None else format_count(model.macs),
        "-" if speed is None else format_ms(speed),
        "-" if model.params is None else format_count(model.params),
    ]


def _record(model: Model, m: Latency, first: Timed | None) -> dict[str, object]:
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
    if first and model is not first[0]:
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
    subjects, wrong = _subjects(arguments)
    folder = _folder(arguments)
    coming = bench(subjects, device, folder, repeats=arguments.repeats, cores=arguments.cores)
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
    cores = f"cores-{'-'.join(map(str, arguments.cores))}" if arguments.cores else ""
    backends = (*(arguments.runtime or ()), *(arguments.precision or ()))
    chosen = [word for word in (*backends, threads, batch, cores) if word]
    return default_folder(arguments.topic, arguments.device, *chosen)


def _watched_rows(rows: Iterable[Row], total: int) -> Iterator[Row]:
    """Say of each network on standard error what came of it."""
    for number, row in enumerate(rows, start=1):
        found = f"{format_ms(row.latency.median_ms)} ms" if row.latency else f"failed: {row.failed}"
        before = ", timed before and not again" if row.done else ""
        print(f"{number} of {total}: {row.subject.model.name} {found}{before}", file=sys.stderr)
        yield row
