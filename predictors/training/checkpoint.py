"""Checkpoints of a training: never half a file under its name; a loop that goes on from them.

The loop survives kills, cut files, a full disk, and a loss that is no number.
"""

import io
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from predictors.training.recipe import BEFORE, LAST, DivergedError, TrainingProgress
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers

_LONGEST = 300  # characters of a value in an error message


class TrainingDivergedError(RuntimeError):
    """The loss is no number, however small the learning rate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """The content of a checkpoint, and what is to be said of how it was found."""

    content: dict[str, Any]
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The last checkpoint of a training in `file` and, if that is named, the one before."""

    file: Path
    previous: Path | None = None

    def write(self, content: Mapping[str, object]) -> None:
        """Write the file beside and rename it; what it was becomes the one before."""
        saved = io.BytesIO()  # torch cannot be trusted with a full disk
        torch.save(dict(content), saved)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            with unfinished.open("wb", buffering=0) as file:
                _write(file.fileno(), saved.getbuffer(), self.file)
            if self.previous and self.file.exists():
                self.file.replace(self.previous)
            unfinished.replace(self.file)
        finally:
            unfinished.unlink(missing_ok=True)

    def newest(self) -> Loaded | None:
        """Return the newest checkpoint that can be read; None where there was none yet."""
        broken: list[Path] = []
        for file in (self.file, self.previous):
            if not file or not file.exists():  # killed between two renames: the one before is whole
                continue
            content = read_checkpoint_file(file)
            if content is not None and broken:
                remark = f"{broken[0]} cannot be read; the one before, {file.name}, is used."
                return Loaded(content=content, remark=remark)
            if content is not None:
                return Loaded(content=content)
            broken.append(file)
        if broken:
            raise ValueError(
                f"`out` must hold a checkpoint that can be read, but {broken[-1]} cannot. Remove "
                "it to begin again."
            )
        return None


def in_folder(folder: Path) -> Checkpoints:
    """Return the two checkpoints of a full training."""
    return Checkpoints(file=folder / LAST, previous=folder / BEFORE)


def read_checkpoint_file(file: Path) -> dict[str, Any] | None:
    """Return what a file holds, on the CPU, as its device may not be here; None if unreadable."""
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # unpickling raises whatever it likes
        return None
    return content


def checkpointed_loop(
    trainer: Trainer,
    checkpoints: Checkpoints,
    *,
    identity: Mapping[str, str],
    minutes: float = 10.0,
    retries: int = 0,
    epochs: int | None = None,
) -> Iterator[TrainingProgress]:
    """Train on from the newest checkpoint, if there is one, to the end; yield after each step.

    A checkpoint is written after each epoch, and when `minutes` are over. Where the loss is no
    number it goes back to the newest one with half the learning rate, so many `retries`. `identity`
    says, in words, what is trained. The first of several workers writes, and the others read the
    same files. `epochs` ends it before the recipe does.
    """
    loop = _Loop(trainer, checkpoints, dict(identity), 60 * minutes, retries)
    yield from loop.begin()
    while trainer.epochs_done < (epochs or trainer.recipe.epochs):
        try:
            yield from loop.run_epoch()
        except DivergedError as error:
            yield loop.go_back(error)


@dataclass(frozen=True)
class _Loop:
    trainer: Trainer
    checkpoints: Checkpoints
    identity: dict[str, str]
    seconds: float
    retries: int

    def begin(self) -> Iterator[TrainingProgress]:
        """Go on from the newest checkpoint, or write the first."""
        newest = self.checkpoints.newest()
        self.trainer.workers.barrier()
        if newest:
            self._refuse_another(newest.content["identity"])
            self.trainer.load_state(newest.content)
        check_agreed(self.trainer.workers, self.trainer.steps_done, self.trainer.device)
        if newest:
            yield self.trainer.progress(remark=newest.remark)
        elif self.retries:
            self._save()

    def run_epoch(self) -> Iterator[TrainingProgress]:
        last = time.monotonic()
        for progress in self.trainer.run_epoch():
            if progress.row or time.monotonic() - last > self.seconds:
                self._save()
                last = time.monotonic()
            yield progress

    def go_back(self, error: DivergedError) -> TrainingProgress:
        """Go back to the newest checkpoint with half the learning rate, and save that at once."""
        trainer = self.trainer
        scale = trainer.lr_scale / 2
        if scale < 0.5**self.retries:
            raise TrainingDivergedError(f"{error} {self._advice()}") from error
        trainer.workers.barrier()
        newest = self.checkpoints.newest()
        if newest is None:
            where = self.checkpoints.file.parent
            raise TrainingDivergedError(f"{error} {where} has no checkpoint any more.") from error
        trainer.load_state(newest.content)
        trainer.lr_scale = scale  # several attempts may begin with one checkpoint
        trainer.workers.barrier()
        self._save()
        now = trainer.progress()
        back = f"Back to epoch {now.epoch}, step {now.step}, with {scale:g} of the learning rate."
        return trainer.progress(remark=f"{error} {back}")

    def _advice(self) -> str:
        if not self.retries:
            return "Use a smaller learning rate."
        return (
            "With half and with a quarter of the learning rate of "
            f"{self.trainer.recipe.lr:g} it was the same. Use a smaller `lr`, or clip gradients "
            "with grad_clip=1."
        )

    def _save(self) -> None:
        """Let the first worker write."""
        if self.trainer.workers.is_rank_zero:
            self.checkpoints.write({"identity": self.identity, **self.trainer.state()})

    def _refuse_another(self, before: Mapping[str, str]) -> None:
        for name, value in self.identity.items():
            if before.get(name, value) != value:
                raise ValueError(
                    f"`out` must hold this training, but the one in {self.checkpoints.file.parent} "
                    f"has the {name} {_cut(before[name])}, not {_cut(value)}. Name another folder."
                )


def check_agreed(workers: Workers, steps_done: int, device: torch.device) -> None:
    """Refuse workers that have found different checkpoints."""
    ours = torch.tensor([steps_done, steps_done**2], device=device)
    total, squares = workers.sum(ours).tolist()
    if total**2 != workers.size * squares:  # Cauchy-Schwarz: alike where all are
        raise ValueError(
            "`out` must be a folder that all nodes share, but not all find the same checkpoint in "
            "it. Name one on a shared disk."
        )


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}..."


def _write(descriptor: int, content: memoryview, path: Path) -> None:
    try:
        rest = content
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)  # else a power cut leaves an empty file under the new name
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
