"""A device with a clock: exports the networks and times them there in fresh processes."""

import hashlib
import random
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, Literal

from predictors.backends.model import ONE_AT_A_TIME, Model, as_model, config_model
from predictors.backends.table import Runtime, Start, find_runtime
from predictors.devices.cache import DeviceCache, ReferenceWatch
from predictors.devices.cache_entry import Setting
from predictors.devices.connection import (
    SCRIPT,
    Connection,
    ConnectionLostError,
    DeviceLostError,
    OverwhelmedError,
    TimerDiedError,
    flags,
    number,
    program,
    remedy,
    times_ms,
)
from predictors.devices.device import Network
from predictors.measurement import (
    LARGE,
    SMALL,
    Backend,
    Context,
    Latency,
    Reference,
    Round,
    TimingProtocol,
    blend,
    estimate,
    is_steady,
    nearness_in,
    ratios_in,
    settled,
    unsettled,
)
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import reason

PREEMPTED = 1.2  # wall by CPU time from which a one-threaded inference counts as preempted
BOTH = {SMALL, LARGE}
# Timed in every round, in this order; see `predictors/measurement.py`.
REFERENCES = {
    "small": FasterNetConfig(
        widths=(24, 48, 96, 192),
        depths=(1, 1, 2, 1),
        partial_ratios=(0.25, 0.25, 0.25, 0.25),
        expansions=(2.0, 2.0, 2.0, 2.0),
        resolution=160,
        head_width=640,
        activation="relu",
    ),
    "t0": FASTERNET["t0"],
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine that can time: the command that starts an agent there, and what it is."""

    command: tuple[str, ...]
    machine: str  # one line on the hardware
    address: str = ""  # empty: here
    cores: tuple[int, ...] = ()  # to pin to; empty: the agent chooses
    emulated: bool = False
    processor: Literal["cpu", "cuda"] = "cpu"  # that computes

    def connect(self, *, answer_s: float) -> Connection:
        """Start an agent there."""
        script = SCRIPT if self.address else ""
        return Connection(self.command, script=script, answer_s=answer_s)


def clock_of(runtime: Runtime, *, processor: str, threads: int) -> str:
    """Return the clock for what is timed so.

    With one thread it is the process's CPU time, which other programs on the machine do not
    lengthen; with more it is the wall. A GPU is timed by its own events where torch records them.
    """
    if processor == "cuda":
        return runtime.cuda_clock or "wall_ms"
    return "cpu_ms" if threads == 1 else "wall_ms"


@dataclass(frozen=True, kw_only=True)
class Session:
    """What one process timed, and how that came about.

    `counts` are of samples, those preempted, those left out, rounds, rounds left out and pauses.
    """

    rounds: Sequence[Round]
    counts: Mapping[str, int]
    pinned: bool
    realtime: bool
    ran_on: str
    lowest_mhz: float | None
    highest_celsius: float | None


class SessionTimer:
    """Times models in one fresh process; the first two are the references."""

    def __init__(self, connection: Connection, start: Start, protocol: TimingProtocol) -> None:
        self._connection = connection
        self._start = start
        self._protocol = protocol
        self._counts: Counter[str] = Counter()
        self._mhz_of_blocks: list[float | None] = []
        self._mhz: list[float | None] = []  # the slowest of each round
        self._celsius: list[float | None] = []

    def run(self, *, seed: int, repeats: int) -> Session:
        """Time until each network's ratio is settled, or for the most rounds.

        After the fewest rounds only networks are timed further that so many processes like this
        one would leave unstable. Rounds in which the machine was slowed down are left out.
        """
        timer = program("host", "cores", "timer", backend=self._start["module"])
        ready = self._connection.ask({"start": self._start, "program": timer}).get("ready", {})
        self._warm_up()
        waiting = set(range(len(self._start["models"])))
        sizes = [self._block_size(self._block(i)) for i in sorted(waiting)]
        rng = random.Random(seed)
        rounds: list[Round] = []
        steady: list[Round] = []
        fewest, most = self._protocol.rounds
        while waiting and len(steady) < most and len(rounds) < self._protocol.most_rounds:
            order = rng.sample(sorted(waiting | BOTH), len(waiting | BOTH))
            rounds.append({i: self._block(i, sizes[i]) for i in order})
            if self._was_steady(rounds, blocks=len(order)):
                steady.append(rounds[-1])
            if len(steady) >= fewest:
                waiting = {i for i in waiting - BOTH if unsettled(steady, i, repeats=repeats)}
        kept = steady if len(steady) >= fewest else rounds  # too few: all, the median resists
        return self._session(kept, len(rounds), ready)

    def _was_steady(self, rounds: Sequence[Round], *, blocks: int) -> bool:
        """Whether the machine was at its speed in the last round; where it was not, pause."""
        slowest = min((v for v in self._mhz_of_blocks[-blocks:] if v), default=None)
        self._mhz.append(slowest)
        references = [geometric_mean([r[SMALL], r[LARGE]]) for r in rounds]
        steady = is_steady(references, self._mhz)
        if not steady and self._counts["pauses"] < self._protocol.pauses:
            self._counts["pauses"] += 1
            time.sleep(self._protocol.pause_s)
        return steady

    def _session(self, kept: Sequence[Round], timed: int, ready: Mapping[str, object]) -> Session:
        self._counts.update(rounds=timed, rounds_left_out=timed - len(kept))
        return Session(
            rounds=kept,
            counts=dict(self._counts),
            pinned=bool(ready.get("pinned")),
            realtime=bool(ready.get("realtime")),
            ran_on=_ran_on(ready),
            lowest_mhz=min((v for v in self._mhz_of_blocks if v), default=None),
            highest_celsius=max((v for v in self._celsius if v), default=None),
        )

    def _warm_up(self) -> None:
        blocks: list[float] = []
        while not settled(blocks) and len(blocks) < self._protocol.most_warm_up:
            blocks.append(self._block(LARGE))

    def _block_size(self, inference_ms: float) -> tuple[int, int]:
        """How many inferences of a block are not timed, and how many are."""

        def as_fit(duration_ms: float, fewest: int, most: int) -> int:
            return min(max(round(duration_ms / inference_ms), fewest), most)

        p = self._protocol
        return as_fit(p.discard_ms, *p.discards), as_fit(p.block_ms, *p.inferences)

    def _block(self, index: int, size: tuple[int, int] | None = None) -> float:
        """Time a block and return its median, without the samples that were preempted.

        Where those are the most, none is left out: then there is nothing better.
        """
        discard, repeats = size or (self._protocol.discards[0], self._protocol.inferences[0])
        answer = self._connection.ask({"time": index, "discard": discard, "repeats": repeats})
        samples = times_ms(answer, self._start["clock"])
        preempted = self._preempted(answer, len(samples))
        whole = [ms for ms, lost in zip(samples, preempted, strict=True) if not lost]
        kept = whole if 2 * len(whole) >= len(samples) else samples
        left_out = len(samples) - len(kept)
        self._counts.update(samples=len(samples), preempted=sum(preempted), left_out=left_out)
        self._mhz_of_blocks.append(number(answer, "mhz"))
        self._celsius.append(number(answer, "celsius"))
        return sorted(kept)[len(kept) // 2]

    def _preempted(self, answer: Mapping[str, Any], count: int) -> list[bool]:
        """Whether each inference was preempted: by the kernel's count, or by its two clocks."""
        switched = flags(answer, "preempted", count)
        if self._start["clock"] != "cpu_ms" or len(answer.get("wall_ms") or ()) != count:
            return switched
        wall, cpu = times_ms(answer, "wall_ms"), times_ms(answer, "cpu_ms")
        return [s or w > PREEMPTED * c for s, w, c in zip(switched, wall, cpu, strict=True)]


def _ran_on(ready: Mapping[str, object]) -> str:
    """The cores that a timer was pinned to, and why these; empty where it does not tell."""
    cores, why = ready.get("cores"), ready.get("why")
    if not isinstance(cores, list) or not all(type(core) is int for core in cores):
        return ""
    what = "core" if len(cores) == 1 else "cores"
    words = "".join(c for c in str(why or "") if c.isprintable())[:200]
    return f"{what} {','.join(map(str, cores))[:200]} ({words})"


@dataclass(frozen=True, kw_only=True)
class _Artifact:
    """What is timed of a network: its file, a SHA-256 of that and of a batch, and the input."""

    file: Path
    digest: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, file: Path, model: Model) -> "_Artifact":
        batch = f"batch {model.batch_size}" if model.batch_size > 1 else ""
        digest = hashlib.sha256(file.read_bytes() + batch.encode()).hexdigest()
        return cls(file=file, digest=digest, shape=(model.batch_size, *model.shape))


