"""A device with a clock: exports the networks and times them there in fresh processes."""

import hashlib
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from predictors.devices.connection import Connection, ConnectionLostError, times_ms
from predictors.devices.device import threads_of
from predictors.devices.references import reference_latency
from predictors.devices.ssh import remedy
from predictors.latency import Prediction
from predictors.runtimes import find_runtime
from predictors.timing import (
    STEADY,
    Measurement,
    Source,
    blend,
    estimate,
    nearness,
    ratios,
    settled,
)
from search_spaces.fasternet import FASTERNET, FasterNetConfig

GROUP = 8  # networks in memory at once
ROUNDS = (8, 20)  # fewest, most rounds in a process
# A block's untimed inferences bring the network back into the caches, which takes the longer the
# more often it fits there: a network of 1.7 ms gets 12 % faster during the first 12 ms.
DISCARD_MS, DISCARDS = 12.0, (1, 25)  # fewest and most untimed
BLOCK_MS, REPEATS = 20.0, (5, 50)  # fewest and most timed
MAX_WARM_UP = 20  # blocks
ATTEMPTS, PAUSE_S = 3, 2.0  # connections tried for one group, and the pause between them

SMALL = FasterNetConfig(
    widths=(24, 48, 96, 192), depths=(1, 1, 2, 1), partial_ratios=(0.25, 0.25, 0.25, 0.25),
    expansions=(2.0, 2.0, 2.0, 2.0), resolution=160, head_width=640, activation="relu",
)  # fmt: skip
REFERENCES = {"small": SMALL, "t0": FASTERNET["t0"]}  # timed in every round, at these places:
BOTH = {0, 1}

