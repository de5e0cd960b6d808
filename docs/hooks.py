"""What mkdocs writes into pages as it builds them: commands and spaces, from the code."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping

from nas.cli.main import COMMANDS
from search_spaces.fasternet import CHOICES, SPACES
from search_spaces.space import AnySpace, Each, OneOf


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in what a page marks, as mkdocs asks of a hook."""
    for name, write in WRITERS.items():
        mark = f"<!-- {name} -->\n"
        if mark in markdown:
            markdown = markdown.replace(mark, write())
    return markdown


def commands() -> str:
    """Return a section for each command: what it does, its arguments and its options."""
    sections = []
    for command in COMMANDS:
        parser = argparse.ArgumentParser(prog=f"fasternas {command.name}", add_help=False)
        command.function(f"add_{command.name}_options")(parser)
        text = f"{command.help[0].upper()}{command.help[1:]}."
        sections += [f"## {command.name}\n", f"{text}\n", *_of_parser(parser, "###")]
    return "\n".join(sections)


def _of_parser(parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    rows, actions = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions += list(action.choices.items())
        elif not isinstance(action, argparse._HelpAction):
            rows.append(f"| {_spelled(action)} | {_plain(action.help or '')} |")
    if rows:
        yield "\n".join(["| argument | what it is |", "|---|---|", *rows, ""])
    for name, own in actions:
        yield f"{level} {parser.prog.removeprefix('fasternas ')} {name}\n"
        yield f"{own.description}\n"
        yield from _of_parser(own, f"{level}#")


def _spelled(action: argparse.Action) -> str:
    """The words that are typed: `--budget TIME`, or `NETWORK ...`."""
    metavar = action.metavar or action.dest.upper()
    value = "" if action.nargs == 0 else str(metavar)
    if action.nargs in ("+", "*"):
        value += " ..."
    names = ", ".join(action.option_strings)
    return f"`{' '.join(filter(None, (names, value)))}`".replace("|", "\\|")


def _plain(text: str) -> str:
    """A help text as Markdown, in which nothing but its backticks means anything."""
    pieces = text.replace("%%", "%").split("`")
    pieces[::2] = [
        re.sub(r"([*_\[\]|\\])", r"\\\1", piece).replace("<", "&lt;") for piece in pieces[::2]
    ]
    return "`".join(pieces)


def spaces() -> str:
    """Return a section for each space: how many networks it holds, and what each field chooses."""
    return "\n".join(_of_space(name, space) for name, space in SPACES.items())


def _of_space(name: str, space: AnySpace) -> str:
    rows = [
        f"| `{field}` | {_choices(node)} | {CHOICES[field]} |"
        for field, node in space.fields.items()
    ]
    header = ["| field | choices | what it chooses |", "|---|---|---|"]
    return "\n".join([f"## {name}\n", f"{space.size:.2g} networks.\n", *header, *rows, ""])


def _choices(node: object) -> str:
    """The choices of a field; of several stages, a line each where they differ."""
    if isinstance(node, Each):
        stages = [", ".join(map(str, item.choices)) for item in node.items]
        if len(set(stages)) == 1:
            return stages[0]
        return "<br>".join(f"stage {i}: {words}" for i, words in enumerate(stages, start=1))
    return ", ".join(map(str, node.choices if isinstance(node, OneOf) else (node,)))


WRITERS: Mapping[str, Callable[[], str]] = {"commands": commands, "spaces": spaces}
