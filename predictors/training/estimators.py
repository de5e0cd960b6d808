"""The accuracy estimators that train: each network shortly by itself, or all in one supernet."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.accuracy import AccuracyKind
from predictors.backends.model import config_identity
from predictors.cost import cost
from predictors.data.datasets import ImageData, load_data
from predictors.data.images import Images
from predictors.training.batches import batches, calibration_images
from predictors.training.checkpoint import (
    Checkpoints,
    checkpointed_loop,
    read_checkpoint_file,
)
from predictors.training.evaluate import accuracy
from predictors.training.recipe import SHORT, Recipe
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers, device_of, share_layers, usable_device
from search_spaces.checkpoint import Checkpoint, begin_with
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import atomic_write
from search_spaces.network import FasterNet, build
from search_spaces.space import Space
from search_spaces.supernet import Supernet

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
        trainer = self._trainer(config)
        for _ in self._trained(trainer, config):
            pass
        return trainer.rows[self.epochs - 1].accuracy

    def train(self, config: FasterNetConfig) -> Iterator[float]:
        """Train as far as asked; yield the accuracy after each epoch, which `file` holds then."""
        yield from self._trained(self._trainer(config), config)

    def file(self, config: FasterNetConfig) -> Path:
        """Return the file of a network's checkpoint."""
        return self._checkpoints(config).file

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
        content = read_checkpoint_file(self._checkpoints(config).file)
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
        data = loaded(self.data, config.resolution)
        return Trainer(network, data, self.recipe, device=usable_device("auto"))

    def _checkpoints(self, config: FasterNetConfig) -> Checkpoints:
        name = hashlib.sha256(" ".join(self._identity(config).values()).encode()).hexdigest()[:16]
        return Checkpoints(file=self.folder / f"{name}.pt")

    def _identity(self, config: FasterNetConfig) -> dict[str, str]:
        return {"config": config_identity(config), "recipe": str(self.recipe), "data": self.data}


@lru_cache(maxsize=2)
def loaded(name: str, resolution: int) -> ImageData:
    """Return the data at a resolution, once in a process."""
    return load_data(name, resolution=resolution)


Draw = Callable[[Random], Sequence[FasterNetConfig]]

SCORED = 2048  # images of each split, at most, by which a network is scored
COST = 12.0  # trainings of a single network that training the supernet may cost
ENDS = 16  # of the networks one in so many counts as among the largest, or the smallest
_DRAWN = 256  # steps whose networks give the cost of a step
_TEMPERATURES = torch.logspace(-0.4, 0.6, 41)  # 0.4 to 4


