"""The command line: a table of commands; parsing, dispatch, and errors as one line."""

import argparse
import codecs
import io
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from nas.cli.arguments import add_flag, describe, with_negative_values
from nas.study.remote import local_copies
from search_spaces.extensions import extensions_named
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
    received: list[signal.Signals] = []
    _write_any_character()
    if arguments is None:
        _become_program(debug="--debug" in words)
    try:
        parser_for(words).parse_args(words, options)
        with _orderly_end(received), local_copies(options), extensions_named():
            code = int(options.run_command(options))
        if sys.stdout is not None:  # closed by who called
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _interrupted(received, is_program=arguments is None, kept=_kept(options))
    except (ValueError, TypeError, RuntimeError, OSError, MemoryError) as error:
        left = isinstance(error, BrokenPipeError) and _reader_has_left()
        if options.debug and not left:
            raise
        if isinstance(error, OSError):
            _let_go(1)  # Python would flush, at its end, what could not be written before
        if not left:
            line = error_line(error, resumes=hasattr(options, "resume"))
            print(f"fasternas: error: {line}", file=sys.stderr)
        return 0 if left else 2


def _kept(options: argparse.Namespace) -> str:
    """What an interrupted command leaves, and how to go on; a search may have had nothing yet."""
    folder = getattr(options, "folder", None)  # of a search
    if folder is not None and not (folder / "run.json").exists():
        return "there was nothing to keep yet. Give the same command again."
    more = " The same command with --resume goes on." if hasattr(options, "resume") else ""
    return f"what was finished is kept.{more}"


def _interrupted(received: Sequence[signal.Signals], *, is_program: bool, kept: str) -> int:
    if is_program:  # what is left to do at the end is left undone at the second one
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"fasternas: interrupted; {kept}", file=sys.stderr)
    return 128 + next(iter(received), signal.SIGINT)


# What tables and sentences have beyond ASCII, where a terminal has nothing else.
_PLAIN = {"\u2013": "-", "\u2014": "-", "\u00b1": "+-", "\u00d7": "x", "\u2588": "#", "\u2591": "."}


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written in the place of characters that a stream has not; bytes of names as such."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return b"".join(map(_plain_bytes, unknown)), error.end


def _plain_bytes(character: str) -> bytes:
    if "\udc80" <= character <= "\udcff":
        return character.encode("ascii", "surrogateescape")
    return _PLAIN.get(character, character).encode("ascii", "backslashreplace")


def _write_any_character() -> None:
    """Let no name or sign end a command because the terminal has not its character."""
    codecs.register_error("fasternas", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="fasternas")


class _Progress(io.TextIOWrapper):
    """Standard error, which no command needs: goes on to nowhere where it cannot be written.

    That is when its reader has left, or the disk is full that it is redirected to.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            _let_go(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _let_go(2)


def _become_program(*, debug: bool) -> None:
    """Keep for this process what others write from it: warnings of libraries, lost readers.

    numpy has one thread, since its matrices are small here: several would wait for each other
    without pause, which takes minutes where trainings have all cores.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not debug and not sys.warnoptions:
        warnings.simplefilter("ignore")
    if sys.stderr is None:  # closed by who called: it would go to standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Progress(
            sys.stderr.buffer,
            encoding=sys.stderr.encoding,
            errors="fasternas",
            line_buffering=True,
        )


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


@contextmanager
def _orderly_end(received: list[signal.Signals]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, so that files and processes are cleaned up.

    They do it as Ctrl-C does: Ray, while it waits, heeds no exception but that one, and raises one
    of its own for it. So which signal it was goes into `received`.
    """

    def leave(number: int, _: object) -> NoReturn:
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = (signal.SIGTERM, signal.SIGHUP)
    heeded = [end for end in ends if signal.getsignal(end) is not signal.SIG_IGN]  # as of nohup
    before = {end: signal.signal(end, leave) for end in heeded}
    try:
        yield
    finally:
        for end, handler in before.items():
            signal.signal(end, handler)


def _reader_has_left() -> bool:
    """Whether nobody reads standard output any more; another pipe may break, too."""
    poll = select.poll()
    poll.register(1)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _let_go(descriptor: int) -> None:
    """Have a stream lead nowhere from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


if __name__ == "__main__":
    sys.exit(main())
