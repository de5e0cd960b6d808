"""Measurements are kept for good, by many at once, and a broken store stops no run."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from predictors.backends.model import config_identity
from predictors.devices.cache import Merged, Store
from predictors.devices.cache_entry import Entry, Key, Setting
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FASTERNET

SETTING = Setting(runtime="onnxruntime", version="1.20", threads=1, machine="a processor")
T0, T1 = config_identity(FASTERNET["t0"]), config_identity(FASTERNET["t1"])
WRITER = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from test_cache import entry
from predictors.devices.cache import Store
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    Store().keep(entry(number))
    print(number, flush=True)
"""


def measurement(ms: float = 3.0, *, processes: int = 2) -> Latency:
    """A measurement by so many processes."""
    return Latency(
        median_ms=ms, low_ms=0.9 * ms, high_ms=1.1 * ms, source="measured", device="cpu",
        backend=Backend("onnxruntime"), samples_ms=((ms, ms),) * processes,
        context={"machine": "a processor", "pinned": True},
    )  # fmt: skip


def entry(number: int, *, device: str = "cpu", network: str = T0, ms: float = 3.0) -> Entry:
    """An entry with an artifact for each number."""
    return Entry(
        key=Key(artifact=f"{number:064x}", setting=SETTING), device=device, network=network,
        description="a processor: measured", measurement=measurement(ms),
        taken_at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Store()


def test_what_is_kept_is_found_as_it_was(store: Store, tmp_path: Path) -> None:
    kept = entry(1)
    assert store.find(kept.key) is None
    assert not (tmp_path / "cache").exists()
    store.keep(kept)
    assert store.path == tmp_path / "cache" / "fasternas" / "measurements.db"
    assert store.find(kept.key) == kept.measurement
    assert store.entries() == [kept]


@pytest.mark.parametrize(
    "change",
    [{"runtime": "torch"}, {"version": "1.21"}, {"threads": 2}, {"machine": "another"},
     {"address": "user@host"}, {"emulated": True}, {"precision": "int8"}],
    ids=str,
)  # fmt: skip
def test_any_other_setting_is_another_measurement(
    store: Store, change: dict[str, str | int]
) -> None:
    kept = entry(1)
    store.keep(kept)
    other = replace(kept.key, setting=replace(SETTING, **change))  # type: ignore[arg-type]
    assert store.find(other) is None
    store.keep(replace(kept, key=other))
    assert [found.key for found in store.entries()].count(other) == 1
    assert len(store.entries()) == 2


def test_too_few_processes_are_not_enough_and_more_replace_them(store: Store) -> None:
    kept = entry(1)
    store.keep(kept)
    assert store.find(kept.key, processes=2) == kept.measurement
    assert store.find(kept.key, processes=3) is None
    better = measurement(2.5, processes=3)
    store.keep(replace(kept, measurement=better))
    assert store.find(kept.key, processes=3) == better
    store.keep(kept)  # which is less well known
    assert store.find(kept.key, processes=3) == better
    assert len(store.entries()) == 1


def test_equal_configs_have_one_text_and_others_another() -> None:
    whole = replace(FASTERNET["t0"], expansions=(2, 2, 2, 2))
    assert config_identity(whole) == T0
    assert config_identity(replace(whole, resolution=192)) != T0
    assert T0 != T1
    spelled = json.loads(T0)
    assert spelled["class"] == "FasterNetConfig"
    assert list(spelled) == sorted(spelled)
    assert spelled["partial_ratios"] == [0.25] * 4


def _writer(first: int, end: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(first), str(end)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once(store: Store) -> None:
    writers = [_writer(first, first + 20) for first in (0, 20, 40)]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    assert {found.key.artifact for found in store.entries()} == {f"{n:064x}" for n in range(60)}


def test_killed_in_the_middle_of_writing_it_keeps_what_was_written(store: Store) -> None:
    said: list[str] = []
    for moment in (3, 8, 15):
        first = len(said)
        with _writer(first, first + 100_000) as writer:
            assert writer.stdout is not None
            said += [writer.stdout.readline() for _ in range(moment)]
            writer.kill()
            said += writer.stdout.readlines()
            assert writer.wait() == -signal.SIGKILL
        artifacts = {found.key.artifact for found in store.entries()}
        assert {f"{int(number):064x}" for number in said} <= artifacts
        with closing(sqlite3.connect(store.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _spoil(store: Store) -> None:
    store.path.write_bytes(b"this is no database. " * 500)


def _cut_off(store: Store) -> None:
    store.path.write_bytes(store.path.read_bytes()[:-5000])


def _write_by_newer(store: Store) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def _put_folder_there(store: Store) -> None:
    store.path.unlink()
    store.path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_spoil, "must be a database of measurements .*not a database. Mend it or move it away"),
        (_cut_off, "must be a database of measurements .*malformed. Mend it or move it away"),
        (_put_folder_there, "must be a database of measurements .* Mend it or move it away"),
        (_write_by_newer, "must be of version 1 at most, but is of 2, .* Update fasternas"),
    ],
)
def test_a_broken_store_stops_no_run_and_is_told_to_who_asks(
    store: Store, spoil: Callable[[Store], None], words: str
) -> None:
    kept = entry(1)
    store.keep(kept)
    spoil(store)
    store.keep(entry(2))
    assert store.find(kept.key) is None
    for asked in (store.entries, store.holdings, lambda: store.merge([kept])):
        with pytest.raises(RuntimeError, match=words):
            asked()


def test_a_measurement_that_is_spoilt_is_none(store: Store) -> None:
    kept = entry(1, device="lab")
    store.keep(kept)
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE measurements SET measurement = '{\"median_ms\": -1}'")
    assert store.find(kept.key) is None
    with pytest.raises(RuntimeError, match="`low_ms`, `median_ms` and `high_ms` must be positive"):
        store.entries()
    with pytest.raises(RuntimeError, match="Mend it or move it away"):
        store.find_network("lab", T0, setting=SETTING)


def test_a_full_disk_costs_what_finds_no_room(
    store: Store, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    store.keep(entry(1))
    with files_end_at(1000):
        store.keep(entry(2))
        with pytest.raises(RuntimeError, match="must be a database of measurements that can be"):
            store.merge([entry(3)])
    assert store.entries() == [entry(1)]


@pytest.fixture
def read_only(store: Store, tmp_path: Path) -> Iterator[None]:
    """The store, with one entry, on a disk that can only be read."""
    (tmp_path / "cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "cache")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a read-only file system is not permitted here.")
    store.keep(entry(1))
    subprocess.run([*mount[:1], "-o", "remount,ro", mount[-1]], check=True)
    yield
    subprocess.run(["umount", mount[-1]], check=True)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_disk_is_read(store: Store) -> None:
    store.keep(entry(2))
    assert store.entries() == [entry(1)]
    assert store.find(entry(1).key) == measurement()
    with pytest.raises(RuntimeError, match=r"must be a database of measurements .* readonly"):
        store.merge([entry(2)])


def test_newer_ones_win_when_merged(store: Store) -> None:
    store.keep(entry(1))
    older = replace(entry(1, ms=9.0), taken_at="2026-01-01T00:00:00+00:00")
    newer = replace(entry(1, ms=5.0), taken_at="2026-01-03T00:00:00+00:00")
    assert store.merge([entry(1), older, entry(2)]) == Merged(new=1, kept=2)
    assert store.find(entry(1).key) == measurement(3.0)
    assert store.merge([newer]) == Merged(replaced=1)
    assert store.find(entry(1).key) == measurement(5.0)


def test_measurements_under_an_alias_are_a_device_and_not_this_machine(store: Store) -> None:
    assert store.merge([entry(1, ms=9.0)], alias="lab") == Merged(new=1)
    assert store.find(entry(1).key) is None
    store.keep(entry(1))
    assert store.find(entry(1).key) == measurement(3.0)
    assert [(h.device, h.count) for h in store.holdings()] == [("cpu", 1), ("lab", 1)]
    assert store.find_network("lab", T0, setting=SETTING) == measurement(9.0)
    assert store.find_network("lab", T1, setting=SETTING) is None