@dataclass(frozen=True)
class TimedDevice:
    """A machine whose clock is read, in one backend; `version` is that of the runtime.

    Where the runtime is gone, `repair` brings it back.

    What it times goes to the user's cache. With `protocol.reuse`, what is there already is not
    timed again; `pool` are addresses of boards of the same kind, whose measurements count too.
    """

    name: str
    host: Host
    backend: Backend
    _: KW_ONLY
    version: str
    protocol: TimingProtocol = field(default_factory=TimingProtocol)
    pool: tuple[str, ...] = ()
    source: Literal["measured"] = "measured"
    repair: Callable[[], object] | None = field(default=None, compare=False)
    _watch: ReferenceWatch = field(default_factory=ReferenceWatch, init=False, compare=False)

    def __post_init__(self) -> None:
        find_runtime(self.backend.runtime, self.backend.precision)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The one in which it times."""
        return (self.backend,)

    @property
    def remarks(self) -> Sequence[str]:
        """That the machine is not as fast as it was, if it is not."""
        return self._watch.remarks(self.name, self.backend, device=self.name, cores=self.host.cores)

    def forget_references(self) -> None:
        """Let those that are timed next be kept."""
        self._cache.forget_references()

    @property
    def description(self) -> str:
        """One line on the processor and the runtime."""
        return f"{self._setting.description}: measured"

    def measure(self, network: Network) -> Latency:
        """Return the latency of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the latency of each network, in order."""
        for start in range(0, len(networks), self.protocol.group):
            group = networks[start : start + self.protocol.group]
            models = [as_model(network) for network in group]
            yield from self._measure_group(models, repeats or self.protocol.repeats)

    @property
    def _runtime(self) -> Runtime:
        return find_runtime(self.backend.runtime, self.backend.precision)

    @property
    def _setting(self) -> Setting:
        return Setting(
            backend=self.backend,
            version=self.version,
            machine=self.host.machine,
            address=self.host.address,
            emulated=self.host.emulated,
            cores=",".join(map(str, self.host.cores)),
        )

    @property
    def _cache(self) -> DeviceCache:
        return DeviceCache(
            device=self.name,
            description=self.description,
            setting=self._setting,
            references=tuple(REFERENCES),
            others=self.pool,
        )

    def _measure_group(self, group: Sequence[Model], repeats: int) -> Iterator[Latency]:
        """Time a group, but for what the cache has."""
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            # One group at a time: of several boards, one then begins while the next is prepared.
            with ONE_AT_A_TIME:
                artifacts = [self._export(m, Path(folder) / str(i)) for i, m in enumerate(group)]
                references = [self._reference(name, Path(folder)) for name in REFERENCES]
            found = [self._cached(artifact, repeats) for artifact in artifacts]
            new = [i for i, latency in enumerate(found) if latency is None]
            files = [*references, *(artifacts[i] for i in new)]
            timed = dict(zip(new, self._timed(files, repeats), strict=True)) if new else {}
        for i, latency in timed.items():
            self._cache.put(group[i], latency)
        changes = self._watch.changes()
        yield from ((latency or timed[i]).in_doubt(changes) for i, latency in enumerate(found))

    def _export(self, model: Model, path: Path) -> _Artifact:
        runtime = self._runtime
        try:
            file = runtime.deploy(model, path)
        except (ValueError, RuntimeError, OSError):
            raise
        except Exception as error:  # runtimes and quantizers have errors of all kinds
            raise RuntimeError(
                f"`network` must be one that {runtime.name} in {runtime.precision} takes, but "
                f"{model.name} is not: {reason(error)}."
            ) from None
        return _Artifact.of(file, model)

    def _reference(self, name: str, folder: Path) -> _Artifact:
        suffix, content = _reference_file(self._runtime, name)
        file = folder / f"{name}{suffix}"
        file.write_bytes(content)
        return _Artifact.of(file, config_model(REFERENCES[name]))

    def _cached(self, artifact: _Artifact, repeats: int) -> Latency | None:
        return self._cache.get(artifact.digest, repeats=repeats) if self.protocol.reuse else None

    def _timed(self, artifacts: Sequence[_Artifact], repeats: int) -> list[Latency]:
        """Time the files side by side; the first ones are the references."""
        backend, processor = self.backend, self.host.processor
        start = Start(
            module=self._runtime.module.__name__,
            models=[str(artifact.file) for artifact in artifacts],
            shapes=[list(artifact.shape) for artifact in artifacts],
            runtime=backend.runtime,
            precision=backend.precision,
            processor=processor,
            clock=clock_of(self._runtime, processor=processor, threads=backend.threads),
            threads=backend.threads,
            cores=list(self.host.cores) or None,
        )
        sessions = self._sessions(artifacts, start, repeats)
        context = Context(
            machine=self.host.machine,
            address=self.host.address,
            cores=self._setting.cores,
            emulated=self.host.emulated,
            runtime_version=self.version,
            clock=start["clock"],
            session=secrets.token_hex(8),
            references=self._references(sessions),
        )
        context = with_sessions(context, sessions)
        return [
            self._latency(sessions, i, replace(context, artifact=artifact.digest))
            for i, artifact in enumerate(artifacts)
            if i >= len(REFERENCES)
        ]

    def _sessions(
        self, artifacts: Sequence[_Artifact], start: Start, repeats: int
    ) -> list[Session]:
        """Time all files in so many fresh processes; begin again where the machine is lost."""
        why, lost = "", DeviceLostError
        for attempt in range(self.protocol.attempts):
            time.sleep(self.protocol.attempt_pause_s * attempt)
            try:
                return self._attempt(artifacts, start, repeats)
            except TimerDiedError as error:
                why, lost = str(error), OverwhelmedError
            except ConnectionLostError as error:
                why, lost = str(error), DeviceLostError
            except RuntimeError as error:
                raise RuntimeError(
                    f"The device must be able to run the networks, but {self.name} says: {error}."
                ) from None
        raise lost(
            f"The device must stay reachable, but {self.name} was lost {self.protocol.attempts} "
            f"times: {why}. {remedy(why)}"
        )

    def _attempt(self, artifacts: Sequence[_Artifact], start: Start, repeats: int) -> list[Session]:
        with self.host.connect(answer_s=self.protocol.answer_s) as connection:
            if self.host.address:
                self._check_version(connection)
                start["models"] = [connection.keep(a.file, a.digest) for a in artifacts]
            return [
                SessionTimer(connection, start, self.protocol).run(seed=seed, repeats=repeats)
                for seed in range(repeats)
            ]

    def _check_version(self, connection: Connection) -> None:
        """Refuse a board whose runtime is not the version that measurements are kept under."""
        version = self._version_there(connection)
        if version is None and self.repair is not None:  # another Python has its own packages
            self.repair()
            version = self._version_there(connection)
        if version != self.version:
            raise RuntimeError(
                f"{self.backend.runtime} is {str(version)[:40]} now and was {self.version} when "
                "the board was registered: `fasternas devices check` it"
            )
        if not self._runtime.reads_ours(self.version):
            raise RuntimeError(
                f"{self.backend.runtime} must be {self._runtime.oldest} or newer, but is "
                f"{self.version}: `fasternas devices add` and `check` install a newer one"
            )

    def _version_there(self, connection: Connection) -> object:
        found = connection.ask({"facts": self._runtime.package}).get("facts")
        return found.get("runtime_version") if isinstance(found, dict) else None

    def _latency(self, sessions: Sequence[Session], index: int, context: Context) -> Latency:
        near = nearness_in([blocks for s in sessions for blocks in s.rounds], index)
        ratio = estimate([ratios_in(s.rounds, index, near) for s in sessions])
        small, large = (context.references[name].kept_ms for name in REFERENCES)
        nominal_ms = blend(small, large, near)
        return Latency(
            median_ms=ratio.median * nominal_ms,
            low_ms=ratio.low * nominal_ms,
            high_ms=ratio.high * nominal_ms,
            unstable=ratio.unstable,
            source="measured",
            device=self.name,
            backend=self.backend,
            context=replace(context, nearness=near),
            samples_ms=tuple(tuple(r[index] for r in s.rounds if index in r) for s in sessions),
        )

    def _references(self, sessions: Sequence[Session]) -> dict[str, Reference]:
        found = {}
        for i, name in enumerate(REFERENCES):
            blocks = [[round_[i] for round_ in s.rounds] for s in sessions]
            kept_ms = self._cache.reference_ms(name, blocks)
            medians = [median(process) for process in blocks]
            self._watch.add(name, kept_ms=kept_ms, now_ms=medians)
            found[name] = Reference(kept_ms=kept_ms, now_ms=median(medians))
        return found


def with_sessions(context: Context, sessions: Sequence[Session]) -> Context:
    """Add what is to be known of all processes together."""
    frequencies = [s.lowest_mhz for s in sessions if s.lowest_mhz]
    temperatures = [s.highest_celsius for s in sessions if s.highest_celsius]
    return replace(
        context,
        counts=dict(sum((Counter(s.counts) for s in sessions), Counter())),
        pinned=sessions[0].pinned,
        realtime=sessions[0].realtime,
        ran_on=sessions[0].ran_on,
        lowest_mhz=min(frequencies, default=None),
        highest_celsius=max(temperatures, default=None),
    )


@cache
def _reference_file(runtime: Runtime, name: str) -> tuple[str, bytes]:
    """The suffix and content of a reference's file, once in a process: every group needs it."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        file = runtime.deploy(config_model(REFERENCES[name]), Path(folder, name))
        return file.suffix, file.read_bytes()
