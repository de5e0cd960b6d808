"""Batches of images as networks take them, and the augmentation of small images."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from predictors.data.datasets import ImageData
from predictors.data.images import Images

CALIBRATION = 1024  # training images from which batch norms get their statistics, unless told


def batches(
    images: Images,
    *,
    data: ImageData,
    batch_size: int,
    rng: torch.Generator | None,
    channels: int = 3,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised float images [b, channels, height, width] and int64 labels [b], once each.

    They are shuffled by `rng`, or in order if it is None. Grey images are repeated to 3 channels
    where these are asked for. The last batch may be smaller; `drop_last` leaves it out then.

    Raises:
        ValueError: if `batch_size` is below 1, or images with colours are asked for in grey.
        OSError: if an image can no longer be read.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be 1 or more, but got {batch_size}. Use 128.")
    if channels not in {data.channels, 3}:
        raise ValueError(
            f"`channels` must be 3, or the {data.channels} of the data, but got {channels}. "
            "Leave it out."
        )
    count = len(images)
    order = torch.arange(count) if rng is None else torch.randperm(count, generator=rng)
    used = count - count % batch_size if drop_last else count
    return _normalised(images, data, torch.split(order[:used], batch_size), channels)


def calibration_images(data: ImageData, *, count: int = CALIBRATION) -> Iterator[Tensor]:
    """Yield batches of the same random training images, as `batches` does, for batch norms."""
    rng = torch.Generator().manual_seed(0)
    left, size = count, 128
    whole = len(data.train) >= size  # a small batch would count as much as a large one
    for images, _ in batches(data.train, data=data, batch_size=size, rng=rng, drop_last=whole):
        yield images
        left -= len(images)
        if left <= 0:
            return


def _normalised(
    images: Images, data: ImageData, parts: Iterable[Tensor], channels: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of each part of the order; a function of its own, so that errors come at once."""
    mean = torch.tensor(data.mean).view(1, -1, 1, 1)
    std = torch.tensor(data.std).view(1, -1, 1, 1)
    for indices in (part for part in parts if len(part)):
        pixels = torch.from_numpy(images.pixels(indices.numpy())).permute(0, 3, 1, 2)
        normalised = (pixels.float() / 255 - mean) / std
        labels = torch.from_numpy(images.labels[indices.numpy()])
        yield normalised.expand(-1, channels, -1, -1).contiguous(), labels


def augmented(
    images: Tensor, *, rng: torch.Generator, flip: bool = True, shift: bool = True
) -> Tensor:  # fmt: skip
    """Return each image [b, c, h, w] shifted by up to an eighth of its size, at random.

    What comes in at the border is zero, the mean of normalised images. With `flip` every second
    one, at random, is mirrored left to right: not for digits or letters. `rng` is the CPU's.
    """
    return moved(images, *drawn_moves(images.shape, rng=rng, flip=flip, shift=shift))


def drawn_moves(
    shape: Sequence[int], *, rng: torch.Generator, flip: bool, shift: bool
) -> tuple[Tensor, Tensor]:
    """Draw for each image of a batch [b, c, h, w] which padded rows and columns it takes."""
    count, _, height, width = shape
    rows = _shifted(count, height, rng, shift=shift)
    columns = _shifted(count, width, rng, shift=shift)
    if flip:
        mirrored = torch.rand(count, 1, generator=rng) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return rows, columns


def moved(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images [b, c, h, w] of these rows [b, h] and columns [b, w] of them, padded."""
    count, _, height, width = images.shape
    margins = (width // 8, width // 8, height // 8, height // 8)
    padded = torch.nn.functional.pad(images, margins)
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    rows, columns = rows.to(images.device), columns.to(images.device)
    taken = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]  # [b, h, w, c]
    return taken.permute(0, 3, 1, 2).contiguous()


def scaled(images: Tensor, scale: float) -> Tensor:
    """Return images [b, c, h, w] at a share of their resolution, rounded to whole pixels."""
    if scale == 1.0:
        return images
    size = [max(round(scale * side), 1) for side in images.shape[2:]]
    return torch.nn.functional.interpolate(
        images, size=size, mode="bilinear", align_corners=False, antialias=True
    )


def _shifted(count: int, size: int, rng: torch.Generator, *, shift: bool) -> Tensor:
    """The padded rows or columns that each image takes: [count, size]."""
    margin = size // 8
    starts = torch.randint(0, 2 * margin + 1, (count, 1), generator=rng) if shift else margin
    return starts + torch.arange(size).expand(count, size)
