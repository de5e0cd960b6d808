"""README.md and docs/ are true: their blocks run, and print what the pages show.

All pages share one folder, one board and one run. Commands that differ only in values are run once.
"""

import argparse
import csv
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import SSHD, Server, running_sshd
from quick import evaluate_here, time_quickly
from sklearn import datasets
from sklearn.utils import Bunch
from transcripts import ADDRESS, MOST_LINES, Block, blocks_of, output_after, pages

import fasternas as fn
from nas.cli.main import COMMANDS, main, parser_for
from nas.search.searchers import searcher_names
from nas.study.options import SETTINGS, accuracy_names
from predictors.backends.table import formats
from predictors.data.timm_datasets import PREFIXES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
TEXTS = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
# What is shorter here than for a reader, or larger, since times are imprecise here. Other tests
# time such searches; here one does.
CHEAPER = (
    (r"--device (?:cpu|board) --budget 10?ms", "--device arm --budget 10ms"),
    (r"--budget 0\.2ms", "--budget 1ms"),
    (r"--epochs \d+", "--epochs 1"),
    (r"(search .*--data \S+)", r"\1 --epochs 2"),
    (r"--trials \d+", "--trials 5"),
    (r"(measure .*--device (?:board|cpu))", r"\1 --repeats 2"),
)
# Of these only the arguments are read: clusters, storages, several devices or runtimes, two hours,
# and a search of digits that others are like.
NOT_HERE = re.compile(
    r"--ray |s3://|pi1,pi2|--runtime |--device \S+ --device |--time |--budget 1ms"
)
ONLY_VALUES = re.compile(r"--(?:data|budget) \S+")
# Commands of other programs: what of them can be checked is.
OTHERS = (
    "make ",
    "pip install ",
    ".venv/bin/pip install ",
    "python3 -m venv ",
    "ray start ",
    "source .venv/bin/activate",
    "sudo apt install ",
)


