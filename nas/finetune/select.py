"""Which networks are trained in full, from what a command names, and where they are timed."""

import csv
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.candidates import Candidate, non_dominated_sort
from nas.devices import Devices
from nas.finetune.folder import name_of_file
from nas.networks import Typed, config_of_file, kind_of_file
from nas.run_folder import facts_of, read_only_run
from nas.study.options import SearchOptions
from nas.study.store import FRONT, RUN, read_run
from predictors.cost import NO_LIMITS, Limits
from predictors.devices.device import DeviceSpec
from predictors.devices.registry import backend_of
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.formats import load_config
from search_spaces.io import short_repr

NETWORKS = f"a run folder, a config or checkpoint file, or {', '.join(FASTERNET)}"
NOWHERE = "none"


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A network to train; `run` is the folder that it was found in, if any.

    `runner_up` marks one that is not in the table of that run's front, `predicted` a runner-up
    whose latency was not timed.
    """

    name: str
    config: FasterNetConfig
    run: Path | None = None
    runner_up: bool = False
    predicted: bool = False
    any_classes: bool = False  # a published size says nothing of the data, nor does a checkpoint
    init: str = ""  # the checkpoint that was named


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A network of a front as the run's table has it."""

    file: str
    accuracy: float
    ratio: float  # the worst over the devices
    backend: tuple[str, str] | None = None  # runtime and precision, where it was timed in one

    @property
    def name(self) -> str:
        return Path(self.file).stem


def find_networks(name: str, pick: str) -> list[Picked]:
    """Return the networks that a word names: of a run folder, a file, or T0 to L (t0@192)."""
    typed = Typed.parse(name)
    path = Path(typed.name)
    count_of(pick)
    if (sized := typed.named_size) is not None:
        return [Picked(name=Path(typed.text).stem, config=sized, any_classes=True)]
    if path.is_dir() and typed.size is None:
        return from_run(path, pick)
    if not path.exists():
        raise ValueError(f"`network` must be {NETWORKS}, but {name!r} is none. Check the path.")
    kind = kind_of_file(typed, kinds=("config", "checkpoint"), what=NETWORKS)
    config = typed.resized(config_of_file(path, kind))
    if kind == "config":
        return [Picked(name=path.stem, config=config)]
    init = str(path.absolute())
    return [Picked(name=name_of_file(path), config=config, any_classes=True, init=init)]


def from_run(run: Path, pick: str) -> list[Picked]:
    """Return the picked networks of a run's front, the fastest first.

    Where more are asked for than it has, its runners-up follow.
    """
    read_run(run)
    points = picked(front_of(run), pick)
    found = [Picked(name=p.name, config=load_config(run / p.file), run=run) for p in points]
    missing = (count_of(pick) or 0) - len(found)
    if missing <= 0:
        return found
    for c in next_best(run, taken={p.config for p in found}, count=missing):
        other = Picked(name=c.name, config=c.config, run=run, runner_up=True)
        found.append(replace(other, predicted=not c.latencies.measured))
    return found


def picked(front: list[FrontPoint], pick: str) -> list[FrontPoint]:
    """Return those of a front that `pick` means: best, knee, all, or so many, spread evenly.

    The best is the most accurate; the knee lies farthest above the line from the first to the last
    in log ratio and accuracy. One alone is the best.
    """
    ranked = sorted(front, key=lambda point: point.ratio)
    best = max(ranked, key=lambda point: point.accuracy)
    if pick == "all":
        return ranked
    if pick == "best":
        return [best]
    if pick == "knee":
        return [knee(ranked)]
    count = min(count_of(pick) or 1, len(ranked))
    if count == 1:
        return [best]
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def count_of(pick: str) -> int | None:
    """Return how many networks `pick` asks for; None where it is best, knee or all."""
    if pick in ("best", "knee", "all"):
        return None
    if not re.fullmatch("0*[1-9][0-9]{0,5}", pick, re.ASCII):
        raise ValueError(
            f"`pick` must be best, knee, all or a whole number from 1, but got {short_repr(pick)}."
        )
    return int(pick)


def remark_on(run: str, networks: Sequence[Picked], pick: str) -> str:
    """Return a line where a run's front has fewer networks than were asked for, else nothing."""
    wanted = count_of(pick) or 0
    after = [
        f"{network.name}{' (its latency is predicted)' if network.predicted else ''}"
        for network in networks
        if network.runner_up
    ]
    missing = networks[0].run is not None and len(networks) < wanted
    if not after and not missing:
        return ""
    next_best = f"; next come {', '.join(after)}" if after else ""
    no_more = ", and no more of its networks are known to keep the budget" if missing else ""
    return (
        f"The front of {run} has {len(networks) - len(after)} of the {wanted} networks"
        f"{next_best}{no_more}."
    )


