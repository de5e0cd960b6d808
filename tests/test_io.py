"""Folders for results: made, refused in words, and removed again."""

from pathlib import Path

import pytest

from nas.cli.main import main
from search_spaces.io import make_folders, remove_empty


def test_what_was_made_is_removed_again_unless_something_lies_in_it(tmp_path: Path) -> None:
    made = make_folders(tmp_path / "a" / "b")
    assert made == [tmp_path / "a" / "b", tmp_path / "a"]
    (tmp_path / "a" / "file").touch()
    remove_empty(made)
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "file"]
    assert make_folders(tmp_path / "a") == []


@pytest.mark.parametrize("out", ["out", "out/deeper"])
@pytest.mark.parametrize(
    "command", ["search --device arm --budget 10ms --out", "bench models t0 --out"]
)
def test_a_link_that_leads_nowhere_is_said_to_be_one(
    command: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("out").symlink_to("gone")
    assert main([*command.split(), out]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == ("fasternas: error: `out` must be a folder, but out is a link to gone, which is "
                    "not there. Make that or remove the link.")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
