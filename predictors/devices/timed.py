"""A device with a clock: exports the networks and times them there in fresh processes."""

import hashlib
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from predictors.backends.model import ONE_AT_A_TIME, Model, as_model, config_model
from predictors.backends.table import find_runtime
from predictors.devices.connection import (
    Connection,
    ConnectionLostError,
    DeviceLostError,
    OverwhelmedError,
    TimerDiedError,
)
from predictors.devices.device import PROCESSES, Wanted
from predictors.devices.entry import Setting
from predictors.devices.recall import Recall
from predictors.devices.session import Session, SessionTimer, clock_of, merged
from predictors.devices.ssh import remedy
from predictors.latency import Prediction
from predictors.measurement import Backend, Latency, Source, blend, estimate, nearness_in, ratios_in
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import one_line

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
    """A machine that can time: the command that starts a keeper there, and what it is."""

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
            file = self._runtime.export(model, path.with_name(path.name + self._runtime.suffix))
        except (ValueError, RuntimeError, OSError):
            raise
        except Exception as error:  # runtimes and quantizers have errors of all kinds
            why = one_line(error)[:300]
            raise RuntimeError(f"`network` must be one that {self.runtime} in {self.precision} "
                               f"takes, but {model.name} is not: {why}.") from None  # fmt: skip
        return _artifact(file, model)

    def _reference(self, name: str, folder: Path) -> _Artifact:
        file = folder / f"{name}{self._runtime.suffix}"
        file.write_bytes(_reference_file(self._runtime.name, self._runtime.precision, name))
        return _artifact(file, config_model(REFERENCES[name]))

    def _recalled(self, artifact: _Artifact, processes: int) -> Latency | None:
        return self._recall.find(artifact.digest, processes=processes) if self._reuse else None

    def _timed(self, artifacts: Sequence[_Artifact], processes: int) -> list[Latency]:
        """Time the files side by side; the first ones are the references."""
        start = {"runtime": self._runtime.name, "precision": self._runtime.precision,
                 "processor": self._host.processor, "threads": self.threads,
                 "cores": self._host.cores and list(self._host.cores),
                 "shapes": [artifact.shape for artifact in artifacts]}  # fmt: skip
        sessions = self._sessions(artifacts, start, processes)
        context = {"clock": clock_of(start), "machine": self._host.machine,
                   "address": self._host.address, "cores": self._setting.cores,
                   "emulated": self._host.emulated,
                   "runtime_version": self._host.version, "session": secrets.token_hex(8),
                   "references": self._references(sessions), **merged(sessions)}  # fmt: skip
        return [self._judge(sessions, i, {**context, "artifact": artifact.digest})
                for i, artifact in enumerate(artifacts) if i >= len(REFERENCES)]  # fmt: skip

    def _sessions(
        self, artifacts: Sequence[_Artifact], start: dict[str, Any], processes: int
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
def _reference_file(runtime: str, precision: str, name: str) -> bytes:
    """What a reference is exported to, once in a process: every group needs it."""
    found = find_runtime(runtime, precision)
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        model = config_model(REFERENCES[name])
        return found.export(model, Path(folder) / f"{name}{found.suffix}").read_bytes()
