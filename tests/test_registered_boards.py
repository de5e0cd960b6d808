"""The list of boards: nobody's board is lost from it, and what is wrong in it is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from nas.cli.main import main
from predictors.devices.boards import Board, load_boards, save_boards

Streams = pytest.CaptureFixture[str]
ADD = """\
import sys, time
from predictors.devices.boards import Board, boards_to_change
with boards_to_change() as boards:
    time.sleep(0.3)
    boards[sys.argv[1]] = Board(name=sys.argv[1], ssh="host")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "fasternas"


def test_boards_that_are_added_at_once_are_all_kept(folder: Path) -> None:
    names = {"a", "b", "c"}
    adding = [subprocess.Popen([sys.executable, "-c", ADD, name]) for name in names]
    assert [process.wait() for process in adding] == [0, 0, 0]
    assert load_boards().keys() == names
    assert [file.name for file in folder.iterdir()] == ["devices.toml"]


def test_a_board_that_cannot_be_opened_hides_no_other(capsys: Streams) -> None:
    board = Board(name="good", ssh="host", architecture="x86_64", version="1.0")
    save_boards({"bare": Board(name="bare", ssh="host"), "good": board})
    assert main(["devices"]) == 0
    shown = capsys.readouterr().out
    assert "`runtime` must be installed on bare, but onnxruntime is not" in shown
    assert "x86_64, onnxruntime 1.0, one thread: measured" in shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[pi]\nssh = "h"\nthreads = "four"', "threads of 'pi' is 'four'. Mend"),
        ('[pi]\nssh = "h"\nthreads = true', "threads of 'pi' is True. Mend"),
        ('[pi]\nssh = "h"\nnumber_of_cores = "a"', "number_of_cores of 'pi' is 'a'. Mend"),
        ('[pi]\nssh = "h"\nversion = 5', "version of 'pi' is 5. Mend"),
        ('[pi]\nssh = "h"\ncores = "0-3"', "cores of 'pi' is '0-3'. Mend"),
        ('[pi]\nssh = "h"\ncores = [-1]', "[-1] are no cores. Mend"),
        ('["a\\u001b[2J"]\nssh = "h"', "'a\\x1b[2J' is no name"),
        ("[pi]", "but got ''. Mend"),
    ],
)
def test_what_is_wrong_with_a_board_is_named(
    folder: Path, content: str, words: str, capsys: Streams
) -> None:
    folder.mkdir()
    (folder / "devices.toml").write_text(content)
    assert main(["devices"]) == 2
    said = capsys.readouterr().err
    assert "devices.toml must list boards" in said
    assert words in said
    assert said.count("\n") == 1
