"""Which images a training takes, in which order, and altered how.

All of it follows from seed, epoch, step and the image's number: a training that was stopped in the
middle of an epoch goes on with the images that it would have had.
"""

import importlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.data.pictures import DecodedPictures
from predictors.training.recipe import Recipe, batch_of, steps_at, takes_pictures
from predictors.training.workers import Workers
from search_spaces.timm_models import import_timm

if TYPE_CHECKING:
    from PIL.Image import Image

Batch = tuple[Tensor, Tensor]  # images [b, 3, h, w], normalised, and labels [b]
Transform = Callable[["Image"], Tensor]
Numbers = NDArray[np.int64]


def seed_of(*numbers: int) -> int:
    """Return a seed in 0..2**32 - 1 for a place such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed all global generators by a place; afterwards the CPU's are as they were.

    timm's transforms and mixup take their numbers from the global generators of Python and numpy,
    the layers from torch's of their device.
    """
    seed = seed_of(*numbers)
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes longer than a crop does
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)


@dataclass(frozen=True, kw_only=True)
class Feed:
    """The batches of a training; a step takes its batch in parts of `micro_batch_size` images.

    Images of 96 px or more, and those for which the recipe has a RandAugment, go through timm's
    transforms in the workers' loader processes; smaller ones are flipped and shifted here.
    """

    data: ImageData
    recipe: Recipe
    workers: Workers

    def epoch(self, epoch: int, step: int, resolution: int) -> Iterator[list[Batch]]:
        """Yield the parts of each step of an epoch (both from 0), from that step on."""
        order, rng = self._order(epoch)
        whole = batch_of(self.recipe, len(order))
        steps = [
            parts_of(order[i * whole : (i + 1) * whole], self.recipe.micro_batch_size)
            for i in range(steps_at(self.recipe, epoch, len(order)))
        ]
        parts = [part for parts in steps for part in parts]
        done = sum(map(len, steps[:step]))
        if takes_pictures(self.recipe, self.data.resolution):
            found = self._pictures(parts[done:], epoch, resolution)
        else:
            found = self._pixels(parts, done, epoch, resolution, rng)
        for parts in steps[step:]:
            yield [next(found) for _ in parts]

    def _order(self, epoch: int) -> tuple[Numbers, torch.Generator]:
        """The order of an epoch's images, and the generator that gave it."""
        if self.recipe.seeding == "epoch":
            seed = 1_000_003 * self.recipe.seed + epoch
        else:
            seed = seed_of(self.recipe.seed, epoch)
        rng = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.data.train), generator=rng).numpy(), rng

    def _own(self, part: Numbers) -> Numbers:
        """Which rows of a part are this worker's."""
        count = len(part)
        return self.workers.pairs(count) if self.recipe.paired else self.workers.share(count)

    def _pixels(
        self, parts: Sequence[Numbers], done: int, epoch: int, resolution: int, rng: torch.Generator
    ) -> Iterator[Batch]:
        data, side = self.data, self.data.resolution
        flip = self.recipe.flip and data.symmetric
        for number, part in enumerate(parts):
            if self.recipe.seeding == "step":
                rng = torch.Generator().manual_seed(seed_of(self.recipe.seed, epoch, int(part[0])))
            shape = (len(part), data.channels, side, side)  # for all workers alike
            rows, columns = random_moves(shape, rng=rng, flip=flip, shift=self.recipe.shift)
            if number < done:
                continue
            own = self._own(part)
            images = data.train.subset(part[own])
            pixels, labels = next(batches(images, data=data, batch_size=len(own), rng=None))
            yield resized(moved(pixels, rows[own], columns[own]), resolution), labels

    def _pictures(self, parts: Sequence[Numbers], epoch: int, resolution: int) -> Iterator[Batch]:
        recipe = self.recipe
        transform = picture_transform(
            self.data,
            resolution,
            is_training=True,
            scale=(recipe.crop or 1.0, 1.0),
            color_jitter=None,
            hflip=0.5 if recipe.flip and self.data.symmetric else 0.0,
            auto_augment=recipe.augment or None,
        )
        pictures = PictureDataset(self.data.train, self.data, transform, (recipe.seed, epoch))
        own = [part[self._own(part)].tolist() for part in parts]
        return load_pictures(pictures, own, loaders=self.workers.loaders)


