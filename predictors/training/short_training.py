"""Accuracy by a short training, which goes on from where it stopped when more is asked of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictors.accuracy import AccuracyKind
from predictors.backends.model import config_identity
from predictors.data.datasets import ImageData, load_data
from predictors.training.recipe import Recipe
from search_spaces.fasternet import FasterNetConfig

SMALL_BATCHES = "images_at_once"  # a file that is there if memory was short

if TYPE_CHECKING:
    from predictors.training.trainer import Training
    from search_spaces.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainingEstimator:
    """The accuracy in percent on the validation split, after so many epochs of a recipe.

    After each epoch the training is kept in `folder`: asked for more epochs, or again after it was
    killed, it goes on. The learning rate is that of the whole recipe, not of the epochs asked for.

    Raises:
        ValueError: if more epochs are asked for than the recipe has.
    """

    data: str  # as `load_data` takes it
    recipe: Recipe
    epochs: int
    folder: Path
    kind: AccuracyKind = "trained"

    def __post_init__(self) -> None:
        if not 0 < self.epochs <= self.recipe.epochs:
            raise ValueError(f"`epochs` must be from 1 to the {self.recipe.epochs} of the recipe, "
                             f"but got {self.epochs}.")  # fmt: skip

    def to(self, epochs: int) -> "TrainingEstimator":
        """Return the estimator that trains for so many epochs."""
        return replace(self, epochs=epochs)

    def __call__(self, config: FasterNetConfig) -> float:
        """Train as far as asked and return the accuracy.

        Raises:
            RuntimeError: if the loss is no number any more.
            OSError: if the training cannot be kept.
        """
        training, accuracies = self._begun(config)
        while len(accuracies) < self.epochs:
            accuracies.append(training.run_epoch().accuracy)
            self._keep(config, training, accuracies)
        return accuracies[self.epochs - 1]

    def checkpoint(self, config: FasterNetConfig) -> "Checkpoint":
        """Return the network's weights as far as it was trained, those whose accuracy was told.

        Raises:
            RuntimeError: if its training is not kept here.
        """
        from search_spaces.checkpoint import Checkpoint

        kept = self._kept(config)
        if kept is None:
            raise RuntimeError(f"`folder` must hold the network's training, but {self.folder} does "
                               "not. It may be on the machine that trained it.")  # fmt: skip
        return Checkpoint(config=config, weights=kept["state"]["judged"])

    def _begun(self, config: FasterNetConfig) -> "tuple[Training, list[float]]":
        import torch

        from predictors.training.trainer import Training, training_device
        from search_spaces.network import build

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            network = build(config)
        data = loaded(self.data, config.resolution)
        training = Training(network, data, self.recipe, device=training_device())
        kept = self._kept(config)
        if kept is None:
            return training, []
        training.load_state(kept["state"])
        return training, list(kept["accuracies"])

    def _kept(self, config: FasterNetConfig) -> dict[str, Any] | None:
        """What was kept of this training; nothing where the file is missing or cannot be read."""
        import torch

        try:
            kept: dict[str, Any] = torch.load(
                self._file(config), map_location="cpu", weights_only=True
            )
        except Exception:  # unpickling raises whatever it likes
            return None
        return kept

    def _keep(
        self, config: FasterNetConfig, training: "Training", accuracies: Sequence[float]
    ) -> None:
        import io

        import torch

        from search_spaces.io import atomic_write

        saved = io.BytesIO()
        torch.save({"state": training.state(), "accuracies": list(accuracies)}, saved)
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._file(config), saved.getvalue())
        if training.pieces > 1:
            piece = max(self.recipe.batch_size // training.pieces, 1)
            atomic_write(self.folder / SMALL_BATCHES, f"{piece}\n")

    def _file(self, config: FasterNetConfig) -> Path:
        told = f"{config_identity(config)} {self.recipe} {self.data}"
        return self.folder / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.pt"


@lru_cache(maxsize=2)
def loaded(name: str, resolution: int) -> ImageData:
    """Return the data at a resolution, once in a process."""
    return load_data(name, resolution=resolution)
