"""What a run hands over as text: tables, CSV, JSON records, configs, and the plots beside them."""

import csv
import io
from collections.abc import Sequence

from nas.quantities import format_count, format_ms
from nas.report.figures import calibration_figure
from nas.report.front import Network
from nas.report.front_figure import front_figure
from nas.report.model import ReportModel
from nas.report.sheet import save
from nas.report.words import (
    HEADING,
    INTERVAL,
    Readings,
    accuracy_number,
    backends_differ,
    latency_comment,
    on_devices,
)
from nas.study.targets import file_name
from search_spaces.formats import save_config
from search_spaces.io import atomic_write

HEADINGS = {"proxy": "score", "trained": "accuracy %", "supernet": "shared-weights likelihood %"}
_COMMENTS = {
    "proxy": "training-free score",
    "trained": "accuracy",
    "supernet": "likelihood of the labels in % with shared weights",
}
_BACKEND = ("runtime", "precision")


def write_report(model: ReportModel) -> None:
    """Write pareto.csv, pareto.png, calibration.png and configs/ into the run's folder.

    Raises:
        OSError: if a file cannot be written; the files of before are then as they were.
    """
    folder = model.folder / "configs"
    folder.mkdir(exist_ok=True)
    paths = {folder / f"{c.name}.yaml": c for c in model.front}
    for path, network in paths.items():
        save_config(network.config, path, comment=_comment(network))
    atomic_write(model.folder / "pareto.csv", csv_text(model.front, model.devices))
    for stale in set(folder.glob("trial-*.yaml")) - set(paths):
        stale.unlink()  # the table of before spoke of it
    figure = front_figure(model.view, device=model.device_lines)
    save(figure, model.folder / "pareto.png")
    for view in model.calibrations:
        place = "" if len(model.devices) == 1 else f"-{file_name(view.device)}"
        save(calibration_figure(view), model.folder / f"calibration{place}.png")


def closing_words(model: ReportModel) -> list[str]:
    """Return what is to be said under the table."""
    return [f"{model.folder}/pareto.png, pareto.csv and configs/ hold the front.", *model.notes]


def table(networks: Sequence[Network]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read."""
    kind = networks[0].accuracy_kind if networks else "proxy"
    latencies = [c.readings for c in networks]
    backends = backends_differ(latencies)
    header = ["config", HEADINGS[kind], *_headings(latencies, backends=backends), "MACs", "params"]
    lines = [
        [
            c.name,
            c.accuracy_words,
            *_cells(c.readings, backends=backends),
            format_count(c.macs),
            format_count(c.params),
        ]
        for c in networks
    ]
    return header, lines


def rows(networks: Sequence[Network]) -> list[dict[str, str | float]]:
    """Return the networks as flat records, for JSON and CSV."""
    return [
        {
            "config": f"configs/{c.name}.yaml",
            "accuracy": c.accuracy,
            "accuracy_kind": c.accuracy_kind,
            "fp32_accuracy": c.fp32_accuracy,
            **latency_values(c.readings),
            "macs": c.macs,
            "params": c.params,
        }
        for c in networks
    ]


def csv_text(networks: Sequence[Network], devices: Sequence[str]) -> str:
    """Return the records as CSV; `devices` are those of the study."""
    text = io.StringIO()
    latency = latency_columns(devices)
    first, last = ("config", "accuracy", "accuracy_kind", "fp32_accuracy"), ("macs", "params")
    writer = csv.DictWriter(text, (*first, *latency, *last), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(networks))
    return text.getvalue()


def latency_columns(devices: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a latency's columns: of several devices the share, then each."""
    if len(devices) == 1:
        return ("latency_ms", "low_ms", "high_ms", "source", *_BACKEND)
    fields = ("ms", "low_ms", "high_ms", "source", *_BACKEND)
    each = (f"{name}_{field}" for name in devices for field in fields)
    return ("share_percent", "share_low", "share_high", "source", *each)


def latency_values(readings: Readings) -> dict[str, str | float]:
    """Return what is in these columns."""
    values: list[str | float] = []
    for one in readings:
        values += [one.median, one.low, one.high, one.source]
        values += [one.runtime, one.precision] * (one.unit == "ms")
    names = latency_columns([one.device for one in on_devices(readings)])
    return dict(zip(names, values, strict=True))


def _headings(latencies: Sequence[Readings], *, backends: bool) -> list[str]:
    """What heads the columns of latencies on the same devices."""
    if not latencies:
        return [HEADING["ms"], INTERVAL, "source"]
    found: list[str] = []
    for i, column in enumerate(zip(*latencies, strict=True)):
        name = f"{column[0].device} ms" if i else HEADING[column[0].unit]
        measured = all(one.source == "measured" for one in column)
        found += [name, INTERVAL if measured else "interval", "source"]
        found += ["in"] * (backends and column[0].unit == "ms")
    return found


def _cells(readings: Readings, *, backends: bool) -> list[str]:
    found: list[str] = []
    for one in readings:
        interval = f"{format_ms(one.low)} - {format_ms(one.high)}"
        found += [format_ms(one.median), interval, one.origin]
        found += [one.backend] * (backends and one.unit == "ms")
    return found


def _comment(network: Network) -> str:
    number = accuracy_number(network.accuracy, network.accuracy_kind)
    return f"{_COMMENTS[network.accuracy_kind]} {number}; {latency_comment(network.readings)}"