@dataclass(frozen=True)
class Sandwich:
    """Draws the networks of a step: a large one, a small one and two of any size.

    All are within the budget: what is slower than that need not share the weights.
    """

    configs: Sequence[FasterNetConfig]  # the smallest first

    def __call__(self, rng: Random) -> list[FasterNetConfig]:
        """Return the large one first."""
        ends = max(len(self.configs) // ENDS, 1)
        large, small = rng.choice(self.configs[-ends:]), rng.choice(self.configs[:ends])
        return [large, small, *rng.choices(self.configs, k=2)]


@dataclass(frozen=True, kw_only=True)
class SupernetProgress:
    """How many epochs of a supernet are done, of how many, and the accuracy of a large network."""

    done: int
    total: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class SupernetTraining:
    """What a supernet is trained for, on what, and the file of its checkpoint.

    `epochs` are those of the training of a single network; `weights` is a file to begin with.
    Paths are absolute: it may travel.
    """

    space: Space[FasterNetConfig]
    sandwich: Sandwich
    data: str  # as `load_data` takes it
    epochs: int
    seed: int
    file: Path
    weights: str = ""

    @cached_property
    def total(self) -> int:
        """For how many epochs the supernet is trained: what `COST` trainings of a network cost.

        The networks of a step are trained one by one.
        """
        rng, networks = Random(0), self.sandwich.configs
        a_step = fmean(sum(cost(c).macs for c in self.sandwich(rng)) for _ in range(_DRAWN))
        a_network = fmean(cost(config).macs for config in networks)
        return max(int(COST * self.epochs * a_network / a_step), 1)

    def run(
        self, *, device: torch.device | None = None, workers: Workers | None = None
    ) -> Iterator[SupernetProgress]:
        """Train, alone or as one of several workers; yield after each epoch.

        It goes on from its checkpoint, whatever the number of workers.
        """
        trainer = self._trainer(device or usable_device("auto"), workers or Workers())
        for progress in checkpointed_loop(trainer, Checkpoints(file=self.file), identity={}):
            if row := progress.row:
                total = trainer.recipe.epochs
                yield SupernetProgress(done=row.epoch, total=total, accuracy=row.accuracy)

    def _trainer(self, device: torch.device, workers: Workers) -> Trainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            supernet = Supernet(self.space)
        if self.weights:
            begin_with(supernet, self.weights)
        data = loaded(self.data, max(config.resolution for config in self.sandwich.configs))
        recipe = replace(SHORT, epochs=self.total, seed=self.seed)
        return supernet_trainer(
            supernet, data, recipe, self.sandwich, device=device, workers=workers
        )


def supernet_trainer(
    supernet: Supernet,
    data: ImageData,
    recipe: Recipe,
    draw: Draw,
    *,
    device: torch.device | None = None,
    workers: Workers | None = None,
) -> Trainer:
    """Return the trainer of a supernet by the sandwich rule (arXiv 1903.05134).

    In each step `draw` gives the networks to train. The first learns from the labels, the others
    from the first (in-place distillation). The accuracy after an epoch is that of the first network
    drawn with seed 0, on the validation split. Several workers give what one gives, up to rounding.
    """
    workers = workers or Workers()
    share_layers(supernet, workers, tracked=False)
    return Trainer(
        supernet,
        data,
        replace(recipe, polynomial_averaging=False),
        device=device,
        workers=workers,
        objective=_SandwichObjective(supernet, data, recipe, draw, workers),
    )


@dataclass(frozen=True)
class _SandwichObjective:
    supernet: Supernet
    data: ImageData
    recipe: Recipe
    draw: Draw
    workers: Workers

    def loss(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        """The first's cross entropy, and the others' divergence from what the first says."""
        first, *others = self.draw(Random(f"{self.recipe.seed}/{step}"))
        logits = self.supernet(images, first)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        taught = logits.detach().log_softmax(1)
        for config in others:
            learned = self.supernet(images, config).log_softmax(1)
            loss = loss + F.kl_div(learned, taught, log_target=True, reduction="batchmean")
        return loss / (1 + len(others))

    def accuracy(self) -> float:
        """That of the first network drawn with seed 0."""
        network = part_of(self.supernet, self.draw(Random(0))[0], self.data)
        return accuracy(network, self.data.validation, self.data, workers=self.workers)


@dataclass(frozen=True, kw_only=True)
class SupernetEstimator:
    """How likely the labels are with a supernet's weights, in percent."""

    space: Space[FasterNetConfig]
    data: str
    file: Path
    kind: AccuracyKind = "supernet"

    def __call__(self, config: FasterNetConfig) -> float:
        """Take the config's share of the weights, recalibrate its batch norms, evaluate."""
        supernet = _opened(self.file, tuple(self.space.fields.items()))
        return score(supernet, config, loaded(self.data, config.resolution))


def open_supernet(space: Space[FasterNetConfig], file: Path) -> Supernet:
    """Return the supernet of a checkpoint."""
    newest = Checkpoints(file=file).newest()
    if newest is None:
        raise ValueError(f"The supernet must be in {file}, but is not. Train it first.")
    supernet = Supernet(space)
    supernet.load_state_dict(newest.content["network"])
    return supernet


@lru_cache(maxsize=1)
def _opened(file: Path, fields: tuple[tuple[str, object], ...]) -> Supernet:
    """The supernet of a checkpoint, once in a process."""
    return open_supernet(Space(FasterNetConfig, **dict(fields)), file)


def score(supernet: Supernet, config: FasterNetConfig, data: ImageData) -> float:
    """Return how likely the labels are with a config's share of the weights, in percent.

    It is the geometric mean of the probability of the right class, over images of the validation
    and of the training split, not augmented, at most `SCORED` of each: weights that all networks
    share learn little by heart.
    Accuracies with these weights differ by less than chance; the probabilities tell more.
    """
    network = part_of(supernet, config, data)
    some = [_some(images) for images in (data.validation, data.train)]
    logits = [_logits(network, images, data) for images in some]
    labels = torch.from_numpy(np.concatenate([images.labels for images in some]))
    return 100 * math.exp(log_likelihood(torch.cat(logits), labels))


def log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Return the mean log-likelihood of labels [n] by logits [n, classes].

    Each network has the temperature that suits it best (arXiv 1706.04599): how sure networks are
    depends on their size, whatever they know.
    """
    return max(-float(F.cross_entropy(logits / t, labels)) for t in _TEMPERATURES)


def part_of(supernet: Supernet, config: FasterNetConfig, data: ImageData) -> FasterNet:
    """Return a config's network with its share of the weights, in evaluation mode.

    Its batch norms take their statistics from some training images, not augmented.
    """
    place = device_of(supernet)
    with torch.no_grad():
        calibration = (images.to(place) for images in calibration_images(data))
        network = supernet.recalibrated(config, calibration)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _some(images: Images) -> Images:
    """The same random images of a split each time."""
    order = np.random.default_rng(0).permutation(len(images))
    return images.subset(np.sort(order[:SCORED]))


def _logits(network: nn.Module, images: Images, data: ImageData) -> Tensor:
    place = device_of(network)
    shown = batches(images, data=data, batch_size=256, rng=None)
    with torch.inference_mode():
        return torch.cat([network(batch.to(place)).cpu() for batch, _ in shown])
