"""A device of which there are measurements only answers with them."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_cache import T1, entry, latency

from predictors.devices.cache import Cache, open_recorded
from predictors.devices.registry import backend_of, cached_devices, open_device
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The cache of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Cache()


def test_a_device_that_is_only_stored_answers_with_what_was_measured(cache: Cache) -> None:
    cache.merge([entry(1, ms=3.0), entry(2, network=T1, ms=7.0)], alias="lab")
    device = open_device("lab")
    assert (device.name, device.backends) == ("lab", (Backend("onnxruntime"),))
    assert device.source == "measured"
    assert device.description == "a processor, onnxruntime 1.20, one thread: measured earlier"
    found = list(device.measure_each([FASTERNET["t1"], FASTERNET["t0"]], repeats=9))
    assert [m.median_ms for m in found] == [7.0, 3.0]
    assert {m.device for m in found} == {"lab"}
    words = r"must be among those measured on lab, but \{.*\[96,.* is not"
    with pytest.raises(RuntimeError, match=words):
        device.measure(FASTERNET["t2"])


def test_what_is_stored_in_several_settings_opens_in_that_of_most(cache: Cache) -> None:
    slow = replace(entry(3), latency=replace(latency(number=3), backend=Backend(threads=4)))
    cache.merge([entry(1), entry(2, network=T1), slow], alias="lab")
    assert backend_of("lab") == Backend()
    assert open_device("lab").backends == (Backend(),)
    assert open_device("lab", threads=4).backends == (Backend(threads=4),)
    with pytest.raises(RuntimeError, match="must be among those measured on lab"):
        open_device("lab", threads=4).measure(FASTERNET["t1"])
    words = r"\(onnxruntime in fp32 on one thread, .* on 4 threads\), but got torch in any on any"
    with pytest.raises(ValueError, match=words):
        open_device("lab", runtime="torch")
    with pytest.raises(ValueError, match="`threads` must be a positive whole number, but got 0"):
        open_device("lab", threads=0)


def test_a_live_device_comes_before_a_stored_one(cache: Cache) -> None:
    cache.put(entry(1))
    assert cached_devices() == []
    assert "measured earlier" not in open_device("cpu").description
    assert open_recorded("nobody", runtime=None, threads=None) is None
    cache.merge([entry(1)], alias="lab")
    with pytest.raises(ValueError, match="`device` must be one of cpu, arm, lab, but got 'gpu'"):
        open_device("gpu")


def test_a_broken_store_keeps_no_live_device_from_opening(cache: Cache) -> None:
    cache.put(entry(1))
    cache.path.write_bytes(b"this is no database. " * 500)
    assert open_device("cpu").source == "measured"
    assert backend_of("cpu") == Backend()
    with pytest.raises(RuntimeError, match="not a database"):
        open_device("lab")
