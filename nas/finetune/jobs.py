"""A full training from what is asked to the files that it leaves, in this process."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.finetune.folder import (
    WEIGHTS,
    TrainedNetwork,
    Watch,
    begin_folder,
    has_training,
    held,
    read_table,
)
from nas.training.full_progress import Best, Progress
from nas.training.full_recipe import FullRecipe, crop_of
from predictors.backends.model import config_identity
from search_spaces.fasternet import FasterNetConfig

if TYPE_CHECKING:
    import torch

    from predictors.data.datasets import ImageData
    from predictors.training.workers import Team
    from search_spaces.checkpoint import Checkpoint
    from search_spaces.network import FasterNet

SCRATCH, SUPERNET = "scratch", "supernet"
_MOST_LOADERS = 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be trained, on what, how, and where it is kept.

    `init` is scratch, supernet (that of `run`) or a checkpoint's file; `data` as `load_data` takes
    it. Paths are absolute: a job may travel.
    """

    name: str
    config: FasterNetConfig
    recipe: FullRecipe
    data: str
    folder: Path
    init: str = SCRATCH
    run: Path | None = None
    minutes: float = 10.0  # between checkpoints

    @property
    def identity(self) -> dict[str, str]:
        """What another training differs in, by name."""
        settings = {name: str(value) for name, value in asdict(self.recipe).items()}
        return {"config": config_identity(self.config), "data": self.data, "start": self.init,
                **settings}  # fmt: skip


def run_job(
    job: Job, *, device: "torch.device", team: "Team | None" = None, loaders: int | None = None
) -> Iterator[Progress]:
    """Train, or go on training, to the end; yield after each step.

    Raises:
        ValueError: if the data, the recipe, the start or a checkpoint does not fit.
        RuntimeError: if the loss stays no number, or another process works on the folder.
        OSError: if something cannot be read or written.
    """
    from nas.training.full_training import FullTraining
    from nas.training.surviving import surviving

    data = data_of(job)
    training = FullTraining(started(job), data, job.recipe, device=device, team=team,
                            loaders=loaders_for(loaders))  # fmt: skip
    leads = training.team.leads
    if leads and not has_training(job.folder):
        begin_folder(job.folder, job.config, job.recipe)
    training.team.wait()
    watch = Watch(job.folder, name=job.name, data=job.data) if leads else None
    with held(job.folder) if leads else nullcontext():
        for progress in surviving(training, job.folder, identity=_identity(job, data),
                                  minutes=job.minutes):  # fmt: skip
            if watch and training.rows and (progress.row or progress.remark):
                watch.see(training.rows)
            yield progress
        if watch and training.best:
            watch.see(training.rows)
            watch.end(training.rows, _checkpoint(job, data, training.best))


def finished(job: Job) -> TrainedNetwork:
    """Return what a job that ran to its end has left."""
    best = max(read_table(job.folder), key=lambda row: row.accuracy)
    return TrainedNetwork(name=job.name, folder=job.folder, config=job.config, recipe=job.recipe,
                          data=job.data, accuracy=best.accuracy, epoch=best.epoch)  # fmt: skip


def loaders_for(asked: int | None) -> int:
    """Return how many processes decode pictures: all cores but the one that trains, at most 8."""
    if asked is not None:
        return asked
    return min(len(os.sched_getaffinity(0)) - 1, _MOST_LOADERS)


def is_finished(job: Job) -> bool:
    """Whether the training has run to its end, so that only its weights are of interest."""
    from predictors.training.checkpoint import newest
    from search_spaces.checkpoint import read_checkpoint

    try:
        kept = newest(job.folder)
        read_checkpoint(job.folder / WEIGHTS)
    except (OSError, ValueError):
        return False
    if kept is None or kept.remark or kept.content["identity"] != _identity(job, data_of(job)):
        return False
    return bool(kept.content["training"]["epoch"] >= job.recipe.epochs)


def data_of(job: Job) -> "ImageData":
    """Return what it is trained on, read once in a process."""
    from predictors.training.short_training import loaded

    return loaded(job.data, job.config.resolution)


def _identity(job: Job, data: "ImageData") -> dict[str, str]:
    return {**job.identity, "classes": ", ".join(data.classes)}


def _checkpoint(job: Job, data: "ImageData", best: "Best") -> "Checkpoint":
    """The weights with all that is needed to use them."""
    from search_spaces.checkpoint import Checkpoint

    crop = crop_of(job.recipe, data.resolution)
    return Checkpoint(config=job.config, weights={k: w.cpu() for k, w in best.weights.items()},
                      classes=data.classes, mean=data.mean, std=data.std, crop=crop)  # fmt: skip


def started(job: Job) -> "FasterNet":
    """Return the network with the weights that its training begins with.

    Raises:
        ValueError: if the file or the supernet has none that fit.
        OSError: if it cannot be read.
    """
    import torch

    from search_spaces.checkpoint import inherit, read_weights
    from search_spaces.network import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.recipe.seed)
        network = build(job.config, drop_path=job.recipe.drop_path)
    if job.init == SUPERNET:
        inherit(network, _of_supernet(job))
    elif job.init != SCRATCH:
        inherit(network, read_weights(job.init))
    return network


def _of_supernet(job: Job) -> "dict[str, torch.Tensor]":
    """The config's share of its run's supernet."""
    from nas.study.options import SearchOptions
    from nas.study.store import read_run
    from nas.supernets import FILE, read_kept
    from search_spaces.supernet import Supernet

    if job.run is None or not (job.run / FILE).exists():
        where = "a run folder" if job.run is None else f"{job.run}, which has none"
        raise ValueError(f"`init` must be a supernet of {where}. Search with --accuracy supernet, "
                         "or start from scratch.")  # fmt: skip
    options = SearchOptions.from_json(read_run(job.run)["options"])
    supernet = Supernet(options.open_space())
    supernet.load_state_dict(read_kept(job.run / FILE)["network"])
    return supernet.weights_of(job.config)


def check_data(job: Job, data: "ImageData") -> None:
    """Refuse data whose classes are not the network's.

    Raises:
        ValueError: if they differ.
    """
    if job.config.classes != len(data.classes):
        count = len(data.classes)
        advice = (f"Search with `--classes {count}`, or with this data" if job.run
                  else f"Set `classes: {count}` in its config")  # fmt: skip
        raise ValueError(f"`classes` must be the {count} of {data.name}, but {job.name} has "
                         f"{job.config.classes}. {advice}.")  # fmt: skip
