"""What was timed once is not timed again, and is on the scale of this machine."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import TINY
from quick import QUICK

from predictors.backends.table import installed_version
from predictors.devices.agent.host import processor
from predictors.devices.cache import Cache
from predictors.devices.local import open_cpu
from predictors.devices.timed import Host, TimedDevice
from predictors.measurement import Backend, Latency, Reference, TimingProtocol
from search_spaces.fasternet import FasterNetConfig

REUSE = TimingProtocol(reuse=True, attempts=0)  # no process can be started
OTHER = replace(TINY, classes=11)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Latency]:
    """A cache in which a network was timed by two processes, and what they found."""
    cache = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        (found,) = open_cpu("cpu", Backend(), QUICK).measure_each([TINY], repeats=2)
    return cache, found


@pytest.fixture
def timed(once: tuple[Path, Latency], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Latency:
    """What was found; from here on no process is to be started."""
    shutil.copytree(once[0], tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return once[1]


def test_what_was_timed_comes_from_the_cache(timed: Latency) -> None:
    device = open_cpu("cpu", Backend(), REUSE)
    (found,) = device.measure_each([TINY], repeats=2)
    assert found == replace(timed, context=replace(timed.context, cached=True))


@pytest.mark.parametrize(
    ("backend", "reuse", "config", "repeats"),
    [
        (Backend(), False, TINY, 2),
        (Backend(), True, OTHER, 2),
        (Backend(), True, TINY, 3),  # than it was timed by
        (Backend(threads=2), True, TINY, 2),
        (Backend("torch"), True, TINY, 2),
        (Backend(precision="int8"), True, TINY, 2),
    ],
)
@pytest.mark.usefixtures("timed")
def test_anything_else_is_timed(
    backend: Backend, reuse: Any, config: FasterNetConfig, repeats: int
) -> None:
    device = open_cpu("cpu", backend, replace(REUSE, reuse=reuse))
    with pytest.raises(RuntimeError, match="The device must stay reachable"):
        list(device.measure_each([config], repeats=repeats))


def test_what_was_imported_is_brought_to_this_machines_scale(
    timed: Latency, tmp_path: Path
) -> None:
    """As if the references had been kept in a faster hour here than there."""
    for file in (tmp_path / "cache" / "fasternas").glob("reference-*.json"):
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({**kept, "latency_ms": kept["latency_ms"] / 2}))
    (found,) = open_cpu("cpu", Backend(), REUSE).measure_each([TINY], repeats=1)
    for name in ("median_ms", "low_ms", "high_ms"):
        assert getattr(found, name) == pytest.approx(getattr(timed, name) / 2)


def test_what_another_board_of_a_pool_timed_is_not_timed_again(timed: Latency) -> None:
    host = Host(command=("false",), address="me@b2", machine=processor())
    version = installed_version("onnxruntime")
    device = TimedDevice("b2", host, Backend(), version=version, protocol=REUSE)
    with pytest.raises(RuntimeError, match="The device must stay reachable"):
        device.measure(TINY)
    device = replace(device, pool=("", "me@b2"))  # the first, with this machine's address, timed it
    (found,) = device.measure_each([TINY], repeats=2)
    assert (found.device, found.median_ms) == ("b2", timed.median_ms)


def test_where_no_references_are_kept_those_of_the_import_are(
    timed: Latency, tmp_path: Path
) -> None:
    files = list((tmp_path / "cache" / "fasternas").glob("reference-*.json"))
    before = {file: json.loads(file.read_text())["latency_ms"] for file in files}
    for file in files:
        file.unlink()
    (found,) = open_cpu("cpu", Backend(), REUSE).measure_each([TINY], repeats=2)
    assert found.median_ms == timed.median_ms
    assert {file: json.loads(file.read_text())["latency_ms"] for file in files} == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"references": {}},
        {"references": {"small": Reference(kept_ms=1.0, now_ms=1.0)}},
        {"nearness": None},
        {"nearness": 7},
        {"references": dict.fromkeys(("small", "t0"), Reference(kept_ms=-1, now_ms=2.0))},
    ],
)
def test_what_does_not_tell_its_scale_is_not_used(timed: Latency, wrong: dict[str, Any]) -> None:
    (entry,) = Cache().entries()
    context = replace(timed.context, **wrong)
    Cache().put(replace(entry, latency=replace(entry.latency, context=context)))
    with pytest.raises(RuntimeError, match="The device must stay reachable"):
        list(open_cpu("cpu", Backend(), REUSE).measure_each([TINY], repeats=2))
