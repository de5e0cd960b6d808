"""What the commands do, apart from the parser so that `--help` loads nothing else."""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from nas.cli_runtime import wanted_by
from nas.cli_table import print_table
from nas.options import SearchOptions
from predictors.devices.device import HOW_TO_ATTACH
from search_spaces.catalogue import SPACES
from search_spaces.fasternet import FASTERNET

TRIALS, TRAINED_TRIALS = 200, 36  # unless told


def run_search(arguments: argparse.Namespace) -> int:
    """`fasternas search`: calibrate, search, verify; print the front."""
    from nas import report
    from nas.estimating import for_data
    from nas.folders import give_up, keep_remarks, resume_run, start_run

    folder = _folder(arguments)
    wanted = wanted_by(arguments, [FASTERNET["t0"]], run=folder if arguments.resume else None)
    options = SearchOptions(
        device=arguments.device, budget_ms=arguments.budget, space=arguments.space,
        runtime=wanted.runtime, precision=wanted.precision, threads=wanted.threads,
        trials=_trials(arguments),
        seed=arguments.seed, searcher=arguments.searcher, resolutions=arguments.resolution,
        activations=arguments.activation, classes=arguments.classes, data=arguments.data or "",
        accuracy=arguments.accuracy or ("train" if arguments.data else "proxy"),
        epochs=arguments.epochs,
    )  # fmt: skip
    options, remarks = for_data(options)
    for remark in remarks:
        print(remark, file=sys.stderr)
    if arguments.resume:
        run = resume_run(folder, options, repair=arguments.repair, fresh=arguments.fresh)
    else:
        run = start_run(folder, options, fresh=arguments.fresh)
    try:
        _show_progress(run.steps(ray_address=arguments.ray), f"{run.device.description}; {folder}")
        front = report.write_report(run)
        keep_remarks(run)
    except (ValueError, RuntimeError):
        give_up(run)
        raise
    finally:
        run.close()
    for remark in run.device.remarks:
        print(remark, file=sys.stderr)
    if arguments.json:
        print(json.dumps(report.rows(front), indent=2))
        return 0
    print_table(*report.table(front))
    for line in report.closing_words(run, front):
        print(line, file=sys.stderr)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """`fasternas show`: print the front, or every network, of a run."""
    from nas import report
    from nas.folders import read_only_run

    run = read_only_run(Path(arguments.run), repair=arguments.repair)
    candidates = [c for c in run.candidates() if c.on_front or arguments.all]
    if arguments.json:
        print(json.dumps(report.rows(candidates), indent=2))
        return 0
    print_table(*report.table(candidates))
    if run.device.source == "predicted":
        print(HOW_TO_ATTACH, file=sys.stderr)
    return 0


def run_spaces(arguments: argparse.Namespace) -> int:
    """`fasternas spaces`: list the spaces with their fields."""
    if arguments.json:
        print(json.dumps([{"name": name, "size": space.size, "size_by_field": space.size_by_field}
                          for name, space in SPACES.items()], indent=2))  # fmt: skip
        return 0
    for name, space in SPACES.items():
        print(f"{name}: {space.size:.2g} configs\n{space!r}\n")
    return 0


def _trials(arguments: argparse.Namespace) -> int:
    if arguments.trials is not None:
        return int(arguments.trials)
    return TRAINED_TRIALS if arguments.data else TRIALS


def _folder(arguments: argparse.Namespace) -> Path:
    """The run folder: as given, or named by device and budget and, for a new run, not taken."""
    if arguments.out is not None:
        return Path(arguments.out)
    device = re.sub(r"[^\w.@-]+", "-", arguments.device.replace("ssh://", "")).strip("-.")[:100]
    first = Path("runs") / f"{device}-{arguments.budget:g}ms"
    if arguments.resume:
        return first
    numbered = (first.with_name(f"{first.name}-{i}") for i in count(2))
    return first if not first.exists() else next(path for path in numbered if not path.exists())


def _show_progress(steps: Iterable[Any], heading: str) -> None:
    """Draw a bar for each phase on a terminal; elsewhere print a line now and then.

    The heading comes with the first step: an error before it stays the only line.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>22}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[best]}"))  # fmt: skip
    bars: dict[str, Any] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for step in steps:
            if not bars:
                print(heading, file=sys.stderr)
            if step.phase not in bars:
                bars[step.phase] = progress.add_task(step.phase, total=step.total, best="")
            shown = {"best": step.best} if step.best else {}
            progress.update(bars[step.phase], completed=step.done, total=step.total, **shown)
            if not console.is_terminal and (step.best or step.done == step.total):
                words = f"{step.phase}: {step.done} of {step.total}"
                print(f"{words}; {step.best}" if step.best else words, file=sys.stderr)
