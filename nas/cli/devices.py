"""`fasternas devices`: list, add, check and remove what networks are timed on."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from nas.cli.arguments import add_action, add_json, cores, either, positive, word
from nas.cli.progress import print_table
from nas.cli.specs import PRECISIONS
from predictors.backends.table import find_runtime, runtime_names
from predictors.devices.boards import (
    Board,
    boards_to_change,
    check_name,
    load_boards,
    with_runtime,
)
from predictors.devices.cache import Cache, CacheSummary
from predictors.devices.cache_entry import read_entries, write_entries
from predictors.devices.connection import SITE, Address
from predictors.devices.registry import (
    cached_devices,
    device_names,
    foreign_devices,
    open_device,
)
from predictors.measurement import Backend


def add_devices_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas devices` takes: actions with options of their own."""
    add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    add_json(add_action(actions, "list", "list the devices"))
    add = add_action(actions, "add", "register a board that is reached over SSH").add_argument
    add("name", metavar="NAME", help="what to call it")
    add("--ssh", required=True, metavar="USER@HOST[:PORT]", help="where it is")
    add("--runtime", default="onnxruntime", help=either(runtime_names()))
    add("--precision", default="fp32", help=PRECISIONS)
    add("--threads", type=positive, default=1, help="threads of one inference (1)")
    text = "the cores to run on (fast ones, no two threads of one)"
    add("--cores", type=cores, default=(), metavar="0-3", help=text)
    for name, text in {
        "check": "ask a board what it is, and mend it",
        "remove": "forget a board",
    }.items():
        add_action(actions, name, text).add_argument("name", metavar="NAME", help="its name")


def run_devices(arguments: argparse.Namespace) -> int:
    """Do what was asked; without a word, list the devices."""
    actions = {"list": _list, "add": _add, "check": _check, "remove": _remove}
    actions[arguments.action or "list"](arguments)
    return 0


def _list(arguments: argparse.Namespace) -> None:
    foreign = foreign_devices()
    found = [_described(name) for name in device_names() if name not in foreign]
    found += [_of_package(name, package) for name, package in foreign.items()] + _stored()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print_table(["device", "what it is"], [[d["name"], d["description"]] for d in found])


def _described(name: str) -> dict[str, str]:
    """What a device is; one that cannot be opened does not hide the others."""
    try:
        device = open_device(name)
    except (ValueError, RuntimeError) as error:
        return {"name": name, "source": "measured", "runtime": "", "description": str(error)}
    runtime = device.backends[0].runtime
    return {
        "name": device.name,
        "source": device.source,
        "runtime": runtime,
        "description": device.description,
    }


def _of_package(name: str, package: str) -> dict[str, str]:
    """What another package adds is not opened before it is named."""
    description = f"of the package {package}, which is loaded when it is named"
    return {"name": name, "source": "", "runtime": "", "description": description}


def _stored() -> list[dict[str, str]]:
    """The devices of which there are measurements only; a broken store does not hide the others."""
    try:
        summaries = cached_devices()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return []
    return [
        {
            "name": s.device,
            "source": "measured",
            "runtime": s.setting.backend.runtime,
            "description": f"stored: {s.count} measurements of {s.setting.description}, the last "
            f"of {s.last[:10]}",
        }
        for s in summaries
    ]


def _add(arguments: argparse.Namespace) -> None:
    check_name(arguments.name, device_names())
    runtime = find_runtime(arguments.runtime, arguments.precision)
    asked = Board(
        name=arguments.name,
        ssh=str(Address.parse(arguments.ssh)),
        backend=Backend(runtime.name, runtime.precision, arguments.threads),
        cores=arguments.cores,
    )
    found = with_runtime(asked)
    asked.check_fits(found)
    with boards_to_change() as boards:
        check_name(found.name, boards)  # another process may have taken it meanwhile
        boards[found.name] = found
    print(f"{found.name}: {found.description}")


def _check(arguments: argparse.Namespace) -> None:
    board = with_runtime(_registered(arguments.name))
    with boards_to_change() as boards:
        boards[board.name] = board
    print(f"{board.name}: {board.description}")


def _remove(arguments: argparse.Namespace) -> None:
    board = _registered(arguments.name)
    with boards_to_change() as boards:
        boards.pop(board.name, None)
    print(f"{board.name} is forgotten. What was installed on it, if anything, is in {SITE}.")


def _registered(name: str) -> Board:
    boards = load_boards()
    if name not in boards:
        raise ValueError(
            f"`name` must be a registered board ({', '.join(boards) or 'none yet'}), but got "
            f"{name!r}. `fasternas devices add` registers one."
        )
    return boards[name]


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
    actions = {"list": _list_measurements, "export": _export, "import": _import}
    actions[arguments.action or "list"](arguments)
    return 0


def _list_measurements(arguments: argparse.Namespace) -> None:
    summaries = Cache().summaries()
    if arguments.json:
        print(json.dumps([_as_json(summary) for summary in summaries], indent=2))
        return
    cells = [
        [s.device, s.setting.description, str(s.count), f"{s.first[:10]} - {s.last[:10]}"]
        for s in summaries
    ]
    print_table(["device", "measured on", "networks", "when"], cells)


def _as_json(summary: CacheSummary) -> dict[str, object]:
    setting = asdict(summary.setting)
    flat = {**asdict(summary), **setting, **setting["backend"]}
    del flat["backend"]
    return {**flat, "setting": summary.setting.description}


def _export(arguments: argparse.Namespace) -> None:
    from nas.study.store import entries_of_run

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
    name = arguments.name or ""
    if name:
        check_name(name, device_names())
    merged = Cache().merge(read_entries(Path(arguments.file)), alias=name)
    print(f"{merged.new} new, {merged.replaced} replaced by newer ones, {merged.kept} kept")
