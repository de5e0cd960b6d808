"""What a benchmark hands over: a table, a plot, and the numbers with what gave them."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from nas.benching.bench_row import Row
from nas.benching.operators import LAYERS
from nas.quantities import format_count, format_ms
from nas.report.bench_figures import models_figure, operators_figure
from nas.report.sheet import save

Topic = Literal["operators", "models"]
_FIGURES = {"operators": operators_figure, "models": models_figure}


def default_folder(topic: Topic, device: str, *setting: str) -> Path:
    """bench/DEVICE-TOPIC, with the setting between; without signs that some disks refuse."""
    return Path("bench") / plain_name(device, *setting, topic)


def plain_name(*words: str) -> str:
    """Return the words joined as the name of a file, without signs that some disks refuse."""
    return re.sub(r"[^\w.]+", "-", "-".join(words)).strip("-.")


def write_bench(folder: Path, topic: Topic, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write TOPIC.csv, TOPIC.json and, if anything was timed, TOPIC.png.

    `facts` are those of the machine, among them `device`, its description.

    Raises:
        OSError: if a file cannot be written; one of before is then as it was.
    """
    from search_spaces.io import atomic_write

    records = [row.as_json() for row in rows]
    atomic_write(folder / f"{topic}.csv", _csv(records))
    document = {"machine": facts, "rows": records}
    atomic_write(folder / f"{topic}.json", json.dumps(document, indent=2) + "\n")
    timed = [row for row in rows if row.latency is not None]
    if timed:
        save(_FIGURES[topic](timed, device=str(facts["device"])), folder / f"{topic}.png")


def bench_table(topic: Topic, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read; operators have latencies a layer."""
    layers = LAYERS if topic == "operators" else 1
    unit = "ms a layer" if layers > 1 else "latency ms"
    header = [topic.removesuffix("s"), unit, "95 % interval", "source", "MACs", "GFLOPS", "params"]
    return header, [_cells(row, layers) for row in rows]


def _cells(row: Row, layers: int) -> list[str]:
    model, m = row.subject.model, row.latency
    macs, params = (
        "-" if count is None else format_count(count / layers)
        for count in (model.macs, model.params)
    )
    if m is None:
        return [model.name, "-", "-", f"failed: {row.failed}", macs, "-", params]
    low, middle, high = (format_ms(ms / layers) for ms in (m.low_ms, m.median_ms, m.high_ms))
    speed = "-" if row.gflops is None else format_ms(row.gflops)
    return [model.name, middle, f"{low} - {high}", m.source + (", unstable" if m.unstable else ""),
            macs, speed, params]  # fmt: skip


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
