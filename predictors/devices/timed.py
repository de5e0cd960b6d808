"""A device with a clock: exports the networks and times them there in fresh processes."""

import hashlib
import random
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from predictors.backends.model import ONE_AT_A_TIME, Model, as_model, config_model
from predictors.backends.table import Runtime, Start, find_runtime
from predictors.devices.cache import Recall
from predictors.devices.cache_entry import Setting
from predictors.devices.connection import (
    Connection,
    ConnectionLostError,
    DeviceLostError,
    OverwhelmedError,
    TimerDiedError,
    flags,
    number,
    program,
    times_ms,
)
from predictors.devices.device import PROCESSES, Wanted
from predictors.devices.ssh import remedy
from predictors.latency import Prediction
from predictors.measurement import (
    LARGE,
    SMALL,
    Backend,
    Latency,
    Round,
    Source,
    blend,
    estimate,
    is_steady,
    nearness_in,
    ratios_in,
    settled,
    unsettled,
)
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import one_line

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


def clock_of(runtime: Runtime, *, processor: str, threads: int) -> str:
    """Return the clock for what is timed so.

    With one thread it is the process's CPU time, which other programs on the machine do not
    lengthen; with more it is the wall. A GPU is timed by its own events where torch records them.
    """
    if processor == "cuda":
        return runtime.cuda_clock or "wall_ms"
    return "cpu_ms" if threads == 1 else "wall_ms"


class SessionTimer:
    """Times models in one fresh process; the first two are the references."""

    def __init__(self, connection: Connection, start: Start) -> None:
        self._connection = connection
        self._start = start
        self._clock = start["clock"]
        self._counts: Counter[str] = Counter()
        self._mhz_of_blocks: list[float | None] = []
        self._mhz: list[float | None] = []  # the slowest of each round
        self._celsius: list[float | None] = []

    def run(self, *, seed: int, processes: int) -> Session:
        """Time until each network's ratio is settled, or for the most rounds.

        After the fewest rounds only networks are timed further that so many processes like this
        one would leave unstable. Rounds in which the machine was slowed down are left out.
        """
        timer = program("bootstrap", "machine", "timer", backend=self._start["module"])
        ready = self._connection.ask({"start": self._start, "program": timer}).get("ready", {})
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


GROUP = 8  # networks in memory at once
ATTEMPTS, PAUSE_S = 3, 2.0  # connections tried for one group, and the pause between them

