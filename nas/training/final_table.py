"""The final table: each trained network with its accuracy, its latency and whether it keeps the
budget."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.finetune.folder import WEIGHTS
from nas.gauge import source_words
from nas.quantities import format_count, format_ms
from nas.report.tables import backends_differ, latency_values, readings_of
from nas.training.ending import Ending, read_ending
from predictors.measurement import Latency
from search_spaces.io import atomic_write

FINAL = "final.csv"
COLUMNS = ("network", "accuracy", "accuracy_low", "accuracy_high", "split", "images",
           "validation_accuracy", "epoch", "latency_ms", "low_ms", "high_ms", "source", "unstable",
           "device", "runtime", "precision", "threads", "budget_ms", "kept", "macs", "params",
           "files")  # fmt: skip


def write_final(table: Path, networks: Path) -> None:
    """Write the table of all networks that have a folder in `networks`, the fastest first.

    Raises:
        OSError: if it cannot be written; then it is as it was.
    """
    found = endings_in(networks)
    rows = [final_row(ending) for _, ending in found]
    more = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    text = io.StringIO()
    names = [*COLUMNS[:-1], *more, COLUMNS[-1]]
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    for (folder, ending), row in zip(found, rows, strict=True):
        where = folder.relative_to(table.parent).as_posix()
        cells = {k: _cell(v) for k, v in row.items()}
        files = ";".join(f"{where}/{name}" for name in ending.files)
        writer.writerow({**cells, "files": files})
    atomic_write(table, text.getvalue())


def endings_in(networks: Path) -> list[tuple[Path, Ending]]:
    """Return the folders of trained networks in a folder and what came of them, fastest first."""
    folders = [path for path in networks.glob("*") if (path / WEIGHTS).exists()]
    found = [(path, ending) for path in folders if (ending := read_ending(path))]
    return sorted(found, key=lambda pair: (_rank(pair[1]), pair[1].name))


def final_row(ending: Ending) -> dict[str, Any]:
    """Return a network's row for JSON; what is not known is None, the files are names.

    Of several devices each has columns of its own.
    """
    judged, latency = ending.judged, ending.latency
    low, high = judged.interval
    row: dict[str, Any] = {
        "network": ending.name, "accuracy": judged.accuracy, "accuracy_low": low,
        "accuracy_high": high, "split": judged.split, "images": judged.images,
        "validation_accuracy": ending.validation, "epoch": ending.epoch,
        **dict.fromkeys(COLUMNS[8:17]), "runtime": ending.runtime or None,
        "precision": ending.precision or None,
        "budget_ms": None if ending.budgets_ms else ending.budget_ms, "kept": ending.kept,
        "macs": ending.macs, "params": ending.params, "files": list(ending.files),
    }  # fmt: skip
    if latency is None:
        return row
    row |= {"source": latency.source, "unstable": latency.unstable, "device": latency.device,
            "runtime": latency.backend.runtime, "precision": latency.backend.precision,
            "threads": latency.backend.threads}  # fmt: skip
    if not latency.parts:
        return {**row, "latency_ms": latency.median_ms, "low_ms": latency.low_ms,
                "high_ms": latency.high_ms}  # fmt: skip
    budgets = {f"{name}_{what}": value for name, part, ms in ending.on_each
               for what, value in (("budget_ms", ms), ("kept", _kept(part, ms)))}  # fmt: skip
    return {**row, **latency_values(readings_of(latency)), **budgets}


def final_table(endings: Sequence[Ending]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read; a line for each device, if several."""
    header = ["network", "accuracy %", "95 % interval", "of", "validation %", "device", "in",
              "latency ms", "interval", "source", "budget ms", "kept", "MACs",
              "params"]  # fmt: skip
    lines = [line for ending in endings for line in _lines(ending)]
    latencies = [ending.latency for ending in endings if ending.latency]
    told = {"device": len({name for m in latencies for name, _ in m.on_each}) > 1,
            "in": backends_differ([readings_of(m) for m in latencies])}  # fmt: skip
    shown = [i for i, name in enumerate(header) if told.get(name, True)]
    return [header[i] for i in shown], [[line[i] for i in shown] for line in lines]


def _lines(ending: Ending) -> list[list[str]]:
    judged = ending.judged
    low, high = judged.interval
    budget = "-" if ending.budget_ms is None else f"{ending.budget_ms:g}"
    if ending.budgets_ms:
        budget = ", ".join(f"{ms:g}" for ms in ending.budgets_ms)
    timed = [
        [name, f"{m.backend.runtime} {m.backend.precision}", format_ms(m.median_ms),
         f"{format_ms(m.low_ms)} - {format_ms(m.high_ms)}", source_words(m),
         "-" if ms is None else f"{ms:g}", _yes(_kept(m, ms)) or "-"]
        for name, m, ms in ending.on_each
    ] or [["-", "-", "-", "-", "-", budget, "-"]]  # fmt: skip
    return [
        [ending.name, f"{judged.accuracy:.2f}", f"{low:.2f} - {high:.2f}",
         f"{judged.images:,} {judged.split}", f"{ending.validation:.2f}", *latency,
         format_count(ending.macs), format_count(ending.params)]
        for latency in timed
    ]  # fmt: skip


def _kept(latency: Latency, budget_ms: float | None) -> bool | None:
    return None if budget_ms is None else latency.meets(budget_ms)


def _rank(ending: Ending) -> tuple[str, float]:
    """By device first: milliseconds of two do not compare; what was not timed comes last."""
    if ending.latency is None:
        return "\N{REPLACEMENT CHARACTER}", 0.0
    return ending.latency.device, ending.latency.median_ms


def _cell(value: Any) -> Any:
    return _yes(value) if value is None or isinstance(value, bool) else value


def _yes(value: bool | None) -> str:  # noqa: FBT001
    return "" if value is None else "yes" if value else "no"
