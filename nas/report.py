"""What a run hands over: the table, the configs and the plots in its folder."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from nas.candidate import Candidate
from nas.estimating import CHECKPOINTS
from nas.plots import plot_calibration, plot_front
from nas.quantities import format_count, format_ms
from nas.run import Run
from predictors.devices.device import HOW_TO_ATTACH, threads_of
from predictors.short_training import SMALL_BATCHES
from search_spaces.formats import save_config

COLUMNS = ("config", "accuracy", "accuracy_kind", "latency_ms", "low_ms", "high_ms", "source",
           "macs", "params")  # fmt: skip
HEADINGS = {"proxy": "score", "trained": "accuracy %", "supernet": "shared-weights accuracy %"}
_WORDS = {"proxy": "training-free score", "trained": "accuracy",
          "supernet": "accuracy with shared weights"}  # fmt: skip


def write_report(run: Run) -> list[Candidate]:
    """Write pareto.csv, pareto.png, calibration.png and configs/ and return the front.

    Raises:
        OSError: if a file cannot be written; the files of before are then as they were.
    """
    candidates = run.candidates()
    front = [c for c in candidates if c.on_front]
    folder = run.folder / "configs"
    folder.mkdir(exist_ok=True)
    for candidate in front:
        save_config(candidate.config, folder / f"{candidate.name}.yaml",
                    comment=_sentence(candidate))  # fmt: skip
    for stale in set(folder.glob("*.yaml")) - {folder / f"{c.name}.yaml" for c in front}:
        stale.unlink()
    write_whole(run.folder / "pareto.csv", _csv(front))
    plot_front(run.folder / "pareto.png", candidates, named=run.named(),
               budget_ms=run.options.budget_ms, device=run.device.description)  # fmt: skip
    measured = run.calibration()
    if measured is not None:
        plot_calibration(run.folder / "calibration.png", *measured, device=run.device.description)
    return front


def rows(candidates: Sequence[Candidate]) -> list[dict[str, str | float | int | bool]]:
    """Return the candidates as flat records, for JSON and CSV."""
    return [
        {"config": f"configs/{c.name}.yaml", "accuracy": c.accuracy,
         "accuracy_kind": c.accuracy_kind, "latency_ms": c.latency.median_ms,
         "low_ms": c.latency.low_ms, "high_ms": c.latency.high_ms, "source": c.latency.source,
         "macs": c.macs, "params": c.params}
        for c in candidates
    ]  # fmt: skip


def table(candidates: Sequence[Candidate]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table that people read."""
    kinds = {c.accuracy_kind for c in candidates} or {"proxy"}
    header = [
        "config",
        HEADINGS[kinds.pop()],
        "latency ms",
        "95 % interval",
        "source",
        "MACs",
        "params",
    ]
    if any(c.latency.source == "predicted" for c in candidates):
        header[3] = "interval"
    cells = [
        [c.name, f"{c.accuracy:.5g}", format_ms(c.latency.median_ms),
         f"{format_ms(c.latency.low_ms)} - {format_ms(c.latency.high_ms)}",
         c.latency.source + (", unstable" if c.latency.unstable else ""),
         format_count(c.macs), format_count(c.params)]
        for c in candidates
    ]  # fmt: skip
    return header, cells


def closing_words(run: Run, front: Sequence[Candidate]) -> list[str]:
    """Return what is to be said under the table."""
    lines = [f"{run.folder}/pareto.png, pareto.csv and configs/ hold the front."]
    if run.device.source == "predicted":
        lines.append(HOW_TO_ATTACH)
    recalled = sum("recalled" in m.context for m in run.study.measurements.values())
    if recalled:
        lines.append(f"{recalled} of {len(run.study.measurements)} latencies were measured by "
                     "earlier runs; --fresh times them again.")  # fmt: skip
    lines += _memory(run)
    if failed := run.failed():
        lines.append(f"{len(failed)} of {run.options.trials} trials failed; the first: {failed[0]}")
    numbers = {outcome.number for _, outcome in run.study.outcomes()}
    if lost := max(numbers, default=-1) + 1 - len(numbers):
        lines.append(f"{lost} of {run.options.trials} trials were lost with their workers; "
                     "--resume tries them again.")  # fmt: skip
    if any(c.accuracy_kind == "proxy" for c in front):
        lines.append(
            "The score is training-free (T0 has 100, T2 200): it ranks, it is no accuracy."
        )
    return lines


def _memory(run: Run) -> list[str]:
    try:
        piece = (run.folder / CHECKPOINTS / SMALL_BATCHES).read_text().strip()
    except OSError:
        return []
    return [f"Memory was short: batches were taken in pieces, of {piece} images at the least."]


def _sentence(c: Candidate) -> str:
    return (f"{_WORDS[c.accuracy_kind]} {c.accuracy:.5g}; {c.latency.median_ms:.4g} ms "
            f"[{c.latency.low_ms:.4g}, {c.latency.high_ms:.4g}] {c.latency.source} on "
            f"{c.latency.device}, {c.latency.runtime}, "
            f"{threads_of(c.latency.threads)}")  # fmt: skip


def _csv(front: Sequence[Candidate]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(front))
    return text.getvalue()


def write_whole(path: Path, text: str) -> None:
    """Write a file beside and rename it, so that a reader finds the old one or the whole new one.

    Raises:
        OSError: if it cannot be written; one of before is then as it was.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
