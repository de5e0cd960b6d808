"""A full training from what is asked to the files that it leaves, in this process or by Ray."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nas.finetune.folder import (
    RECIPE,
    TRAINED,
    WEIGHTS,
    Watch,
    begin_folder,
    has_training,
    held,
    read_table,
)
from nas.finetune.select import Picked, find_networks, remark_on
from nas.ray_pool import joined
from nas.ray_workers import Report, WorkerRequest, allocate, begin, wait_for
from nas.run_folder import place_of_data
from nas.study.options import refuse_removed
from predictors.backends.model import config_identity
from predictors.data.datasets import ImageData, located
from predictors.training.batches import picture_transform
from predictors.training.checkpoint import checkpointed_loop, in_folder
from predictors.training.estimators import loaded
from predictors.training.recipe import (
    Best,
    EpochRow,
    Recipe,
    TrainingProgress,
    crop_of,
    read_overrides,
    read_recipe,
    recipe_for,
    recipe_with,
)
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers, loaders_of
from search_spaces.checkpoint import Checkpoint, begin_with, read_checkpoint
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import check_out
from search_spaces.network import FasterNet, build, fold_branches

SCRATCH = "scratch"
_RETRIES = 2  # with half the learning rate, where the loss is no number
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be trained, on what, how, and where its files lie.

    `init` is scratch or a checkpoint's file; `data` as `load_data` takes it. Paths are absolute: a
    job may travel.
    """

    name: str
    config: FasterNetConfig
    recipe: Recipe
    data: str
    folder: Path
    init: str = SCRATCH
    run: Path | None = None
    minutes: float = 10.0  # between checkpoints
    moved_from: str = ""  # where the data lay when the training began, if they were moved

    @property
    def identity(self) -> dict[str, str]:
        """What another training differs in, by name."""
        settings = {name: str(value) for name, value in asdict(self.recipe).items()}
        config = config_identity(self.config)
        data = self.moved_from or self.data
        return {"config": config, "data": data, "start": self.init, **settings}


def run_job(
    job: Job, *, device: torch.device, workers: Workers | None = None
) -> Iterator[TrainingProgress]:
    """Train, or go on training, to the end; yield after each step."""
    data = data_of(job)
    workers = workers or Workers(loaders=loaders_here())
    trainer = Trainer(started(job), data, job.recipe, device=device, workers=workers)
    is_rank_zero = workers.is_rank_zero
    if is_rank_zero and not has_training(job.folder):
        begin_folder(job.folder, job.config, job.recipe)
    workers.barrier()
    watch = Watch(job.folder, name=job.name, data=job.data) if is_rank_zero else None
    with held(job.folder) if is_rank_zero else nullcontext():
        for progress in checkpointed_loop(
            trainer,
            in_folder(job.folder),
            identity=_identity(job, data),
            minutes=job.minutes,
            retries=_RETRIES,
        ):
            if watch and trainer.rows and (progress.row or progress.remark):
                watch.see(trainer.rows)
            yield progress
        if watch and trainer.best:
            watch.see(trainer.rows)
            watch.end(trainer.rows, _checkpoint(job, data, trainer.best))


@dataclass(frozen=True, kw_only=True)
class JobUpdate:
    """What is new of a job: its epochs so far, whether it is over, and why if it failed."""

    job: Job
    rows: list[EpochRow]
    over: bool = False
    error: str = ""


def run_with_ray(
    jobs: Sequence[Job], request: WorkerRequest, *, address: str | None = None
) -> Iterator[JobUpdate]:
    """Train networks side by side, as many as there is room for; yield what is new.

    By default, the GPUs are those of the cluster. A job that fails does not end the
    others.
    """
    with joined(address) as ray:
        allocation = allocate(request, ray, networks=len(jobs))
        waiting = list(jobs)
        running: dict[Any, Job] = {}
        rows_seen = {job.name: -1 for job in jobs}
        while waiting or running:
            while waiting and len(running) < allocation.networks:
                job = waiting.pop(0)
                work = partial(_train_job, job)
                running[begin(work, job.folder, allocation, ray=ray, name=job.name)] = job
            done, _ = ray.wait(list(running), timeout=_POLL_S)
            for reference in done:
                job = running.pop(reference)
                error = wait_for(reference, job.folder, ray=ray)
                yield JobUpdate(job=job, rows=read_table(job.folder), over=True, error=error)
            yield from _news(list(running.values()), rows_seen)


def _train_job(job: Job, workers: Workers, device: torch.device) -> Iterator[Report]:
    for progress in run_job(job, device=device, workers=workers):
        if progress.row:
            yield asdict(progress.row)


