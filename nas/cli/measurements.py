"""`fasternas measurements`: list, export and import the latencies that were timed."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from nas.cli.arguments import add_action, add_json, word
from nas.cli.progress import print_table
from predictors.devices.boards import check_name
from predictors.devices.cache import Cache, Holding
from predictors.devices.registry import device_names


def add_measurements_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas measurements` takes: actions with options of their own."""
    add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    add_json(add_action(actions, "list", "list the measurements that are kept"))
    add = add_action(actions, "export", "write measurements into a file to hand on").add_argument
    add("file", metavar="FILE", type=word, help="JSON lines; gzipped if *.gz")
    add("--run", metavar="RUN", help="those of this run folder")
    add("--device", metavar="NAME", help="those of this device")
    add = add_action(actions, "import", "take measurements from such a file").add_argument
    add("file", metavar="FILE", help="what `export` wrote")
    text = "make them a device of this name"
    add("--as", dest="name", type=word, metavar="NAME", help=text)


def run_measurements(arguments: argparse.Namespace) -> int:
    """Do what was asked; without a word, list what there is."""
    actions = {"list": _list, "export": _export, "import": _import}
    actions[arguments.action or "list"](arguments)
    return 0


def _list(arguments: argparse.Namespace) -> None:
    holdings = Cache().holdings()
    if arguments.json:
        print(json.dumps([_as_json(holding) for holding in holdings], indent=2))
        return
    cells = [
        [h.device, h.setting.description, str(h.count), f"{h.first[:10]} - {h.last[:10]}"]
        for h in holdings
    ]
    print_table(["device", "measured on", "networks", "when"], cells)


def _as_json(holding: Holding) -> dict[str, object]:
    setting = asdict(holding.setting)
    flat = {**asdict(holding), **setting, **setting["backend"]}
    del flat["backend"]
    return {**flat, "setting": holding.setting.description}


def _export(arguments: argparse.Namespace) -> None:
    from nas.study.measurement_files import entries_of_run, write_entries

    store = Cache()
    entries = entries_of_run(Path(arguments.run)) if arguments.run else store.entries()
    if arguments.device:
        entries = [entry for entry in entries if entry.device == arguments.device]
    if not entries:
        of = f" of {arguments.device}" if arguments.device else ""
        raise ValueError(
            f"There must be measurements{of} to export, but {store.path} has none. `fasternas "
            "measurements` lists what there is."
        )
    write_entries(Path(arguments.file), entries)
    print(f"{arguments.file}: {len(entries)} measurements")


def _import(arguments: argparse.Namespace) -> None:
    from nas.study.measurement_files import read_entries

    name = arguments.name or ""
    if name:
        check_name(name, device_names())
    merged = Cache().merge(read_entries(Path(arguments.file)), alias=name)
    print(f"{merged.new} new, {merged.replaced} replaced by newer ones, {merged.kept} kept")
