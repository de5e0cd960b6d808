"""Devices answer with latencies: this machine times real files, a profile predicts."""

import json
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from networks import LARGER, TINY

from predictors.devices.cache import forget_references, reference_latency
from predictors.devices.device import Device
from predictors.devices.profiled import ProfiledDevice
from predictors.devices.registry import device_names, open_device
from predictors.devices.timed import TimedDevice
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FASTERNET, SPACES

KEY: dict[str, str | int] = {"machine": "here", "threads": 1}
BLOCKS = [[3.0, 2.0, 4.0]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a folder for temporary files that are this test's own, and no ARM machine."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "cache"


def _check(measurement: Latency, device: Device) -> None:
    assert 0 < measurement.low_ms < measurement.median_ms < measurement.high_ms
    assert measurement.source == device.source == "measured"
    assert measurement.device == device.name
    assert (measurement.backend,) == device.backends == (Backend(device.backends[0].runtime),)
    assert all(len(rounds) >= 6 for rounds in measurement.samples_ms)
    assert all(ms > 0 for rounds in measurement.samples_ms for ms in rounds)
    context = measurement.context
    assert context.clock == "cpu_ms"
    assert all(min(one.kept_ms, one.now_ms) > 0 for one in context.references.values())
    assert context.runtime_version in device.description
    assert len(context.artifact) == 64
    json.dumps(context.as_json())


def test_onnxruntime_times_networks_in_order_and_keeps_the_reference(
    cache: Path, tmp_path: Path
) -> None:
    device = open_device("cpu")
    small, large = device.measure_each([TINY, LARGER], repeats=2)
    for measurement in (small, large):
        _check(measurement, device)
        assert len(measurement.samples_ms) == 2
    assert large.median_ms > 3 * small.median_ms
    assert small.context.artifact != large.context.artifact
    assert list((tmp_path / "scratch").iterdir()) == []

    files = list((cache / "fasternas").glob("reference-*.json"))
    assert len(files) == 2
    for file in files:
        kept = json.loads(file.read_text())
        assert kept["latency_ms"] == small.context.references[kept["reference"]].kept_ms
        file.write_text(json.dumps({**kept, "latency_ms": kept["latency_ms"] * 1000}))
    (again,) = device.measure_each([LARGER], repeats=1)
    assert again.median_ms > 100 * large.median_ms
    assert again.context.artifact == large.context.artifact


def test_torch_is_a_second_runtime() -> None:
    device = open_device("cpu", runtime="torch")
    (measurement,) = device.measure_each([TINY], repeats=1)
    _check(measurement, device)
    assert measurement.backend == Backend("torch")


def test_nothing_to_time_takes_no_time() -> None:
    assert list(open_device("cpu").measure_each([])) == []


def test_the_reference_is_the_median_of_the_blocks_once_and_for_all(cache: Path) -> None:
    assert reference_latency(KEY, BLOCKS) == 3.0
    assert reference_latency(KEY, [[50.0]]) == 3.0
    assert reference_latency({**KEY, "threads": 2}, [[50.0]]) == 50.0
    assert len(list((cache / "fasternas").iterdir())) == 2


def test_a_cache_that_cannot_be_a_folder_is_done_without(cache: Path) -> None:
    cache.write_text("this is a file")
    assert reference_latency(KEY, BLOCKS) == 3.0
    assert reference_latency(KEY, [[50.0]]) == 3.0  # one scale for the whole process
    forget_references(KEY)
    assert reference_latency(KEY, [[50.0]]) == 50.0
    assert cache.read_text() == "this is a file"


@pytest.fixture
def read_only(cache: Path) -> Iterator[Path]:
    """The cache on a file system that cannot be written."""
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a read-only file system is not permitted here.")
    yield cache
    subprocess.run(["umount", str(cache)], check=True)


def test_a_cache_on_a_read_only_disk_is_done_without(read_only: Path) -> None:
    assert reference_latency(KEY, BLOCKS) == 3.0
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{}",
        "[]",
        "null",
        '"\u00b5"',
        '{"latency_ms": -1}',
        '{"latency_ms": NaN}',
        '{"latency_ms": Infinity}',
        '{"latency_ms": "fast"}',
        '{"latency_ms": null}',
        "\0",
    ],
)
def test_a_spoilt_cache_is_replaced(cache: Path, content: str) -> None:
    reference_latency(KEY, [[9.0]])
    (file,) = (cache / "fasternas").iterdir()
    file.write_text(content)
    assert reference_latency(KEY, BLOCKS) == 3.0
    assert json.loads(file.read_text())["latency_ms"] == 3.0


@pytest.mark.parametrize("threads", [1, 4])
def test_a_profile_predicts_many_as_it_measures_one(threads: int) -> None:
    device = open_device("arm", threads=threads)
    assert device.source == "predicted"
    rng = Random(0)
    configs = [space.sample(rng) for space in SPACES.values() for _ in range(20)]
    configs += [TINY, *FASTERNET.values()]
    prediction = device.predict(configs)
    assert len(prediction.mean_ms) == len(configs)
    for i, measurement in enumerate(device.measure_each(configs)):
        assert measurement == device.measure(configs[i])
        assert measurement.median_ms == pytest.approx(prediction.mean_ms[i], rel=1e-12)
        assert measurement.low_ms == pytest.approx(prediction.low_ms[i], rel=1e-12)
        assert measurement.high_ms == pytest.approx(prediction.high_ms[i], rel=1e-12)
        assert measurement.low_ms < measurement.median_ms < measurement.high_ms
        assert measurement.source == device.source == "predicted"
        assert measurement.backend == Backend(threads=threads)


def test_a_profile_predicts_nothing_of_nothing() -> None:
    assert ProfiledDevice("arm", Backend()).predict([]).mean_ms.shape == (0,)


def test_on_an_arm_machine_arm_is_that_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    device = open_device("arm")
    assert isinstance(device, TimedDevice)
    assert (device.name, device.source) == ("arm", "measured")


def test_every_listed_device_opens_and_describes_itself_in_one_line() -> None:
    for name in device_names():
        device = open_device(name)
        assert device.name == name
        assert device.source in device.description
        assert "\n" not in device.description


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpu", {}, r"`device` must be one of cpu, arm, but got 'gpu'\."),
        ("", {}, r"`device` must be one of cpu, arm, but got ''\."),
        (
            "cpu",
            {"runtime": "tflite"},
            "`runtime` must be one of onnxruntime, .*, but got 'tflite'",
        ),
        ("arm", {"runtime": "torch"}, "`runtime` must be onnxruntime for the profile"),
        ("arm", {"threads": 3}, r"`threads` must be 1 or 4, but got 3\."),
        ("arm", {"threads": 0}, r"`threads` must be a positive whole number, but got 0\."),
        ("cpu", {"threads": -1}, r"`threads` must be a positive whole number, but got -1\."),
        ("cpu", {"threads": 1.5}, r"`threads` must be a positive whole number, but got 1\.5\."),
        ("cpu", {"threads": 4097}, r"`threads` must be at most the \d+ cores .* but got 4097\."),
    ],
)
def test_what_no_device_is_or_has_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_device(name, **options)


def test_only_what_is_timed_has_remarks() -> None:
    for name in ("cpu", "arm"):
        assert list(open_device(name).remarks) == []
