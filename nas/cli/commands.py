"""What the shorter commands do, apart from the parser so that `--help` loads nothing else."""

import argparse
import json
import sys
from pathlib import Path

from nas.cli.table import print_table
from predictors.devices.device import HOW_TO_ATTACH
from search_spaces.fasternet import SPACES


def run_show(arguments: argparse.Namespace) -> int:
    """`fasternas show`: print the front, or every network, of a run."""
    from nas.finetune.folder import TRAINED
    from nas.report import tables
    from nas.report.model import ReportModel
    from nas.study.run_folder import read_only_run
    from nas.training.final_table import endings_in, final_table

    model = ReportModel(read_only_run(Path(arguments.run), repair=arguments.repair))
    networks = model.networks if arguments.all else model.front
    if arguments.json:
        print(json.dumps(tables.rows(networks), indent=2))
        return 0
    print_table(*tables.table(networks))
    trained = [ending for _, ending in endings_in(model.folder / TRAINED)]
    if trained:
        print()
        print_table(*final_table(trained))
    if model.predicted:
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
