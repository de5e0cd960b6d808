"""What came of a trained network, as its folder keeps it, and the table of all of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from nas.finetune.folder import WEIGHTS
from nas.quantities import format_bytes, format_count, format_ms
from nas.report.tables import (
    LARGEST_CLASS,
    Reading,
    as_csv,
    backends_differ,
    latency_values,
    on_devices,
    percent,
    readings_of,
)
from predictors.backends.agreement import Agreement
from predictors.cost import NO_LIMITS, Limits
from predictors.devices.device import ONNXRUNTIME, DeviceSpec, budgets_of
from predictors.measurement import Backend, Latencies, Latency, Ratio, worst_ratio
from predictors.training.evaluate import EvalResult
from search_spaces.io import atomic_write

RESULT = "final.json"
FINAL = "final.csv"
_ACCURACY = ("network", "accuracy", "accuracy_low", "accuracy_high", "split", "images")
_GUESS = "largest_class"  # always guessing it
_CHOSEN = ("validation_accuracy", "epoch")
_TIMED = ("latency_ms", "low_ms", "high_ms", "source", "unstable")
_WHERE = ("device", "runtime", "precision", "threads")
_BUDGET = ("budget_ms", "kept", "ratio", "ratio_low", "ratio_high")
_COSTS = ("macs", "params", "file_bytes", "memory_bytes")
COLUMNS = (*_ACCURACY, _GUESS, *_CHOSEN, *_TIMED, *_WHERE, *_BUDGET, *_COSTS, "files")


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A trained network: its files, how accurate and how fast it is.

    `weights` is the SHA-256 of its weights, `deployed` the file that is timed and of which
    `evaluation` speaks, `agreement` that file's with torch on validation images. `validation` is
    the accuracy, in percent, by which the epoch was chosen. `devices` are where it is, or was to
    be, timed, each with the one backend that `deployed` is for, and a budget if there is one.
    `latencies` is None until it is timed, on the devices that `described` describes. `file_bytes`
    is the size of what is deployed, `memory_bytes` the activations' peak, as computed.
    """

    name: str
    weights: str
    epoch: int
    evaluation: EvalResult
    validation: float
    files: tuple[str, ...]  # in its folder
    deployed: str
    agreement: Agreement
    macs: int
    params: int
    file_bytes: int = 0
    memory_bytes: int = 0
    limits: Limits = NO_LIMITS
    devices: tuple[DeviceSpec, ...] = ()
    latencies: Latencies | None = None
    described: str = ""

    @property
    def backend(self) -> Backend:
        return self.devices[0].backends[0] if self.devices else ONNXRUNTIME

    @property
    def budgets_ms(self) -> dict[str, float]:
        return budgets_of(self.devices)

    @property
    def kept(self) -> bool | None:
        """Whether it is within every budget and limit; None: unknown."""
        if self.exceeded:
            return False
        if not self.budgets_ms:
            return True if self.limits.given else None
        return None if self.latencies is None else self.latencies.meet(self.budgets_ms)

    @property
    def exceeded(self) -> dict[str, int]:
        """What is above its limit, by the limit's name."""
        return self.limits.exceeded({name: getattr(self, name) for name in _COSTS})

    @property
    def ratio(self) -> Ratio | None:
        """The worst latency/budget ratio, if it was timed and there is a budget."""
        if self.latencies is None or not self.budgets_ms:
            return None
        return worst_ratio(self.latencies, self.budgets_ms)

    @property
    def on_each(self) -> list[tuple[Latency, float | None]]:
        """The latency on each device that it was timed on, and the budget there."""
        found = self.latencies.by_device if self.latencies else {}
        return [(one, self.budgets_ms.get(name)) for name, one in found.items()]


def keep_result(folder: Path, result: TrainingResult) -> None:
    """Write it into the network's folder."""
    latencies = result.latencies and result.latencies.as_json()
    values = {**asdict(replace(result, latencies=None)), "latencies": latencies}
    atomic_write(folder / RESULT, json.dumps(values, indent=2) + "\n")


