"""`fasternas train`: from configs, or a run's front, to trained weights."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import (
    add_json,
    device,
    duration_ms,
    positive,
    ray_address,
    whole,
    word,
    words,
)
from nas.cli.progress import TrainingBars
from nas.training.picking import Picked, find_networks, remark_on
from predictors.training.recipe import read_overrides, read_recipe, recipe_with

if TYPE_CHECKING:
    from nas.finetune.jobs import Job, JobUpdate
    from nas.finetune.trackers import Trackers
    from nas.ray_workers import Allocation, WorkerRequest
    from predictors.data.datasets import ImageData


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas train` takes."""
    add = parser.add_argument
    text = "a run folder, a config file, or t0 to l (t0@192)"
    add("networks", metavar="NETWORK", nargs="+", help=text)
    text = "to train on: a folder, an .npz, digits (the run's)"
    add("--data", type=word, metavar="DATA", help=text)
    text = "of a run's front: best, knee, all or a number (best)"
    add("--pick", default="best", metavar="WHICH", help=text)
    _add_recipe(parser)
    text = "where each network has its folder (RUN/trained)"
    add("--out", type=word, metavar="DIR", help=text)
    text = "that times them at the end (the run's, or cpu); or none"
    add("--device", type=device, metavar="NAME", help=text)
    text = "mlflow, wandb: tell these of each epoch too"
    add("--log", type=words, default=(), metavar="WHERE", help=text)
    add("--resume", action="store_true", help="go on with trainings in the folder")
    add("--ray", type=ray_address, metavar="HOST:PORT", help="a running Ray cluster, or auto")
    add_json(parser)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add how each network is trained, and by how many processes."""
    add = parser.add_argument
    add("--epochs", type=positive, metavar="N", help="of each training (300)")
    add("--seed", type=whole, metavar="N", help="same seed, same weights (0)")
    add("--recipe", type=word, metavar="FILE", help="YAML with settings to change")
    text = "change a setting of recipe.yaml; may be repeated"
    add("--set", type=_setting, metavar="NAME=VALUE", action="append", default=[], help=text)
    text = "supernet (the run's) or a FasterNet checkpoint (scratch)"
    add("--init", type=word, metavar="WEIGHTS", help=text)
    text = "processes that train one network together (1)"
    add("--workers", type=positive, default=1, metavar="N", help=text)
    add("--gpus", type=whole, metavar="N", help="GPUs for one network (1 if there is one)")
    text = "the longest time between checkpoints (10min)"
    add("--checkpoint", type=duration_ms, default=600e3, metavar="TIME", help=text)


def _setting(text: str) -> tuple[str, str]:
    """Read batch_size=64."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, but got {text!r}.")
    return name.strip(), value


def run_train(arguments: argparse.Namespace) -> int:
    """`fasternas train`: train each network to its end, and say what came of it."""
    from nas.cli.final import Finish
    from nas.finetune.jobs import is_finished
    from nas.finetune.trackers import open_trackers

    jobs, remarks = _jobs(arguments)
    request, allocation = _workers(arguments)
    finish = Finish(jobs, arguments.device, on_gpu=allocation.gpus > 0)
    for remark in remarks:
        print(remark, file=sys.stderr)
    waiting = [job for job in jobs if not is_finished(job)]
    failed: dict[str, str] = {}
    with open_trackers(arguments.log) as log:
        if len(waiting) > 1 or (waiting and (allocation.workers > 1 or arguments.ray)):
            failed = _in_ray(waiting, request, arguments.ray, log)
        elif waiting:
            _here(waiting[0], allocation, log)
    failed |= finish.run([job for job in jobs if job.name not in failed], as_json=arguments.json)
    for name, error in failed.items():
        print(f"fasternas: error: {name}: {error}", file=sys.stderr)
    return 2 if failed else 0


def _jobs(arguments: argparse.Namespace) -> "tuple[list[Job], list[str]]":
    """What is to be trained, as asked, and what the data have to say; all is checked here."""
    from nas.finetune.folder import has_training
    from nas.finetune.jobs import check_job
    from predictors.training.short_training import loaded

    found = [find_networks(name, arguments.pick) for name in arguments.networks]
    picked = [network for networks in found for network in networks]
    _refuse_twice(picked)
    lines = [remark_on(name, networks, arguments.pick)
             for name, networks in zip(arguments.networks, found, strict=True)]  # fmt: skip
    remarks = dict.fromkeys(line for line in lines if line)
    jobs = []
    for network in picked:
        name = _data_of(arguments, network)
        data = loaded(name, network.config.resolution)
        job = _job(arguments, network, name, data)
        check_job(job, data)
        if has_training(job.folder) and not arguments.resume:
            raise ValueError(f"`out` must be a new folder, but {job.folder} holds a training. Go "
                             "on with --resume or name another folder.")  # fmt: skip
        remarks.update(dict.fromkeys(data.remarks))
        jobs.append(job)
    return jobs, list(remarks)


