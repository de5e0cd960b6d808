"""A device with a clock: exports the networks and times them there in fresh processes."""

import hashlib
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from predictors.devices.connection import Connection, ConnectionLostError
from predictors.devices.device import threads_of
from predictors.devices.references import reference_latency
from predictors.devices.session import Session, SessionTimer, clock_of, merged
from predictors.devices.ssh import remedy
from predictors.latency import Prediction
from predictors.models import Model, as_model, config_model
from predictors.rounds import blend, nearness_in, ratios_in
from predictors.runtimes import find_runtime
from predictors.timing import Measurement, Source, estimate
from search_spaces.fasternet import FASTERNET, FasterNetConfig

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


class TimedDevice:
    """A machine whose clock is read.

    Raises:
        ValueError: if the runtime is unknown, or has not that precision.
    """

    source: Source = "measured"

    def __init__(
        self, name: str, host: Host, *, runtime: str, threads: int, precision: str = "fp32"
    ) -> None:
        self.name = name
        self.threads = threads
        self._host = host
        self._runtime = find_runtime(runtime, precision)

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
        emulated = " (emulated: no latencies of the real processor)" if self._host.emulated else ""
        precision = "" if self.precision == "fp32" else f", {self.precision}"
        return (f"{self._host.machine}{emulated}, {self._runtime.name} {self._host.version}"
                f"{precision}, {threads_of(self.threads)}: measured")  # fmt: skip

    def measure(self, network: FasterNetConfig | Model) -> Measurement:
        """Return the latency of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = 3
    ) -> Iterator[Measurement]:
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

    def _measure_group(self, group: Sequence[Model], processes: int) -> Iterator[Measurement]:
        models = [*(config_model(config) for config in REFERENCES.values()), *group]
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            files = [self._runtime.export(model, Path(folder) / f"{i}{self._runtime.suffix}")
                     for i, model in enumerate(models)]  # fmt: skip
            digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
            start = {"runtime": self._runtime.name, "precision": self._runtime.precision,
                     "threads": self.threads, "cores": self._host.cores and list(self._host.cores),
                     "shapes": [model.shape for model in models]}  # fmt: skip
            sessions = self._sessions(files, digests, start, processes)
        context = {"clock": clock_of(self.threads), "machine": self._host.machine,
                   "emulated": self._host.emulated, "runtime_version": self._host.version,
                   "session": secrets.token_hex(8), "references": self._references(sessions),
                   **merged(sessions)}  # fmt: skip
        for i in range(len(REFERENCES), len(models)):
            yield self._judge(sessions, i, {**context, "artifact": digests[i]})

    def _sessions(
        self, files: list[Path], digests: list[str], start: dict[str, Any], processes: int
    ) -> list[Session]:
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
                    return [SessionTimer(connection, start).run(seed=seed, processes=processes)
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
        self, sessions: Sequence[Session], index: int, context: dict[str, Any]
    ) -> Measurement:
        near = nearness_in([blocks for s in sessions for blocks in s.rounds], index)
        found = estimate([ratios_in(s.rounds, index, near) for s in sessions])
        small, large = (context["references"][name]["kept_ms"] for name in REFERENCES)
        nominal_ms = blend(small, large, near)
        return Measurement(
            median_ms=found.median * nominal_ms, low_ms=found.low * nominal_ms,
            high_ms=found.high * nominal_ms, unstable=found.unstable, source="measured",
            device=self.name, runtime=self.runtime, precision=self.precision,
            threads=self.threads, context=context,
            samples_ms=tuple(tuple(r[index] for r in s.rounds if index in r) for s in sessions),
        )  # fmt: skip

    def _references(self, sessions: Sequence[Session]) -> dict[str, dict[str, float]]:
        """The references' latencies as kept, which define our milliseconds, and as they are now."""
        found = {}
        for i, name in enumerate(REFERENCES):
            timed = [[blocks[i] for blocks in s.rounds] for s in sessions]
            kept = reference_latency({**self._key(), "reference": name}, timed)
            found[name] = {"kept_ms": kept, "now_ms": median(map(median, timed))}
        return found

    def _key(self) -> dict[str, str | int]:
        where = {"address": self._host.address} if self._host.address else {}
        precision = {} if self.precision == "fp32" else {"precision": self.precision}
        return {"machine": self._host.machine, "runtime": self._runtime.name,
                "version": self._host.version, "threads": self.threads,
                **precision, **where}  # fmt: skip
