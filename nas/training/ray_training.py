"""Full trainings by Ray Train: several workers each, several networks side by side.

The checkpoints are those of `surviving.py`, in the training's own folder, which all nodes must
reach: a run that Ray restarts, or that was begun without Ray, goes on from them alike.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.cluster import joined
from nas.training.full_jobs import Job, run_job
from nas.training.full_progress import Row
from nas.training.surviving import GivenUpError
from nas.training.training_folder import read_table
from predictors.deployment.artifact import written

_RESTARTS = 3  # after a worker or its node was lost
_ERROR, _RAY = ".error", ".ray"  # in a training's folder
_POLL_S = 0.5
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}  # they train in a thread, whose own memory is not kept


@dataclass(frozen=True, kw_only=True)
class Crew:
    """How many workers train one network, and how many GPUs they have; none: they have cores."""

    workers: int = 1
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class Update:
    """What is new of a job: its epochs so far, whether it is over, and why if it failed."""

    job: Job
    rows: list[Row]
    over: bool = False
    error: str = ""


def run_with_ray(
    jobs: Sequence[Job], crew: Crew, *, address: str | None = None
) -> Iterator[Update]:
    """Train networks side by side, as many as there is room for; yield what is new.

    A job that fails does not end the others.

    Raises:
        RuntimeError: if the cluster cannot be reached, or has too little for one network.
    """
    with _quiet(), joined(address) as ray:
        cores = _cores(ray, crew, len(jobs))
        room = _room(ray, crew, cores)
        task = ray.remote(num_cpus=0, max_retries=0)(_fit)
        waiting = list(jobs)
        running: dict[Any, Job] = {}
        for job in jobs:
            (job.folder / _ERROR).unlink(missing_ok=True)
        told = {job.name: -1 for job in jobs}
        while waiting or running:
            while waiting and len(running) < room:
                job = waiting.pop(0)
                running[task.options(name=f"train-{job.name}").remote(job, crew, cores)] = job
            done, _ = ray.wait(list(running), timeout=_POLL_S)
            for reference in done:
                yield _end(ray, reference, running.pop(reference))
            yield from _news(list(running.values()), told)


def train_in_team(job: Job, device: str, cores: int) -> None:
    """What each worker of Ray Train does."""
    import ray.train
    import torch

    from nas.training.team import Team

    context = ray.train.get_context()
    team = Team(rank=context.get_world_rank(), size=context.get_world_size())
    place = ray.train.torch.get_device() if device == "cuda" else torch.device("cpu")
    said = job.folder / _ERROR
    if said.exists():  # told by the attempt before
        return
    try:
        for progress in run_job(job, device=place, team=team, loaders=cores - 1):
            if progress.row:
                ray.train.report(asdict(progress.row))
    except (ValueError, GivenUpError) as error:  # every worker's: trying again would end the same
        _tell(said, error)
    except OSError as error:  # the first worker's, for which the others wait
        if not isinstance(error, ConnectionError):  # then a worker was lost
            _tell(said, error)
        if team.size > 1 or not said.exists():
            raise


def _fit(job: Job, crew: Crew, cores: int) -> None:
    """Run a trainer to its end; a task, since trainers block."""
    import ray.train
    from ray.train import FailureConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    run_config: Any = ray.train.RunConfig  # its stub has no `worker_runtime_env`
    resources = {"CPU": float(cores)} | ({"GPU": 1.0} if crew.gpus else {})
    told = {"job": job, "cores": cores, "device": "cuda" if crew.gpus else "cpu"}
    job.folder.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _loop, train_loop_config=told,
        torch_config=TorchConfig(backend="nccl" if crew.gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=crew.workers, use_gpu=crew.gpus > 0,
                                     resources_per_worker=resources),
        run_config=run_config(name=_RAY, storage_path=str(job.folder.absolute()),
                             worker_runtime_env={"env_vars": _ENVIRONMENT},
                             failure_config=FailureConfig(max_failures=_RESTARTS)),
    )  # fmt: skip
    try:
        trainer.fit()
    finally:
        shutil.rmtree(job.folder / _RAY, ignore_errors=True)


def _loop(config: dict[str, Any]) -> None:
    train_in_team(**config)


def _tell(file: Path, error: Exception) -> None:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}." if error.filename else error.strerror
    else:
        text = " ".join(str(error).split())
    with contextlib.suppress(OSError):  # the disk is full
        written(text.encode(), file)


def _end(ray: Any, reference: Any, job: Job) -> Update:
    error, said = "", job.folder / _ERROR
    try:
        ray.get(reference)
    except ray.exceptions.RayError as failure:
        error = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    if said.exists():
        error = said.read_text(encoding="utf-8")
        said.unlink()
    return Update(job=job, rows=read_table(job.folder), over=True, error=error)


def _news(jobs: Sequence[Job], told: dict[str, int]) -> Iterator[Update]:
    for job in jobs:
        rows = read_table(job.folder)
        if len(rows) != told[job.name]:
            told[job.name] = len(rows)
            yield Update(job=job, rows=rows)


def _cores(ray: Any, crew: Crew, networks: int) -> int:
    """How many cores a worker has: the networks share all of them, where there are enough."""
    there = int(ray.cluster_resources().get("CPU", 1))
    side_by_side = min(networks, max(there // crew.workers, 1))
    return max(there // (crew.workers * side_by_side), 1)


def _room(ray: Any, crew: Crew, cores: int) -> int:
    """How many networks are trained at a time.

    Raises:
        RuntimeError: if not one can be.
    """
    there = ray.cluster_resources()
    room = int(there.get("CPU", 1)) // (cores * crew.workers)
    if crew.gpus:
        room = min(room, int(there.get("GPU", 0)) // crew.workers)
    if not room:
        has = f"{there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs"
        raise RuntimeError(f"`workers` must find room, but {crew.workers} of them do not: there "
                           f"are {has}. Ask for fewer.")  # fmt: skip
    return room


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Ray Train write no log of its own between the lines of the progress."""
    name = "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