def _job(arguments: argparse.Namespace, network: Picked, name: str, data: "ImageData") -> "Job":
    from nas.finetune.folder import RECIPE
    from nas.finetune.jobs import Job
    from predictors.data.datasets import located
    from predictors.training.recipe import recipe_for

    config = network.config
    if network.any_classes:
        config = replace(config, classes=len(data.classes))
    folder = (_out(arguments, network) / network.name).absolute()
    told = _overrides(arguments)
    if arguments.resume and (folder / RECIPE).exists():
        recipe = read_recipe(folder / RECIPE)
    else:
        whole = {name: int(told[name]) for name in ("epochs", "batch_size")
                 if told.get(name, "").isdecimal() and int(told[name])}  # fmt: skip
        recipe = recipe_for(config, len(data.train), **whole)
    return Job(name=network.name, config=config, recipe=recipe_with(recipe, told),
               data=located(name), folder=folder, init=_init(arguments, folder),
               run=network.run and network.run.absolute(),
               minutes=arguments.checkpoint / 60e3)  # fmt: skip


def _overrides(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings of the file, over these those of --set, over these --epochs and --seed."""
    told = read_overrides(Path(arguments.recipe)) if arguments.recipe else {}
    told |= dict(arguments.set)
    named = {"epochs": arguments.epochs, "seed": arguments.seed}
    told |= {name: str(value) for name, value in named.items() if value is not None}
    if "teacher_weights" in told:  # workers are in other folders
        from predictors.data.datasets import located

        told["teacher_weights"] = located(told["teacher_weights"])
    return told


def _data_of(arguments: argparse.Namespace, network: Picked) -> str:
    """As told; a run that trained its networks had data."""
    from nas.study.store import read_run

    name = arguments.data or (network.run and read_run(network.run)["options"].get("data"))
    if not name:
        raise ValueError("`data` must be given, but is not. Name a folder of images: --data DIR.")
    return str(name)


def _out(arguments: argparse.Namespace, network: Picked) -> Path:
    if arguments.out:
        return Path(arguments.out)
    from nas.finetune.folder import TRAINED

    return network.run / TRAINED if network.run else Path(TRAINED)


def _init(arguments: argparse.Namespace, folder: Path) -> str:
    """As told; a training that is gone on with began from something."""
    from nas.finetune.jobs import SCRATCH, SUPERNET
    from predictors.data.datasets import located
    from predictors.training.checkpoint import in_folder

    told: str | None = arguments.init
    if told is None:
        kept = in_folder(folder).newest() if arguments.resume else None
        return str(kept.content["identity"]["start"]) if kept else SCRATCH
    return told if told in (SCRATCH, SUPERNET) else located(told)


def _refuse_twice(picked: Sequence[Picked]) -> None:
    names = [network.name for network in picked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"`networks` must have names of their own, but two are {twice}. Train "
                         "them one after the other, with --out.")  # fmt: skip


def _workers(arguments: argparse.Namespace) -> "tuple[WorkerRequest, Allocation]":
    """What was asked for, and what that is here: one GPU for each worker, if there is one."""
    import torch

    from nas.ray_workers import WorkerRequest

    there = torch.cuda.device_count()
    request = WorkerRequest(workers=arguments.workers, gpus=arguments.gpus)
    if not arguments.ray:
        request.check(there)
    return request, request.resolve(there)


def _here(job: "Job", allocation: "Allocation", log: "Trackers") -> None:
    """Train in this process, which needs no Ray."""
    from nas.finetune.folder import read_table
    from nas.finetune.jobs import run_job
    from predictors.training.workers import usable_device

    steps = run_job(job, device=usable_device("cuda" if allocation.gpus else "cpu"))
    with TrainingBars() as bars:
        for progress in steps:
            if progress.remark:
                bars.say(f"{job.name}: {progress.remark}")
            done = (progress.epoch - 1) * progress.steps + progress.step
            bars.move(job, done, job.recipe.epochs * progress.steps, progress.row)
            bars.say(*log.tell(job, read_table(job.folder) if progress.row else []))


def _in_ray(
    jobs: "Sequence[Job]", request: "WorkerRequest", address: str | None, log: "Trackers"
) -> dict[str, str]:
    """Train side by side; return the errors of those that failed."""
    from nas.finetune.jobs import run_with_ray

    failed: dict[str, str] = {}
    updates: Iterable[JobUpdate] = run_with_ray(jobs, request, address=address)
    with TrainingBars() as bars:
        for update in updates:
            if update.error:
                failed[update.job.name] = update.error
            last = update.rows[-1] if update.rows else None
            bars.move(update.job, len(update.rows), update.job.recipe.epochs, last)
            bars.say(*log.tell(update.job, update.rows))
    return failed
