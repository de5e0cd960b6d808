"""Measurements are kept for good, by many at once, and a broken cache stops no run."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predictors.backends.model import config_identity
from predictors.devices.cache import Cache, Merged
from predictors.devices.cache_entry import CacheEntry, Setting
from predictors.measurement import Backend, Context, Latency
from search_spaces.fasternet import FASTERNET

SETTING = Setting(backend=Backend("onnxruntime"), version="1.20", machine="a processor")
T0, T1 = config_identity(FASTERNET["t0"]), config_identity(FASTERNET["t1"])
WRITER = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from test_cache import entry
from predictors.devices.cache import Cache
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    Cache().put(entry(number))
    print(number, flush=True)
"""


def latency(ms: float = 3.0, *, repeats: int = 2, number: int = 1, device: str = "cpu") -> Latency:
    """A latency by so many processes, with an artifact for each number."""
    return Latency(
        median_ms=ms,
        low_ms=0.9 * ms,
        high_ms=1.1 * ms,
        source="measured",
        device=device,
        backend=Backend("onnxruntime"),
        samples_ms=((ms, ms),) * repeats,
        context=Context(
            machine="a processor", runtime_version="1.20", artifact=f"{number:064x}", pinned=True
        ),
    )


def entry(number: int, *, device: str = "cpu", network: str = T0, ms: float = 3.0) -> CacheEntry:
    """An entry with an artifact for each number."""
    return CacheEntry(
        latency=latency(ms, number=number, device=device),
        network=network,
        description="a processor: measured",
        taken_at="2026-01-02T03:04:05+00:00",
    )


def _get(cache: Cache, kept: CacheEntry, *, repeats: int = 1) -> Latency | None:
    return cache.get(kept.artifact, kept.setting, repeats=repeats)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Cache()


def test_what_is_kept_is_found_as_it_was(cache: Cache, tmp_path: Path) -> None:
    kept = entry(1)
    assert _get(cache, kept) is None
    assert not (tmp_path / "cache").exists()
    cache.put(kept)
    assert cache.path == tmp_path / "cache" / "fasternas" / "measurements.db"
    assert _get(cache, kept) == kept.latency
    assert cache.entries() == [kept]


@pytest.mark.parametrize(
    "change",
    [
        {"runtime_version": "1.21"},
        {"machine": "another"},
        {"address": "user@host"},
        {"emulated": True},
        {"cores": "4,5"},
    ],
    ids=str,
)
def test_any_other_setting_is_another_latency(cache: Cache, change: dict[str, Any]) -> None:
    kept = entry(1)
    context = replace(kept.latency.context, **change)
    _check_are_two(cache, kept, replace(kept.latency, context=context))


@pytest.mark.parametrize(
    "backend", [Backend("torch"), Backend(threads=2), Backend("openvino", "int8")]
)
def test_any_other_backend_is_another_latency(cache: Cache, backend: Backend) -> None:
    kept = entry(1)
    _check_are_two(cache, kept, replace(kept.latency, backend=backend))


def _check_are_two(cache: Cache, kept: CacheEntry, changed: Latency) -> None:
    cache.put(kept)
    other = replace(kept, latency=changed)
    assert _get(cache, other) is None
    cache.put(other)
    assert [found.setting for found in cache.entries()].count(other.setting) == 1
    assert len(cache.entries()) == 2


def test_too_few_processes_are_not_enough_and_more_replace_them(cache: Cache) -> None:
    kept = entry(1)
    cache.put(kept)
    assert _get(cache, kept, repeats=2) == kept.latency
    assert _get(cache, kept, repeats=3) is None
    better = latency(2.5, repeats=3)
    cache.put(replace(kept, latency=better))
    assert _get(cache, kept, repeats=3) == better
    cache.put(kept)  # which is less well known
    assert _get(cache, kept, repeats=3) == better
    assert len(cache.entries()) == 1


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


def test_several_processes_write_at_once(cache: Cache) -> None:
    writers = [_writer(first, first + 20) for first in (0, 20, 40)]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    assert {found.artifact for found in cache.entries()} == {f"{n:064x}" for n in range(60)}


