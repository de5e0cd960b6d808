"""`fasternas train`: from configs, or a run's front, to trained weights."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
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
from nas.cli.measure import how_measured
from nas.cli.progress import TrainingBars, print_table

if TYPE_CHECKING:
    from nas.finetune.jobs import Job, JobUpdate, TrainingRequest
    from nas.finetune.result import TrainingResult
    from nas.finetune.trackers import Trackers
    from nas.ray_workers import Allocation, WorkerRequest


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas train` takes."""
    add = parser.add_argument
    text = "a run folder, a config or checkpoint file, or t0 to l (t0@192)"
    add("networks", metavar="NETWORK", nargs="+", help=text)
    text = "to train on: a folder, an .npz, digits (the run's)"
    add("--data", type=word, metavar="DATA", help=text)
    text = "of a run's front: best, knee, all or a number (best)"
    add("--pick", metavar="WHICH", help=text)
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
    text = "a FasterNet checkpoint to begin with (scratch)"
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
    from nas.finetune.finalize import Finalizer
    from nas.finetune.jobs import is_finished
    from nas.finetune.trackers import open_trackers

    jobs, remarks = _request(arguments).jobs()
    request, allocation = _workers(arguments)
    finalizer = Finalizer(jobs, arguments.device, on_gpu=allocation.gpus > 0)
    for remark in remarks:
        print(remark, file=sys.stderr)
    waiting = [job for job in jobs if not is_finished(job)]
    failed: dict[str, str] = {}
    with open_trackers(arguments.log) as log:
        if len(waiting) > 1 or (waiting and (allocation.workers > 1 or arguments.ray)):
            failed = _in_ray(waiting, request, arguments.ray, log)
        elif waiting:
            _here(waiting[0], allocation, log)
    trained = [job for job in jobs if job.name not in failed]
    for line in finalizer.run(trained):
        print(line, file=sys.stderr, flush=True)
    _print_results(
        [(job, result) for job in trained if (result := finalizer.results.get(job.name))],
        as_json=arguments.json,
    )
    failed |= finalizer.errors
    for name, error in failed.items():
        print(f"fasternas: error: {name}: {error}", file=sys.stderr)
    return 2 if failed else 0


def _print_results(results: "Sequence[tuple[Job, TrainingResult]]", *, as_json: bool) -> None:
    """Print the final table, and how its latencies came about."""
    from nas.finetune.finalize import tables_of
    from nas.finetune.result import final_row, final_table
    from predictors.devices.device import HOW_TO_ATTACH

    if as_json:
        rows = [{**final_row(result), "folder": str(job.folder)} for job, result in results]
        print(json.dumps(rows, indent=2))
        return
    if not results:
        return
    print_table(*final_table([result for _, result in results]))
    for _, result in results:
        found = result.evaluation
        if found.is_guess:
            print(
                f"{result.name}: as far as {found.images:,} images tell, no better than always "
                f"guessing the largest class ({found.largest_class:.2f} %).",
                file=sys.stderr,
            )
    latencies = [latency for _, result in results for latency, _ in result.on_each]
    for remark in how_measured(latencies):
        print(remark, file=sys.stderr)
    if any(latency.source == "predicted" for latency in latencies):
        print(HOW_TO_ATTACH, file=sys.stderr)
    for table, networks in tables_of([job for job, _ in results]).items():
        print(
            f"{table} holds the table, {networks} a folder for each network with its model card.",
            file=sys.stderr,
        )


def _request(arguments: argparse.Namespace) -> "TrainingRequest":
    """The settings of the file are under those of --set, and these under --epochs and --seed."""
    from nas.finetune.jobs import TrainingRequest

    named = {"epochs": arguments.epochs, "seed": arguments.seed}
    own = {name: str(value) for name, value in named.items() if value is not None}
    return TrainingRequest(
        networks=arguments.networks,
        pick=arguments.pick,
        data=arguments.data,
        init=arguments.init,
        out=Path(arguments.out) if arguments.out else None,
        recipe=Path(arguments.recipe) if arguments.recipe else None,
        settings={**dict(arguments.set), **own},
        resume=arguments.resume,
        minutes=arguments.checkpoint / 60e3,
    )


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
