"""One training by the workers of Ray Train, which begin it anew from its checkpoint if one is lost.

What they work on lies in a folder that all nodes must reach: checkpoints, and the error, if any.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.training.crew import Crew
from search_spaces.io import atomic_write, one_line

if TYPE_CHECKING:
    import torch

    from predictors.training.workers import Team

    # What each worker does; it yields what Ray is to be told after an epoch.
    Work = Callable[[Team, torch.device], Iterator[Mapping[str, Any]]]

_RESTARTS = 3  # after a worker or its node was lost
_ERROR, _RAY = ".error", ".ray"  # in the folder
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}  # they train in a thread, whose own memory is not kept


def begin(
    work: "Work", folder: Path, crew: Crew, *, ray: Any, cores: int, name: str
) -> Any:  # fmt: skip
    """Have a crew of so many cores each do it; return Ray's reference to it."""
    clear(folder)
    task = ray.remote(num_cpus=0, max_retries=0)(_fit)
    return task.options(name=f"train-{name}").remote(work, folder, crew, cores)


def clear(folder: Path) -> None:
    """Remove what a team that was killed has left in the folder beside its checkpoints."""
    (folder / _ERROR).unlink(missing_ok=True)
    shutil.rmtree(folder / _RAY, ignore_errors=True)


def ended(reference: Any, folder: Path, *, ray: Any) -> str:
    """Wait for its end; return why it failed, or nothing."""
    error, said = "", folder / _ERROR
    try:
        ray.get(reference)
    except ray.exceptions.RayError as failure:
        error = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    if said.exists():
        error = said.read_text(encoding="utf-8")
        said.unlink()
    return error


def _fit(work: "Work", folder: Path, crew: Crew, cores: int) -> None:
    """Run a trainer to its end; a task, since trainers block."""
    import ray.train
    from ray.train import FailureConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    run_config: Any = ray.train.RunConfig  # its stub has no `worker_runtime_env`
    resources = {"CPU": float(cores)} | ({"GPU": 1.0} if crew.gpus else {})
    told = {"work": work, "folder": folder, "on_gpu": crew.gpus > 0}
    folder.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _loop, train_loop_config=told,
        torch_config=TorchConfig(backend="nccl" if crew.gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=crew.workers, use_gpu=crew.gpus > 0,
                                     resources_per_worker=resources),
        run_config=run_config(name=_RAY, storage_path=str(folder.absolute()),
                             worker_runtime_env={"env_vars": _ENVIRONMENT},
                             failure_config=FailureConfig(max_failures=_RESTARTS)),
    )  # fmt: skip
    try:
        trainer.fit()
    finally:
        shutil.rmtree(folder / _RAY, ignore_errors=True)


def _loop(config: dict[str, Any]) -> None:
    _work_in_team(**config)


def _work_in_team(work: "Work", folder: Path, *, on_gpu: bool) -> None:
    """What each worker of Ray Train does."""
    import ray.train
    import torch

    from nas.training.surviving import GivenUpError
    from predictors.training.trainer import DivergedError
    from predictors.training.workers import Team

    context = ray.train.get_context()
    team = Team(rank=context.get_world_rank(), size=context.get_world_size())
    place = ray.train.torch.get_device() if on_gpu else torch.device("cpu")
    said = folder / _ERROR
    if team.summed(torch.tensor([int(said.exists())], device=place)):
        return  # told by the attempt before
    try:
        for news in work(team, place):
            ray.train.report(dict(news))
    except (DivergedError, GivenUpError) as error:  # every worker's: trying again would end alike
        _tell(said, error)
    except (ValueError, OSError, MemoryError) as error:
        if not isinstance(error, ConnectionError):  # then a worker was lost
            _tell(said, error)
        if team.size > 1 or not said.exists():  # it may be this one's, for which the others wait
            raise


def _tell(file: Path, error: Exception) -> None:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}." if error.filename else error.strerror
    else:
        text = one_line(error)
    with contextlib.suppress(OSError):  # the disk is full
        atomic_write(file, text)
