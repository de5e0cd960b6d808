"""The README's Python runs as it stands, block after block, as a reader would paste it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from predictors.backends.table import formats

README = Path(__file__).parents[1] / "README.md"
FENCED = re.compile(
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)


def _blocks(text: str) -> list[tuple[int, str]]:
    """The Python blocks, each with the number of its first line."""
    return [(text.count("\n", 0, found.start("code")) + 1, found["code"])
            for found in FENCED.finditer(text)]  # fmt: skip


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(README.read_text(encoding="utf-8"))
    assert blocks, "The README has no ```python block."
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code in blocks:
        # Blank lines in front, so that a traceback names the README's own line.
        exec(compile("\n" * (line - 1) + code, str(README), "exec"), namespace)


def test_the_tables_are_those_of_the_benchmarks() -> None:
    program = README.parent / "benchmarks" / "readme_tables.py"
    subprocess.run([sys.executable, program, "--check"], check=True)


def test_the_readme_lists_every_format() -> None:
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", text.split("| `--to` | file |")[1].split("\n\n")[0], re.M)
    assert re.findall(r"`(.+?)`", ", ".join(rows)) == list(formats())


def test_no_block_of_the_readme_is_left_open() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("```") % 2 == 0
    assert len(_blocks(text)) == len(re.findall(r"^ *```(?:python|py)\b", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("```\nx = 1\n```\n", []),
        ("```python\nx = 1\n```\n", [(2, "x = 1\n")]),
        ("a\n\n```python\nx = 1\n```\nb\n```sh\nls\n```\n```python\ny = 2\n\nz = 3\n```\n",
         [(4, "x = 1\n"), (11, "y = 2\n\nz = 3\n")]),
    ],
)  # fmt: skip
def test_blocks_are_found_where_they_are(text: str, expected: list[tuple[int, str]]) -> None:
    assert _blocks(text) == expected
