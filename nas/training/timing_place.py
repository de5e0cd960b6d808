"""Where trained networks are timed, and within which budget."""

import math
from dataclasses import dataclass
from pathlib import Path

from nas.study.options import SearchOptions
from nas.study.store import read_run
from nas.study.targets import Target, open_targets
from nas.training.picking import front_of
from predictors.devices.device import Device
from predictors.devices.registry import backend_of
from predictors.devices.several import backend_pairs
from predictors.measurement import Latency
from predictors.shares import WHOLE

NOWHERE = "none"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device, or several, and how it times; `device` may be NOWHERE.

    `study` describes the device that the run was timed on, where it must be that one.
    """

    device: str = NOWHERE
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    budget_ms: float | None = None
    study: str = ""
    beside: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every device, with its budget if there is one."""
        first = Target(device=self.device, budget_ms=self.budget_ms or math.inf,
                       runtime=self.runtime, precision=self.precision,
                       threads=self.threads)  # fmt: skip
        return (first, *self.beside)

    @property
    def name(self) -> str:
        """The names of all."""
        return " + ".join(target.device for target in self.targets)

    @property
    def budgets_ms(self) -> tuple[float, ...]:
        """The budgets of several devices; none of a single one."""
        return tuple(target.budget_ms for target in self.targets) if self.beside else ()

    @property
    def limit(self) -> float | None:
        """The latency to keep: of several devices all of a budget, in per cent."""
        return WHOLE if self.beside else self.budget_ms

    def open(self) -> Device:
        """Open the device; what it timed before it need not time again.

        Raises:
            ValueError: if there is no such device, or it is another one than the study's.
            RuntimeError: if it cannot be reached.
        """
        device = open_targets(self.targets)
        known = (self.study, *self.study.split("; "))  # of several forms, each
        if self.study and device.source == "measured" and device.description not in known:
            raise ValueError(f"`device` must be the one that the study was timed on ({self.study}),"
                             f" but is {device.description}. To time on this one all the same, say "
                             f"--device {self.device}.")  # fmt: skip
        return device

    def gave(self, latency: Latency) -> bool:
        """Whether a latency is of this place."""
        told = [
            (m.device, m.backend.runtime, m.backend.precision, m.backend.threads)
            for _, m in latency.on_each
        ]
        return told == [(t.device, t.runtime, t.precision, t.threads) for t in self.targets]


def place_for(run: Path | None, told: str | None, *, network: str = "") -> Place:
    """Return the place of a run, or this machine's processor; `told` names another device.

    Of a run that chose among runtimes or precisions, it is the form that the network was the
    fastest in, where that is known.

    Raises:
        ValueError: if the run's options are wrong, or those of registered boards.
    """
    if run is None:
        if told == NOWHERE:
            return Place()
        wanted = backend_of(told or "cpu")
        return Place(device=told or "cpu", runtime=wanted.runtime, precision=wanted.precision,
                     threads=wanted.threads)  # fmt: skip
    stored = read_run(run)
    options = SearchOptions.from_json(stored["options"])
    target = _target(options, told)
    machine = stored.get("machine") or {}
    study = machine.get("device", "") if machine.get("source") == "measured" else ""
    runtime, precision = target.runtime, target.precision
    if "," in runtime + precision:
        runtime, precision = _form_of(run, network) or _first_of(runtime, precision)
    return Place(device=told or target.device, runtime=runtime, precision=precision,
                 threads=target.threads, budget_ms=_budget_ms(options, target, told),
                 study="" if told else str(study),
                 beside=options.beside if told in (None, NOWHERE) else ())  # fmt: skip


def _target(options: SearchOptions, told: str | None) -> Target:
    """The run's device of that name; else its first tells how to time."""
    ways = {(target.runtime, target.precision) for target in options.targets}
    if told is None and len(ways) > 1:
        names = [target.device for target in options.targets]
        raise ValueError(
            f"`device` must be one of {', '.join(names)}, since the run's devices have not one "
            f"runtime and precision, and a network is deployed in one. Say --device {names[0]}."
        )
    return next((t for t in options.targets if t.device == told), options.targets[0])


def _budget_ms(options: SearchOptions, target: Target, told: str | None) -> float | None:
    """The run's; a device that is none of its several ones has no budget there."""
    elsewhere = told not in (None, NOWHERE) and target.device != told
    return None if options.beside and elsewhere else target.budget_ms


def _form_of(run: Path, network: str) -> tuple[str, str] | None:
    """The runtime and the precision that a network of a run was the fastest in, if it was timed."""
    told = {Path(point.file).stem: (point.runtime, point.precision) for point in front_of(run)}
    if network not in told:
        from nas.runners_up import form_of

        told[network] = form_of(run, network) or ("", "")
    runtime, precision = told[network]
    one = runtime and "," not in runtime + precision
    return (runtime, precision) if one else None


def _first_of(runtimes: str, precisions: str) -> tuple[str, str]:
    first = backend_pairs(runtimes.split(","), precisions.split(","), threads=1)[0]
    return first.runtime, first.precision
