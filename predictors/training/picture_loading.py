"""Pictures by number, altered by timm's transforms in processes of their own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from predictors.data.datasets import ImageData
from predictors.data.folders import DecodedPictures
from predictors.data.images import Images
from predictors.training.drawing import drawing_from

if TYPE_CHECKING:
    from PIL.Image import Image

Batch = tuple[Tensor, Tensor]  # images [b, 3, h, w], normalised, and labels [b]
Transform = Callable[["Image"], Tensor]
_PLAIN = ("L", "RGB", "RGBA", "CMYK", "YCbCr")  # PIL's modes that become RGB without further ado


@dataclass(frozen=True)
class Pictures:
    """Pictures of a split by number, as torch's loader takes them.

    They are altered as `transform` draws it, from (seed, epoch) if given, and are bytes, of which
    fewer than of floats pass from process to process.
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
        with drawing_from(*self.place, number):
            return self.transform(picture), label


def loaded_pictures(
    pictures: Pictures, numbers: list[list[int]], *, loaders: int
) -> Iterator[Batch]:
    """Yield batches of the pictures of these numbers, decoded by so many processes (0: here).

    They are normalised here.
    """
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(pictures, batch_sampler=numbers, num_workers=loaders)  # type: ignore[arg-type]
    mean, std = (255 * torch.tensor(_rgb(values)).view(1, -1, 1, 1)
                 for values in (pictures.data.mean, pictures.data.std))  # fmt: skip
    for pixels, labels in loader:
        yield pixels.float().sub_(mean).div_(std), labels


def transform_for(data: ImageData, resolution: int, **options: Any) -> Transform:
    """Return timm's transform of a picture to bytes [3, h, w], with these options of timm's."""
    from predictors.training.timm_parts import timm_with

    transform: Transform = timm_with("data").data.create_transform(
        input_size=(3, resolution, resolution), interpolation="bicubic", mean=_rgb(data.mean),
        std=_rgb(data.std), use_prefetcher=True, **options,
    )  # fmt: skip
    return transform


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


def _rgb(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values
