"""The accuracy estimator that trains each network shortly."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from predictors.accuracy import AccuracyKind
from predictors.backends.model import config_identity
from predictors.data.datasets import ImageData, load_data
from predictors.training.checkpoint import (
    Checkpoints,
    checkpointed_loop,
    read_checkpoint_file,
)
from predictors.training.recipe import Recipe
from predictors.training.trainer import Trainer
from predictors.training.workers import usable_device
from search_spaces.checkpoint import Checkpoint, begin_with
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import atomic_write
from search_spaces.network import build

SMALL_BATCHES = "images_at_once"  # a file that is there if memory was short


@dataclass(frozen=True, kw_only=True)
class TrainingEstimator:
    """The accuracy in percent on the validation split, after so many epochs of a recipe.

    After each epoch there is a checkpoint in `folder`: asked for more epochs, or again after it was
    killed, it goes on. The learning rate is that of the whole recipe, not of the epochs asked for.
    """

    data: str  # as `load_data` takes it
    recipe: Recipe
    epochs: int
    folder: Path
    init: str = ""  # a file with whose weights, as far as they fit, each network begins
    seeds: tuple[int, ...] = ()  # other ones, by which trainings in the folder may have begun
    kind: AccuracyKind = "trained"

    def __post_init__(self) -> None:
        if not 0 < self.epochs <= self.recipe.epochs:
            raise ValueError(
                f"`epochs` must be from 1 to the {self.recipe.epochs} of the recipe, but got "
                f"{self.epochs}."
            )

    def to(self, epochs: int) -> "TrainingEstimator":
        """Return the estimator that trains for so many epochs."""
        return replace(self, epochs=epochs)

    def __call__(self, config: FasterNetConfig) -> float:
        """Train as far as asked and return the accuracy."""
        begun = self._as_begun(config)
        trainer = begun._trainer(config)
        for _ in begun._trained(trainer, config):
            pass
        return trainer.rows[self.epochs - 1].accuracy

    def train(self, config: FasterNetConfig) -> Iterator[float]:
        """Train as far as asked; yield the accuracy after each epoch, which `file` holds then."""
        begun = self._as_begun(config)
        yield from begun._trained(begun._trainer(config), config)

    def file(self, config: FasterNetConfig) -> Path:
        """Return the file of a network's checkpoint."""
        return self._as_begun(config)._checkpoints(config).file

    def _as_begun(self, config: FasterNetConfig) -> "TrainingEstimator":
        """The estimator with the seed by which the network's training has begun, if it has."""
        each = [self, *(replace(self, recipe=replace(self.recipe, seed=s)) for s in self.seeds)]
        begun = (one for one in each if one._checkpoints(config).file.exists())
        return next(begun, self)

    def _trained(self, trainer: Trainer, config: FasterNetConfig) -> Iterator[float]:
        checkpoints, identity = self._checkpoints(config), self._identity(config)
        if read_checkpoint_file(checkpoints.file) is None:
            checkpoints.file.unlink(missing_ok=True)
        steps = checkpointed_loop(trainer, checkpoints, identity=identity, epochs=self.epochs)
        yield from (step.row.accuracy for step in steps if step.row)
        if trainer.micro_batches > 1:
            micro_batch = max(self.recipe.batch_size // trainer.micro_batches, 1)
            atomic_write(self.folder / SMALL_BATCHES, f"{micro_batch}\n")

    def checkpoint(self, config: FasterNetConfig) -> Checkpoint:
        """Return the weights that were evaluated last, as far as the network was trained."""
        content = read_checkpoint_file(self.file(config))
        if content is None:
            raise RuntimeError(
                f"`folder` must hold the network's training, but {self.folder} does not. It may be "
                "on the machine that trained it."
            )
        return Checkpoint(config=config, weights=content["evaluated"])

    def _trainer(self, config: FasterNetConfig) -> Trainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            network = build(config)
        if self.init:
            begin_with(network, self.init, least_share=0.0)
        data = loaded(self.data, config.resolution)
        return Trainer(network, data, self.recipe, device=usable_device("auto"))

    def _checkpoints(self, config: FasterNetConfig) -> Checkpoints:
        name = hashlib.sha256(" ".join(self._identity(config).values()).encode()).hexdigest()[:16]
        return Checkpoints(file=self.folder / f"{name}.pt")

    def _identity(self, config: FasterNetConfig) -> dict[str, str]:
        data = Path(self.data).name  # which stays where a run is moved
        of_all = {"config": config_identity(config), "recipe": str(self.recipe), "data": data}
        return {**of_all, "init": self.init} if self.init else of_all


@lru_cache(maxsize=4)  # as many as a space has sides
def loaded(name: str, resolution: int) -> ImageData:
    """Return the data at a resolution, once in a process."""
    return load_data(name, resolution=resolution)
