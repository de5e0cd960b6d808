"""A training that survives: kills, cut files, a full disk, and a loss that is no number."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from nas.training.full_progress import Progress
from nas.training.full_training import FullTraining
from predictors.training.checkpoint import Kept, keep, newest
from predictors.training.trainer import DivergedError

_LONGEST = 300  # characters of a value in an error message
_SLOWEST = 1 / 4  # of the learning rate, with which a training is tried


class GivenUpError(RuntimeError):
    """The loss is no number, however small the learning rate."""


def surviving(
    training: FullTraining, folder: Path, *, identity: Mapping[str, str], minutes: float
) -> Iterator[Progress]:
    """Train on from the folder's checkpoint, if there is one, to the end; yield after each step.

    A checkpoint is kept after each epoch, and when `minutes` are over. Where the loss is no number
    it goes back to the last one with half the learning rate, twice. `identity` says, in words, what
    is trained; in a team the first worker writes, and the others read the same folder.

    Raises:
        ValueError: if the checkpoints are of another training, or none can be read.
        GivenUpError: if the loss is no number with a quarter of the learning rate either.
        OSError: if a checkpoint cannot be written; those of before are then as they were.
    """
    kept = newest(folder)
    training.team.wait()
    if kept:
        _refuse_another(kept, identity, folder)
        training.load_state(kept.content["training"])
        yield training.here(remark=kept.remark)
    else:
        _keep(training, folder, identity)
    while not training.finished:
        try:
            yield from _kept(training, folder, identity, 60 * minutes)
        except DivergedError as error:
            yield _back(training, folder, identity, error)


def _kept(
    training: FullTraining, folder: Path, identity: Mapping[str, str], seconds: float
) -> Iterator[Progress]:
    last = time.monotonic()
    for progress in training.run():
        if progress.row or time.monotonic() - last > seconds:
            _keep(training, folder, identity)
            last = time.monotonic()
        yield progress


def _back(
    training: FullTraining, folder: Path, identity: Mapping[str, str], error: DivergedError
) -> Progress:
    """Go back to the last checkpoint with half the rate, and keep that at once."""
    scale = training.rate_scale / 2
    if scale < _SLOWEST:
        raise GivenUpError(f"{error} With half and with a quarter of the learning rate of "
                           f"{training.recipe.rate:g} it was the same. Use a smaller `rate`, or "
                           "clip gradients with clip=1.") from error  # fmt: skip
    training.team.wait()
    kept = newest(folder)
    if kept is None:
        raise GivenUpError(f"{error} {folder} has no checkpoint any more.") from error
    training.load_state(kept.content["training"])
    training.rate_scale = scale * 2  # several attempts may begin with one checkpoint
    training.slow_down()
    training.team.wait()
    _keep(training, folder, identity)
    here = training.here()
    return training.here(remark=f"{error} Back to epoch {here.epoch}, step {here.step}, with "
                                f"{scale:g} of the learning rate.")  # fmt: skip


def _keep(training: FullTraining, folder: Path, identity: Mapping[str, str]) -> None:
    """Let the first worker write."""
    if training.team.leads:
        keep(folder, {"identity": dict(identity), "training": training.state()})


def _refuse_another(kept: Kept, identity: Mapping[str, str], folder: Path) -> None:
    before = kept.content["identity"]
    for name, value in identity.items():
        if before.get(name, value) != value:
            raise ValueError(f"`out` must hold this training, but the one in {folder} has the "
                             f"{name} {_cut(before[name])}, not {_cut(value)}. Name another "
                             "folder.")  # fmt: skip


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}..."
