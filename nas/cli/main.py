"""The command line: parses, calls, prints, and turns errors into one line. Nothing else."""

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from nas.cli.arguments import (
    cores,
    either,
    with_negative_values,
    word,
)
from nas.cli.device_options import PRECISIONS, add_device, add_devices, add_timing
from nas.cli.export import add_export_options
from nas.cli.search_options import add_search_options
from nas.cli.train_options import add_train_options
from nas.study.remote import local_copies
from predictors.backends.table import runtime_names
from search_spaces.io import one_line

DESCRIPTION = "From a latency budget on a real device to a Pareto front of FasterNet variants."


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def print_help(self, file: Any = None) -> None:
        """Print it, or raise what argparse would swallow: OSError where it finds no room."""
        print(self.format_help(), end="", file=file, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 2 for bad input, 130 when interrupted."""
    given = with_negative_values(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace(debug=False, json=False)
    try:
        _parser().parse_args(given, options)
        with _orderly_end(), local_copies(options):
            code = int(options.command(options))
        if sys.stdout is not None:  # closed by who called
            sys.stdout.flush()
        return code
    except (KeyboardInterrupt, _TerminatedError) as end:
        print("fasternas: interrupted; what was finished is kept.", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(end, _TerminatedError) else signal.SIGINT)
    except BrokenPipeError:
        _let_go_of_output()
        return 0
    except (ValueError, TypeError, RuntimeError, OSError, MemoryError) as error:
        if options.debug:
            raise
        if isinstance(error, OSError):
            _let_go_of_output()
        print(f"fasternas: error: {_error_line(error)}", file=sys.stderr)
        return 2


class _TerminatedError(BaseException):
    """The process was told to end."""


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that files and processes are cleaned up."""

    def leave(*_: object) -> NoReturn:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _let_go_of_output() -> None:
    """Keep Python from flushing, at its end, what could not be written before."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fasternas", description=DESCRIPTION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    search = _add(commands, "search", _search, "search a space for the best networks in a budget")
    add_devices(search)
    add_search_options(search)
    _add_json(search)
    train = _add(commands, "train", _train, "train networks in full: a run's front, or configs")
    add_train_options(train)
    _add_json(train)
    show = _add(commands, "show", _show, "print the front of a run")
    show.add_argument("run", metavar="RUN", help="a folder that `fasternas search` wrote")
    show.add_argument("--all", action="store_true", help="every network, not the front alone")
    show.add_argument("--repair", action="store_true", help="drop a last line that was cut off")
    _add_json(show)
    _add_report(commands)
    merge = _add(commands, "merge", _merge, "make one run of several that ask the same")
    merge.add_argument("runs", metavar="RUN", nargs="+", help="folders that searches wrote")
    merge.add_argument("--out", required=True, type=word, metavar="DIR", help="the new run folder")
    merge.add_argument("--repair", action="store_true", help="drop last lines that were cut off")
    _add_json(merge)
    measure = _add(commands, "measure", _measure, "print the latency of networks, and compare them")
    measure.add_argument("networks", metavar="NETWORK", nargs="+",
                         help="a config or ONNX file, t0 to l, a timm model, NAME@PX")  # fmt: skip
    add_device(measure)
    add_timing(measure)
    _add_json(measure)
    _add_json(_add(commands, "spaces", _spaces, "list the search spaces"))
    _add_bench(commands)
    _add_devices(commands)
    _add_measurements(commands)
    export = _add(commands, "export", _export, "write a network as files that runtimes load")
    add_export_options(export)
    _add_json(export)
    return parser


def _add_report(commands: Any) -> None:
    report = _add(commands, "report", _report, "write one HTML file about a run")
    report.add_argument("run", metavar="RUN", help="a folder that `fasternas search` wrote")
    report.add_argument("--out", type=word, metavar="FILE", help="the file (RUN/report.html)")
    report.add_argument("--repair", action="store_true", help="drop a last line that was cut off")


def _add_bench(commands: Any) -> None:
    bench = _add(commands, "bench", _bench, "time the paper's operators, or many networks")
    topics = bench.add_subparsers(dest="topic", required=True, metavar="TOPIC")
    operators = _add(topics, "operators", _bench, "Conv, GConv, DWConv and PConv at four map sizes")
    models = _add(topics, "models", _bench, "FasterNet and its rivals, or the networks named")
    models.add_argument("networks", metavar="NETWORK", nargs="*", help="as measure takes, NAME@PX")
    for parser in (operators, models):
        add_device(parser)
        add_timing(parser)
        parser.add_argument("--out", type=word, metavar="DIR", help="the folder for results")
        _add_json(parser)


def _add_devices(commands: Any) -> None:
    devices = _add(commands, "devices", _devices, "list the devices, or add, check, remove a board")
    _add_json(devices)
    actions = devices.add_subparsers(dest="action", metavar="ACTION")
    _add_json(_add(actions, "list", _devices, "list the devices"))
    add = _add(actions, "add", _devices, "register a board that is reached over SSH")
    add.add_argument("name", metavar="NAME", help="what to call it")
    add.add_argument("--ssh", required=True, metavar="USER@HOST[:PORT]", help="where it is")
    add.add_argument("--runtime", default="onnxruntime", help=either(runtime_names()))
    add.add_argument("--precision", default="fp32", help=PRECISIONS)
    add.add_argument("--threads", type=int, default=1, help="threads of one inference (1)")
    add.add_argument("--cores", type=cores, default=(), metavar="0-3",
                     help="the cores to run on (the last ones)")  # fmt: skip
    for name, text in {"check": "ask a board what it is", "remove": "forget a board"}.items():
        _add(actions, name, _devices, text).add_argument("name", metavar="NAME", help="its name")


def _add_measurements(commands: Any) -> None:
    text = "list the measurements that are kept, or export, import some"
    measurements = _add(commands, "measurements", _measurements, text)
    _add_json(measurements)
    actions = measurements.add_subparsers(dest="action", metavar="ACTION")
    _add_json(_add(actions, "list", _measurements, "list the measurements that are kept"))
    export = _add(actions, "export", _measurements, "write measurements into a file to hand on")
    export.add_argument("file", metavar="FILE", type=word, help="JSON lines; gzipped if *.gz")
    export.add_argument("--run", metavar="RUN", help="those of this run folder")
    export.add_argument("--device", metavar="NAME", help="those of this device")
    importing = _add(actions, "import", _measurements, "take measurements from such a file")
    importing.add_argument("file", metavar="FILE", help="what `export` wrote")
    importing.add_argument("--as", dest="name", type=word, metavar="NAME",
                           help="make them a device of this name")  # fmt: skip


def _add(
    commands: Any, name: str, command: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(command=command)
    _add_flag(parser, "--debug", "show the traceback of an error")
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    _add_flag(parser, "--json", "print JSON")


def _add_flag(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add a flag of a command and of its actions: their default must not undo what was given."""
    parser.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=text)


