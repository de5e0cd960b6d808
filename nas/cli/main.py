"""The command line: a table of commands; parsing, dispatch, and errors as one line."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from nas.cli.arguments import add_flag, describe, with_negative_values
from nas.study.remote import local_copies
from search_spaces.io import error_line

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

DESCRIPTION = "From a latency budget on a real device to a Pareto front of FasterNet variants."


class Command(NamedTuple):
    """A command; its module has `add_NAME_options(parser)` and `run_NAME(arguments) -> int`."""

    name: str
    help: str
    module: str

    def function(self, name: str) -> Callable[..., object]:
        """Return a function of the module, which is imported now."""
        found: Callable[..., object] = getattr(import_module(f"nas.cli.{self.module}"), name)
        return found


COMMANDS = (
    Command("search", "search a space for the best networks in a budget", "search"),
    Command("train", "train networks in full: a run's front, or configs", "train"),
    Command("show", "print the front of a run", "runs"),
    Command("report", "write one HTML file about a run", "runs"),
    Command("merge", "make one run of several that ask the same", "runs"),
    Command("measure", "print the latency of networks, and compare them", "measure"),
    Command("spaces", "list the search spaces", "runs"),
    Command("bench", "time the paper's operators, or many networks", "measure"),
    Command("devices", "list the devices, or add, check, remove a board", "devices"),
    Command(
        "measurements", "list the measurements that are kept, or export, import some", "devices"
    ),
    Command("export", "write a network as files that runtimes load", "export"),
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print it, or raise what argparse would swallow: OSError where it finds no room."""
        stream = sys.stdout if file is None else file
        stream.write(self.format_help())
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 2 for bad input, 130 when interrupted."""
    words = with_negative_values(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace(debug=False, json=False)
    try:
        parser_for(words).parse_args(words, options)
        with _orderly_end(), local_copies(options):
            code = int(options.run_command(options))
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
        print(f"fasternas: error: {error_line(error)}", file=sys.stderr)
        return 2


def parser_for(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a command line; of its commands only the one that is named is loaded."""
    parser = _Parser(prog="fasternas", description=DESCRIPTION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    named = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        own = commands.add_parser(command.name, **describe(command.help))
        if command.name == named:
            add_flag(own, "--debug", "show the traceback of an error")
            command.function(f"add_{named}_options")(own)
            own.set_defaults(run_command=command.function(f"run_{named}"))
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