def parts_of(batch: Numbers, largest: int) -> list[Numbers]:
    """Equal parts of a batch, each even if the batch is."""
    count = -(-len(batch) // largest)
    if len(batch) % 2 or count == 1:
        return [part for part in np.array_split(batch, count) if len(part)]
    pairs = np.array_split(batch.reshape(-1, 2), count)
    return [part.reshape(-1) for part in pairs if len(part)]


def evaluation_batches(
    images: Images, *, data: ImageData, crop: float, at_once: int, loaders: int = 0
) -> Iterator[Batch]:
    """Yield the images of a split as a network is shown them in evaluation, in order.

    `crop` is the share of a picture's side that it sees, resized bicubically by timm; 0 takes the
    images as the data give them.
    """
    if not crop:
        return batches(images, data=data, batch_size=at_once, rng=None)
    transform = picture_transform(data, data.resolution, is_training=False, crop_pct=crop)
    numbers = list(range(len(images)))
    parts = [numbers[i : i + at_once] for i in range(0, len(numbers), at_once)]
    return load_pictures(PictureDataset(images, data, transform), parts, loaders=loaders)


def calibration_images(data: ImageData, *, count: int) -> Iterator[Tensor]:
    """Yield batches of the same random training images, as `batches` does, for batch norms."""
    rng = torch.Generator().manual_seed(0)
    left, size = count, 128
    whole = len(data.train) >= size  # a small batch would count as much as a large one
    for images, _ in batches(data.train, data=data, batch_size=size, rng=rng, drop_last=whole):
        yield images
        left -= len(images)
        if left <= 0:
            return


def batches(
    images: Images,
    *,
    data: ImageData,
    batch_size: int,
    rng: torch.Generator | None,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """Yield normalised float images [b, 3, height, width] and int64 labels [b], once each.

    They are shuffled by `rng`, or in order if it is None. Grey images are repeated to 3 channels.
    The last batch may be smaller; `drop_last` leaves it out then.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be 1 or more, but got {batch_size}. Use 128.")
    count = len(images)
    order = torch.arange(count) if rng is None else torch.randperm(count, generator=rng)
    used = count - count % batch_size if drop_last else count
    return _normalised(images, data, torch.split(order[:used], batch_size))


def _normalised(images: Images, data: ImageData, parts: Iterable[Tensor]) -> Iterator[Batch]:
    """The images of each part of the order; a function of its own, so that errors come at once."""
    mean = torch.tensor(data.mean).view(1, -1, 1, 1)
    std = torch.tensor(data.std).view(1, -1, 1, 1)
    for indices in (part for part in parts if len(part)):
        pixels = torch.from_numpy(images.pixels(indices.numpy())).permute(0, 3, 1, 2)
        normalised = (pixels.float() / 255 - mean) / std
        labels = torch.from_numpy(images.labels[indices.numpy()])
        yield normalised.expand(-1, 3, -1, -1).contiguous(), labels


def random_moves(
    shape: Sequence[int], *, rng: torch.Generator, flip: bool, shift: bool
) -> tuple[Tensor, Tensor]:
    """Draw for each image of a batch [b, c, h, w] which padded rows and columns it takes.

    They shift it by up to an eighth of its size. With `flip` every second one, at random, is
    mirrored left to right: not for digits or letters. `rng` is the CPU's.
    """
    count, _, height, width = shape
    rows = _shifted(count, height, rng, shift=shift)
    columns = _shifted(count, width, rng, shift=shift)
    if flip:
        mirrored = torch.rand(count, 1, generator=rng) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return rows, columns


def _shifted(count: int, size: int, rng: torch.Generator, *, shift: bool) -> Tensor:
    """The padded rows or columns that each image takes: [count, size]."""
    margin = size // 8
    starts = torch.randint(0, 2 * margin + 1, (count, 1), generator=rng) if shift else margin
    return starts + torch.arange(size).expand(count, size)


def moved(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images [b, c, h, w] of these rows [b, h] and columns [b, w] of them, padded.

    What comes in at the border is zero, the mean of normalised images.
    """
    count, _, height, width = images.shape
    margins = (width // 8, width // 8, height // 8, height // 8)
    padded = F.pad(images, margins)
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    rows, columns = rows.to(images.device), columns.to(images.device)
    taken = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]  # [b, h, w, c]
    return taken.permute(0, 3, 1, 2).contiguous()


def resized(images: Tensor, side: int) -> Tensor:
    """Return square images [b, c, h, w] with so many pixels a side."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(
        images, size=[side, side], mode="bilinear", align_corners=False, antialias=True
    )


@dataclass(frozen=True)
class PictureDataset:
    """Pictures of a split by number, as torch's loader takes them.

    They are altered by `transform`, seeded by `place` (seed, epoch) if given, and are bytes, of
    which fewer than of floats pass from process to process.
    """

    images: Images
    data: ImageData
    transform: Transform
    place: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        label = int(self.images.labels[number])
        picture = _picture(self.images, number)
        if self.place is None:
            return self.transform(picture), label
        with seeded(*self.place, number):
            return self.transform(picture), label


def load_pictures(
    pictures: PictureDataset, numbers: Sequence[list[int]], *, loaders: int
) -> Iterator[Batch]:
    """Yield normalised batches of these pictures, decoded by so many processes (0: here)."""
    from torch.utils.data import DataLoader, Dataset

    mean, std = (
        255 * torch.tensor(_rgb(values)).view(1, -1, 1, 1)
        for values in (pictures.data.mean, pictures.data.std)
    )
    dataset = cast("Dataset[tuple[Tensor, int]]", pictures)
    loader = DataLoader(
        dataset,
        batch_sampler=numbers,
        num_workers=loaders,
        multiprocessing_context="fork" if loaders else None,  # what opens a picture is no pickle
    )
    for pixels, labels in loader:
        yield pixels.float().sub_(mean).div_(std), labels


def picture_transform(data: ImageData, resolution: int, **options: object) -> Transform:
    """Return timm's transform of a picture to bytes [3, h, w], with these options of timm's."""
    transform: Transform = timm_with("data").data.create_transform(
        input_size=(3, resolution, resolution),
        interpolation="bicubic",
        mean=_rgb(data.mean),
        std=_rgb(data.std),
        use_prefetcher=True,
        **options,
    )
    return transform


def timm_with(*parts: str) -> Any:
    """Return timm after its parts, such as `data`, are imported."""
    timm = import_timm()
    for part in parts:
        importlib.import_module(f"timm.{part}")
    return timm


def _picture(images: Images, number: int) -> "Image":
    """The whole picture of a file in RGB, so that crops are of all of it; else its pixels."""
    from PIL.Image import fromarray

    if isinstance(images.pictures, DecodedPictures):
        return images.pictures.whole(int(images.rows[number]))
    pixels = images.pixels([number])[0]
    return fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")


def _rgb(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values
