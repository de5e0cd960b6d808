"""The images of a full training: which, in what order, and altered how.

All of it follows from seed, epoch and the image's number: a training that was stopped in the middle
of an epoch goes on with the images that it would have had.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nas.training.full_recipe import FullRecipe, crop_of, takes_pictures
from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.batches import augmented, batches, scaled
from predictors.training.drawing import seed_of
from predictors.training.evaluate import judging_batches
from predictors.training.picture_loading import (
    Batch,
    Pictures,
    Transform,
    loaded_pictures,
    transform_for,
)
from predictors.training.workers import Team

_JUDGED_AT_ONCE = 250


def steps_of(recipe: FullRecipe, images: int) -> int:
    """Return the steps of an epoch; a last batch that is not full is left out."""
    return max(images // recipe.batch, 1)


def batch_of(recipe: FullRecipe, images: int) -> int:
    """Return the images of a step: those of the recipe, or all, but for an odd one."""
    return min(recipe.batch, images - images % 2)


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Batches for training and judging; a step takes its batch in pieces of `at_once` images.

    Images of 96 px or more, and those for which the recipe has a RandAugment, go through timm's
    transforms in `loaders` processes; smaller ones are flipped and shifted here.
    """

    data: ImageData
    recipe: FullRecipe
    team: Team
    loaders: int = 0

    def training(self, epoch: int, step: int, resolution: int) -> Iterator[list[Batch]]:
        """Yield the pieces of each step of an epoch (both from 0), from that step on."""
        rng = torch.Generator().manual_seed(seed_of(self.recipe.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=rng).numpy()
        steps = steps_of(self.recipe, len(order))
        batch = batch_of(self.recipe, len(order))
        parts = [pieces_of(order[i * batch : (i + 1) * batch], self.recipe.at_once)
                 for i in range(step, steps)]  # fmt: skip
        flat = [piece for pieces in parts for piece in pieces]
        cropped = takes_pictures(self.recipe, self.data.resolution)
        read = self._pictures if cropped else self._pixels
        every = read(flat, epoch, resolution)
        for pieces in parts:
            yield [next(every) for _ in pieces]

    def judging(self, images: Images) -> Iterator[Batch]:
        """Return this worker's share of a split, in order."""
        own = images.subset(self.team.share(len(images)))
        crop = crop_of(self.recipe, self.data.resolution)
        return judging_batches(own, data=self.data, crop=crop, at_once=_JUDGED_AT_ONCE,
                               loaders=self.loaders)  # fmt: skip

    def _pixels(
        self, pieces: Sequence[NDArray[np.int64]], epoch: int, resolution: int
    ) -> Iterator[Batch]:
        for piece in pieces:
            rng = torch.Generator().manual_seed(seed_of(self.recipe.seed, epoch, int(piece[0])))
            images, labels = next(batches(self.data.train.subset(piece), data=self.data,
                                          batch_size=len(piece), rng=None))  # fmt: skip
            flip = self.recipe.flip and self.data.symmetric
            altered = augmented(images, rng=rng, flip=flip, shift=self.recipe.shift)
            own = torch.from_numpy(self.team.rows(len(piece)))
            yield scaled(altered[own], resolution / self.data.resolution), labels[own]

    def _pictures(
        self, pieces: Sequence[NDArray[np.int64]], epoch: int, resolution: int
    ) -> Iterator[Batch]:
        place = (self.recipe.seed, epoch)
        pictures = Pictures(self.data.train, self.data, self._transform(resolution), place)
        own = [piece[self.team.rows(len(piece))].tolist() for piece in pieces]
        return loaded_pictures(pictures, own, loaders=self.loaders)

    def _transform(self, resolution: int) -> Transform:
        recipe = self.recipe
        return transform_for(
            self.data, resolution, is_training=True, scale=(recipe.crop, 1.0), color_jitter=None,
            hflip=0.5 if recipe.flip else 0.0, auto_augment=recipe.augment or None,
        )  # fmt: skip


def pieces_of(batch: NDArray[np.int64], at_once: int) -> list[NDArray[np.int64]]:
    """Equal parts of a batch, each even if the batch is."""
    count = -(-len(batch) // at_once)
    if len(batch) % 2 or count == 1:
        return [part for part in np.array_split(batch, count) if len(part)]
    pairs = np.array_split(batch.reshape(-1, 2), count)
    return [part.reshape(-1) for part in pairs if len(part)]
