"""References that were kept in a bad hour are noticed, said, and timed anew on demand."""

import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from networks import TINY
from stand_ins import stand_in

from nas.cli.main import main
from predictors.devices.cache import Cache, ReferenceWatch, forget_references, reference_latency
from predictors.devices.local import open_cpu
from predictors.devices.pool import PooledDevice
from predictors.devices.registry import open_device
from predictors.devices.timed import SessionTimer
from predictors.measurement import (
    Backend,
    Context,
    Latency,
    Reference,
    TimingProtocol,
    lasting_change,
)
from search_spaces.formats import save_config
from search_spaces.io import cache_folder

Streams = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("now_ms", "change"),
    [
        ([10.0, 10.5, 11.0], 1.0),
        ([10.5, 13.0, 20.0], 1.0),  # one process comes near it: the others were held up
        ([11.5, 13.0, 20.0], 1.15),  # none does
        ([9.5, 9.8, 9.9], 1.0),
        ([4.0, 9.8, 9.9], 1.0),  # one lucky process
        ([5.0, 5.1, 9.9], 0.5),
        ([12.0, 12.5], 1.0),  # two say little
        ([8.0], 1.0),
        ([14.0], 1.4),
        ([5.0], 0.5),
        ([], 1.0),
    ],
)
def test_a_change_counts_if_it_lasts(now_ms: Sequence[float], change: float) -> None:
    assert lasting_change(now_ms, 10.0) == pytest.approx(change)


def _latency(nearness: float | None = 0.5) -> Latency:
    references = {n: Reference(kept_ms=ms, now_ms=ms) for n, ms in (("small", 1.0), ("t0", 10.0))}
    context = Context(references=references, nearness=nearness)
    return Latency(
        median_ms=3.0,
        low_ms=2.9,
        high_ms=3.1,
        source="measured",
        device="cpu",
        backend=Backend(),
        context=context,
    )


def test_meanwhile_intervals_reach_to_what_networks_take_now() -> None:
    assert _latency().in_doubt([]) == _latency()
    assert _latency().in_doubt([1.0, 2.0]) == _latency()  # only one of them
    assert _latency().in_doubt([0.5, 2.0]) == _latency()
    assert _latency(nearness=None).in_doubt([2.0, 2.0]) == _latency(nearness=None)
    slower, faster = _latency().in_doubt([2.0, 8.0]), _latency().in_doubt([0.5, 0.5])
    assert (slower.low_ms, slower.median_ms) == (2.9, 3.0)
    assert slower.high_ms == pytest.approx(12.4)
    assert (faster.median_ms, faster.high_ms) == (3.0, 3.1)
    assert faster.low_ms == pytest.approx(1.45)


def _watch(change: float) -> ReferenceWatch:
    watch = ReferenceWatch()
    for name, ms in (("small", 1.0), ("t0", 10.0)):
        watch.add(name, kept_ms=ms, now_ms=[change * ms] * 3)
    return watch


@pytest.mark.parametrize(
    ("device", "backend", "cores", "options"),
    [
        ("cpu", Backend(), (), "--device cpu --fresh"),
        (
            "cpu",
            Backend("ncnn", "bf16", 2),
            (0, 1),
            "--device cpu --runtime ncnn --precision bf16 --threads 2 --cores 0,1 --fresh",
        ),
        (
            "pi",
            Backend(),
            (),
            "--device pi --runtime onnxruntime --precision fp32 --threads 1 --fresh",
        ),
    ],
)
def test_the_command_that_times_them_anew_is_said(
    device: str, backend: Backend, cores: Sequence[int], options: str
) -> None:
    assert _watch(1.05).remarks("x", backend, device=device) == []
    (remark,) = _watch(2.0).remarks("x", backend, device=device, cores=cores)
    assert remark.startswith("x takes 2.00 times as long for its reference networks as when its")
    assert f"`fasternas measure t0 {options}` fixes them anew." in remark


def test_what_was_seen_before_they_were_timed_anew_does_not_count() -> None:
    watch = _watch(2.0)
    assert watch.changes() == [2.0, 2.0]
    for name, ms in (("small", 2.0), ("t0", 20.0)):
        watch.add(name, kept_ms=ms, now_ms=[ms] * 3)
    assert watch.changes() == [1.0, 1.0]


def test_only_what_is_described_so_is_forgotten() -> None:
    for machine in ("a", "b"):
        for name in ("small", "t0"):
            reference_latency({"machine": machine, "threads": 1, "reference": name}, [[3.0]])
    (cache_folder() / "reference-broken.json").write_text("[")
    forget_references({"machine": "a", "threads": 2})
    forget_references({"machine": "a", "threads": 1})
    left = [json.loads(f.read_text())["machine"] for f in _kept() if "broken" not in f.name]
    assert left == ["b", "b"]


