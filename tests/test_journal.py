"""Entries are appended whole or not at all, whatever happens to the disk or the process."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from nas.study.journal import append, read, repair

FilesEndAt = Callable[[int], AbstractContextManager[None]]
ENTRY: dict[str, Any] = {"name": "t0", "values": [1.5, None, "\u00b5s"], "more": {"a": True}}
LONG = {"text": "x" * 3000}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here.")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _append_one_by_one(path: Path, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        append(path, [entry])


def test_what_was_appended_is_read(path: Path) -> None:
    append(path, [ENTRY])
    append(path, [{}, {"b": 2}])
    append(path, [])
    assert read(path) == [ENTRY, {}, {"b": 2}]
    assert path.read_bytes().count(b"\n") == 3


def test_no_file_means_no_entries(path: Path) -> None:
    assert read(path) == []
    repair(path)
    assert not path.exists()


def test_what_was_written_is_never_touched_again(path: Path) -> None:
    append(path, [ENTRY])
    before = path.read_bytes()
    append(path, [LONG])
    assert path.read_bytes().startswith(before)


def test_text_of_any_kind_stays_on_its_line(path: Path) -> None:
    entries = [{"error": 'a\nb\r\u2028\x00\\ "quoted" \ud800'}]
    append(path, entries)
    assert read(path) == entries


def test_what_is_no_json_is_refused_and_leaves_nothing(path: Path) -> None:
    append(path, [ENTRY])
    with pytest.raises(TypeError, match="not JSON serializable"):
        append(path, [{"fine": 1}, {"bad": object()}])
    assert read(path) == [ENTRY]


@pytest.mark.parametrize("room", [0, 1, 20, 500, 2999])
@pytest.mark.parametrize("entries", [[LONG], [ENTRY, LONG, ENTRY], [LONG] * 5], ids=len)
def test_a_refused_write_leaves_the_file_as_it_was(
    path: Path, entries: list[dict[str, Any]], room: int, files_end_at: FilesEndAt
) -> None:
    append(path, [ENTRY])
    before = path.read_bytes()
    with (
        files_end_at(len(before) + room),
        pytest.raises(OSError, match="File too large") as caught,
    ):
        append(path, entries)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    append(path, entries)
    assert read(path) == [ENTRY, *entries]


def test_a_full_disk_leaves_the_file_as_it_was(full_disk: Path) -> None:
    path = full_disk / "study.journal"
    entries = [{"number": number, **LONG} for number in range(100)]
    with pytest.raises(OSError, match="No space left on device"):
        _append_one_by_one(path, entries)
    kept = read(path)
    assert 10 < len(kept) < 30
    assert kept == entries[: len(kept)]
    append(path, [{"small": 1}])
    assert read(path) == [*kept, {"small": 1}]


def test_a_device_that_is_always_full_raises_what_the_system_says() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full here.")
    with pytest.raises(OSError, match=r"No space left on device|Invalid argument"):
        append(Path("/dev/full"), [ENTRY])


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "gone" / "study.journal", [ENTRY])


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_line_that_was_cut_off_is_named_and_can_be_dropped(path: Path, cut: int) -> None:
    append(path, [ENTRY, {"b": 2}, ENTRY])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(
        ValueError, match=r"study\.journal ends in the middle of line 3\..*--repair"
    ):
        read(path)
    repair(path)
    assert read(path) == [ENTRY, {"b": 2}]


def test_a_first_line_that_was_cut_off_leaves_an_empty_file(path: Path) -> None:
    path.write_bytes(b'{"a":')
    repair(path)
    assert path.read_bytes() == b""
    assert read(path) == []


def test_repairing_a_whole_file_changes_nothing(path: Path) -> None:
    append(path, [ENTRY, ENTRY])
    before = path.read_bytes()
    repair(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line", [b"{,}", b"[1]", b"7", b"", b"\xff\xfe{}", b'{"a":1}{"b":2}', b"null", b"\0\0\0\0"]
)
def test_a_corrupt_line_in_the_middle_is_named_and_survives_a_repair(
    path: Path, line: bytes
) -> None:
    path.write_bytes(b'{"a":1}\n' + line + b'\n{"c":3}\n')
    for _ in range(2):
        with pytest.raises(ValueError, match=r"Line 2 of .*study\.journal must be a JSON object"):
            read(path)
        repair(path)


def test_a_line_nested_without_end_is_named(path: Path) -> None:
    path.write_bytes(b"[" * 200_000 + b"\n")
    with pytest.raises(ValueError, match="Line 1 of "):
        read(path)


KILLED = """
import sys
from pathlib import Path
from nas.study.journal import append
number = 0
while True:
    append(Path(sys.argv[1]), [{"number": number, "text": "x" * 20_000}])
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout]
    lines = path.read_bytes().splitlines(keepends=True)
    numbers = [json.loads(line)["number"] for line in lines if line.endswith(b"\n")]
    assert numbers[: len(acknowledged)] == acknowledged
    repair(path)
    assert [entry["number"] for entry in read(path)] == numbers


@pytest.mark.parametrize("reader", [read, repair])
def test_a_folder_in_place_of_the_file_is_an_error(
    path: Path, reader: Callable[[Path], object]
) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        reader(path)
