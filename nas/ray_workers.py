"""Workers that Ray Train runs, to train one network together.

They begin a training anew from its checkpoint if one of them is lost. What they work on lies in a
folder that all nodes must reach: checkpoints, and the error, if any. A training that was begun
without Ray goes on from its checkpoints alike.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictors.training.recipe import DivergedError
from search_spaces.io import atomic_write, one_line

if TYPE_CHECKING:
    import torch

    from predictors.training.workers import Workers

Report = Mapping[str, float]  # what Ray is told after an epoch
Work = Callable[["Workers", "torch.device"], Iterator[Report]]  # what each worker does

_RESTARTS = 3  # after a worker or its node was lost
_ERROR, _RAY = ".error", ".ray"  # in the folder
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}  # they train in a thread, whose own memory is not kept


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How many workers train one network, with how many GPUs (0: they have cores).

    `cores` are those of each worker, and so many networks are trained at a time.
    """

    workers: int = 1
    gpus: int = 0
    cores: int = 1
    networks: int = 1


@dataclass(frozen=True, kw_only=True)
class WorkerRequest:
    """The workers of one network, and their GPUs; None: one for each, where there are some."""

    workers: int = 1
    gpus: int | None = None

    def resolve(self, gpus_there: int) -> Allocation:
        """Return the workers, of whom there are more where more GPUs were asked for."""
        few = self.workers if gpus_there else 0
        gpus = few if self.gpus is None else self.gpus
        return Allocation(workers=max(self.workers, gpus), gpus=gpus)

    def check(self, gpus_there: int) -> None:
        if self.gpus and not gpus_there:
            raise ValueError(
                f"`gpus` must be 0 where there is no GPU, but got {self.gpus}. Leave it out."
            )


def allocate(request: WorkerRequest, ray: Any, *, networks: int = 1) -> Allocation:
    """Share the cores of a cluster among the workers; each is on one node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = request.resolve(int(sum(node.get("GPU", 0) for node in nodes)))
    _check_fits(wanted, nodes)
    side_by_side = min(_places(nodes, wanted) // wanted.workers, networks)
    most = max(int(node.get("CPU", 0)) for node in nodes)
    needed = side_by_side * wanted.workers
    options = [replace(wanted, cores=n, networks=side_by_side) for n in range(1, most + 1)]
    return max((o for o in options if _places(nodes, o) >= needed), key=lambda o: o.cores)


def _check_fits(wanted: Allocation, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse workers for whom these nodes have too few cores or GPUs."""
    if _places(nodes, wanted) < wanted.workers:
        cores, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
        raise RuntimeError(
            f"`workers` must find room, but {wanted.workers} of them do not: there are {cores:g} "
            f"cores and {gpus:g} GPUs. Ask for fewer."
        )


def _places(nodes: Sequence[Mapping[str, float]], wanted: Allocation) -> int:
    """How many workers of so many cores there can be."""
    by_cores = [int(node.get("CPU", 0)) // wanted.cores for node in nodes]
    if not wanted.gpus:
        return sum(by_cores)
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    return sum(map(min, by_cores, gpus))


def begin(work: Work, folder: Path, allocation: Allocation, *, ray: Any, name: str) -> Any:
    """Have the workers of one network each do it; return Ray's reference to it."""
    (folder / _ERROR).unlink(missing_ok=True)  # both are of workers that were killed
    shutil.rmtree(folder / _RAY, ignore_errors=True)
    task = ray.remote(num_cpus=0, max_retries=0)(_fit)
    return task.options(name=f"train-{name}").remote(work, folder, allocation)


def wait_for(reference: Any, folder: Path, *, ray: Any) -> str:
    """Wait for its end; return why it failed, or nothing."""
    error, written_error = "", folder / _ERROR
    try:
        ray.get(reference)
    except ray.exceptions.RayError as failure:
        error = (str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    if written_error.exists():
        error = written_error.read_text(encoding="utf-8")
        written_error.unlink()
    return error


def _fit(work: Work, folder: Path, allocation: Allocation) -> None:
    """Run Ray's trainer to its end; a task, since it blocks."""
    import ray.train
    from ray.train import FailureConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    run_config: Any = ray.train.RunConfig  # its stub has no `worker_runtime_env`
    on_gpu = allocation.gpus > 0
    resources = {"CPU": float(allocation.cores)} | ({"GPU": 1.0} if on_gpu else {})
    folder.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _loop,
        train_loop_config={"work": work, "folder": folder, "allocation": allocation},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=allocation.workers, use_gpu=on_gpu, resources_per_worker=resources
        ),
        run_config=run_config(
            name=_RAY,
            storage_path=str(folder.absolute()),
            worker_runtime_env={"env_vars": _ENVIRONMENT},
            failure_config=FailureConfig(max_failures=_RESTARTS),
        ),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(folder / _RAY, ignore_errors=True)


def _loop(config: dict[str, Any]) -> None:
    _work(**config)


def _work(work: Work, folder: Path, allocation: Allocation) -> None:
    import ray.train
    import torch

    from predictors.training.checkpoint import TrainingDivergedError
    from predictors.training.workers import Workers, loaders_of

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    workers = Workers(rank=rank, size=size, loaders=loaders_of(allocation.cores))
    place = ray.train.torch.get_device() if allocation.gpus else torch.device("cpu")
    error_file = folder / _ERROR
    if workers.sum(torch.tensor([int(error_file.exists())], device=place)):
        return  # by the attempt before
    try:
        for report in work(workers, place):
            ray.train.report(dict(report))
    except (DivergedError, TrainingDivergedError) as error:  # every worker's: again it would be so
        _write_error(error_file, error)
    except (ValueError, OSError, MemoryError) as error:
        # Where a worker was lost, its connections fail, or Ray has ended the group meanwhile.
        ended = size > 1 and not torch.distributed.is_initialized()
        if not (ended or isinstance(error, ConnectionError)):
            _write_error(error_file, error)
        if size > 1 or not error_file.exists():  # it may be this one's, for which the others wait
            raise


def _write_error(file: Path, error: Exception) -> None:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}." if error.filename else error.strerror
    else:
        text = one_line(error)
    with contextlib.suppress(OSError):  # the disk is full
        atomic_write(file, text)
