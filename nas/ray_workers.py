"""Workers that Ray Train runs, to train one network together; supernets by them.

They begin a training anew from its checkpoint if one of them is lost. What they work on lies in a
folder that all nodes must reach: checkpoints, and the error, if any. A training that was begun
without Ray goes on from its checkpoints alike.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.ray_pool import joined
from predictors.training.recipe import DivergedError
from search_spaces.io import atomic_write, one_line

if TYPE_CHECKING:
    import torch

    from predictors.training.estimators import SupernetProgress, SupernetTraining
    from predictors.training.workers import Workers

Report = Mapping[str, float]  # what Ray is told after an epoch
Work = Callable[["Workers", "torch.device"], Iterator[Report]]  # what each worker does

_RESTARTS = 3  # after a worker or its node was lost
_ERROR, _RAY = ".error", ".ray"  # in the folder
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}  # they train in a thread, whose own memory is not kept
POLL_S = 0.5


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
    """The workers and GPUs of one network; None: as many as there are GPUs, or one worker."""

    workers: int | None = None
    gpus: int | None = None

    def resolve(self, gpus_there: int) -> Allocation:
        """Return the workers, with a GPU for each, where there are so many GPUs."""
        few = self.workers or gpus_there if gpus_there else 0
        gpus = few if self.gpus is None else self.gpus
        return Allocation(workers=max(self.workers or 1, gpus), gpus=gpus)

    def check(self, gpus_there: int) -> None:
        if self.gpus and not gpus_there:
            raise ValueError(
                f"`gpus` must be 0 where there is no GPU, but got {self.gpus}. Leave it out."
            )

    def refuse(self, where: str) -> None:
        for name, value in vars(self).items():
            if value is not None:
                raise ValueError(
                    f"`{name}` must be left out where {where}, but got {value}. They train a "
                    "supernet: --accuracy supernet."
                )


def allocate(request: WorkerRequest, ray: Any, *, networks: int = 1) -> Allocation:
    """Share the cores of a cluster among the workers; each is on one node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = request.resolve(int(sum(node.get("GPU", 0) for node in nodes)))
    check_fits(wanted, nodes)
    side_by_side = min(_places(nodes, wanted) // wanted.workers, networks)
    most = max(int(node.get("CPU", 0)) for node in nodes)
    needed = side_by_side * wanted.workers
    options = [replace(wanted, cores=n, networks=side_by_side) for n in range(1, most + 1)]
    return max((o for o in options if _places(nodes, o) >= needed), key=lambda o: o.cores)


def check_fits(wanted: Allocation, nodes: Sequence[Mapping[str, float]]) -> None:
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


def train_supernet(
    training: "SupernetTraining", request: WorkerRequest, *, address: str | None = None
) -> "Iterator[SupernetProgress]":
    """Train a supernet with the workers that were asked for; yield what is new.

    One worker without a cluster at `address` is this process. The weights of several are those of
    one up to rounding, and any number of workers goes on with what another number has begun.
    """
    import torch

    clear(training.file.parent)
    if address is None:
        here = request.resolve(torch.cuda.device_count())
        if here.workers == 1:
            yield from training.run(device=torch.device("cuda" if here.gpus else "cpu"))
            return
    if _supernet_progress(training).done < training.total:
        with joined(address) as ray:
            allocation, folder = allocate(request, ray), training.file.parent
            work = partial(_train_supernet, training)
            reference = begin(work, folder, allocation, ray=ray, name="supernet")
            yield from _watched(reference, training, ray)


def _train_supernet(
    training: "SupernetTraining", workers: "Workers", device: "torch.device"
) -> Iterator[Report]:
    for progress in training.run(device=device, workers=workers):
        yield asdict(progress)


def _watched(
    reference: Any, training: "SupernetTraining", ray: Any
) -> "Iterator[SupernetProgress]":
    """Look at the file that the first worker writes, until they have ended."""
    seen_ns, last, over = _changed_ns(training.file), _supernet_progress(training), False
    while not over:
        over = bool(ray.wait([reference], timeout=POLL_S)[0])
        changed_ns = _changed_ns(training.file)
        if changed_ns == seen_ns and not over:  # at the end it is read: network disks are late
            continue
        seen_ns, now = changed_ns, _supernet_progress(training)
        if now.done > last.done:
            last = now
            yield last
    error = wait_for(reference, training.file.parent, ray=ray)
    if error:
        raise RuntimeError(error)
    if last.done < last.total:
        raise RuntimeError(
            f"`out` must be a folder that all nodes share, but {training.file.parent} has no "
            f"{training.file.name} of the workers. Name one on a shared disk."
        )


def _changed_ns(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _supernet_progress(training: "SupernetTraining") -> "SupernetProgress":
    """How far a supernet is, without its weights."""
    from predictors.training.checkpoint import read_checkpoint_file
    from predictors.training.estimators import SupernetProgress

    content = read_checkpoint_file(training.file, mmap=True) or {"epochs_done": 0, "rows": []}
    accuracy = content["rows"][-1]["accuracy"] if content["rows"] else 0.0
    return SupernetProgress(done=content["epochs_done"], total=training.total, accuracy=accuracy)


def begin(work: Work, folder: Path, allocation: Allocation, *, ray: Any, name: str) -> Any:
    """Have the workers of one network each do it; return Ray's reference to it."""
    clear(folder)
    task = ray.remote(num_cpus=0, max_retries=0)(_fit)
    return task.options(name=f"train-{name}").remote(work, folder, allocation)


def clear(folder: Path) -> None:
    """Remove what workers that were killed have left in the folder beside its checkpoints."""
    (folder / _ERROR).unlink(missing_ok=True)
    shutil.rmtree(folder / _RAY, ignore_errors=True)


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
    from predictors.training.workers import Workers

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    workers = Workers(rank=rank, size=size, loaders=allocation.cores - 1)
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
        if not isinstance(error, ConnectionError):  # then a worker was lost
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
