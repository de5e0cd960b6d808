"""How accurate a network is: what it is shown of each image, and how sure the figure is."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.batches import batches
from predictors.training.picture_loading import Batch, Pictures, loaded_pictures, transform_for

Split = Literal["test", "validation"]
Logits = Callable[[Tensor], Tensor]  # of images [b, 3, h, w]: [b, classes]
_DEVIATIONS = 1.959964  # of a normal distribution, between which 95 % of it lie


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Of how many images of a split a network says the right class."""

    split: Split
    images: int
    right: int

    @property
    def accuracy(self) -> float:
        """Top-1, in percent."""
        return 100 * self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, in percent (J. Am. Stat. Assoc. 22, 209-212, 1927)."""
        share, n, z = self.right / self.images, self.images, _DEVIATIONS
        whole = 1 + z**2 / n
        middle = (share + z**2 / (2 * n)) / whole
        half = z / whole * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
        return 100 * max(middle - half, 0.0), 100 * min(middle + half, 1.0)


def right_of(logits: Logits, images: Iterable[Batch]) -> int:
    """Return how many images get their label from what computes logits [b, classes]."""
    return sum(int((logits(batch).argmax(1).cpu() == labels).sum()) for batch, labels in images)


def judging_batches(
    images: Images, *, data: ImageData, crop: float, at_once: int, loaders: int = 0
) -> Iterator[Batch]:
    """Yield the images of a split as a network is shown them, in order.

    `crop` is the share of a picture's side that it sees, resized bicubically by timm; 0 takes the
    images as the data give them.
    """
    if not crop:
        return batches(images, data=data, batch_size=at_once, rng=None)
    transform = transform_for(data, data.resolution, is_training=False, crop_pct=crop)
    numbers = np.arange(len(images))
    parts = [numbers[i : i + at_once].tolist() for i in range(0, len(numbers), at_once)]
    pictures = Pictures(images, data, transform)
    return loaded_pictures(pictures, parts, loaders=loaders)