@dataclass
class World:
    """The folder in which all pages run, its board, and what the commands have printed."""

    folder: Path
    server: Server
    printed: dict[str, str] = field(default_factory=dict)  # by what was typed, but for some values

    def run(self, typed: str) -> str:
        """Run a command, unless one that differs only in values was run; return what it printed."""
        command = typed.removeprefix(".venv/bin/")
        for pattern, replacement in CHEAPER:
            command = re.sub(pattern, replacement, command)
        words = self._words(command.replace(ADDRESS, self.server.address.removeprefix("ssh://")))
        kind = ONLY_VALUES.sub("", command)
        if NOT_HERE.search(f"{typed} ") or kind in self.printed:
            parser_for(words).parse_args(words)
            return self.printed.get(kind, "")
        out = io.StringIO()
        with redirect_stdout(out):
            code = main(words)
        assert code == 0, typed
        return self.printed.setdefault(kind, out.getvalue())

    def _words(self, command: str) -> list[str]:
        """The words after the program's name as a shell passes them on."""
        return [
            word
            for pattern in shlex.split(command)[1:]
            for word in (map(str, sorted(Path().glob(pattern))) if "*" in pattern else [pattern])
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if SSHD is None or os.getuid() != 0:
        pytest.skip("OpenSSH's sshd is not installed here, or this is not root.")
    folder = tmp_path_factory.mktemp("docs")
    with running_sshd() as server:
        yield World(folder, server)


@pytest.fixture
def reader(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Who reads the pages: in the folder, with a board, in a hurry, and without a Ray."""
    time_quickly(monkeypatch)
    evaluate_here(monkeypatch)
    digits = datasets.load_digits()
    few = Bunch(images=digits.images[::4], target=digits.target[::4])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)
    monkeypatch.setattr("nas.cli.search.TRIALS", 6)
    monkeypatch.setattr("nas.cli.search.TRAINED_TRIALS", 3)
    for name in ("config", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(world.folder / name))
    monkeypatch.setenv("FASTERNAS_SSH", f"ssh -F {world.server.folder}/ssh_config")
    monkeypatch.chdir(world.folder)
    return world


@pytest.mark.parametrize("name", [n for n, text in TEXTS.items() if "```" in text])
def test_the_blocks_of_a_page_run_and_print_what_it_shows(name: str, reader: World) -> None:
    _read("README.md", reader)  # which adds the board and makes the run
    if name != "README.md":
        _read(name, reader)


def _read(name: str, reader: World) -> None:
    """Run the blocks of a page."""
    text = TEXTS[name]
    blocks = blocks_of(text)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.language in ("sh", "console"):
            _run_commands(block, reader)
        elif block.language == "python":
            printed = _run_python(name, block, namespace)
            if (after := output_after(text, block, blocks)) is not None:
                _check_shape(after.body.splitlines(), printed)
        else:
            assert block.language == "text", f"{name}:{block.line}: is neither run nor an output."


def _run_python(name: str, block: Block, namespace: dict[str, Any]) -> str:
    """Run a block; blank lines in front, so that a traceback names the page's own line."""
    code = compile("\n" * (block.line - 1) + block.body, str(PAGES[name]), "exec")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def _run_commands(block: Block, world: World) -> None:
    for line, shown in block.commands():
        for command in line.split(" && "):
            if re.match(r"(\.venv/bin/)?fasternas ", command):
                _check_shape(shown, world.run(command))
            else:
                assert command.startswith(OTHERS), f"line {block.line}: {command}"


def _check_shape(shown: list[str], printed: str) -> None:
    """Each line that a page shows is printed, with whatever numbers and processor."""
    found = {_shape(line) for line in printed.splitlines()}
    for line in shown:
        assert line == "..." or _shape(line) in found, f"{line!r} is not printed:\n{printed}"


def _shape(line: str) -> str:
    if line.endswith("% sure)."):
        return "which of two is faster"  # as their times fell out
    line = re.sub(r"(AMD|Intel|Arm|ARM|Cortex|Neoverse)[^,]*", "PROCESSOR", line)
    line = re.sub(r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?(?: [KMG]B?\b)?", "#", line)
    line = re.sub(r"\b(?:yes|no)\b", "yes or no", line.replace(", unstable", ""))
    return re.sub(r"-{2,}|\s+", " ", line).strip()


def test_no_transcript_is_long() -> None:
    for name, text in TEXTS.items():
        for block in blocks_of(text):
            if block.language in ("console", "text"):
                assert block.body.count("\n") <= MOST_LINES, f"{name}:{block.line}"
        assert text.count("```") % 2 == 0, name


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].split()) <= 1200


def test_the_tables_are_those_of_the_benchmarks() -> None:
    program = ROOT / "benchmarks" / "docs_tables.py"
    subprocess.run([sys.executable, program, "--check"], check=True)


def test_the_folder_of_a_run_holds_what_its_page_says(reader: World) -> None:
    for name in ("README.md", "docs/tutorial.md"):  # what they have run is not run again
        _read(name, reader)
    run, page = reader.folder / "runs" / "digits", TEXTS["docs/reference/run-folder.md"]
    files, columns = page.split("## Columns of pareto.csv")
    for file in _first_cells(files):
        assert list(run.glob(file)), file
    with (run / "pareto.csv").open(newline="") as table:
        assert next(csv.reader(table)) == _first_cells(columns)
    trained = next(folder for folder in (run / "trained").iterdir() if folder.is_dir())
    for file in _first_cells(TEXTS["docs/how-to/train.md"].split("## What it writes")[1]):
        assert list(trained.glob(file.replace("NAME", "*"))), file


def _first_cells(page: str) -> list[str]:
    """What is in backticks in the first cells of a page's tables."""
    rows = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    return re.findall(r"`(.+?)`", ", ".join(rows))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                yield from _parsers(own)


def test_every_option_that_is_named_exists() -> None:
    known = {"--help", "--check", "--strict"}
    for command in COMMANDS:
        for parser in _parsers(parser_for([command.name])):
            known.update(name for action in parser._actions for name in action.option_strings)
    for name, text in TEXTS.items():
        named = re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(re.findall(r"`[^`]+`", text)))
        assert set(named) - {"--address", "--resources", "--data"} <= known, name


