"""Run folders at a URL, in a real file system behind fsspec."""

import json
import os
import time
from pathlib import Path

import fsspec
import pytest

from nas.cli.main import main
from nas.study.remote import RemoteFolder

Streams = pytest.CaptureFixture[str]
SEARCH = [
    "search",
    "--device",
    "arm",
    "--space",
    "fasternet",
    "--budget",
    "20ms",
    "--searcher",
    "random",
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    return f"file://{tmp_path}/bucket/run"


def at(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def begun(url: str) -> RemoteFolder:
    """A command at work; it ends by `ended`, or was killed."""
    folder = RemoteFolder(url)
    folder.fetch()
    folder.copy.mkdir(parents=True, exist_ok=True)
    return folder


def ended(folder: RemoteFolder) -> None:
    folder.upload()
    folder.pending.unlink()


@pytest.mark.usefixtures("without_ray")
def test_a_search_writes_its_folder_there_and_goes_on_with_it(url: str, capsys: Streams) -> None:
    assert main([*SEARCH, "--trials", "8", "--out", url]) == 0
    there = {path.name for path in at(url).iterdir()}
    assert {"run.json", "study.journal", "pareto.csv", "pareto.png", "configs"} <= there
    front = (at(url) / "pareto.csv").read_text()
    copy = RemoteFolder(url).copy
    for path in sorted(copy.rglob("*"), reverse=True):  # another machine has no copy
        path.rmdir() if path.is_dir() else path.unlink()
    capsys.readouterr()
    assert main(["show", url]) == 0
    assert capsys.readouterr().out.count("trial-") == len(front.splitlines()) - 1
    assert main([*SEARCH, "--trials", "12", "--out", url, "--resume"]) == 0
    assert (copy / "study.journal").read_bytes() == (at(url) / "study.journal").read_bytes()
    capsys.readouterr()
    assert main(["show", url, "--all", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 12


def test_nothing_is_left_there_of_a_search_that_could_not_begin(url: str, capsys: Streams) -> None:
    assert main([*SEARCH, "--trials", "0", "--out", url]) == 2
    assert "`trials` must be" in capsys.readouterr().err
    assert not at(url).exists()


def test_what_is_newer_in_the_copy_stays(url: str) -> None:
    folder = begun(url)
    (folder.copy / "study.journal").write_text("one\n")
    folder.upload()
    time.sleep(0.02)
    (folder.copy / "study.journal").write_text("one\ntwo\n")  # and then the power went
    again = RemoteFolder(url)
    again.fetch()
    assert (again.copy / "study.journal").read_text() == "one\ntwo\n"
    again.upload()
    assert (at(url) / "study.journal").read_text() == "one\ntwo\n"


def test_what_was_appended_while_it_was_copied_stays(url: str) -> None:
    folder = begun(url)
    (folder.copy / "study.journal").write_text("one\ntwo\n")
    at(url).mkdir(parents=True)
    (at(url) / "study.journal").write_text("one\n")  # later, but of an earlier state
    RemoteFolder(url).fetch()
    assert (folder.copy / "study.journal").read_text() == "one\ntwo\n"


def test_what_changed_without_growing_is_written_back(url: str) -> None:
    folder = begun(url)
    (folder.copy / "run.json").write_text("1")
    folder.upload()
    time.sleep(0.02)
    (folder.copy / "run.json").write_text("2")  # and then the power went
    again = RemoteFolder(url)
    again.fetch()
    again.upload()
    assert (at(url) / "run.json").read_text() == "2"


def test_a_single_file_is_written_there_too(url: str) -> None:
    folder = RemoteFolder(f"{url}.html")
    folder.fetch()
    at(url).parent.mkdir()
    folder.copy.write_text("<html>")
    folder.upload()
    assert Path(f"{at(url)}.html").read_text() == "<html>"


def test_a_line_that_is_half_written_is_not_copied(url: str) -> None:
    folder = begun(url)
    (folder.copy / "measurements.jsonl").write_text('{"a":1}\n{"b"')
    folder.upload()
    assert (at(url) / "measurements.jsonl").read_text() == '{"a":1}\n'


def test_what_is_gone_from_the_copy_goes_there_too(url: str) -> None:
    folder = begun(url)
    for name in ("run.json", "kept"):
        (folder.copy / name).write_text("{}")
    folder.upload()
    (folder.copy / "run.json").unlink()
    folder.upload()
    assert [path.name for path in at(url).iterdir()] == ["kept"]


def test_reading_writes_nothing_back(url: str) -> None:
    first = begun(url)
    (first.copy / "study.journal").write_text("one\n")
    (first.copy / "pareto.csv").write_text("old")
    ended(first)
    reader = RemoteFolder(url)
    reader.fetch()
    (at(url) / "study.journal").write_text("one\ntwo\n")  # meanwhile another machine goes on
    (at(url) / "pareto.csv").write_text("new")
    ended(reader)
    assert (at(url) / "study.journal").read_text() == "one\ntwo\n"
    assert (at(url) / "pareto.csv").read_text() == "new"
    reader.fetch()
    assert (reader.copy / "pareto.csv").read_text() == "new"


def test_a_download_that_is_cut_off_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(url).mkdir(parents=True)
    (at(url) / "study.journal").write_text("one\ntwo\n")
    folder = RemoteFolder(url)

    def cut(path: str, local: str) -> None:
        Path(local).write_text("one\nt")
        raise KeyboardInterrupt

    monkeypatch.setattr(folder._files, "get_file", cut)
    with pytest.raises(KeyboardInterrupt):
        folder.fetch()
    folder.upload()
    assert (at(url) / "study.journal").read_text() == "one\ntwo\n"
    monkeypatch.undo()
    folder.fetch()
    assert (folder.copy / "study.journal").read_text() == "one\ntwo\n"


def test_what_grew_there_is_taken_whatever_the_clocks_say(url: str) -> None:
    folder = begun(url)
    (folder.copy / "study.journal").write_text("one\n")
    ended(folder)
    (at(url) / "study.journal").write_text("one\ntwo\n")
    os.utime(at(url) / "study.journal", (1, 1))
    folder.fetch()
    assert (folder.copy / "study.journal").read_text() == "one\ntwo\n"


def test_a_study_that_grew_in_both_places_is_for_people_to_decide(url: str) -> None:
    folder = begun(url)
    (folder.copy / "study.journal").write_text("one\n")
    folder.upload()
    (folder.copy / "study.journal").write_text("one\nhere\n")  # and then the power went
    (at(url) / "study.journal").write_text("one\nthere\n")
    with pytest.raises(RuntimeError, match=r"`out` must change in one place .*, but study\."):
        RemoteFolder(url).fetch()
    assert (at(url) / "study.journal").read_text() == "one\nthere\n"


def test_what_is_removed_there_goes_from_the_copy(url: str) -> None:
    folder = begun(url)
    for name in ("kept", "gone"):
        (folder.copy / name).write_text(name)
    ended(folder)
    (at(url) / "gone").unlink()
    folder.fetch()
    assert [path.name for path in folder.copy.iterdir()] == ["kept"]


def test_what_has_not_changed_is_not_fetched_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(url)
    (folder.copy / "weights.pt").write_text("large")
    ended(folder)
    again = RemoteFolder(url)
    monkeypatch.setattr(again._files, "get_file", pytest.fail)
    again.fetch()
    assert (again.copy / "weights.pt").read_text() == "large"


def test_what_others_keep_there_stays(url: str) -> None:
    at(url).mkdir(parents=True)
    (at(url) / ".keep").write_text("")
    (at(url) / "run.json").write_text("{}")
    folder = RemoteFolder(url)
    folder.fetch()
    assert [path.name for path in folder.copy.iterdir()] == ["run.json"]
    folder.upload()
    assert (at(url) / ".keep").exists()


def test_in_memory_too() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/run/a/b.txt", b"there")
    folder = RemoteFolder("memory://bucket/run")
    folder.fetch()
    assert (folder.copy / "a" / "b.txt").read_text() == "there"
    (folder.copy / "c.txt").write_text("new")
    folder.upload()
    assert files.cat_file("/bucket/run/c.txt") == b"new"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tape://drive/run", "`out` must be a folder, or a URL that fsspec knows, but got tape://"),
        ("s3://bucket/run", "`out` must be a folder, or a URL that fsspec knows, but got s3://"),
    ],
)
def test_an_unknown_url_is_one_line(url: str, message: str, capsys: Streams) -> None:
    assert main([*SEARCH, "--out", url]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RemoteFolder(f"file://{tmp_path}/file/run")
    folder.copy.mkdir(parents=True)
    (folder.copy / "run.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"`out` must be reachable, but file://.* is not: "):
        folder.upload()


def test_a_url_with_nothing_at_it_is_named_as_it_was_typed(url: str, capsys: Streams) -> None:
    assert main(["measure", f"{url}.onnx", "--device", "arm"]) == 2
    assert f"must be a file that exists, but got '{url}.onnx'." in capsys.readouterr().err


def test_the_page_of_a_model_is_no_file(capsys: Streams) -> None:
    page = "https://huggingface.co/timm/fasternet_t0.in1k"
    assert main(["measure", page, f"{page}@64", "--device", "arm"]) == 0
    assert f"{page}@64 is 9." in capsys.readouterr().out