def _kept() -> Iterator[Path]:
    return cache_folder().glob("reference-*.json")


STEADY_MS = (1.0, 8.0, 2.0)  # the small reference, T0, and what is timed


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A machine that has kept its references; what it takes for T0's.

    Real processes time, but what their clocks say is replaced: other work on this machine would
    change that between two runs.
    """
    timed = SessionTimer._block

    def steady(self: SessionTimer, index: int, size: tuple[int, int] | None = None) -> float:
        assert timed(self, index, size) > 0
        return STEADY_MS[index]

    monkeypatch.setattr(SessionTimer, "_block", steady)
    monkeypatch.chdir(tmp_path)
    save_config(TINY, tmp_path / "tiny.yaml")
    (found,) = open_device("cpu").measure_each([TINY], repeats=3)
    return found.context.references["t0"].kept_ms


def _spoil(factor: float) -> None:
    """As if they had been kept in an hour in which the machine was so many times slower."""
    for file in _kept():
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({**kept, "latency_ms": factor * kept["latency_ms"]}))


def _measured(capsys: Streams, *options: str) -> tuple[dict[str, float], str]:
    assert main(["measure", "tiny.yaml", "--repeats", "3", "--json", *options]) == 0
    out, err = capsys.readouterr()
    return json.loads(out)[0], err


@pytest.mark.parametrize("factor", [3.0, 0.25])
def test_a_bad_first_hour_is_not_for_good(begun: float, factor: float, capsys: Streams) -> None:
    right, said = _measured(capsys)
    assert "fixes them anew" not in said
    _spoil(factor)
    wrong, said = _measured(capsys)
    assert wrong["median_ms"] == pytest.approx(factor * right["median_ms"])
    assert wrong["low_ms"] <= right["median_ms"] <= wrong["high_ms"]
    command = said.split("`")[1]
    assert command == "fasternas measure t0 --device cpu --fresh"
    # Of the cache they are the same: the doubt is this run's
    assert all(e.latency.high_ms / e.latency.median_ms < 1.5 for e in Cache().entries())
    assert main([*shlex.split(command)[1:], "--repeats", "1"]) == 0
    capsys.readouterr()
    mended, said = _measured(capsys)
    assert "fixes them anew" not in said
    assert mended["median_ms"] == pytest.approx(right["median_ms"])
    kept = [json.loads(file.read_text()) for file in _kept()]
    (t0_ms,) = (one["latency_ms"] for one in kept if one["reference"] == "t0")
    assert t0_ms == begun == STEADY_MS[1]


def test_what_comes_from_the_cache_has_the_doubt_of_this_run(begun: float) -> None:
    del begun
    (kept,) = (e.latency for e in Cache().entries())
    _spoil(3.0)
    device = open_cpu("cpu", Backend(), TimingProtocol(rounds=(6, 6), reuse=True))
    (cached,) = device.measure_each([TINY], repeats=1)
    assert cached.context.cached  # nothing was timed yet: nothing is known of this hour
    assert device.remarks == []
    assert cached.low_ms / cached.median_ms == pytest.approx(kept.low_ms / kept.median_ms)
    assert cached.high_ms / cached.median_ms == pytest.approx(kept.high_ms / kept.median_ms)


def test_a_pool_says_it_of_the_board_and_names_itself() -> None:
    def work() -> str:  # long enough for the other to take the next
        time.sleep(0.02)
        return ""

    boards = [stand_in("b1", work), stand_in("b2", work, slower=2.0)]
    pool = PooledDevice("b1,b2", boards, protocol=TimingProtocol(group=1))
    list(pool.measure_each([TINY] * 20, repeats=1))
    (remark,) = (line for line in pool.remarks if "fixes them anew" in line)
    assert remark.startswith("b2 takes 2.00 times as long")
    assert "fasternas measure t0 --device b1,b2 --runtime onnxruntime" in remark
    assert [json.loads(f.read_text())["boards"] for f in _kept()] == ["b1,b2"] * 2
    pool.forget_references()
    assert list(_kept()) == []


def test_what_has_no_references_has_none_to_forget(capsys: Streams) -> None:
    if os.uname().machine == "aarch64":
        pytest.skip("Here arm is this machine.")
    assert main(["measure", "t0", "--device", "arm", "--fresh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["source"] == "predicted"