def test_killed_in_the_middle_of_writing_it_keeps_what_was_written(cache: Cache) -> None:
    said: list[str] = []
    for moment in (3, 8, 15):
        first = len(said)
        with _writer(first, first + 100_000) as writer:
            assert writer.stdout is not None
            said += [writer.stdout.readline() for _ in range(moment)]
            writer.kill()
            said += writer.stdout.readlines()
            assert writer.wait() == -signal.SIGKILL
        artifacts = {found.artifact for found in cache.entries()}
        assert {f"{int(number):064x}" for number in said} <= artifacts
        with closing(sqlite3.connect(cache.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _spoil(cache: Cache) -> None:
    cache.path.write_bytes(b"this is no database. " * 500)


def _cut_off(cache: Cache) -> None:
    cache.path.write_bytes(cache.path.read_bytes()[:-5000])


def _write_by_newer(cache: Cache) -> None:
    with closing(sqlite3.connect(cache.path)) as connection:
        connection.execute("PRAGMA user_version = 3")


def _write_by_older(cache: Cache) -> None:
    with closing(sqlite3.connect(cache.path)) as connection:
        connection.execute("PRAGMA user_version = 1")


def _put_folder_there(cache: Cache) -> None:
    cache.path.unlink()
    cache.path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_spoil, "must be a database of measurements .*not a database. Mend it or move it away"),
        (_cut_off, "must be a database of measurements .*malformed. Mend it or move it away"),
        (_put_folder_there, "must be a database of measurements .* Mend it or move it away"),
        (_write_by_newer, "must be of version 2, but is of 3, .* Update fasternas, or move it"),
        (_write_by_older, r"must be of version 2, but is of 1, .* wrote\. Move it away"),
    ],
)
def test_a_broken_store_stops_no_run_and_is_told_to_who_asks(
    cache: Cache, spoil: Callable[[Cache], None], words: str
) -> None:
    kept = entry(1)
    cache.put(kept)
    spoil(cache)
    cache.put(entry(2))
    assert _get(cache, kept) is None
    for asked in (cache.entries, cache.summaries, lambda: cache.merge([kept])):
        with pytest.raises(RuntimeError, match=words):
            asked()


def test_a_measurement_that_is_spoilt_is_none(cache: Cache) -> None:
    kept = entry(1, device="lab")
    cache.put(kept)
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE latencies SET latency = '{\"median_ms\": -1}'")
    assert _get(cache, kept) is None
    with pytest.raises(
        RuntimeError,
        match=r"Object missing required field|Expected `float` > 0.0 - at `\$.median_ms`",
    ):
        cache.entries()
    with pytest.raises(RuntimeError, match="Mend it or move it away"):
        cache.find_network("lab", T0, setting=SETTING)


def test_a_full_disk_costs_what_finds_no_room(
    cache: Cache, files_end_at: Callable[[int], AbstractContextManager[None]]
) -> None:
    cache.put(entry(1))
    with files_end_at(1000):
        cache.put(entry(2))
        with pytest.raises(RuntimeError, match="must be a database of measurements that can be"):
            cache.merge([entry(3)])
    assert cache.entries() == [entry(1)]


@pytest.fixture
def read_only(cache: Cache, tmp_path: Path) -> Iterator[None]:
    """The cache, with one entry, on a disk that can only be read."""
    (tmp_path / "cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "cache")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a read-only file system is not permitted here.")
    cache.put(entry(1))
    subprocess.run([*mount[:1], "-o", "remount,ro", mount[-1]], check=True)
    yield
    subprocess.run(["umount", mount[-1]], check=True)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_disk_is_read(cache: Cache) -> None:
    cache.put(entry(2))
    assert cache.entries() == [entry(1)]
    assert _get(cache, entry(1)) == latency()
    with pytest.raises(RuntimeError, match=r"must be a database of measurements .* readonly"):
        cache.merge([entry(2)])


def test_newer_ones_win_when_merged(cache: Cache) -> None:
    cache.put(entry(1))
    older = replace(entry(1, ms=9.0), taken_at="2026-01-01T00:00:00+00:00")
    newer = replace(entry(1, ms=5.0), taken_at="2026-01-03T00:00:00+00:00")
    assert cache.merge([entry(1), older, entry(2)]) == Merged(new=1, kept=2)
    assert _get(cache, entry(1)) == latency(3.0)
    assert cache.merge([newer]) == Merged(replaced=1)
    assert _get(cache, entry(1)) == latency(5.0)


def test_measurements_under_an_alias_are_a_device_and_not_this_machine(cache: Cache) -> None:
    assert cache.merge([entry(1, ms=9.0)], alias="lab") == Merged(new=1)
    assert _get(cache, entry(1)) is None
    cache.put(entry(1))
    assert _get(cache, entry(1)) == latency(3.0)
    assert [(h.device, h.count) for h in cache.summaries()] == [("cpu", 1), ("lab", 1)]
    assert cache.find_network("lab", T0, setting=SETTING) == latency(9.0)
    assert cache.find_network("lab", T1, setting=SETTING) is None
