"""`fasternas merge`: several runs become one, whose front is printed."""

import argparse
import json
import sys
from pathlib import Path

from nas.cli.table import print_table


def run_merge(arguments: argparse.Namespace) -> int:
    """Merge, write the front of the new run, print it."""
    from nas.report import tables
    from nas.report.model import ReportModel
    from nas.study.merge import merge_runs
    from nas.study.run_folder import read_only_run

    out = Path(arguments.out)
    merged = merge_runs([Path(run) for run in arguments.runs], out, repair=arguments.repair)
    model = ReportModel(read_only_run(out))
    tables.write_report(model)
    print(f"{out}: {merged.trials} trials, {merged.measurements} latencies; {merged.repeated} "
          "trials were of a network that another one has", file=sys.stderr)  # fmt: skip
    if arguments.json:
        print(json.dumps(tables.rows(model.front), indent=2))
        return 0
    print_table(*tables.table(model.front))
    for line in tables.closing_words(model):
        print(line, file=sys.stderr)
    return 0
