"""Training all networks of a space at once, in one supernet, and scoring any of them in seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from predictors.data.datasets import ImageData
from predictors.data.image_batches import calibration_images
from predictors.recipe import Recipe
from predictors.training import Training, accuracy, device_of
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import FasterNet
from search_spaces.supernet import Supernet

Draw = Callable[[Random], Sequence[FasterNetConfig]]


def supernet_training(
    supernet: Supernet, data: ImageData, recipe: Recipe, draw: Draw, *,
    device: torch.device | None = None,
) -> Training:  # fmt: skip
    """Return the training of a supernet by the sandwich rule (arXiv 1903.05134).

    In each step `draw` gives the networks to train; `search_spaces.sandwich.sandwich` gives the
    largest, the smallest and random ones. The first learns from the labels, the others from the
    first (in-place distillation). The accuracy after an epoch is that of the first network drawn
    with seed 0.
    """
    first = draw(Random(0))[0]
    return Training(supernet, data, recipe, loss=_SandwichLoss(supernet, recipe, draw),
                    judge=lambda: score(supernet, first, data), device=device)  # fmt: skip


def score(supernet: Supernet, config: FasterNetConfig, data: ImageData) -> float:
    """Return the validation accuracy in percent of a config with its share of the weights."""
    network = part_of(supernet, config, data)
    return accuracy(network.to(memory_format=torch.channels_last), data.validation, data)  # type: ignore[call-overload]


def part_of(supernet: Supernet, config: FasterNetConfig, data: ImageData) -> FasterNet:
    """Return a config's network with its share of the weights, in evaluation mode.

    Its batch norms take their statistics from some training images, not augmented.
    """
    place = device_of(supernet)
    with torch.no_grad():
        calibration = (images.to(place) for images in calibration_images(data))
        return supernet.recalibrated(config, calibration)


@dataclass(frozen=True)
class _SandwichLoss:
    supernet: Supernet
    recipe: Recipe
    draw: Draw

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        """The first's cross entropy, and the others' divergence from what the first says."""
        first, *others = self.draw(Random(f"{self.recipe.seed}/{step}"))
        logits = self.supernet(images, first)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        taught = logits.detach().log_softmax(1)
        for config in others:
            said = self.supernet(images, config).log_softmax(1)
            loss = loss + F.kl_div(said, taught, log_target=True, reduction="batchmean")
        return loss / (1 + len(others))
