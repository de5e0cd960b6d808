"""The end of a full training: the best weights exported, evaluated, and timed as they are deployed.

What is done already, for the same weights, is not done again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path

import torch
from torch import Tensor

from nas.devices import Devices, descriptions, measure_each, open_devices, remarks
from nas.finetune.export import Export, export_each
from nas.finetune.folder import CONFIG, RECIPE, TRAINED, WEIGHTS, begin_folder, whole_table
from nas.finetune.jobs import Job, data_of, loaders_here
from nas.finetune.model_card import write_card
from nas.finetune.result import FINAL, TrainingResult, keep_result, read_result, write_final
from nas.finetune.select import NOWHERE, check_study_devices, devices_for, limits_for
from nas.report.figures import best_epoch
from predictors.backends.model import Model, checkpoint_model, config_model, identity
from predictors.backends.table import Run, find_formats, find_runtime
from predictors.cost import cost
from predictors.data.datasets import ImageData
from predictors.devices.device import ONNXRUNTIME, DeviceSpec
from predictors.measurement import Backend
from predictors.training.batches import evaluation_batches
from predictors.training.evaluate import EvalResult, Logits, RealImages, Split, count_correct
from predictors.training.workers import usable_device
from search_spaces.checkpoint import Checkpoint, read_checkpoint
from search_spaces.extensions import extensions_named
from search_spaces.io import one_line, reason

COMPARED_IMAGES = 500  # of the validation split: an exported file and torch
_AT_ONCE = 250
_LATER = "The weights are kept. To time them later, give the command again with --resume."


def finalize(
    job: Job, devices: tuple[DeviceSpec, ...], *, timed: bool, processor: torch.device
) -> TrainingResult:
    """Return what came of a finished training: exported and evaluated, its latencies if known.

    `devices` are where it is to be timed, if it is. The test split, if there is one, is looked at
    here, once; else the accuracy is that of the validation split, by which the epoch was chosen.
    Of int8 it is the exported file's. The limits are those of the run that the network is from.
    """
    if not all((job.folder / name).exists() for name in (CONFIG, RECIPE)):
        begin_folder(job.folder, job.config, job.recipe)
    weights = _sha256(job.folder / WEIGHTS)
    backend = devices[0].backends[0] if devices else ONNXRUNTIME
    known = read_result(job.folder)
    if known and known.weights == weights and _is_whole(known, job.folder, backend):
        return replace(_known(known, devices, timed=timed), limits=limits_for(job.run))
    checkpoint, data = read_checkpoint(job.folder / WEIGHTS), data_of(job)
    images = RealImages(data=data, count=COMPARED_IMAGES, labelled=True, crop=checkpoint.crop)
    model = checkpoint_model(job.name, checkpoint, calibration_images=images.calibration_images(1))
    exports = list(export_each(model, find_formats(("onnx", _format(backend))), job.folder, images))
    if refusal := next((export.refusal for export in exports if export.refusal), ""):
        raise RuntimeError(refusal)
    deployed = exports[-1]
    assert deployed.agreement is not None  # of all but yaml
    rows, found = whole_table(job.folder, job.recipe.epochs), cost(job.config)
    best = best_epoch(rows) if job.recipe.keep_best else rows[-1]
    files = [file.relative_to(job.folder) for e in exports for file in reversed(e.files)]
    return TrainingResult(
        name=job.name,
        weights=weights,
        epoch=best.epoch,
        validation=best.accuracy,
        evaluation=_evaluated(model, deployed, data, processor),
        agreement=deployed.agreement,
        files=(WEIGHTS, *(file.as_posix() for file in files), CONFIG, RECIPE),
        deployed=deployed.path.name,
        macs=found.macs,
        params=found.params,
        file_bytes=deployed.size,
        memory_bytes=found.peak_memory_bytes,
        limits=limits_for(job.run),
        devices=devices,
    )


def time_each(
    jobs: Sequence[tuple[Job, TrainingResult]], devices: Devices
) -> Iterator[TrainingResult]:
    """Time the deployed files, side by side, and yield them with their latencies, in order."""
    models = [deployed_model(job, result) for job, result in jobs]
    described = "; ".join(descriptions(devices))
    for (_, result), latencies in zip(jobs, measure_each(devices, models), strict=True):
        yield replace(result, latencies=latencies, described=described)


def deployed_model(job: Job, result: TrainingResult) -> Model:
    """Return the network as it is timed: its ONNX file or, if none is taken, its weights."""

    def build() -> torch.nn.Module:
        return read_checkpoint(job.folder / WEIGHTS).network()

    plain = replace(config_model(job.config, name=job.name), build=build)
    file = job.folder / result.deployed
    if file.suffix != ".onnx":
        return replace(plain, identity=identity("trained", {"sha256": result.weights}))
    return replace(plain, file=file, identity=identity("onnx", {"sha256": _sha256(file)}))


def _known(
    known: TrainingResult, devices: tuple[DeviceSpec, ...], *, timed: bool
) -> TrainingResult:
    """What is known, with its latencies if they are of these devices, or no others are wanted."""
    same = [(d.name, d.backends) for d in known.devices] == [(d.name, d.backends) for d in devices]
    if known.latencies is None:
        return replace(known, devices=devices or known.devices)
    if same:
        pairs = zip(devices, known.devices, strict=True)
        with_budgets = (replace(d, budget_ms=d.budget_ms or k.budget_ms) for d, k in pairs)
        return replace(known, devices=tuple(with_budgets))
    return replace(known, devices=devices, latencies=None, described="") if timed else known


def _format(backend: Backend) -> str:
    """What is deployed; ONNX is exported in any case."""
    return find_runtime(backend.runtime, backend.precision).format


def _refuse_without_converter(backend: Backend) -> None:
    runtime = find_runtime(backend.runtime, backend.precision)
    for package in runtime.module.PACKAGES[1:]:
        runtime.require(package)


def _is_whole(result: TrainingResult, folder: Path, backend: Backend) -> bool:
    """Whether all files are there, and the deployed one as large as it was, of the right format.

    That is the one that the backend takes.
    """
    right = _format(result.backend) == _format(backend)
    if not right or not all((folder / name).exists() for name in result.files):
        return False
    from_deployed = dropwhile(lambda name: Path(name).parts[0] != result.deployed, result.files)
    deployed = [name for name in from_deployed if name not in (CONFIG, RECIPE)]
    return sum((folder / name).stat().st_size for name in deployed) == result.file_bytes


def _evaluated(model: Model, deployed: Export, data: ImageData, device: torch.device) -> EvalResult:
    assert model.checkpoint is not None
    split: Split = "validation" if data.test is None else "test"
    images = data.validation if data.test is None else data.test
    crop = model.checkpoint.crop
    loaders = loaders_here() if crop else 0
    batches = evaluation_batches(images, data=data, crop=crop, at_once=_AT_ONCE, loaders=loaders)
    logits = _on(device, model.checkpoint)
    if deployed.runtime.precision == "int8":
        run = deployed.runtime.module.run(model, deployed.path, deployed.runtime)
        assert run is not None  # int8 is what runtimes run
        logits = _of_file(run, deployed.path)
    return EvalResult(
        split=split,
        images=len(images),
        correct=count_correct(logits, batches),
        largest_class=images.largest_class,
    )


def _of_file(run: Run, path: Path) -> Logits:
    def logits(batch: Tensor) -> Tensor:
        try:
            return run(batch)[0]
        except Exception as error:  # runtimes have errors of all kinds
            raise RuntimeError(
                f"{path.name} must run on test images, but failed: {reason(error)}. Time it with "
                "--precision fp32, or free memory."
            ) from error

    return logits


def _on(device: torch.device, checkpoint: Checkpoint) -> Logits:
    network = checkpoint.network().to(device)

    def logits(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = network(batch.to(device))
            return found

    return logits


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Finalizer:
    """What is done when trainings are over, and where; what can be checked before is.

    `results` has what came of the networks, `errors` what went wrong, by network or device.
    """

    def __init__(self, jobs: Sequence[Job], device: str | None, *, on_gpu: bool) -> None:
        self.results: dict[str, TrainingResult] = {}
        self.errors: dict[str, str] = {}
        self._devices = {j.name: devices_for(j.run, device, network=j.name) for j in jobs}
        for specs in self._devices.values():
            for backend in [spec.backends[0] for spec in specs][:1]:
                _refuse_without_converter(backend)
        self._timed = device != NOWHERE
        self._of_study = device is None  # whose device is then to be the same
        self._processor = usable_device("auto" if on_gpu else "cpu")
        if device is not None and self._timed:
            open_devices(next(iter(self._devices.values())))

    def run(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Export, evaluate and time; yield what is done next and what is to be known, in lines."""
        for job in jobs:
            yield f"{job.name}: exporting and evaluating"
            self._finalize(job)
        done = [job for job in jobs if job.name in self.results]
        write_tables(done)  # timing may be interrupted
        for specs, group in self._by_devices(done):
            names = " + ".join(spec.name for spec in specs)
            yield f"timing {len(group)} on {names}"
            try:
                with extensions_named():
                    yield from self._time(group, specs)
            except (ValueError, RuntimeError) as error:
                self.errors[names] = f"{one_line(error)} {_LATER}"
        write_tables(done)

    def _finalize(self, job: Job) -> None:
        devices = self._devices[job.name]
        try:
            result = finalize(job, devices, timed=self._timed, processor=self._processor)
        except (ValueError, RuntimeError) as error:
            self.errors[job.name] = one_line(error)
            return
        self._keep(job, result)

    def _by_devices(
        self, jobs: Sequence[Job]
    ) -> Iterator[tuple[tuple[DeviceSpec, ...], list[Job]]]:
        """Those that are to be timed, by where; budgets make no difference."""
        groups: dict[tuple[DeviceSpec, ...], list[Job]] = {}
        for job in jobs:
            specs = tuple(replace(spec, budget_ms=None) for spec in self._devices[job.name])
            if self._timed and self.results[job.name].latencies is None:
                groups.setdefault(specs, []).append(job)
        yield from groups.items()

    def _time(self, jobs: Sequence[Job], specs: Sequence[DeviceSpec]) -> list[str]:
        pairs = [(job, self.results[job.name]) for job in jobs]
        devices = open_devices(specs)
        for run in dict.fromkeys(job.run for job in jobs if job.run and self._of_study):
            check_study_devices(run, devices)
        for job, result in zip(jobs, time_each(pairs, devices), strict=True):
            self._keep(job, result)
        return list(remarks(devices))

    def _keep(self, job: Job, result: TrainingResult) -> None:
        self.results[job.name] = result
        keep_result(job.folder, result)
        write_card(job, result)


def tables_of(jobs: Sequence[Job]) -> dict[Path, Path]:
    """Return where tables go, and of which folder: into the run's, or beside the networks'."""
    found = {}
    for job in jobs:
        networks = job.folder.parent
        in_run = job.run is not None and networks == job.run / TRAINED
        found[(networks.parent if in_run else networks) / FINAL] = networks
    return found


def write_tables(jobs: Sequence[Job]) -> None:
    """Write what is known of the networks, and of others in the same folders."""
    for table, networks in tables_of(jobs).items():
        write_final(table, networks)
