"""What a session makes of a machine that is throttled, that preempts, that is merely noisy.

The machine is played: a real one does none of this when told to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest

from predictors.backends.table import Start
from predictors.devices.connection import Connection, ConnectionLostError
from predictors.devices.timed import Session, SessionTimer, with_sessions
from predictors.measurement import Context, TimingProtocol

PROTOCOL = TimingProtocol()
TRUE_MS = {0: 1.0, 1: 10.0, 2: 4.0}
Slowness = Callable[[int], float]  # by the number of blocks that were timed before


@dataclass
class Machine:
    """Answers as an agent does."""

    slowness: Slowness = lambda _: 1.0
    mhz: Slowness | None = None
    preempts: Callable[[int], bool] = lambda _: False  # by the number of the sample in its block
    noise: float = 0.005
    blocks: int = 0
    rng: Random = field(default_factory=lambda: Random(0))

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if "start" in request:
            return {"ready": {"pinned": True, "realtime": False}}
        preempted = [int(self.preempts(i)) for i in range(request["repeats"])]
        level = TRUE_MS[request["time"]] * self.slowness(self.blocks)
        times = [level * (5.0 if p else math.exp(self.rng.gauss(0, self.noise))) for p in preempted]
        mhz = self.mhz(self.blocks) if self.mhz else None
        self.blocks += 1
        return {
            "cpu_ms": times,
            "wall_ms": [1.1 * t for t in times],
            "preempted": preempted,
            "mhz": mhz,
            "celsius": 61.5,
        }


@pytest.fixture(autouse=True)
def cool(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which are not slept."""
    pauses: list[float] = []
    monkeypatch.setattr("predictors.devices.timed.time.sleep", pauses.append)
    return pauses


def _run(machine: Machine, *, threads: int = 1) -> Session:
    start = Start(
        module="predictors.backends.onnxruntime",
        models=[str(i) for i in TRUE_MS],
        shapes=[],
        runtime="onnxruntime",
        precision="fp32",
        processor="cpu",
        clock="cpu_ms" if threads == 1 else "wall_ms",
        threads=threads,
        cores=None,
    )
    timer = SessionTimer(cast(Connection, machine), start, PROTOCOL)
    return timer.run(seed=0, repeats=3)


def _ratio(found: Session) -> float:
    return sorted(blocks[2] / blocks[1] for blocks in found.rounds)[len(found.rounds) // 2]


def test_a_quiet_machine_needs_the_fewest_rounds(cool: list[float]) -> None:
    found = _run(Machine())
    assert len(found.rounds) == PROTOCOL.rounds[0]
    assert _ratio(found) == pytest.approx(0.4, rel=0.01)
    assert (found.pinned, found.realtime) == (True, False)
    assert found.counts["rounds_left_out"] == found.counts["left_out"] == 0
    assert (found.lowest_mhz, found.highest_celsius) == (None, 61.5)
    assert not cool


def test_samples_that_were_preempted_are_left_out_and_counted() -> None:
    found = _run(Machine(preempts=lambda i: i % 3 == 0))
    assert _ratio(found) == pytest.approx(0.4, rel=0.01)
    assert found.counts["preempted"] == found.counts["left_out"] > 0.3 * found.counts["samples"]


def test_where_most_samples_were_preempted_none_is_left_out() -> None:
    found = _run(Machine(preempts=lambda i: i % 3 != 0))
    assert found.counts["left_out"] == 0
    assert found.counts["preempted"] >= 0.6 * found.counts["samples"]


def _throttled(blocks: int) -> float:
    return 1.5 if 15 <= blocks < 30 else 1.0


def test_throttled_rounds_are_left_out_and_timed_again_after_a_pause(cool: list[float]) -> None:
    found = _run(Machine(slowness=_throttled))
    assert len(found.rounds) == PROTOCOL.rounds[0]
    assert found.counts["rounds_left_out"] >= 3
    assert sum(blocks[1] > 11 for blocks in found.rounds) <= 1  # its onset
    assert cool
    assert set(cool) == {PROTOCOL.pause_s}


def test_a_frequency_that_drops_is_seen_at_once(cool: list[float]) -> None:
    """Though the times do not show it: this machine's are noisy."""
    found = _run(Machine(mhz=lambda blocks: 1500.0 if 20 <= blocks < 29 else 2400.0, noise=0.02))
    assert found.counts["rounds_left_out"] in (3, 4)
    assert found.lowest_mhz == 1500
    assert len(cool) == PROTOCOL.pauses


def test_a_machine_that_never_settles_is_timed_for_the_most_rounds(cool: list[float]) -> None:
    found = _run(Machine(slowness=lambda blocks: 1 + 0.02 * blocks))
    assert len(found.rounds) + found.counts["rounds_left_out"] == PROTOCOL.most_rounds
    assert len(found.rounds) >= PROTOCOL.rounds[0]
    assert len(cool) == PROTOCOL.pauses
    assert _ratio(found) == pytest.approx(0.4, rel=0.02)


def test_with_more_threads_the_clock_is_the_wall() -> None:
    assert _run(Machine(), threads=2).rounds[0][1] == pytest.approx(11.0, rel=0.02)


def test_what_happened_in_all_processes_is_summed_up() -> None:
    sessions = [_run(Machine(preempts=lambda i: i == 0)) for _ in range(2)]
    found = with_sessions(Context(), sessions)
    assert found.counts["samples"] == 2 * sessions[0].counts["samples"]
    assert found.highest_celsius == 61.5
    assert found.pinned


@pytest.mark.parametrize("preempted", ["yes", [1], None, {"0": 1}])
def test_flags_that_make_no_sense_are_taken_for_none(preempted: object) -> None:
    class Liar(Machine):
        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            return {**super().ask(request), "preempted": preempted, "mhz": -1, "celsius": "hot"}

    found = _run(Liar())
    assert found.counts["left_out"] == 0
    assert (found.lowest_mhz, found.highest_celsius) == (None, None)


def test_times_that_make_no_sense_end_the_connection() -> None:
    class Liar(Machine):
        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            return {**super().ask(request), "cpu_ms": [-1.0]}

    with pytest.raises(ConnectionLostError, match="it answered no times in cpu_ms"):
        _run(Liar())
