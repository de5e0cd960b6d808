"""Run the commands that the pages show, and write what they print below them.

    python docs/transcripts.py FOLDER [PAGE...] [--board USER@HOST:PORT]

A page is README.md or one in docs/. In its `console` blocks each command stands after `$`, and
what it printed follows; a `text` block right after a `python` block holds what that printed.
Commands run in FOLDER, page after page. What one printed is kept there, so that none runs twice:
remove FOLDER/transcripts.json to begin anew. `--board` takes the place of the pages' address.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_LINES = 15  # of a transcript, its command among them
ADDRESS = "user@10.0.0.3"  # of the board, in the pages
_FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$\n?", re.DOTALL | re.M
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where its body lies in the text of the page, and the number of its line."""

    language: str
    body: str
    line: int
    start: int
    end: int

    def commands(self) -> list[tuple[str, list[str]]]:
        """Return the commands of a `sh` or `console` block, each with the lines that follow it."""
        lines = self.body.replace("\\\n", "").splitlines()
        if self.language == "sh":
            return [(line, []) for line in lines if line and not line.startswith("#")]
        found: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif found:
                found[-1][1].append(line)
        return found


def pages() -> list[Path]:
    """Return the pages in the order in which a reader meets them."""
    docs = sorted(
        (ROOT / "docs").rglob("*.md"), key=lambda page: (page.name != "tutorial.md", page)
    )
    return [ROOT / "README.md", *docs]


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [
        Block(
            language=found["language"],
            body=found["body"],
            line=text.count("\n", 0, found.start("body")) + 1,
            start=found.start("body"),
            end=found.end("body"),
        )
        for found in _FENCED.finditer(text)
    ]


def output_after(text: str, block: Block, blocks: Sequence[Block]) -> Block | None:
    """Return the `text` block right after a block, which holds what it printed."""
    for after in blocks:
        if after.start > block.end and after.language == "text":
            between = text[block.end : after.start]
            return after if re.fullmatch(r" *```\n\n? *```text\n", between) else None
    return None


def shortened(lines: Sequence[str], most: int) -> list[str]:
    """Return the lines, those before the last one as `...` where there are more."""
    return list(lines) if len(lines) <= most else [*lines[: most - 2], "...", lines[-1]]


class Recorder:
    """Runs commands in a folder and keeps what they print."""

    def __init__(self, folder: Path, board: str) -> None:
        self.folder = folder
        self._board = board
        self._file = folder / "transcripts.json"
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._known: dict[str, str] = known

    def output(self, command: str) -> str:
        """Return what a command prints on standard output.

        Raises:
            RuntimeError: if it fails.
        """
        if command not in self._known:
            print(f"$ {command}", file=sys.stderr, flush=True)
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            told = ["bash", "-c", command.replace(ADDRESS, self._board)]
            environment = {**os.environ, "PATH": path}
            done = subprocess.run(
                told,
                cwd=self.folder,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{command} ended with {done.returncode}.")
            self._known[command] = done.stdout
            self._file.write_text(json.dumps(self._known, indent=2))
        return self._known[command]

    def filled(self, text: str) -> str:
        """Return the text of a page with its transcripts made anew."""
        namespace: dict[str, Any] = {"__name__": "__main__"}
        pieces, done = [], 0
        for start, end, body in self._bodies(text, namespace):
            pieces += [text[done:start], body]
            done = end
        return "".join([*pieces, text[done:]])

    def _bodies(self, text: str, namespace: dict[str, Any]) -> Iterator[tuple[int, int, str]]:
        blocks = blocks_of(text)
        for block in blocks:
            if block.language == "console":
                yield block.start, block.end, self._console(block)
            if block.language != "python":
                continue
            printed = self._python(block, namespace)
            if (after := output_after(text, block, blocks)) is not None:
                lines = shortened(printed.splitlines(), MOST_LINES)
                yield after.start, after.end, "".join(f"{line}\n" for line in lines)

    def _console(self, block: Block) -> str:
        commands = [command for command, _ in block.commands()]
        most = MOST_LINES // len(commands) - 1
        lines: list[str] = []
        for command in commands:
            lines += [f"$ {command}", *shortened(self.output(command).rstrip().splitlines(), most)]
        return "".join(f"{line}\n" for line in lines)

    def _python(self, block: Block, namespace: dict[str, Any]) -> str:
        printed = io.StringIO()
        with chdir(self.folder), redirect_stdout(printed):
            exec(block.body, namespace)
        return printed.getvalue()


def main() -> None:
    """Fill in the pages that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", type=Path, nargs="*")
    parser.add_argument("--board", default=ADDRESS)
    options = parser.parse_intermixed_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(options.folder, options.board)
    for page in options.pages or pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(recorder.filled(text), encoding="utf-8")


if __name__ == "__main__":
    main()