def read_result(folder: Path) -> TrainingResult | None:
    """Return what was written; None where there is nothing, or nothing that can be read."""
    try:
        return _result(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # then the end is done again


def _result(values: Mapping[str, Any]) -> TrainingResult:
    """Return the result that `keep_result` spelled; ValueError or KeyError where it is another."""
    spelled = values["latencies"]
    result = msgspec.convert({**values, "latencies": None}, TrainingResult)
    latencies = None if spelled is None else Latencies.from_json(spelled)
    found = result.evaluation
    if not 0 <= found.correct <= found.images or found.images < 1:
        raise ValueError(f"{found.correct} of {found.images} images")
    timed = latencies.by_device.keys() if latencies else result.budgets_ms.keys()
    if not result.budgets_ms.keys() <= timed or (latencies and not result.devices):
        raise ValueError("latencies on other devices")
    return replace(result, latencies=latencies)


def write_final(table: Path, networks: Path) -> None:
    """Write the table of all networks that have a folder in `networks`, the fastest first."""
    found = results_in(networks)
    rows = []
    for folder, result in found:
        where = folder.relative_to(table.parent).as_posix()
        cells = {k: _cell(v) for k, v in final_row(result).items()}
        rows.append({**cells, "files": ";".join(f"{where}/{name}" for name in result.files)})
    more = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    atomic_write(table, as_csv([*COLUMNS[:-1], *more, COLUMNS[-1]], rows))


def results_in(networks: Path) -> list[tuple[Path, TrainingResult]]:
    """Return the folders of trained networks in a folder and what came of them, fastest first."""
    folders = [path for path in networks.glob("*") if (path / WEIGHTS).exists()]
    found = [(path, result) for path in folders if (result := read_result(path))]
    return sorted(found, key=lambda pair: (_rank(pair[1]), pair[1].name))


def final_row(result: TrainingResult) -> dict[str, object]:
    """Return a network's row for JSON; what is not known is None, the files are names.

    Of several devices each has columns of its own.
    """
    found, (low, high) = result.evaluation, result.evaluation.interval
    accuracy = (result.name, found.accuracy, low, high, found.split, found.images)
    one_budget = list(result.budgets_ms.values()) if len(result.devices) == 1 else []
    row: dict[str, object] = dict.fromkeys(COLUMNS)
    row |= dict(zip(_ACCURACY, accuracy, strict=True))
    row |= {
        _GUESS: found.largest_class,
        "validation_accuracy": result.validation,
        "epoch": result.epoch,
        "runtime": result.backend.runtime,
        "precision": result.backend.precision,
        "budget_ms": one_budget[0] if one_budget else None,
        "kept": result.kept,
        **{name: getattr(result, name) for name in _COSTS},
        "files": list(result.files),
    }
    return row | _timed_values(result)


def _timed_values(result: TrainingResult) -> dict[str, object]:
    if result.latencies is None:
        return {}
    values: dict[str, object] = {
        "device": " + ".join(result.latencies.by_device),
        "unstable": result.latencies.unstable,
        "threads": max(device.backends[0].threads for device in result.devices),
    }
    if result.ratio is not None:
        values |= {"ratio": result.ratio.median}
        values |= {"ratio_low": result.ratio.low, "ratio_high": result.ratio.high}
    values |= latency_values(readings_of(result.latencies))
    values["source"] = result.latencies.source
    if len(result.on_each) > 1:
        for one, budget_ms in result.on_each:
            values[f"{one.device}_budget_ms"] = budget_ms
            values[f"{one.device}_kept"] = _kept(result, one, budget_ms)
    return values


def final_table(results: Sequence[TrainingResult]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read; a line for each device, if several."""
    header = ["network", "accuracy %", "95 % interval", "of", LARGEST_CLASS, "validation %"]
    header += ["device", "in"]
    header += ["latency ms", "interval", "source", "budget ms", "kept", "MACs", "params"]
    header += ["file", "memory"]
    lines = [line for result in results for line in _lines(result)]
    timed = [readings_of(result.latencies) for result in results if result.latencies]
    several = len({one.device for readings in timed for one in on_devices(readings)}) > 1
    limited = {name for result in results for name in result.limits.given}
    needed = {"device": several, "in": backends_differ(timed)}
    needed |= {"file": "file_bytes" in limited, "memory": "memory_bytes" in limited}
    shown = [i for i, name in enumerate(header) if needed.get(name, True)]
    return [header[i] for i in shown], [[line[i] for i in shown] for line in lines]


def _lines(result: TrainingResult) -> list[list[str]]:
    found, (low, high) = result.evaluation, result.evaluation.interval
    accuracy = [result.name, f"{found.accuracy:.2f}", f"{low:.2f} - {high:.2f}"]
    accuracy += [f"{found.images:,} {found.split}", percent(found.largest_class)]
    accuracy += [f"{result.validation:.2f}"]
    budgets = ", ".join(f"{ms:g}" for ms in result.budgets_ms.values()) or "-"
    kept = _yes(result.kept) or "-"
    timed = _timed_cells(result) or [["-", "-", "-", "-", "-", budgets, kept]]
    costs = [format_count(result.macs), format_count(result.params)]
    costs += [format_bytes(result.file_bytes), format_bytes(result.memory_bytes)]
    return [[*accuracy, *latency, *costs] for latency in timed]


def _timed_cells(result: TrainingResult) -> list[list[str]]:
    readings: Sequence[Reading] = (
        on_devices(readings_of(result.latencies)) if result.latencies else ()
    )
    return [
        [
            one.device,
            one.backend,
            format_ms(one.median),
            f"{format_ms(one.low)} - {format_ms(one.high)}",
            one.origin,
            "-" if budget_ms is None else f"{budget_ms:g}",
            _yes(_kept(result, latency, budget_ms)) or "-",
        ]
        for one, (latency, budget_ms) in zip(readings, result.on_each, strict=True)
    ]


def _kept(result: TrainingResult, latency: Latency, budget_ms: float | None) -> bool | None:
    """Whether it keeps the limits and, on one device, the budget."""
    if budget_ms is None or result.exceeded:
        return result.kept
    return latency.meets(budget_ms)


def _rank(result: TrainingResult) -> tuple[str, float]:
    """By device first: milliseconds of two do not compare; what was not timed comes last."""
    if result.latencies is None:
        return "\N{REPLACEMENT CHARACTER}", 0.0
    first = next(iter(result.latencies.by_device.values()))
    several = result.ratio is not None and len(result.devices) > 1
    order = result.ratio.median if several and result.ratio else first.median_ms
    return " + ".join(result.latencies.by_device), order


def _cell(value: object) -> object:
    return _yes(value) if value is None or isinstance(value, bool) else value


def _yes(value: bool | None) -> str:  # noqa: FBT001
    return "" if value is None else "yes" if value else "no"
