"""The commands that read run folders and what is bundled: show, report, merge, spaces."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import add_json, word
from nas.cli.progress import print_table
from search_spaces.extensions import extension_source
from search_spaces.fasternet import CHOICES, SPACES
from search_spaces.space import AnySpace, Each, OneOf
from search_spaces.spaces import HOW, find_space, space_names

if TYPE_CHECKING:
    from nas.report.model import ReportModel

_RUN, _REPAIR = "a folder that `fasternas search` wrote", "drop a last line that was cut off"


def add_show_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas show` takes."""
    parser.add_argument("run", metavar="RUN", help=_RUN)
    parser.add_argument("--all", action="store_true", help="every network, not the front alone")
    parser.add_argument("--repair", action="store_true", help=_REPAIR)
    add_json(parser)


def run_show(arguments: argparse.Namespace) -> int:
    """`fasternas show`: print the front, or every network, of a run."""
    from nas.finetune.folder import TRAINED
    from nas.finetune.result import final_table, results_in
    from nas.report import tables
    from nas.report.model import ReportModel
    from nas.run_folder import read_only_run
    from predictors.devices.device import HOW_TO_ATTACH

    model = ReportModel(read_only_run(Path(arguments.run), repair=arguments.repair))
    networks = model.networks if arguments.all else model.front
    if arguments.json:
        print(json.dumps(tables.rows(networks), indent=2))
        return 0
    print_table(*tables.table(networks, model.options.limits))
    trained = [result for _, result in results_in(model.folder / TRAINED)]
    if trained:
        print()
        print_table(*final_table(trained))
    if model.predicted:
        print(HOW_TO_ATTACH, file=sys.stderr)
    return 0


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas report` takes."""
    parser.add_argument("run", metavar="RUN", help=_RUN)
    parser.add_argument("--out", type=word, metavar="FILE", help="the file (RUN/report.html)")
    parser.add_argument("--repair", action="store_true", help=_REPAIR)


def run_report(arguments: argparse.Namespace) -> int:
    """`fasternas report`: write one HTML file about a run, and print where it is."""
    from nas.report.html import FILE, write_html
    from nas.report.model import ReportModel
    from nas.run_folder import read_only_run

    run = read_only_run(Path(arguments.run), repair=arguments.repair)
    path = Path(arguments.out) if arguments.out else run.folder / FILE
    write_html(ReportModel(run), path)
    print(path)
    return 0


def add_merge_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas merge` takes."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders that searches wrote")
    parser.add_argument("--out", required=True, type=word, metavar="DIR", help="the new run folder")
    parser.add_argument("--repair", action="store_true", help="drop last lines that were cut off")
    add_json(parser)


def run_merge(arguments: argparse.Namespace) -> int:
    """`fasternas merge`: make one run of several, write its front and print it."""
    from nas.report.model import ReportModel, write_report
    from nas.run_folder import merge_runs, read_only_run

    out = Path(arguments.out)
    merged = merge_runs([Path(run) for run in arguments.runs], out, repair=arguments.repair)
    model = ReportModel(read_only_run(out))
    write_report(model)
    print(
        f"{out}: {merged.trials} trials, {merged.measurements} latencies; {merged.repeated} "
        "trials were of a network that another one has",
        file=sys.stderr,
    )
    print_front(model, as_json=arguments.json)
    return 0


def print_front(model: "ReportModel", *, as_json: bool) -> None:
    """Print the front of a run, and what is to be known of it."""
    from nas.report import tables
    from nas.report.model import closing_words

    if as_json:
        print(json.dumps(tables.rows(model.front), indent=2))
        return
    print_table(*tables.table(model.front, model.options.limits))
    for line in closing_words(model):
        print(line, file=sys.stderr)


def add_spaces_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas spaces` takes."""
    text = f"one of them, or {HOW} (all of the bundled ones)"
    parser.add_argument("space", metavar="SPACE", nargs="?", help=text)
    add_json(parser)


def run_spaces(arguments: argparse.Namespace) -> int:
    """`fasternas spaces`: list the spaces with what each field chooses, and its source."""
    asked = arguments.space
    spaces = {asked: find_space(asked)} if asked else SPACES
    others = {} if asked else {name: _package(name) for name in space_names()[len(SPACES) :]}
    if arguments.json:
        rows = [_space_row(name, space) for name, space in spaces.items()]
        rows += [{"name": name, "package": package} for name, package in others.items()]
        print(json.dumps(rows, indent=2))
        return 0
    print("\n\n".join(_space_words(name, space) for name, space in spaces.items()))
    for name, package in others.items():
        print(f"\n{name}: of the package {package}; `fasternas spaces {name}` loads it")
    return 0


def _package(space: str) -> str:
    return extension_source("spaces", space)


def _space_row(name: str, space: AnySpace) -> dict[str, object]:
    return {
        "name": name,
        "size": space.size,
        "size_by_field": space.size_by_field,
        "choices": {field: _choices(node) for field, node in space.fields.items()},
        "about": {field: CHOICES[field] for field in space.fields if field in CHOICES},
    }


def _choices(node: object) -> object:
    """The choices of a field, or of each stage; a value that is fixed."""
    if isinstance(node, Each):
        return [item.choices for item in node.items]
    return node.choices if isinstance(node, OneOf) else node


def _space_words(name: str, space: AnySpace) -> str:
    lines = [f"{name}: {space.size:.2g} configs"]
    for field, node in space.fields.items():
        lines.append(f"  {field}: {CHOICES[field]}" if field in CHOICES else f"  {field}:")
        if isinstance(node, Each):
            stages = [" ".join(map(str, item.choices)) for item in node.items]
            numbered = [f"stage {i}: {words}" for i, words in enumerate(stages, start=1)]
            same = len(set(stages)) == 1
            lines += [f"    {line}" for line in (stages[:1] if same else numbered)]
        else:
            values = node.choices if isinstance(node, OneOf) else (node,)
            lines.append(f"    {' '.join(map(str, values))}")
    return "\n".join(lines)