Round = dict[int, float]  # block medians in ms by network


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that can time: the command that starts a keeper there, and what it is."""

    command: tuple[str, ...]
    address: str = ""  # empty: here
    machine: str  # one line on the hardware
    version: str  # of the runtime
    cores: tuple[int, ...] | None = None  # to pin to; None: it chooses
    emulated: bool = False


class TimedDevice:
    """A machine whose clock is read.

    With one thread the clock is the process's CPU time, which other programs on the machine do not
    lengthen; with more it is the wall.

    Raises:
        ValueError: if the runtime is unknown.
    """

    source: Source = "measured"

    def __init__(self, name: str, host: Host, *, runtime: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        self._host = host
        self._runtime = find_runtime(runtime)

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self._runtime.name

    @property
    def description(self) -> str:
        """One line on the processor and the runtime."""
        emulated = " (emulated: no latencies of the real processor)" if self._host.emulated else ""
        return (f"{self._host.machine}{emulated}, {self._runtime.name} {self._host.version}, "
                f"{threads_of(self.threads)}: measured")  # fmt: skip

    def measure(self, config: FasterNetConfig) -> Measurement:
        """Return the latency of one network."""
        return next(self.measure_each([config]))

    def measure_each(
        self, configs: Sequence[FasterNetConfig], *, processes: int = 3
    ) -> Iterator[Measurement]:
        """Yield the latency of each network, in order.

        Raises:
            RuntimeError: if the machine cannot be reached, or cannot run them.
        """
        for start in range(0, len(configs), GROUP):
            yield from self._measure_group(configs[start : start + GROUP], processes)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """This device is timed; fit a `LatencyPredictor` to its measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")

    def _measure_group(
        self, configs: Sequence[FasterNetConfig], processes: int
    ) -> Iterator[Measurement]:
        networks = [*REFERENCES.values(), *configs]
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            files = [self._runtime.export(config, Path(folder) / f"{i}{self._runtime.suffix}")
                     for i, config in enumerate(networks)]  # fmt: skip
            digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
            start = {"runtime": self._runtime.name, "threads": self.threads,
                     "cores": self._host.cores and list(self._host.cores),
                     "resolutions": [config.resolution for config in networks]}  # fmt: skip
            sessions = self._sessions(files, digests, start, processes)
        context = {"clock": self._clock, "machine": self._host.machine,
                   "emulated": self._host.emulated, "runtime_version": self._host.version,
                   "references": self._references([rounds for rounds, _ in sessions]),
                   **sessions[0][1]}  # fmt: skip
        for i in range(len(REFERENCES), len(networks)):
            yield self._judge([rounds for rounds, _ in sessions], i,
                              {**context, "artifact": digests[i]})  # fmt: skip

    def _sessions(
        self, files: list[Path], digests: list[str], start: dict[str, Any], processes: int
    ) -> list[tuple[list[Round], dict[str, bool]]]:
        """Time all files in so many fresh processes; begin again where the machine is lost."""
        reason = ""
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_S * attempt)
            try:
                with Connection(self._host.command) as connection:
                    start["models"] = [
                        connection.keep(file, digest) if self._host.address else str(file)
                        for file, digest in zip(files, digests, strict=True)
                    ]
                    return [self._time(connection, start, seed, processes)
                            for seed in range(processes)]  # fmt: skip
            except ConnectionLostError as error:
                reason = str(error)
            except RuntimeError as error:
                raise RuntimeError(
                    f"The device must be able to run the networks, but {self.name} says: {error}."
                ) from None
        raise RuntimeError(f"The device must stay reachable, but {self.name} was lost {ATTEMPTS} "
                           f"times: {reason}. {remedy(reason)}")  # fmt: skip

    def _judge(
        self, sessions: list[list[Round]], index: int, context: dict[str, Any]
    ) -> Measurement:
        near = _nearness([blocks for rounds in sessions for blocks in rounds], index)
        found = estimate([_ratios(rounds, index, near) for rounds in sessions])
        small, large = (context["references"][name]["kept_ms"] for name in REFERENCES)
        nominal_ms = blend(small, large, near)
        return Measurement(
            median_ms=found.median * nominal_ms, low_ms=found.low * nominal_ms,
            high_ms=found.high * nominal_ms, unstable=found.unstable, source="measured",
            device=self.name, runtime=self.runtime, threads=self.threads,
            samples_ms=tuple(tuple(r[index] for r in rounds if index in r) for rounds in sessions),
            context=context,
        )  # fmt: skip

    def _references(self, sessions: list[list[Round]]) -> dict[str, dict[str, float]]:
        """The references' latencies as kept, which define our milliseconds, and as they are now."""
        found = {}
        for i, name in enumerate(REFERENCES):
            timed = [[blocks[i] for blocks in rounds] for rounds in sessions]
            kept = reference_latency({**self._key(), "reference": name}, timed)
            found[name] = {"kept_ms": kept, "now_ms": median(map(median, timed))}
        return found

    @property
    def _clock(self) -> str:
        return "cpu_ms" if self.threads == 1 else "wall_ms"

    def _key(self) -> dict[str, str | int]:
        where = {"address": self._host.address} if self._host.address else {}
        return {"machine": self._host.machine, "runtime": self._runtime.name,
                "version": self._host.version, "threads": self.threads, **where}  # fmt: skip

    def _time(
        self, connection: Connection, start: dict[str, Any], seed: int, processes: int
    ) -> tuple[list[Round], dict[str, bool]]:
        """Time all models in one fresh process; return the rounds, and how it was set.

        After the fewest rounds only networks whose ratio is still unsettled are timed further.
        """
        ready = connection.ask({"start": start}).get("ready", {})
        self._warm_up(connection)
        waiting = set(range(len(start["models"])))
        sizes = [_block_size(self._block(connection, i)) for i in sorted(waiting)]
        rng = random.Random(seed)
        rounds: list[Round] = []
        while waiting and len(rounds) < ROUNDS[1]:
            order = rng.sample(sorted(waiting | BOTH), len(waiting | BOTH))
            rounds.append({i: self._block(connection, i, sizes[i]) for i in order})
            if len(rounds) >= ROUNDS[0]:
                waiting = {i for i in waiting - BOTH if _unsettled(rounds, i, processes)}
        return rounds, {key: bool(ready.get(key)) for key in ("pinned", "realtime")}

    def _warm_up(self, connection: Connection) -> None:
        blocks: list[float] = []
        while not settled(blocks) and len(blocks) < MAX_WARM_UP:
            blocks.append(self._block(connection, max(BOTH)))

    def _block(
        self,
        connection: Connection,
        index: int,
        size: tuple[int, int] = (DISCARDS[0], REPEATS[0]),
    ) -> float:
        discard, repeats = size
        answer = connection.ask({"time": index, "discard": discard, "repeats": repeats})
        samples = sorted(times_ms(answer, self._clock))
        return samples[len(samples) // 2]


def _block_size(inference_ms: float) -> tuple[int, int]:
    """How many inferences of a block are not timed, and how many are."""

    def as_fit(duration_ms: float, fewest: int, most: int) -> int:
        return min(max(round(duration_ms / inference_ms), fewest), most)

    return as_fit(DISCARD_MS, *DISCARDS), as_fit(BLOCK_MS, *REPEATS)


def _nearness(rounds: list[Round], index: int) -> float:
    """How near to the larger reference a network lies."""
    timed = [blocks for blocks in rounds if index in blocks]
    return nearness(*(median(blocks[i] for blocks in timed) for i in (index, *sorted(BOTH))))


def _ratios(rounds: list[Round], index: int, near: float) -> list[float]:
    """Divide a network's blocks by those of its reference in the same rounds."""
    timed = [blocks for blocks in rounds if index in blocks]
    return ratios([blocks[index] for blocks in timed],
                  [blend(blocks[0], blocks[1], near) for blocks in timed])  # fmt: skip


def _unsettled(rounds: list[Round], index: int, processes: int) -> bool:
    """Whether this many such processes together would still be unstable."""
    near = _nearness(rounds, index)
    return estimate([_ratios(rounds, index, near)]).half_width > STEADY * math.sqrt(processes)
