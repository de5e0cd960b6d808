"""The images of a full training: which, in what order, and altered how.

All of it follows from seed, epoch and the image's number: a training that was stopped in the middle
of an epoch goes on with the images that it would have had.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.drawing import drawing_from, seed_of
from nas.full_recipe import PICTURES, FullRecipe
from nas.team import Team
from predictors.datasets import ImageData
from predictors.image_batches import augmented, batches, scaled
from predictors.images import Images
from predictors.picture_files import DecodedPictures

if TYPE_CHECKING:
    from PIL.Image import Image

Batch = tuple[Tensor, Tensor]  # images [b, 3, h, w], normalised, and labels [b]
_JUDGED_AT_ONCE = 250
_PLAIN = ("L", "RGB", "RGBA", "CMYK", "YCbCr")  # PIL's modes that become RGB without further ado


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

    @property
    def in_pictures(self) -> bool:
        """Whether the images go through timm's transforms."""
        return self.data.resolution >= PICTURES or bool(self.recipe.augment)

    def training(self, epoch: int, step: int, resolution: int) -> Iterator[list[Batch]]:
        """Yield the pieces of each step of an epoch (both from 0), from that step on."""
        rng = torch.Generator().manual_seed(seed_of(self.recipe.seed, epoch))
        order = torch.randperm(len(self.data.train), generator=rng).numpy()
        steps = steps_of(self.recipe, len(order))
        batch = batch_of(self.recipe, len(order))
        parts = [pieces_of(order[i * batch : (i + 1) * batch], self.recipe.at_once)
                 for i in range(step, steps)]  # fmt: skip
        flat = [piece for pieces in parts for piece in pieces]
        read = self._pictures if self.in_pictures else self._pixels
        every = read(flat, epoch, resolution)
        for pieces in parts:
            yield [next(every) for _ in pieces]

    def judging(self, images: Images) -> Iterator[Batch]:
        """Yield this worker's share of a split, in order."""
        own = images.subset(self.team.share(len(images)))
        if not self.in_pictures:
            yield from batches(own, data=self.data, batch_size=_JUDGED_AT_ONCE, rng=None)
            return
        picture = _Pictures(own, self._transform(self.data.resolution, training=False), None)
        numbers = [chunk.tolist() for chunk in _chunks(np.arange(len(own)), _JUDGED_AT_ONCE)]
        yield from self._loaded(picture, numbers)

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
        transform = self._transform(resolution, training=True)
        pictures = _Pictures(self.data.train, transform, (self.recipe.seed, epoch))
        own = [piece[self.team.rows(len(piece))].tolist() for piece in pieces]
        return self._loaded(pictures, own)

    def _loaded(self, pictures: "_Pictures", numbers: list[list[int]]) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        loader: Any = DataLoader(pictures, batch_sampler=numbers, num_workers=self.loaders)  # type: ignore[arg-type]
        yield from loader

    def _transform(self, resolution: int, *, training: bool) -> "Callable[[Image], Tensor]":
        from nas.timm_parts import timm_with

        recipe = self.recipe
        options: dict[str, Any] = {"scale": (recipe.crop, 1.0), "color_jitter": None,
                                   "hflip": 0.5 if recipe.flip else 0.0,
                                   "auto_augment": recipe.augment or None}  # fmt: skip
        transform: Callable[[Image], Tensor] = timm_with("data").data.create_transform(
            input_size=(3, resolution, resolution), is_training=training, interpolation="bicubic",
            mean=_rgb(self.data.mean), std=_rgb(self.data.std),
            **(options if training else {"crop_pct": recipe.test_crop}),
        )  # fmt: skip
        return transform


@dataclass(frozen=True)
class _Pictures:
    """Pictures by number, as torch's loader takes them; drawn from (seed, epoch) if given."""

    images: Images
    transform: "Callable[[Image], Tensor]"
    place: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        label = int(self.images.labels[number])
        picture = _picture(self.images, number)
        if self.place is None:
            return self.transform(picture), label
        with drawing_from(*self.place, number):
            return self.transform(picture), label


def _picture(images: Images, number: int) -> "Image":
    """The whole picture of a file in RGB, so that crops are of all of it; else its pixels."""
    from PIL.Image import fromarray

    pictures = images.pictures
    if isinstance(pictures, DecodedPictures):
        with pictures.files.open_image(int(images.rows[number])) as image:
            if image.mode in _PLAIN:
                grey = image.convert("L") if pictures.channels == 1 else image
                return grey.convert("RGB")
    pixels = images.pixels([number])[0]
    return fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")


def pieces_of(batch: NDArray[np.int64], at_once: int) -> list[NDArray[np.int64]]:
    """Equal parts of a batch, each even if the batch is."""
    count = -(-len(batch) // at_once)
    if len(batch) % 2 or count == 1:
        return [part for part in np.array_split(batch, count) if len(part)]
    pairs = np.array_split(batch.reshape(-1, 2), count)
    return [part.reshape(-1) for part in pairs if len(part)]


def _chunks(numbers: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _rgb(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values