def knee(ranked: list[FrontPoint]) -> FrontPoint:
    """Return the point farthest above the chord; of fewer than three the last."""
    if len(ranked) < 3:
        return ranked[-1]
    at = [(math.log(point.ratio), point.accuracy) for point in ranked]
    (x0, y0), (x1, y1) = at[0], at[-1]
    above = [(y - y0) * (x1 - x0) - (x - x0) * (y1 - y0) for x, y in at]
    return ranked[above.index(max(above))]


def front_of(run: Path) -> list[FrontPoint]:
    """Return the networks of a run's front as its table has them."""
    file = run / FRONT
    try:
        with file.open(newline="", encoding="utf-8") as rows:
            front = [
                FrontPoint(
                    file=row["config"],
                    accuracy=float(row.get("accuracy_low") or row["accuracy"]),
                    ratio=float(row["ratio"]),
                    backend=_backend(row),
                )
                for row in csv.DictReader(rows)
            ]
    except FileNotFoundError:
        front = []
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} must be the table of a front, but a line of it is none "
            f"({type(error).__name__}: {error}). `fasternas search --resume` writes "
            "it again."
        ) from None
    if not front:
        raise ValueError(
            f"`run` must have a front, but {run} has {RUN} and no network in {FRONT}. "
            "Finish it with `fasternas search --resume`."
        )
    return front


def _backend(row: Mapping[str, str]) -> tuple[str, str] | None:
    """Runtime and precision, of one device: several have columns of their own."""
    runtime, precision = row.get("runtime"), row.get("precision")
    return (runtime, precision) if runtime and precision else None


def next_best(folder: Path, *, taken: Collection[FasterNetConfig], count: int) -> list[Candidate]:
    """Return up to so many networks of a run within its budgets that are not taken.

    They come front by front, each in its fastest backend.
    """
    left = {c.config: c for c in reversed(_candidates(folder)) if c.config not in taken}
    return non_dominated_sort(list(left.values()))[:count]


def _candidates(folder: Path) -> "list[Candidate]":
    run = read_only_run(folder)
    try:
        return run.candidates()
    finally:
        run.close()


def devices_for(
    run: Path | None, device: str | None, *, network: str = ""
) -> tuple[DeviceSpec, ...]:
    """Return where a network is timed: on a run's devices, or this machine's processor.

    `device` names another one, or is NOWHERE. Each has one backend, that which the network is
    deployed for: of a run with a choice the one in which it was the fastest, if that is known.
    """
    if run is None:
        name = device or "cpu"
        return () if name == NOWHERE else (DeviceSpec(name=name, backends=(backend_of(name),)),)
    specs = SearchOptions.from_json(read_run(run)["options"]).devices
    deployed = tuple(_deployed(spec, run, network) for spec in specs)
    if device is None:
        _refuse_several_backends(specs)
    if device in (None, NOWHERE):
        return deployed
    named = [spec for spec in deployed if spec.name == device]
    # of several devices, another one has no budget
    budget_ms = deployed[0].budget_ms if len(deployed) == 1 else None
    return (*named,) or (replace(deployed[0], name=device, budget_ms=budget_ms, cores=()),)


def limits_for(run: Path | None) -> Limits:
    """Return the limits that a run's networks keep."""
    return NO_LIMITS if run is None else SearchOptions.from_json(read_run(run)["options"]).limits


def _deployed(spec: DeviceSpec, run: Path, network: str) -> DeviceSpec:
    if len(spec.backends) == 1:
        return spec
    known = {point.name: point.backend for point in front_of(run)}
    if network not in known:
        for candidate in _candidates(run):
            backend = candidate.latencies.by_device[spec.name].backend
            if backend is not None:
                known[candidate.name] = (backend.runtime, backend.precision)
    fastest = [b for b in spec.backends if (b.runtime, b.precision) == known.get(network)]
    return replace(spec, backends=(*fastest, *spec.backends)[:1])


def _refuse_several_backends(specs: Sequence[DeviceSpec]) -> None:
    if len({(b.runtime, b.precision) for spec in specs for b in spec.backends[:1]}) > 1:
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(
            f"`device` must be one of {names}, since the run's devices have not one runtime and "
            f"precision, and a network is deployed in one. Say --device {specs[0].name}."
        )


def check_study_devices(run: Path, devices: Devices) -> None:
    """Refuse devices with a clock that are not those that a run was timed on."""
    facts = facts_of(read_run(run))
    for name, device in devices.items():
        study = facts.get(name, {})
        known = (study.get("description"), *study.get("description", "").split("; "))
        if study.get("source") == device.source == "measured" and device.description not in known:
            raise ValueError(
                f"`device` must be the one that the study was timed on ({study['description']}), "
                f"but is {device.description}. To time on this one all the same, say --device "
                f"{name}."
            )
