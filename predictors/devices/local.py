"""This machine as a device: exports the networks and times them in fresh processes."""

import hashlib
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from predictors.devices import runner
from predictors.devices.device import threads_of
from predictors.devices.references import reference_latency
from predictors.latency import Prediction
from predictors.runtimes import find_runtime
from predictors.timing import STEADY, Measurement, Source, estimate, ratios, settled
from search_spaces.fasternet import FASTERNET, FasterNetConfig

GROUP = 8  # networks in memory at once
ROUNDS = (8, 20)  # fewest, most rounds in a process
# A block's untimed inferences bring the network back into the caches, which takes the longer the
# more often it fits there: a network of 1.7 ms gets 12 % faster during the first 12 ms.
DISCARD_MS, DISCARDS = 12.0, (1, 25)  # fewest and most untimed
BLOCK_MS, REPEATS = 20.0, (5, 50)  # fewest and most timed
MAX_WARM_UP = 20  # blocks

Round = dict[int, float]  # block medians in ms by network; 0 is the reference


class LocalDevice:
    """The processor of this machine.

    With one thread the clock is the process's CPU time, which other programs on the machine do not
    lengthen; with more it is the wall.

    Raises:
        ValueError: if the runtime is unknown or there are more threads than cores.
    """

    source: Source = "measured"

    def __init__(self, name: str, *, runtime: str, threads: int) -> None:
        cores = len(os.sched_getaffinity(0))
        if threads > cores:
            raise ValueError(f"`threads` must be at most the {cores} cores of this machine, but "
                             f"got {threads}.")  # fmt: skip
        self.name = name
        self.threads = threads
        self._runtime = find_runtime(runtime)

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self._runtime.name

    @property
    def description(self) -> str:
        """One line on the processor and the runtime."""
        return (f"{processor_name()}, {self._runtime.name} {self._runtime.version}, "
                f"{threads_of(self.threads)}: measured")  # fmt: skip

    def measure(self, config: FasterNetConfig) -> Measurement:
        """Return the latency of one network."""
        return next(self.measure_each([config]))

    def measure_each(
        self, configs: Sequence[FasterNetConfig], *, processes: int = 3
    ) -> Iterator[Measurement]:
        """Yield the latency of each network, in order.

        Raises:
            RuntimeError: if the process that times them dies.
        """
        for start in range(0, len(configs), GROUP):
            yield from self._measure_group(configs[start : start + GROUP], processes)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """This device is timed; fit a `LatencyPredictor` to its measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")

    def _measure_group(
        self, configs: Sequence[FasterNetConfig], processes: int
    ) -> Iterator[Measurement]:
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            networks = [FASTERNET["t0"], *configs]  # the reference comes first
            files = [self._runtime.export(config, Path(folder) / f"{i}{self._runtime.suffix}")
                     for i, config in enumerate(networks)]  # fmt: skip
            pixels = [config.resolution for config in networks]
            sessions = [self._time(files, pixels, seed, processes) for seed in range(processes)]
            hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        reference = [[timed[0] for timed in rounds] for rounds, _ in sessions]
        context = {"clock": self._clock, "machine": processor_name(),
                   "runtime_version": self._runtime.version,
                   "reference_ms": reference_latency(self._key(), reference),
                   "reference_now_ms": median(map(median, reference)),
                   **sessions[0][1]}  # fmt: skip
        for i in range(1, len(networks)):
            yield self._judge([rounds for rounds, _ in sessions], i,
                              {**context, "artifact": hashes[i]})  # fmt: skip

    def _judge(
        self, sessions: list[list[Round]], index: int, context: dict[str, Any]
    ) -> Measurement:
        found = estimate([_ratios(rounds, index) for rounds in sessions])
        nominal_ms = context["reference_ms"]
        return Measurement(
            median_ms=found.median * nominal_ms, low_ms=found.low * nominal_ms,
            high_ms=found.high * nominal_ms, unstable=found.unstable, source="measured",
            device=self.name, runtime=self.runtime, threads=self.threads,
            samples_ms=tuple(tuple(r[index] for r in rounds if index in r) for rounds in sessions),
            context=context,
        )  # fmt: skip

    @property
    def _clock(self) -> str:
        return "cpu_ms" if self.threads == 1 else "wall_ms"

    def _key(self) -> dict[str, str | int]:
        return {"machine": processor_name(), "runtime": self._runtime.name,
                "version": self._runtime.version, "threads": self.threads}  # fmt: skip

    def _time(
        self, files: list[Path], resolutions: list[int], seed: int, processes: int
    ) -> tuple[list[Round], dict[str, Any]]:
        """Time all files in one fresh process; return the rounds, and context.

        After the fewest rounds only networks whose ratio is still unsettled are timed further.
        """
        with RunnerProcess() as process:
            ready = process.ask({"load": [str(f) for f in files], "runtime": self._runtime.name,
                                 "threads": self.threads, "resolutions": resolutions})  # fmt: skip
            self._warm_up(process)
            waiting = set(range(len(files)))
            sizes = [_block_size(self._block(process, i)) for i in sorted(waiting)]
            rng = random.Random(seed)
            rounds: list[Round] = []
            while waiting and len(rounds) < ROUNDS[1]:
                order = rng.sample(sorted(waiting | {0}), len(waiting | {0}))
                rounds.append({i: self._block(process, i, sizes[i]) for i in order})
                if len(rounds) >= ROUNDS[0]:
                    waiting = {i for i in waiting - {0} if _unsettled(rounds, i, processes)}
        return rounds, ready["ready"]

    def _warm_up(self, process: "RunnerProcess") -> None:
        blocks: list[float] = []
        while not settled(blocks) and len(blocks) < MAX_WARM_UP:
            blocks.append(self._block(process, 0))

    def _block(
        self,
        process: "RunnerProcess",
        index: int,
        size: tuple[int, int] = (DISCARDS[0], REPEATS[0]),
    ) -> float:
        discard, repeats = size
        answer = process.ask({"time": index, "discard": discard, "repeats": repeats})
        samples = sorted(answer[self._clock])
        return float(samples[len(samples) // 2])


class RunnerProcess:
    """A fresh process that runs `runner.py`; ends with the `with` block."""

    def __enter__(self) -> "RunnerProcess":
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-u", runner.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        return self

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises:
            RuntimeError: if the process died instead of answering.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, json.JSONDecodeError):
            self._errors.seek(0)
            reason = self._errors.read().strip().splitlines()[-1:] or ["it said nothing"]
            raise RuntimeError(
                f"The process that times the networks died: {reason[0]}. "
                "Is there enough memory for them?"
            ) from None
        return answer

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def _block_size(inference_ms: float) -> tuple[int, int]:
    """How many inferences of a block are not timed, and how many are."""

    def as_fit(duration_ms: float, fewest: int, most: int) -> int:
        return min(max(round(duration_ms / inference_ms), fewest), most)

    return as_fit(DISCARD_MS, *DISCARDS), as_fit(BLOCK_MS, *REPEATS)


def _ratios(rounds: list[Round], index: int) -> list[float]:
    """Divide a network's blocks by the reference's of the same rounds."""
    timed = [blocks for blocks in rounds if index in blocks]
    return ratios([blocks[index] for blocks in timed], [blocks[0] for blocks in timed])


def _unsettled(rounds: list[Round], index: int, processes: int) -> bool:
    """Whether this many such processes together would still be unstable."""
    return estimate([_ratios(rounds, index)]).half_width > STEADY * math.sqrt(processes)


def processor_name() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