def _news(jobs: Sequence[Job], rows_seen: dict[str, int]) -> Iterator[JobUpdate]:
    for job in jobs:
        rows = read_table(job.folder)
        if len(rows) != rows_seen[job.name]:
            rows_seen[job.name] = len(rows)
            yield JobUpdate(job=job, rows=rows)


def loaders_here() -> int:
    """Return how many processes decode pictures: all cores but the one that trains, at most 8."""
    return loaders_of(len(os.sched_getaffinity(0)))


def is_finished(job: Job) -> bool:
    """Whether the training has run to its end, so that only its weights are of interest."""
    try:
        newest = in_folder(job.folder).newest()
        read_checkpoint(job.folder / WEIGHTS)
    except (OSError, ValueError):
        return False
    if newest is None or newest.remark:
        return False
    identity = _identity(job, data_of(job))
    if identity | newest.content["identity"] != identity:  # one of before has less of it
        return False
    return bool(newest.content["epochs_done"] >= job.recipe.epochs)


def data_of(job: Job) -> ImageData:
    """Return what it is trained on, read once in a process."""
    return loaded(job.data, job.config.resolution)


def _identity(job: Job, data: ImageData) -> dict[str, str]:
    images = f"{len(data.train):,} of training and {len(data.validation):,} of validation"
    return {**job.identity, "classes": ", ".join(data.classes), "images": images}


def _checkpoint(job: Job, data: ImageData, best: Best) -> Checkpoint:
    """The weights with all that is needed to use them."""
    return Checkpoint(
        config=job.config,
        weights=_deployed(job, {name: weight.cpu() for name, weight in best.weights.items()}),
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        crop=crop_of(job.recipe, data.resolution),
    )


def _deployed(job: Job, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the network as it is deployed: without branches."""
    if not job.recipe.branches:
        return weights
    network = build(job.config, branches=True)
    network.load_state_dict(weights)
    fold_branches(network)
    return network.state_dict()


def started(job: Job) -> FasterNet:
    """Return the network with the weights that its training begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.recipe.seed)
        recipe = job.recipe
        network = build(job.config, drop_path=recipe.drop_path, branches=recipe.branches)
    if job.init != SCRATCH and in_folder(job.folder).newest() is None:
        begin_with(network, job.init)
    return network


def words_of_start(job: Job) -> str:
    """Say in a line how much of a network begins with a file's weights; nothing without a file."""
    gone = not Path(job.init).exists() and in_folder(job.folder).newest() is not None
    if job.init == SCRATCH or gone:
        return ""
    with torch.device("meta"):  # names and shapes are enough
        network = build(job.config)
    return begin_with(network, job.init).words(job.init)


def check_job(job: Job, data: ImageData) -> None:
    """Refuse what is asked for and not to be had, before anything is written.

    That is a folder whose name runtimes do not take, data whose classes are not the network's, a
    batch of more images than there are, a teacher's file or an augmentation that is none.
    """
    recipe = job.recipe
    check_out(job.folder)
    if job.config.classes != len(data.classes):
        count = len(data.classes)
        advice = (
            f"Search with `--classes {count}`, or with this data"
            if job.run
            else f"Set `classes: {count}` in its config"
        )
        raise ValueError(
            f"`classes` must be the {count} of {data.name}, but {job.name} has "
            f"{job.config.classes}. {advice}."
        )
    if (job.folder / WEIGHTS).exists():
        return
    if recipe.branches and job.init != SCRATCH:
        raise ValueError(
            f"`branches` must be false to begin with weights, but got true with {job.init}. "
            "Leave one of them out."
        )
    most = len(data.train) - len(data.train) % 2
    if recipe.batch_size > most:
        raise ValueError(
            f"`batch_size` must be at most {most:,}, of the {len(data.train):,} training images, "
            f"but got {recipe.batch_size:,}. Leave it out."
        )
    if recipe.teacher_weights and not Path(recipe.teacher_weights).is_file():
        raise ValueError(
            "`teacher_weights` must be a file that exists, but got "
            f"{recipe.teacher_weights!r}. Check the path."
        )
    if recipe.augment:
        _check_augment(recipe.augment, data)


