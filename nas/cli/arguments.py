"""How words of the command line become values; each raises argparse's error in one line."""

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar

from nas.quantities import parse_duration_ms

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")
_CORES = 4096  # of a machine, at the most


def either(names: Sequence[str]) -> str:
    """Return names as a help text lists them: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


class Description(TypedDict):
    """What argparse prints of a command: in a list of commands, and above its own options."""

    help: str
    description: str


def describe(text: str) -> Description:
    """Return a line about a command as argparse takes it."""
    return {"help": text, "description": f"{text[0].upper()}{text[1:]}."}


def add_action(actions: "Actions", name: str, text: str) -> argparse.ArgumentParser:
    """Add what a command may do, as its next word, and return its parser."""
    parser = actions.add_parser(name, **describe(text))
    add_flag(parser, "--debug", "show the traceback of an error")
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, which every command has that reads."""
    add_flag(parser, "--json", "print JSON")


def add_flag(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add a flag of a command and of its actions: their default must not undo what was given."""
    parser.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=text)


def duration_ms(text: str) -> float:
    """Read 10ms, 0.5s or 800us."""
    try:
        return parse_duration_ms(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def by_device(read: Callable[[str], T]) -> Callable[[str], T | dict[str, T]]:
    """Read a value, or one for each device: pi=10ms,cpu=3ms, where pi1,pi2 may be a device."""

    def parse(text: str) -> T | dict[str, T]:
        if "=" not in text:
            return read(text)
        *pieces, rest = re.split(r"=([^,=]*)(?:,|$)", text)
        names, values = pieces[::2], pieces[1::2]
        found = {_spelled(name): read(value) for name, value in zip(names, values, strict=True)}
        if rest or text.endswith(",") or not all(found) or len(found) < len(names):
            raise argparse.ArgumentTypeError(
                f"must be a value for each device, as in pi=10ms,cpu=3ms, but got {text!r}."
            )
        return found

    parse.__name__ = read.__name__  # argparse names it where `read` raises ValueError
    return parse


def device(text: str) -> str:
    """Read a device, or several of one kind, with commas and maybe blanks between them."""
    return _spelled(word(text))


def _spelled(device: str) -> str:
    return ",".join(part.strip() for part in device.split(","))


def numbers(text: str) -> tuple[int, ...]:
    """Read 192,224."""
    try:
        return tuple(int(part) for part in words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers like 192,224, but got {text!r}."
        ) from None


def switch(text: str) -> bool:
    """Read on or off."""
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"must be on or off, but got {text!r}.")
    return text == "on"


def positive(text: str) -> int:
    """Read a positive whole number."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive whole number, but got {text!r}.")
    return int(text)


def whole(text: str) -> int:
    """Read a whole number from 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, but got {text!r}.")
    return int(text)


def batch(text: str) -> int | None:
    """Read a positive whole number, or dynamic."""
    return None if text == "dynamic" else positive(text)


def cores(text: str) -> tuple[int, ...]:
    """Read 0-3 or 0,2."""
    try:
        ends = [[int(end) for end in part.split("-", 1)] for part in words(text)]
        if max(max(pair) for pair in ends) >= _CORES:  # before a span of them is written out
            raise argparse.ArgumentTypeError(f"must be cores below {_CORES}, but got {text!r}.")
        spans = [range(first, (last or [first])[0] + 1) for first, *last in ends]
    except ValueError:
        spans = [range(0)]
    if not all(spans):
        raise argparse.ArgumentTypeError(f"must be cores like 0-3 or 0,2, but got {text!r}.")
    return tuple(sorted({core for span in spans for core in span}))


def words(text: str) -> tuple[str, ...]:
    """Read relu,gelu."""
    return tuple(word(part.strip()) for part in text.split(","))


def word(text: str) -> str:
    """Refuse what is empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty.")
    return text


def ray_address(text: str) -> str:
    """Read HOST:PORT or auto."""
    _, colon, port = text.rpartition(":")
    if colon and not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise argparse.ArgumentTypeError(f"must be HOST:PORT or auto, but got {text!r}.")
    return word(text)


def with_negative_values(arguments: Sequence[str]) -> list[str]:
    """Join `--budget -3ms` into one word, which argparse would take for two options."""
    joined: list[str] = []
    for argument in arguments:
        negative = re.match(r"-\.?[0-9]", argument)
        if negative and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
