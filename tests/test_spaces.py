"""Spaces that users name: whatever their module does, the command line stays orderly."""

import json
from pathlib import Path

import pytest

from nas.cli.main import main

Streams = pytest.CaptureFixture[str]
SPACE = "from search_spaces.fasternet import SPACES\nSPACE = SPACES['fasternet-32']\n"


def _file(folder: Path, text: str) -> str:
    (folder / "own.py").write_text(text)
    return f"{folder / 'own.py'}:SPACE"


def test_what_a_module_prints_is_no_result(tmp_path: Path, capsys: Streams) -> None:
    assert main(["spaces", _file(tmp_path, f"print('hello')\n{SPACE}"), "--json"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)[0]["size"] > 1
    assert streams.err == "hello\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.exit(0)", "own.py:SPACE cannot be loaded: SystemExit: 0."),
        ("def __getattr__(name): raise KeyError(name)", "cannot be loaded: KeyError: 'SPACE'."),
        ("SPACE = 'x' * 10**6", "SPACE of "),
        (
            "class Odd:\n    def __repr__(self): raise LookupError\nSPACE = Odd()",
            "is <Odd instance at ",
        ),
    ],
)
def test_a_module_without_a_space_is_refused_in_one_short_line(
    text: str, words: str, tmp_path: Path, capsys: Streams
) -> None:
    assert main(["spaces", _file(tmp_path, text)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert len(said) < 500