def _check_augment(augment: str, data: ImageData) -> None:
    try:
        picture_transform(data, data.resolution, is_training=True, auto_augment=augment)
    except Exception:  # timm raises AssertionError, KeyError, ValueError, whatever it likes
        raise ValueError(
            "`augment` must be an augmentation of timm's, such as rand-m5-mstd0.5-inc1, but got "
            f"{augment!r}. Leave it out for the published one."
        ) from None


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Networks to train in full, as a user names them, and what they are trained on and how.

    `settings` are over those of the file `recipe`. None is what the run, the data or the folder to
    go on with says; of a run's front the best is then picked.
    """

    networks: Sequence[str]
    pick: str | None = None
    data: str | None = None
    init: str | None = None
    out: Path | None = None
    recipe: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    minutes: float = 10.0  # between checkpoints

    def jobs(self) -> tuple[list[Job], list[str]]:
        """Return a job for each network, and remarks on the networks and the data."""
        self._check_paths()
        pick = "best" if self.pick is None else self.pick
        found = [find_networks(name, pick) for name in self.networks]
        picked = [network for networks in found for network in networks]
        if self.pick is not None and not any(network.run for network in picked):
            raise ValueError(
                f"`pick` must be left out where no network is a run folder, but got {self.pick}. "
                "It chooses from the front of a run."
            )
        _refuse_twice(picked)
        named = zip(self.networks, found, strict=True)
        lines = [remark_on(name, networks, pick) for name, networks in named]
        remarks = dict.fromkeys(line for line in lines if line)
        jobs = []
        for network in picked:
            name = self._data(network)
            data = loaded(name, network.config.resolution)
            job = self._job(network, name, data)
            check_job(job, data)
            if has_training(job.folder) and not self.resume:
                raise ValueError(
                    f"`out` must be a new folder, but {job.folder} holds a training. Go on with "
                    "--resume or name another folder."
                )
            start = "" if (job.folder / WEIGHTS).exists() else words_of_start(job)
            remarks.update(
                dict.fromkeys([*data.remarks, *([f"{job.name}: {start}"] if start else [])])
            )
            jobs.append(job)
        return jobs, list(remarks)

    def _check_paths(self) -> None:
        """Refuse what can be refused before data are read, which may take long."""
        if self.out is not None:
            check_out(self.out)
        if self.init is None or self.init == SCRATCH:
            return
        refuse_removed("init", self.init)
        if not Path(self.init).exists():
            raise ValueError(
                f"`init` must be a file that exists, but got {self.init!r}. Check the path."
            )

    def _job(self, network: Picked, name: str, data: ImageData) -> Job:
        config = network.config
        if network.any_classes:
            config = replace(config, classes=len(data.classes))
        out = self.out or (network.run or Path()) / TRAINED
        folder = (out / network.name).absolute()
        settings = self._settings()
        if self.resume and (folder / RECIPE).exists():
            recipe = read_recipe(folder / RECIPE)
        else:
            asked = ((key, settings.get(key, "")) for key in ("epochs", "batch_size"))
            whole = {key: int(text) for key, text in asked if text.isdecimal() and int(text)}
            recipe = recipe_for(config, len(data.train), **whole)
        return Job(
            name=network.name,
            config=config,
            recipe=recipe_with(recipe, settings),
            data=located(name),
            folder=folder,
            init=self._init(folder, network),
            run=network.run and network.run.absolute(),
            minutes=self.minutes,
            moved_from=self._moved_from(folder, located(name)),
        )

    def _settings(self) -> dict[str, str]:
        settings = {**(read_overrides(self.recipe) if self.recipe else {}), **self.settings}
        if "teacher_weights" in settings:  # workers are in other folders
            settings["teacher_weights"] = located(settings["teacher_weights"])
        return settings

    def _data(self, network: Picked) -> str:
        """As asked; a run that trained its networks had data."""
        name = self.data or (network.run and place_of_data(network.run))
        if not name:
            raise ValueError(
                "`data` must be given, but is not. Name a folder of images: --data DIR."
            )
        return str(name)

    def _moved_from(self, folder: Path, data: str) -> str:
        """Where the data of a training to go on with lay, if they are there no more."""
        kept = in_folder(folder).newest() if self.resume else None
        before = str(kept.content["identity"]["data"]) if kept else data
        gone = before != data and Path(before).is_absolute() and not Path(before).exists()
        return before if gone and Path(before).name == Path(data).name else ""

    def _init(self, folder: Path, network: Picked) -> str:
        """As asked; a training that is gone on with began from something, as a checkpoint does."""
        kept = in_folder(folder).newest() if self.resume else None
        before = str(kept.content["identity"]["start"]) if kept else ""
        if self.init is not None:
            refuse_removed("init", self.init)
            given = self.init if self.init == SCRATCH else located(self.init)
            return before if before and Path(before).name == Path(given).name else given
        init = before or network.init or SCRATCH
        refuse_removed("init", init)
        return init


def _refuse_twice(picked: Sequence[Picked]) -> None:
    names = [network.name for network in picked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(
            f"`networks` must have names of their own, but two are {twice}. Train them one after "
            "the other, with --out."
        )