# Timed in every round, in this order; see `predictors/rounds.py`.
REFERENCES = {
    "small": FasterNetConfig(
        widths=(24, 48, 96, 192), depths=(1, 1, 2, 1), partial_ratios=(0.25, 0.25, 0.25, 0.25),
        expansions=(2.0, 2.0, 2.0, 2.0), resolution=160, head_width=640, activation="relu",
    ),
    "t0": FASTERNET["t0"],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that can time: the command that starts an agent there, and what it is."""

    command: tuple[str, ...]
    address: str = ""  # empty: here
    machine: str  # one line on the hardware
    version: str  # of the runtime
    cores: tuple[int, ...] | None = None  # to pin to; None: it chooses
    emulated: bool = False
    processor: str = "cpu"  # that computes: cpu or cuda


@dataclass(frozen=True, kw_only=True)
class _Artifact:
    """What is timed of a network: its file, a SHA-256 of that and of a batch, and the input."""

    file: Path
    digest: str
    shape: tuple[int, ...]


class TimedDevice:
    """A machine whose clock is read.

    What it times goes to the user's store; where reuse is wanted, what is there already is not
    timed again.

    Raises:
        ValueError: if the runtime is unknown, or has not that precision.
    """

    source: Source = "measured"
    remarks: Sequence[str] = ()

    def __init__(self, name: str, host: Host, wanted: Wanted) -> None:
        self.name = name
        self.threads = wanted.threads
        self._host = host
        self._runtime = find_runtime(wanted.runtime, wanted.precision)
        self._reuse = wanted.reuse
        self._setting = Setting(
            runtime=wanted.runtime, version=host.version, threads=wanted.threads,
            machine=host.machine, address=host.address, emulated=host.emulated,
            precision=wanted.precision, cores=",".join(map(str, host.cores or ())),
        )  # fmt: skip
        self._recall = Recall(device=name, description=self.description, setting=self._setting,
                              references=tuple(REFERENCES))  # fmt: skip

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self._runtime.name

    @property
    def precision(self) -> str:
        """The numbers that the runtime computes with."""
        return self._runtime.precision

    @property
    def description(self) -> str:
        """One line on the processor and the runtime."""
        return f"{self._setting.description}: measured"

    def recall_from(self, addresses: Sequence[str]) -> None:
        """Take what boards of the same kind at these addresses have timed for timed by this one."""
        self._recall = replace(self._recall, others=addresses)

    def measure(self, network: FasterNetConfig | Model) -> Latency:
        """Return the latency of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = PROCESSES
    ) -> Iterator[Latency]:
        """Yield the latency of each network, in order.

        Raises:
            RuntimeError: if the machine cannot be reached, or cannot run them.
        """
        for start in range(0, len(networks), GROUP):
            group = [as_model(network) for network in networks[start : start + GROUP]]
            yield from self._measure_group(group, processes)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """This device is timed; fit a `LatencyPredictor` to its measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")

    def _measure_group(self, group: Sequence[Model], processes: int) -> Iterator[Latency]:
        """Time a group, or recall what was timed before."""
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            # One group at a time: of several boards, one then begins while the next is prepared.
            with ONE_AT_A_TIME:
                artifacts = [self._export(model, Path(folder) / str(i))
                             for i, model in enumerate(group)]  # fmt: skip
                references = [self._reference(name, Path(folder)) for name in REFERENCES]
            known = {i: found for i, artifact in enumerate(artifacts)
                     if (found := self._recalled(artifact, processes))}  # fmt: skip
            new = [i for i in range(len(group)) if i not in known]
            if new:
                timed = self._timed([*references, *(artifacts[i] for i in new)], processes)
                known |= dict(zip(new, timed, strict=True))
        for i in new:
            self._recall.keep(group[i], known[i])
        yield from (known[i] for i in range(len(group)))

    def _export(self, model: Model, path: Path) -> _Artifact:
        try:
            file = self._runtime.deploy(model, path)
        except (ValueError, RuntimeError, OSError):
            raise
        except Exception as error:  # runtimes and quantizers have errors of all kinds
            why = one_line(error)[:300]
            raise RuntimeError(f"`network` must be one that {self.runtime} in {self.precision} "
                               f"takes, but {model.name} is not: {why}.") from None  # fmt: skip
        return _artifact(file, model)

    def _reference(self, name: str, folder: Path) -> _Artifact:
        suffix, content = _reference_file(self._runtime, name)
        file = folder / f"{name}{suffix}"
        file.write_bytes(content)
        return _artifact(file, config_model(REFERENCES[name]))

    def _recalled(self, artifact: _Artifact, processes: int) -> Latency | None:
        return self._recall.find(artifact.digest, processes=processes) if self._reuse else None

    def _timed(self, artifacts: Sequence[_Artifact], processes: int) -> list[Latency]:
        """Time the files side by side; the first ones are the references."""
        processor, cores = self._host.processor, self._host.cores
        start = Start(
            module=self._runtime.module.__name__,
            models=[str(artifact.file) for artifact in artifacts],
            shapes=[list(artifact.shape) for artifact in artifacts],
            runtime=self._runtime.name,
            precision=self._runtime.precision,
            processor=processor,
            clock=clock_of(self._runtime, processor=processor, threads=self.threads),
            threads=self.threads,
            cores=None if cores is None else list(cores),
        )
        sessions = self._sessions(artifacts, start, processes)
        context = {"clock": start["clock"], "machine": self._host.machine,
                   "address": self._host.address, "cores": self._setting.cores,
                   "emulated": self._host.emulated,
                   "runtime_version": self._host.version, "session": secrets.token_hex(8),
                   "references": self._references(sessions), **merged(sessions)}  # fmt: skip
        return [self._judge(sessions, i, {**context, "artifact": artifact.digest})
                for i, artifact in enumerate(artifacts) if i >= len(REFERENCES)]  # fmt: skip

    def _sessions(
        self, artifacts: Sequence[_Artifact], start: Start, processes: int
    ) -> list[Session]:
        """Time all files in so many fresh processes; begin again where the machine is lost."""
        reason, lost = "", DeviceLostError
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_S * attempt)
            try:
                with Connection(self._host.command) as connection:
                    self._check_version(connection)
                    start["models"] = [
                        connection.keep(a.file, a.digest) if self._host.address else str(a.file)
                        for a in artifacts
                    ]
                    return [SessionTimer(connection, start).run(seed=seed, processes=processes)
                            for seed in range(processes)]  # fmt: skip
            except TimerDiedError as error:
                reason, lost = str(error), OverwhelmedError
            except ConnectionLostError as error:
                reason, lost = str(error), DeviceLostError
            except RuntimeError as error:
                raise RuntimeError(
                    f"The device must be able to run the networks, but {self.name} says: {error}."
                ) from None
        raise lost(f"The device must stay reachable, but {self.name} was lost {ATTEMPTS} times: "
                   f"{reason}. {remedy(reason)}")  # fmt: skip

    def _check_version(self, connection: Connection) -> None:
        """Refuse a board whose runtime is not the version that measurements are kept under."""
        if not self._host.address:
            return
        found = connection.ask({"facts": self._runtime.package}).get("facts", {})
        version = found.get("runtime_version") if isinstance(found, dict) else None
        if version != self._host.version:
            raise RuntimeError(
                f"{self.runtime} is {str(version)[:40]} now and was {self._host.version} when the "
                f"board was registered: `fasternas devices check` it"
            )

    def _judge(self, sessions: Sequence[Session], index: int, context: dict[str, Any]) -> Latency:
        near = nearness_in([blocks for s in sessions for blocks in s.rounds], index)
        found = estimate([ratios_in(s.rounds, index, near) for s in sessions])
        small, large = (context["references"][name]["kept_ms"] for name in REFERENCES)
        nominal_ms = blend(small, large, near)
        return Latency(
            median_ms=found.median * nominal_ms,
            low_ms=found.low * nominal_ms,
            high_ms=found.high * nominal_ms,
            unstable=found.unstable,
            source="measured",
            device=self.name,
            backend=Backend(self.runtime, self.precision, self.threads),
            context={**context, "nearness": near},
            samples_ms=tuple(tuple(r[index] for r in s.rounds if index in r) for s in sessions),
        )

    def _references(self, sessions: Sequence[Session]) -> dict[str, dict[str, float]]:
        """The references' latencies as kept, which define our milliseconds, and as they are now."""
        found = {}
        for i, name in enumerate(REFERENCES):
            timed = [[blocks[i] for blocks in s.rounds] for s in sessions]
            kept = self._recall.kept_ms(name, timed)
            found[name] = {"kept_ms": kept, "now_ms": median(map(median, timed))}
        return found


def _artifact(file: Path, model: Model) -> _Artifact:
    batch = f"batch {model.batch_size}" if model.batch_size > 1 else ""
    digest = hashlib.sha256(file.read_bytes() + batch.encode()).hexdigest()
    return _Artifact(file=file, digest=digest, shape=(model.batch_size, *model.shape))


@cache
def _reference_file(runtime: Runtime, name: str) -> tuple[str, bytes]:
    """The suffix and content of a reference's file, once in a process: every group needs it."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        file = runtime.deploy(config_model(REFERENCES[name]), Path(folder, name))
        return file.suffix, file.read_bytes()
