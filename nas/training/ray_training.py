"""Full trainings by Ray Train: several workers each, several networks side by side.

The checkpoints are those of `surviving.py`, in the training's own folder, which all nodes must
reach: a run that Ray restarts, or that was begun without Ray, goes on from them alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from nas.finetune.folder import read_table
from nas.finetune.jobs import Job, run_job
from nas.finetune.ray_workers import begin, ended
from nas.ray_pool import joined
from nas.training.crew import Asked, room_for
from nas.training.full_progress import Row

if TYPE_CHECKING:
    import torch

    from predictors.training.workers import Team

_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Update:
    """What is new of a job: its epochs so far, whether it is over, and why if it failed."""

    job: Job
    rows: list[Row]
    over: bool = False
    error: str = ""


def run_with_ray(
    jobs: Sequence[Job], asked: Asked, *, address: str | None = None
) -> Iterator[Update]:
    """Train networks side by side, as many as there is room for; yield what is new.

    Unless told, the GPUs are those of the cluster. A job that fails does not end the others.

    Raises:
        RuntimeError: if the cluster cannot be reached, or has too little for one network.
    """
    with joined(address) as ray:
        crew = asked.crew(int(ray.cluster_resources().get("GPU", 0)))
        room = room_for(crew, ray, networks=len(jobs))
        waiting = list(jobs)
        running: dict[Any, Job] = {}
        told = {job.name: -1 for job in jobs}
        while waiting or running:
            while waiting and len(running) < room.networks:
                job = waiting.pop(0)
                work = partial(_train, job, room.cores - 1)
                running[begin(work, job.folder, crew, ray=ray, cores=room.cores,
                              name=job.name)] = job  # fmt: skip
            done, _ = ray.wait(list(running), timeout=_POLL_S)
            for reference in done:
                job = running.pop(reference)
                error = ended(reference, job.folder, ray=ray)
                yield Update(job=job, rows=read_table(job.folder), over=True, error=error)
            yield from _news(list(running.values()), told)


def _train(
    job: Job, loaders: int, team: "Team", device: "torch.device"
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for progress in run_job(job, device=device, team=team, loaders=loaders):
        if progress.row:
            yield asdict(progress.row)


def _news(jobs: Sequence[Job], told: dict[str, int]) -> Iterator[Update]:
    for job in jobs:
        rows = read_table(job.folder)
        if len(rows) != told[job.name]:
            told[job.name] = len(rows)
            yield Update(job=job, rows=rows)
