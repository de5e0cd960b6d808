"""The end of `fasternas train`: the networks are exported, judged and timed; the final table."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nas.cli.measure import how_measured
from nas.cli.progress import print_table
from nas.finetune.folder import TRAINED
from nas.finetune.jobs import Job
from nas.finetune.model_card import write_card
from nas.training.ending import Ending, keep_ending
from nas.training.final import concluded, timed
from nas.training.final_table import FINAL, final_row, final_table, write_final
from nas.training.timing_place import NOWHERE, Place, place_for
from predictors.devices.device import HOW_TO_ATTACH
from predictors.training.workers import usable_device
from search_spaces.io import one_line

LATER = "The weights are kept. To time them later, give the command again with --resume."


class Finish:
    """What is done when trainings are over, and where; what can be checked before is.

    Raises:
        ValueError: if there is no device of the name that was told, or a run's options are wrong.
        RuntimeError: if that device does not answer.
    """

    def __init__(self, jobs: Sequence[Job], device: str | None, *, on_gpu: bool) -> None:
        self._places = {job.name: place_for(job.run, device, network=job.name) for job in jobs}
        self._on_gpu = on_gpu
        self._endings: dict[str, Ending] = {}
        self._errors: dict[str, str] = {}
        if device not in (None, NOWHERE):
            next(iter(self._places.values())).open()

    def run(self, jobs: Sequence[Job], *, as_json: bool) -> dict[str, str]:
        """Do it, print what came of it and return what went wrong, by network or device."""
        for job in jobs:
            self._conclude(job)
        done = [job for job in jobs if job.name in self._endings]
        tables = {_table(job): job.folder.parent for job in done}
        _write(tables)  # timing may be interrupted
        for place, group in self._by_place(done):
            self._time(group, place)
        _write(tables)
        endings = [self._endings[job.name] for job in done]
        if as_json:
            print(json.dumps([{**final_row(self._endings[job.name]), "folder": str(job.folder)}
                              for job in done], indent=2))  # fmt: skip
        elif endings:
            print_table(*final_table(endings))
            self._close(endings, tables)
        return self._errors

    def _conclude(self, job: Job) -> None:
        print(f"{job.name}: exporting and judging", file=sys.stderr, flush=True)
        processor = usable_device("auto" if self._on_gpu else "cpu")
        try:
            ending = concluded(job, self._places[job.name], device=processor)
        except (ValueError, RuntimeError) as error:
            self._errors[job.name] = one_line(error)
            return
        self._keep(job, ending)

    def _by_place(self, jobs: Sequence[Job]) -> Iterator[tuple[Place, list[Job]]]:
        """Those that are to be timed, by where; the budget of one device makes no difference."""
        groups: dict[Place, list[Job]] = {}
        for job in jobs:
            place = self._places[job.name]
            if not place.beside:
                place = replace(place, budget_ms=None)
            if place.device != NOWHERE and self._endings[job.name].latency is None:
                groups.setdefault(place, []).append(job)
        yield from groups.items()

    def _time(self, jobs: Sequence[Job], place: Place) -> None:
        print(f"timing {len(jobs)} on {place.name}", file=sys.stderr, flush=True)
        pairs = [(job, self._endings[job.name]) for job in jobs]
        try:
            device = place.open()
            for job, ending in zip(jobs, timed(pairs, device), strict=True):
                self._keep(job, ending)
        except (ValueError, RuntimeError) as error:
            self._errors[place.name] = f"{one_line(error)} {LATER}"
            return
        for remark in device.remarks:
            print(remark, file=sys.stderr)

    def _keep(self, job: Job, ending: Ending) -> None:
        self._endings[job.name] = ending
        keep_ending(job.folder, ending)
        write_card(job, ending)

    def _close(self, endings: Sequence[Ending], tables: dict[Path, Path]) -> None:
        latencies = [latency for ending in endings for _, latency, _ in ending.on_each]
        for remark in how_measured(latencies):
            print(remark, file=sys.stderr)
        if any(latency.source == "predicted" for latency in latencies):
            print(HOW_TO_ATTACH, file=sys.stderr)
        for table, networks in tables.items():
            print(f"{table} holds the table, {networks} a folder for each network with its model "
                  "card.", file=sys.stderr)  # fmt: skip


def _write(tables: dict[Path, Path]) -> None:
    for table, networks in tables.items():
        write_final(table, networks)


def _table(job: Job) -> Path:
    """Where the table goes: into the run folder or, elsewhere, beside the networks' folders."""
    networks = job.folder.parent
    in_run = job.run is not None and networks == job.run / TRAINED
    return (networks.parent if in_run else networks) / FINAL
