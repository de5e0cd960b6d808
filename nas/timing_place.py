"""Where trained networks are timed, and within which budget."""

from dataclasses import dataclass
from pathlib import Path

from nas.options import SearchOptions
from nas.study import read_run
from predictors.devices.device import Device
from predictors.devices.registry import open_device, wanted_of
from predictors.timing import Measurement

NOWHERE = "none"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device and how it times; `device` may be NOWHERE.

    `study` describes the device that the run was timed on, where it must be that one.
    """

    device: str = NOWHERE
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    budget_ms: float | None = None
    study: str = ""

    def open(self) -> Device:
        """Open the device; what it timed before it need not time again.

        Raises:
            ValueError: if there is no such device, or it is another one than the study's.
            RuntimeError: if it cannot be reached.
        """
        device = open_device(self.device, runtime=self.runtime, precision=self.precision,
                             threads=self.threads, reuse=True)  # fmt: skip
        if self.study and device.source == "measured" and device.description != self.study:
            raise ValueError(f"`device` must be the one that the study was timed on ({self.study}),"
                             f" but is {device.description}. To time on this one all the same, say "
                             f"--device {self.device}.")  # fmt: skip
        return device

    def gave(self, latency: Measurement) -> bool:
        """Whether a latency is of this place."""
        told = (latency.device, latency.runtime, latency.precision, latency.threads)
        return told == (self.device, self.runtime, self.precision, self.threads)


def place_for(run: Path | None, told: str | None) -> Place:
    """Return the place of a run, or this machine's processor; `told` names another device.

    Raises:
        ValueError: if the run's options are wrong, or those of registered boards.
    """
    if run is None:
        if told == NOWHERE:
            return Place()
        wanted = wanted_of(told or "cpu")
        return Place(device=told or "cpu", runtime=wanted.runtime, precision=wanted.precision,
                     threads=wanted.threads)  # fmt: skip
    stored = read_run(run)
    options = SearchOptions.from_json(stored["options"])
    machine = stored.get("machine") or {}
    study = machine.get("device", "") if machine.get("source") == "measured" else ""
    return Place(device=told or options.device, runtime=options.runtime,
                 precision=options.precision, threads=options.threads, budget_ms=options.budget_ms,
                 study="" if told else str(study))  # fmt: skip
