"""The end of a full training: the best weights exported, judged, and timed as they are deployed.

What is done already, for the same weights, is not done again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.finetune.export import Export, RealImages, export_each
from nas.finetune.folder import CONFIG, RECIPE, WEIGHTS
from nas.finetune.jobs import Job, data_of, finished, loaders_here
from nas.training.ending import Ending, read_ending
from nas.training.timing_place import NOWHERE, Place
from predictors.backends.model import Model, checkpoint_model, config_model, identity
from predictors.backends.table import Run, find_formats, find_runtime
from predictors.cost import cost
from predictors.devices.device import Device
from predictors.training.batches import evaluation_batches
from predictors.training.evaluate import EvalResult, Logits, Split, count_correct
from search_spaces.checkpoint import Checkpoint, read_checkpoint
from search_spaces.io import one_line

if TYPE_CHECKING:
    from predictors.data.datasets import ImageData

CHECKED = 500  # validation images with which an exported file is compared with torch
_AT_ONCE = 250


def concluded(job: Job, place: Place, *, device: torch.device) -> Ending:
    """Return what came of a finished training: exported and judged, its latency if it is known.

    The test split, where there is one, is looked at here, once; else the accuracy is that of the
    validation split, by which the epoch was chosen. Of int8 it is the exported file's.

    Raises:
        RuntimeError: if a file cannot be exported, or computes something else than the network.
        ValueError: if the weights cannot be read.
        OSError: if a file cannot be read or written.
    """
    weights = _sha256(job.folder / WEIGHTS)
    known = read_ending(job.folder)
    if known and known.weights == weights and _is_whole(known, job.folder, place):
        return replace(_known(known, place), runtime=place.runtime, precision=place.precision)
    return _concluded(job, place, weights, device)


def _known(known: Ending, place: Place) -> Ending:
    """What is known, with its latency if that is of this place, or no other is wanted."""
    if known.latency is not None and place.device == NOWHERE and known.budget_ms:
        return known
    same = known.latency is not None and place.gave(known.latency)
    if same and known.budgets_ms == place.budgets_ms:
        return replace(known, budget_ms=place.limit or known.budget_ms)
    if place.device == NOWHERE:
        return replace(known, budget_ms=place.limit or known.budget_ms)
    return replace(known, budget_ms=place.limit, budgets_ms=place.budgets_ms, latency=None,
                   described="")  # fmt: skip


def timed(jobs: Sequence[tuple[Job, Ending]], device: Device) -> Iterator[Ending]:
    """Time the deployed files, side by side, and yield them with their latencies, in order.

    Raises:
        ValueError: if the device does not take one.
        RuntimeError: if it cannot be reached.
    """
    models = [deployed_model(job, ending) for job, ending in jobs]
    for (_, ending), latency in zip(
        jobs,
        device.measure_each(
            models,
        ),
        strict=True,
    ):
        yield replace(ending, latency=latency, described=device.description)


def deployed_model(job: Job, ending: Ending) -> Model:
    """Return the network as it is timed: its ONNX file or, where none is taken, its weights."""

    def build() -> torch.nn.Module:
        return read_checkpoint(job.folder / WEIGHTS).network()

    plain = replace(config_model(job.config, name=job.name), build=build)
    file = job.folder / ending.deployed
    if file.suffix != ".onnx":
        return replace(plain, identity=identity("trained", {"sha256": ending.weights}))
    return replace(plain, file=file, identity=identity("onnx", {"sha256": _sha256(file)}))


def _concluded(job: Job, place: Place, weights: str, device: torch.device) -> Ending:
    checkpoint, data = read_checkpoint(job.folder / WEIGHTS), data_of(job)
    images = RealImages(data=data, count=CHECKED, labelled=True, crop=checkpoint.crop)
    model = checkpoint_model(job.name, checkpoint, calibration_images=images.calibration_images(1))
    formats = dict.fromkeys(("onnx", _format(place.runtime, place.precision)))
    exports = list(export_each(model, find_formats(tuple(formats)), job.folder, images))
    _refuse_refused(exports)
    deployed = exports[-1]
    assert deployed.agreement is not None  # of all but yaml
    trained, found = finished(job), cost(job.config)
    return Ending(
        name=job.name, weights=weights, epoch=trained.epoch, validation=trained.accuracy,
        judged=_judged(checkpoint, model, deployed, data, device), agreement=deployed.agreement,
        files=(WEIGHTS, *_files(exports, job.folder), CONFIG, RECIPE),
        deployed=deployed.path.name, macs=found.macs, params=found.params,
        budget_ms=place.limit, budgets_ms=place.budgets_ms, runtime=place.runtime,
        precision=place.precision,
    )  # fmt: skip


def _format(runtime: str, precision: str) -> str:
    """What is deployed; ONNX is exported in any case."""
    return find_runtime(runtime, precision).format


def _is_whole(ending: Ending, folder: Path, place: Place) -> bool:
    """Whether all files are there, and the deployed one is of the format that the place takes."""
    right = _format(ending.runtime, ending.precision) == _format(place.runtime, place.precision)
    return right and all((folder / name).exists() for name in ending.files)


def _refuse_refused(exports: Sequence[Export]) -> None:
    for export in exports:
        if export.refusal:
            raise RuntimeError(export.refusal)


def _files(exports: Sequence[Export], folder: Path) -> list[str]:
    """The exported files, for each format the main one first."""
    found = [file for export in exports for file in reversed(export.files)]
    return [file.relative_to(folder).as_posix() for file in found]


def _judged(
    checkpoint: Checkpoint,
    model: Model,
    deployed: Export,
    data: "ImageData",
    device: torch.device,
) -> EvalResult:
    split: Split = "validation" if data.test is None else "test"
    images = data.validation if data.test is None else data.test
    batches = evaluation_batches(
        images,
        data=data,
        crop=checkpoint.crop,
        at_once=_AT_ONCE,
        loaders=loaders_here() if checkpoint.crop else 0,
    )
    logits = _on(device, checkpoint)
    if deployed.runtime.precision == "int8":
        run = deployed.runtime.module.run(model, deployed.path, deployed.runtime)
        assert run is not None  # int8 is what runtimes run
        logits = _of_file(run, deployed.path)
    return EvalResult(split=split, images=len(images), correct=count_correct(logits, batches))


def _of_file(run: Run, path: Path) -> Logits:
    def logits(batch: Tensor) -> Tensor:
        try:
            return run(batch)[0]
        except Exception as error:  # runtimes have errors of all kinds
            why = one_line(error)
            raise RuntimeError(f"{path.name} must run on test images, but failed: {why}. Time it "
                               "with --precision fp32, or free memory.") from error  # fmt: skip

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
