"""The timing of some models in one fresh process: which blocks, in which order, how many."""

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from predictors.devices.connection import TIMER, Connection, flags, number, times_ms
from predictors.measurement import LARGE, SMALL, Round, is_steady, settled, unsettled

ROUNDS = (6, 8)  # fewest, most rounds in a process at the machine's own speed
MOST_ROUNDS = 16  # with those in which it was slowed down
# A block's untimed inferences bring the network back into the caches, which takes the longer the
# more often it fits there.
DISCARD_MS, DISCARDS = 12.0, (1, 25)  # fewest and most untimed
BLOCK_MS, REPEATS = 20.0, (5, 50)  # fewest and most timed
MAX_WARM_UP = 20  # blocks
COOL_S, COOLINGS = 1.0, 1  # a pause where the machine is slowed down, and how many of them
BOTH = {SMALL, LARGE}


HELD_UP = 1.2  # wall by CPU time from which a one-threaded inference counts as preempted


@dataclass(frozen=True, kw_only=True)
class Session:
    """What one process timed, and how that came about.

    `counts` are of samples, those preempted, those left out, rounds, and rounds left out.
    """

    rounds: Sequence[Round]
    ready: dict[str, bool]  # pinned, realtime
    counts: dict[str, int]
    lowest_mhz: float | None
    highest_celsius: float | None


def clock_of(start: Mapping[str, Any]) -> str:
    """The clock for what is started so.

    With one thread it is the process's CPU time, which other programs on the machine do not
    lengthen; with more it is the wall. A GPU is timed by its own events where torch records them.
    """
    if start.get("processor") == "cuda":
        return "event_ms" if start["runtime"] in ("torch", "torch-compiled") else "wall_ms"
    return "cpu_ms" if start["threads"] == 1 else "wall_ms"


class SessionTimer:
    """Times models in one fresh process; the first two are the references."""

    def __init__(self, connection: Connection, start: dict[str, Any]) -> None:
        self._connection = connection
        self._start = start
        self._clock = clock_of(start)
        self._counts: Counter[str] = Counter()
        self._mhz_of_blocks: list[float | None] = []
        self._mhz: list[float | None] = []  # the slowest of each round
        self._celsius: list[float | None] = []

    def run(self, *, seed: int, processes: int) -> Session:
        """Time until each network's ratio is settled, or for the most rounds.

        After the fewest rounds only networks are timed further that so many processes like this
        one would leave unstable. Rounds in which the machine was slowed down are left out.
        """
        ready = self._connection.ask({"start": self._start, "program": TIMER}).get("ready", {})
        self._warm_up()
        waiting = set(range(len(self._start["models"])))
        sizes = [_block_size(self._block(i)) for i in sorted(waiting)]
        rng = random.Random(seed)
        rounds: list[Round] = []
        steady: list[Round] = []
        while waiting and len(steady) < ROUNDS[1] and len(rounds) < MOST_ROUNDS:
            order = rng.sample(sorted(waiting | BOTH), len(waiting | BOTH))
            rounds.append({i: self._block(i, sizes[i]) for i in order})
            if self._cooled(rounds, blocks=len(order)):
                steady.append(rounds[-1])
            if len(steady) >= ROUNDS[0]:
                waiting = {i for i in waiting - BOTH if unsettled(steady, i, processes=processes)}
        return self._session(rounds, steady, ready)

    def _cooled(self, rounds: Sequence[Round], *, blocks: int) -> bool:
        """Whether the machine was at its speed in the last round; where it was not, pause."""
        slowest = min((v for v in self._mhz_of_blocks[-blocks:] if v), default=None)
        self._mhz.append(slowest)
        references = [geometric_mean([r[SMALL], r[LARGE]]) for r in rounds]
        steady = is_steady(references, self._mhz)
        if not steady and self._counts["pauses"] < COOLINGS:
            self._counts["pauses"] += 1
            time.sleep(COOL_S)
        return steady

    def _session(
        self, rounds: Sequence[Round], steady: Sequence[Round], ready: dict[str, Any]
    ) -> Session:
        kept = steady if len(steady) >= ROUNDS[0] else rounds  # too few: all, the median resists
        self._counts.update(rounds=len(rounds), rounds_left_out=len(rounds) - len(kept))
        return Session(
            rounds=kept, ready={key: bool(ready.get(key)) for key in ("pinned", "realtime")},
            counts=dict(self._counts),
            lowest_mhz=min((v for v in self._mhz_of_blocks if v), default=None),
            highest_celsius=max((v for v in self._celsius if v), default=None),
        )  # fmt: skip

    def _warm_up(self) -> None:
        blocks: list[float] = []
        while not settled(blocks) and len(blocks) < MAX_WARM_UP:
            blocks.append(self._block(LARGE))

    def _block(self, index: int, size: tuple[int, int] = (DISCARDS[0], REPEATS[0])) -> float:
        """Time a block and return its median, without the samples that were preempted.

        Where those are the most, none is left out: then there is nothing better.
        """
        discard, repeats = size
        answer = self._connection.ask({"time": index, "discard": discard, "repeats": repeats})
        samples = times_ms(answer, self._clock)
        preempted = self._held_up(answer, len(samples))
        whole = [ms for ms, taken in zip(samples, preempted, strict=True) if not taken]
        kept = whole if 2 * len(whole) >= len(samples) else samples
        self._counts.update(samples=len(samples), preempted=sum(preempted),
                            left_out=len(samples) - len(kept))  # fmt: skip
        self._mhz_of_blocks.append(number(answer, "mhz"))
        self._celsius.append(number(answer, "celsius"))
        return sorted(kept)[len(kept) // 2]

    def _held_up(self, answer: dict[str, Any], count: int) -> list[bool]:
        """Whether each inference was preempted: by the kernel's count, or by its two clocks."""
        switched = flags(answer, "preempted", count)
        if self._clock != "cpu_ms" or len(answer.get("wall_ms") or ()) != count:
            return switched
        wall, cpu = times_ms(answer, "wall_ms"), times_ms(answer, "cpu_ms")
        return [s or w > HELD_UP * c for s, w, c in zip(switched, wall, cpu, strict=True)]


def merged(sessions: Sequence[Session]) -> dict[str, Any]:
    """Return what is to be known of all processes together."""
    counts: Counter[str] = sum((Counter(s.counts) for s in sessions), Counter())
    frequencies = [s.lowest_mhz for s in sessions if s.lowest_mhz]
    temperatures = [s.highest_celsius for s in sessions if s.highest_celsius]
    return {**sessions[0].ready, "counts": dict(counts),
            "lowest_mhz": min(frequencies, default=None),
            "highest_celsius": max(temperatures, default=None)}  # fmt: skip


def _block_size(inference_ms: float) -> tuple[int, int]:
    """How many inferences of a block are not timed, and how many are."""

    def as_fit(duration_ms: float, fewest: int, most: int) -> int:
        return min(max(round(duration_ms / inference_ms), fewest), most)

    return as_fit(DISCARD_MS, *DISCARDS), as_fit(BLOCK_MS, *REPEATS)
