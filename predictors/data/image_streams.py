"""Images that come one after another: read once, at their size, into a temporary file.

The file has no name and goes when nobody reads it any more.
"""

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.data.decoding import square
from predictors.data.images import FoundImages, SplitName
from predictors.data.picture_files import usual_size
from predictors.data.pixel_arrays import found_in_arrays

if TYPE_CHECKING:
    from PIL.Image import Image

_LOOKED_AT = 64  # images from which the size is chosen


class ImageStream(Protocol):
    """Pictures of PIL with their labels; the length is what was announced, or 0."""

    def __iter__(self) -> Iterator[tuple["Image", int]]: ...

    def __len__(self) -> int: ...


def found_in_streams(
    streams: Mapping[SplitName, ImageStream], *, names: tuple[str, ...], resolution: int | None
) -> FoundImages:
    """Return the splits; `names` are those of the classes, or empty.

    They are grey if in every image of every split red, green and blue are the same.

    Raises:
        ValueError: if a split has no images.
        OSError: if the disk is full.
    """
    size = resolution or _size_of_first(streams["train"])
    kept = {split: _kept(stream, split, size) for split, stream in streams.items()}
    if all(_grey(pixels) for pixels, _ in kept.values()):
        kept = {split: (pixels[..., :1], labels) for split, (pixels, labels) in kept.items()}
    found = found_in_arrays(kept, resolution=size)
    announced = sum(len(stream) for stream in streams.values())
    missing = announced - sum(len(labels) for _, labels in kept.values())
    remarks = found.remarks
    if missing > 0:
        remark = f"{missing:,} of {announced:,} images cannot be read and were left out."
        remarks = (remark, *remarks)
    classes = names if len(names) == len(found.classes) else found.classes
    return replace(found, classes=classes, remarks=remarks)


def _size_of_first(stream: ImageStream) -> int:
    return usual_size([min(image.size) for image, _ in itertools.islice(stream, _LOOKED_AT)])


def _kept(
    stream: ImageStream, split: SplitName, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images of a split, in RGB, and their labels."""
    labels = []
    with tempfile.TemporaryFile(prefix="fasternas-") as file:
        for image, label in stream:
            file.write(square(image, resolution=size, channels=3).tobytes())
            labels.append(int(label))
        if not labels:
            raise ValueError(f"there are no images in {split}")
        file.flush()
        pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(len(labels), size, size, 3))
    return pixels, np.array(labels, dtype=np.int64)


def _grey(pixels: NDArray[np.uint8]) -> bool:
    """Whether red, green and blue are the same in all images."""
    return all(bool((image == image[..., :1]).all()) for image in pixels)
