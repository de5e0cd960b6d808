"""The supernet of a study, trained in this process, or by the workers of Ray Train.

They share the run folder with it: the first of them keeps the supernet there after each epoch.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.finetune.ray_workers import begin, clear, ended
from nas.ray_pool import joined
from nas.study.options import SearchOptions
from nas.supernets import FILE, Sandwich, Trained, epochs_for, train_supernet
from nas.training.crew import Asked, room_for

if TYPE_CHECKING:
    import torch

    from predictors.training.workers import Team

_POLL_S = 0.5


def supernet_trained(
    folder: Path, options: SearchOptions, sandwich: Sandwich, asked: Asked, *,
    address: str | None = None,
) -> Iterator[Trained]:  # fmt: skip
    """Train the supernet of a run folder with the workers that were asked for; yield what is new.

    One worker without a cluster at `address` is this process. The weights of several are those of
    one up to rounding, and any number of workers goes on with what another number has begun.

    Raises:
        RuntimeError: if the loss is no number, or there is no cluster, or no room in it.
        OSError: if the supernet cannot be kept.
    """
    import torch

    clear(folder)
    if address is None:
        crew = asked.crew(torch.cuda.device_count())
        if crew.workers == 1:
            device = torch.device("cuda" if crew.gpus else "cpu")
            yield from train_supernet(folder, options, sandwich, device=device)
            return
    total = epochs_for(sandwich, options.epochs)
    if _kept(folder, total).done < total:
        yield from _in_cluster(folder, options, sandwich, asked, address)


def _in_cluster(
    folder: Path, options: SearchOptions, sandwich: Sandwich, asked: Asked, address: str | None
) -> Iterator[Trained]:  # fmt: skip
    work = partial(_train, folder.absolute(), _located(options), sandwich)
    with joined(address) as ray:
        crew = asked.crew(int(ray.cluster_resources().get("GPU", 0)))
        cores = room_for(crew, ray).cores
        reference = begin(work, folder.absolute(), crew, ray=ray, cores=cores, name="supernet")
        yield from _watched(reference, folder, epochs_for(sandwich, options.epochs), ray)


def _watched(reference: Any, folder: Path, total: int, ray: Any) -> Iterator[Trained]:
    """Look at the file that the first worker keeps, until they have ended."""
    seen, at, over = _changed_ns(folder), _kept(folder, total), False
    while not over:
        over = bool(ray.wait([reference], timeout=_POLL_S)[0])
        changed = _changed_ns(folder)
        if changed == seen and not over:  # in the end it is read: network disks tell times late
            continue
        seen, now = changed, _kept(folder, total)
        if now.done > at.done:
            at = now
            yield at
    error = ended(reference, folder, ray=ray)
    if error:
        raise RuntimeError(error)
    if at.done < total:
        raise RuntimeError(f"`out` must be a folder that all nodes share, but {folder} has no "
                           f"{FILE} of the workers. Name one on a shared disk.")  # fmt: skip


def _train(
    folder: Path, options: SearchOptions, sandwich: Sandwich, team: "Team", device: "torch.device"
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for at in train_supernet(folder, options, sandwich, team=team, device=device):
        yield asdict(at)


def _changed_ns(folder: Path) -> int:
    return (folder / FILE).stat().st_mtime_ns if (folder / FILE).exists() else 0


def _kept(folder: Path, total: int) -> Trained:
    """How far the supernet in a folder is, without its weights."""
    import torch

    if not (folder / FILE).exists():
        return Trained(done=0, total=total, accuracy=0.0)
    kept = torch.load(folder / FILE, map_location="cpu", weights_only=True, mmap=True)
    return Trained(done=kept["done"], total=total, accuracy=kept.get("accuracy", 0.0))


def _located(options: SearchOptions) -> SearchOptions:
    """The options with paths that other processes find."""
    from predictors.data.datasets import located

    weights = options.weights and located(options.weights)
    return replace(options, data=located(options.data), weights=weights)
