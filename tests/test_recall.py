"""What was timed once is not timed again, and is on the scale of this machine."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from networks import TINY

from predictors.backends.table import installed_version
from predictors.devices.agent.machine import processor
from predictors.devices.cache import Store
from predictors.devices.device import Wanted
from predictors.devices.local import open_local
from predictors.devices.timed import Host, TimedDevice
from predictors.measurement import Latency
from search_spaces.fasternet import FasterNetConfig

OTHER = replace(TINY, classes=11)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Latency]:
    """A cache in which a network was timed by two processes, and what they found."""
    cache = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        (found,) = open_local("cpu", Wanted()).measure_each([TINY], processes=2)
    return cache, found


@pytest.fixture
def timed(once: tuple[Path, Latency], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Latency:
    """What was found; from here on no process can be started."""
    shutil.copytree(once[0], tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("predictors.devices.timed.ATTEMPTS", 0)
    return once[1]


def test_what_was_timed_is_recalled(timed: Latency) -> None:
    device = open_local("cpu", Wanted(reuse=True))
    (found,) = device.measure_each([TINY], processes=2)
    assert found == replace(timed, context={**timed.context, "recalled": True},
                            samples_ms=found.samples_ms)  # fmt: skip
    assert [list(rounds) for rounds in found.samples_ms] == [list(r) for r in timed.samples_ms]


@pytest.mark.parametrize(
    ("wanted", "config", "processes"),
    [
        (Wanted(reuse=False), TINY, 2),
        (Wanted(reuse=True), OTHER, 2),
        (Wanted(reuse=True), TINY, 3),  # than it was timed by
        (Wanted(reuse=True, threads=2), TINY, 2),
        (Wanted(reuse=True, runtime="torch"), TINY, 2),
        (Wanted(reuse=True, precision="int8"), TINY, 2),
    ],
)
def test_anything_else_is_timed(
    timed: Latency, wanted: Wanted, config: FasterNetConfig, processes: int
) -> None:
    with pytest.raises(RuntimeError, match="The device must stay reachable"):
        list(open_local("cpu", wanted).measure_each([config], processes=processes))


def test_what_was_imported_is_brought_to_this_machines_scale(
    timed: Latency, tmp_path: Path
) -> None:
    """As if the references had been kept in a faster hour here than there."""
    for file in (tmp_path / "cache" / "fasternas").glob("reference-*.json"):
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({**kept, "latency_ms": kept["latency_ms"] / 2}))
    (found,) = open_local("cpu", Wanted(reuse=True)).measure_each([TINY], processes=1)
    for name in ("median_ms", "low_ms", "high_ms"):
        assert getattr(found, name) == pytest.approx(getattr(timed, name) / 2)


def test_what_another_board_of_a_pool_timed_is_not_timed_again(timed: Latency) -> None:
    host = Host(command=("false",), address="me@b2", machine=processor(),
                version=installed_version("onnxruntime"))  # fmt: skip
    device = TimedDevice("b2", host, Wanted(reuse=True))
    with pytest.raises(RuntimeError, match="The device must stay reachable"):
        device.measure(TINY)
    device.recall_from(["", "me@b2"])  # the first, with this machine's address, timed it
    (found,) = device.measure_each([TINY], processes=2)
    assert (found.device, found.median_ms) == ("b2", timed.median_ms)


def test_where_no_references_are_kept_those_of_the_import_are(
    timed: Latency, tmp_path: Path
) -> None:
    files = list((tmp_path / "cache" / "fasternas").glob("reference-*.json"))
    before = {file: json.loads(file.read_text())["latency_ms"] for file in files}
    for file in files:
        file.unlink()
    (found,) = open_local("cpu", Wanted(reuse=True)).measure_each([TINY], processes=2)
    assert found.median_ms == timed.median_ms
    assert {file: json.loads(file.read_text())["latency_ms"] for file in files} == before


@pytest.mark.parametrize(
    "wrong",
    [{"references": None}, {"references": {"small": {"kept_ms": 1.0}}}, {"nearness": "no"},
     {"nearness": 7}, {"references": {"small": {"kept_ms": -1}, "t0": {"kept_ms": 2}}}],
)  # fmt: skip
def test_what_does_not_tell_its_scale_is_not_used(timed: Latency, wrong: object) -> None:
    (entry,) = Store().entries()
    assert isinstance(wrong, dict)
    context = {**entry.measurement.context, **wrong}
    Store().keep(replace(entry, measurement=replace(entry.measurement, context=context)))
    with pytest.raises(RuntimeError, match="The device must stay reachable"):
        list(open_local("cpu", Wanted(reuse=True)).measure_each([TINY], processes=2))