def _search(options: argparse.Namespace) -> int:
    from nas.cli.search import run_search

    return run_search(options)


def _train(options: argparse.Namespace) -> int:
    from nas.cli.train import run_train

    return run_train(options)


def _show(options: argparse.Namespace) -> int:
    from nas.cli.commands import run_show

    return run_show(options)


def _report(options: argparse.Namespace) -> int:
    from nas.cli.report import run_report

    return run_report(options)


def _merge(options: argparse.Namespace) -> int:
    from nas.cli.merge import run_merge

    return run_merge(options)


def _measure(options: argparse.Namespace) -> int:
    from nas.cli.measure import run_measure

    return run_measure(options)


def _bench(options: argparse.Namespace) -> int:
    from nas.cli.bench import run_bench

    return run_bench(options)


def _export(options: argparse.Namespace) -> int:
    from nas.cli.export import run_export

    return run_export(options)


def _spaces(options: argparse.Namespace) -> int:
    from nas.cli.commands import run_spaces

    return run_spaces(options)


def _devices(options: argparse.Namespace) -> int:
    from nas.cli.devices import run_devices

    return run_devices(options)


def _measurements(options: argparse.Namespace) -> int:
    from nas.cli.measurements import run_measurements

    return run_measurements(options)


def _error_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        full = error.filename and error.errno == errno.ENOSPC
        advice = " Free some space; what was begun goes on with --resume." if full else ""
        return f"{error.strerror}{where}.{advice}"
    if isinstance(error, MemoryError):
        return "there is not enough memory. Use fewer threads or smaller networks."
    return one_line(error)
