"""`fasternas report`: one HTML file about a run."""

import argparse
from pathlib import Path


def run_report(arguments: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from nas.report.html import FILE, write_html
    from nas.report.model import ReportModel
    from nas.study.run_folder import read_only_run

    run = read_only_run(Path(arguments.run), repair=arguments.repair)
    path = Path(arguments.out) if arguments.out else run.folder / FILE
    write_html(ReportModel(run), path)
    print(path)
    return 0
