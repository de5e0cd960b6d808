"""Images that lie in one array: what they must be, and how they are read at another size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.data.images import FoundImages, Images, SplitName
from predictors.data.labels import numbered


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPictures:
    """Images of an array [n, height, width, channels], centre-cropped to squares and resized."""

    pixels: NDArray[np.uint8]
    resolution: int

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images as [b, resolution, resolution, channels]."""
        height, width = self.pixels.shape[1:3]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = self.pixels[rows, top : top + side, left : left + side]
        return square if side == self.resolution else _resized(square, self.resolution)


def found_in_arrays(
    given: Mapping[SplitName, tuple[Any, Any]], *, resolution: int | None
) -> FoundImages:
    """Return the splits of (pixels, labels); the size is the images' shorter side if not given.

    Pixels are uint8 of shape [n, height, width] or [n, height, width, channels].

    Raises:
        ValueError: if arrays are no images, differ in size, or labels are wrong.
    """
    arrays = {split: _images(np.asarray(pixels), split) for split, (pixels, _) in given.items()}
    height, width, channels = arrays["train"].shape[1:]
    for split, array in arrays.items():
        if array.shape[1:] != (height, width, channels):
            raise ValueError(
                f"`data` must have images of one shape, but got {[height, width, channels]} in "
                f"train and {list(array.shape[1:])} in {split}. Make them alike."
            )
        _refuse_other_length(split, len(array), np.shape(given[split][1]))
    classes, labels, remarks = numbered({split: pair[1] for split, pair in given.items()})
    size = resolution or min(height, width)
    splits = {split: _split(array, labels[split], size) for split, array in arrays.items()}
    return FoundImages(
        classes=classes, resolution=size, channels=channels, splits=splits, remarks=remarks
    )


def _split(array: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> Images:
    pictures = ArrayPictures(pixels=array, resolution=size)
    return Images(labels=labels, pictures=pictures, rows=np.arange(len(array)))


def _images(array: NDArray[Any], split: SplitName) -> NDArray[np.uint8]:
    """The images of a split with their channels last; grey ones may come without."""
    if array.shape[:1] == (0,):
        raise ValueError(f"`data` must have images in every split, but got none in {split}. Add "
                         "images or remove the split.")  # fmt: skip
    if array.dtype != np.uint8:
        raise ValueError(
            f"`data` must have pixels from 0 to 255 in uint8, but got {array.dtype} in {split}. "
            "Scale and convert them."
        )
    shaped = array[..., np.newaxis] if array.ndim == 3 else array
    if shaped.ndim != 4 or shaped.shape[-1] not in {1, 3} or 0 in shaped.shape:
        raise ValueError(
            "`data` must have images of shape [n, height, width] or [n, height, width, channels] "
            f"with 1 or 3 channels, but got {list(array.shape)} in {split}. "
            "Put the channels last, and leave out alpha."
        )
    return shaped


def _refuse_other_length(split: SplitName, images: int, labels: tuple[int, ...]) -> None:
    if labels[:1] != (images,):
        got = labels[0] if labels else 1
        raise ValueError(
            f"`data` must have one label an image, but got {images} images and {got} labels in "
            f"{split}. Check how the arrays were made."
        )


def _resized(square: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    import torch

    planes = torch.from_numpy(square).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(
        planes, size=(size, size), mode="bilinear", antialias=True
    )
    pixels: NDArray[np.uint8] = resized.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return pixels
