"""Training all networks of a space at once, in one supernet, and scoring any of them in seconds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.batches import batches, calibration_images
from predictors.training.recipe import Recipe
from predictors.training.trainer import Training, accuracy, device_of
from predictors.training.workers import Team
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import FasterNet
from search_spaces.supernet import Supernet

Draw = Callable[[Random], Sequence[FasterNetConfig]]

JUDGED = 2048  # images of each split, at most, by which a network is scored
_TEMPERATURES = torch.logspace(-0.4, 0.6, 41)  # 0.4 to 4


def supernet_training(
    supernet: Supernet, data: ImageData, recipe: Recipe, draw: Draw, *,
    device: torch.device | None = None, team: Team | None = None,
) -> Training:  # fmt: skip
    """Return the training of a supernet by the sandwich rule (arXiv 1903.05134).

    In each step `draw` gives the networks to train: the largest, the smallest and random ones. The
    first learns from the labels, the others from the first (in-place distillation). The accuracy
    after an epoch is that of the first network drawn with seed 0, on the validation split. A team
    gives what one worker gives, up to rounding.

    Raises:
        ValueError: if a step has fewer images than the team has workers.
    """
    team, first = team or Team(), draw(Random(0))[0]

    def judge() -> float:
        return accuracy(part_of(supernet, first, data), data.validation, data, team=team)

    loss = _SandwichLoss(supernet, recipe, draw)
    training = Training(supernet, data, recipe, loss=loss, judge=judge, device=device)
    training.join(team)
    return training


def score(supernet: Supernet, config: FasterNetConfig, data: ImageData) -> float:
    """Return how likely the labels are with a config's share of the weights, in percent.

    It is the geometric mean of the probability of the right class, over images of the validation
    and of the training split, not augmented, at most `JUDGED` of each: weights that all networks
    share learn little by heart.
    Accuracies with these weights differ by less than chance; the probabilities tell more.
    """
    network = part_of(supernet, config, data)
    some = [_some(images) for images in (data.validation, data.train)]
    found = [_logits(network, images, data) for images in some]
    labels = torch.from_numpy(np.concatenate([images.labels for images in some]))
    return 100 * math.exp(log_likelihood(torch.cat(found), labels))


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
    return images.subset(np.sort(order[:JUDGED]))


def _logits(network: nn.Module, images: Images, data: ImageData) -> Tensor:
    place = device_of(network)
    with torch.inference_mode():
        return torch.cat([network(batch.to(place)).cpu() for batch, _ in
                          batches(images, data=data, batch_size=256, rng=None)])  # fmt: skip


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
