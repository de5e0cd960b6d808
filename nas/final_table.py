"""The final table: each trained network with its accuracy, its latency and whether it keeps the
budget."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.ending import Ending, read_ending
from nas.quantities import format_count, format_ms
from nas.training_folder import WEIGHTS
from search_spaces.whole_files import written

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
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for folder, ending in endings_in(networks):
        where = folder.relative_to(table.parent).as_posix()
        cells = {k: _cell(v) for k, v in final_row(ending).items()}
        files = ";".join(f"{where}/{name}" for name in ending.files)
        writer.writerow({**cells, "files": files})
    written(text.getvalue().encode(), table)


def endings_in(networks: Path) -> list[tuple[Path, Ending]]:
    """Return the folders of trained networks in a folder and what came of them, fastest first."""
    folders = [path for path in networks.glob("*") if (path / WEIGHTS).exists()]
    found = [(path, ending) for path in folders if (ending := read_ending(path))]
    return sorted(found, key=lambda pair: (_rank(pair[1]), pair[1].name))


def final_row(ending: Ending) -> dict[str, Any]:
    """Return a network's row for JSON; what is not known is None, the files are names."""
    judged, latency = ending.judged, ending.latency
    low, high = judged.interval
    row: dict[str, Any] = {
        "network": ending.name, "accuracy": judged.accuracy, "accuracy_low": low,
        "accuracy_high": high, "split": judged.split, "images": judged.images,
        "validation_accuracy": ending.validation, "epoch": ending.epoch,
        **dict.fromkeys(COLUMNS[8:17]), "budget_ms": ending.budget_ms, "kept": ending.kept,
        "macs": ending.macs, "params": ending.params, "files": list(ending.files),
    }  # fmt: skip
    if latency is not None:
        row |= {"latency_ms": latency.median_ms, "low_ms": latency.low_ms,
                "high_ms": latency.high_ms, "source": latency.source, "unstable": latency.unstable,
                "device": latency.device, "runtime": latency.runtime,
                "precision": latency.precision, "threads": latency.threads}  # fmt: skip
    return row


def final_table(endings: Sequence[Ending]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read."""
    header = ["network", "accuracy %", "95 % interval", "of", "validation %", "latency ms",
              "interval", "source", "budget ms", "kept", "MACs", "params"]  # fmt: skip
    return header, [_cells(ending) for ending in endings]


def _cells(ending: Ending) -> list[str]:
    judged, latency = ending.judged, ending.latency
    low, high = judged.interval
    timed = ["-", "-", "-"]
    if latency is not None:
        timed = [format_ms(latency.median_ms),
                 f"{format_ms(latency.low_ms)} - {format_ms(latency.high_ms)}",
                 latency.source + (", unstable" if latency.unstable else "")]  # fmt: skip
    budget = "-" if ending.budget_ms is None else f"{ending.budget_ms:g}"
    return [ending.name, f"{judged.accuracy:.2f}", f"{low:.2f} - {high:.2f}",
            f"{judged.images:,} {judged.split}", f"{ending.validation:.2f}", *timed, budget,
            _yes(ending.kept) or "-", format_count(ending.macs),
            format_count(ending.params)]  # fmt: skip


def _rank(ending: Ending) -> float:
    return float("inf") if ending.latency is None else ending.latency.median_ms


def _cell(value: Any) -> Any:
    return _yes(value) if value is None or isinstance(value, bool) else value


def _yes(value: bool | None) -> str:  # noqa: FBT001
    return "" if value is None else "yes" if value else "no"