def test_every_file_that_is_named_exists() -> None:
    for name, text in TEXTS.items():
        for path in re.findall(r"(?:benchmarks|predictors|docs|tests|examples)/[\w/.-]*\w", text):
            if path != "benchmarks/NAME.py":
                assert (ROOT / path).exists(), f"{name} names {path}"


def test_the_guide_names_what_there_is() -> None:
    """Modules in the table of rooms; constants, classes and files in CONTRIBUTING.md."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w[\w/]*)/` \| (.*?) \|", guide, re.MULTILINE)
    for room, text in rooms:
        for module in re.findall(r"`(\w+)/?`", text):
            assert list((ROOT / room).glob(f"{module}.py")) or (ROOT / room / module).is_dir(), text
    named = set(re.findall(r"`(?:fn\.)?([A-Z][A-Za-z]*[a-zA-Z]{2})`", guide)) - {"RUN", "NAME"}
    named |= set(re.findall(r"`(\w+_\w+)`", guide))
    ours = (path for path in ROOT.glob("[!.]*/**/*.py") if "site-packages" not in path.parts)
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(ours))
    assert {name for name in named if not re.search(rf"\b{name}\b", sources)} == set()
    for path in re.findall(r"`((?:\w+/)+[\w.]+)`", guide):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def test_links_lead_somewhere() -> None:
    """mkdocs follows those of docs/ itself."""
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for path, anchor in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", text):
            assert (ROOT / path).exists(), f"{name} links to {path}"
            target = (ROOT / path).read_text(encoding="utf-8") if anchor else ""
            headings = re.findall(r"^#+ (.*)$", target, re.MULTILINE)
            slugs = {re.sub(r"\W+", "-", heading.lower()).strip("-") for heading in headings}
            assert not anchor or anchor in slugs, f"{name} links to {path}#{anchor}"


def test_what_help_and_pages_list_is_what_there_is() -> None:
    data = TEXTS["docs/how-to/own-data.md"].split("| `--accuracy` |")[1].split("\n\n")[0]
    assert _first_cells(data) == [*accuracy_names(), "auto"]
    kinds = TEXTS["docs/how-to/own-data.md"].split("| data |")[1].split("\n\n")[0]
    assert {cell.partition("/")[0] for cell in _first_cells(kinds) if "/" in cell} == {*PREFIXES}
    export = TEXTS["docs/how-to/export.md"].split("| `--to` |")[1].split("\n\n")[0]
    assert _first_cells(export) == list(formats())
    chosen = TEXTS["docs/how-to/own-space.md"].split("`--searcher` takes")[1].split("\n\n")[0]
    helps = {
        action.dest: action.help or ""
        for parser in _parsers(parser_for(["search"]))
        for action in parser._actions
    }
    for searcher in searcher_names():
        assert f"`{searcher}`" in chosen
        assert searcher in helps["searcher"]
    for option in accuracy_names():
        assert option in helps["accuracy"]


def test_the_python_page_has_every_public_name() -> None:
    named = re.findall(r"^::: fasternas\.(\w+)$", TEXTS["docs/reference/python.md"], re.MULTILINE)
    assert sorted(named) == dir(fn)


def test_numbers_in_sentences_are_those_of_the_code() -> None:
    for name in ("docs/index.md", "docs/trust.md"):
        assert f"times up to {SETTINGS.calibration} networks" in TEXTS[name]


def test_extras_and_chores_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    chores = (ROOT / "Makefile").read_text()
    for text in TEXTS.values():
        for names in re.findall(r"fasternas\[([\w,]+)\]", text):
            assert set(names.split(",")) <= extras.keys()
        for chore in re.findall(r"^make (\S+)", text, re.MULTILINE):
            assert f"\n{chore}:" in chores
