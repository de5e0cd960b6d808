"""The images that exports are calibrated and checked with."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from predictors.data.datasets import ImageData, load_data
from predictors.data.images import Images
from predictors.training.evaluate import judging_batches
from search_spaces.checkpoint import Checkpoint
from search_spaces.io import short_repr

CALIBRATION = 256  # training images that int8 is calibrated with
RANDOM = 8  # images, where there are no real ones


@dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Images of a data set, as the network was judged by, with labels if it was trained."""

    data: ImageData
    count: int
    labelled: bool
    crop: float = 0.0

    def __call__(self, at_once: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of validation images, spread evenly, and their labels."""
        chosen = _spread(self.data.validation, min(self.count, len(self.data.validation)))
        for images, labels in judging_batches(chosen, data=self.data, crop=self.crop,
                                              at_once=at_once):  # fmt: skip
            yield images, labels if self.labelled else None

    def calibration(self, at_once: int) -> "Calibration":
        """Return training images in whole batches."""
        return Calibration(data=self.data, at_once=at_once, crop=self.crop)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Batches of training images, as often as one asks for them."""

    data: ImageData
    at_once: int
    crop: float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        count = max(CALIBRATION // self.at_once, 1) * self.at_once
        chosen = _spread(self.data.train, count)
        for images, _ in judging_batches(chosen, data=self.data, crop=self.crop,
                                         at_once=self.at_once):  # fmt: skip
            yield images


@dataclass(frozen=True, kw_only=True)
class RandomImages:
    """Noise, the same every time."""

    shape: tuple[int, ...]
    count: int = RANDOM

    def __call__(self, at_once: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches without labels."""
        rng = torch.Generator().manual_seed(1)
        for images in torch.split(torch.randn(self.count, *self.shape, generator=rng), at_once):
            yield images, None


def real_images(name: str, checkpoint: Checkpoint, *, trained: bool, count: int) -> RealImages:
    """Open the data by which a network is to be judged.

    Raises:
        ValueError: if there are no such data, or a trained network tells other classes apart.
        OSError: if they cannot be read.
    """
    data = load_data(name, resolution=checkpoint.config.resolution)
    if trained:
        _refuse_other_classes(data, checkpoint)
    if checkpoint.mean and checkpoint.std:
        data = replace(data, mean=checkpoint.mean, std=checkpoint.std)
    return RealImages(data=data, count=count, labelled=trained, crop=checkpoint.crop)


def _refuse_other_classes(data: ImageData, checkpoint: Checkpoint) -> None:
    count, names = checkpoint.config.classes, checkpoint.classes
    if len(data.classes) != count:
        raise ValueError(f"`data` must have the {count} classes that the network tells apart, but "
                         f"got {len(data.classes)} in {data.name}. Give the data that it was "
                         "trained on.")  # fmt: skip
    other = sorted(set(data.classes) - set(names))
    if names and names != data.classes:
        what = f"{short_repr(other)}, which it does not know" if other else "them in another order"
        raise ValueError(f"`data` must have the classes that the network tells apart, but "
                         f"{data.name} has {what}. Give the data that it was trained "
                         "on.")  # fmt: skip


def _spread(images: Images, count: int) -> Images:
    """So many images at even distances; some twice if there are fewer."""
    return images.subset(np.linspace(0, len(images) - 1, count).round().astype(np.int64))
