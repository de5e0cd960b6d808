"""The end of `fasternas train`: the networks are exported, evaluated and timed; the final table."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nas.cli.measure import how_measured
from nas.cli.progress import print_table
from nas.devices import open_devices, remarks
from nas.finetune.finalize import finalize, time_each
from nas.finetune.folder import TRAINED
from nas.finetune.jobs import Job
from nas.finetune.model_card import write_card
from nas.finetune.result import (
    FINAL,
    TrainingResult,
    final_row,
    final_table,
    keep_result,
    write_final,
)
from nas.finetune.select import NOWHERE, check_study_devices, devices_for
from predictors.devices.device import HOW_TO_ATTACH
from predictors.devices.spec import DeviceSpec
from predictors.training.workers import usable_device
from search_spaces.io import one_line

LATER = "The weights are kept. To time them later, give the command again with --resume."


class Finish:
    """What is done when trainings are over, and where; what can be checked before is.

    Raises:
        ValueError: if there is no device of the name that was asked, or a run's options are wrong.
        RuntimeError: if that device does not answer.
    """

    def __init__(self, jobs: Sequence[Job], device: str | None, *, on_gpu: bool) -> None:
        self._devices = {j.name: devices_for(j.run, device, network=j.name) for j in jobs}
        self._timed = device != NOWHERE
        self._of_study = device is None  # whose device is then to be the same
        self._on_gpu = on_gpu
        self._results: dict[str, TrainingResult] = {}
        self._errors: dict[str, str] = {}
        if device is not None and self._timed:
            open_devices(next(iter(self._devices.values())))

    def run(self, jobs: Sequence[Job], *, as_json: bool) -> dict[str, str]:
        """Do it, print what came of it and return what went wrong, by network or device."""
        for job in jobs:
            self._finalize(job)
        done = [job for job in jobs if job.name in self._results]
        tables = {_table(job): job.folder.parent for job in done}
        _write(tables)  # timing may be interrupted
        for specs, group in self._by_devices(done):
            self._time(group, specs)
        _write(tables)
        results = [self._results[job.name] for job in done]
        if as_json:
            pairs = zip(done, results, strict=True)
            rows = [{**final_row(result), "folder": str(job.folder)} for job, result in pairs]
            print(json.dumps(rows, indent=2))
        elif results:
            print_table(*final_table(results))
            self._close(results, tables)
        return self._errors

    def _finalize(self, job: Job) -> None:
        print(f"{job.name}: exporting and judging", file=sys.stderr, flush=True)
        processor = usable_device("auto" if self._on_gpu else "cpu")
        try:
            devices = self._devices[job.name]
            result = finalize(job, devices, timed=self._timed, processor=processor)
        except (ValueError, RuntimeError) as error:
            self._errors[job.name] = one_line(error)
            return
        self._keep(job, result)

    def _by_devices(
        self, jobs: Sequence[Job]
    ) -> Iterator[tuple[tuple[DeviceSpec, ...], list[Job]]]:
        """Those that are to be timed, by where; budgets make no difference."""
        groups: dict[tuple[DeviceSpec, ...], list[Job]] = {}
        for job in jobs:
            specs = tuple(replace(spec, budget_ms=None) for spec in self._devices[job.name])
            if self._timed and self._results[job.name].latencies is None:
                groups.setdefault(specs, []).append(job)
        yield from groups.items()

    def _time(self, jobs: Sequence[Job], specs: Sequence[DeviceSpec]) -> None:
        names = " + ".join(spec.name for spec in specs)
        print(f"timing {len(jobs)} on {names}", file=sys.stderr, flush=True)
        pairs = [(job, self._results[job.name]) for job in jobs]
        try:
            devices = open_devices(specs)
            for run in dict.fromkeys(job.run for job in jobs if job.run and self._of_study):
                check_study_devices(run, devices)
            for job, result in zip(jobs, time_each(pairs, devices), strict=True):
                self._keep(job, result)
        except (ValueError, RuntimeError) as error:
            self._errors[names] = f"{one_line(error)} {LATER}"
            return
        for remark in remarks(devices):
            print(remark, file=sys.stderr)

    def _keep(self, job: Job, result: TrainingResult) -> None:
        self._results[job.name] = result
        keep_result(job.folder, result)
        write_card(job, result)

    def _close(self, results: Sequence[TrainingResult], tables: dict[Path, Path]) -> None:
        latencies = [one for result in results for one, _ in result.on_each]
        for remark in how_measured(latencies):
            print(remark, file=sys.stderr)
        if any(one.source == "predicted" for one in latencies):
            print(HOW_TO_ATTACH, file=sys.stderr)
        for table, networks in tables.items():
            print(
                f"{table} holds the table, {networks} a folder for each network with its model "
                "card.",
                file=sys.stderr,
            )


def _write(tables: dict[Path, Path]) -> None:
    for table, networks in tables.items():
        write_final(table, networks)


def _table(job: Job) -> Path:
    """Where the table goes: into the run folder or, elsewhere, beside the networks' folders."""
    networks = job.folder.parent
    in_run = job.run is not None and networks == job.run / TRAINED
    return (networks.parent if in_run else networks) / FINAL
