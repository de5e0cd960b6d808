"""Images that are decoded when they are asked for: checked once, then read by number."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.data.decoding import is_grey, square
from predictors.data.images import FoundImages, Images, SplitName

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST = 224  # pixels, unless a resolution is asked for
_EXACT = 48  # pixels up to which a size is kept as it is
_CHECKED_AT = (32, 32)  # the size that JPEG files are decoded to when they are checked
_CHUNK = 64  # images at most that a thread takes at a time

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFiles:
    """The pictures of a split, not decoded yet, and their labels 0..n-1.

    `open_image` returns picture i as PIL opens it; `name_of` returns what messages call it.
    """

    open_image: Callable[[int], "Image"]
    name_of: Callable[[int], str]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedPictures:
    """Pictures that are opened, centre-cropped and resized whenever they are read."""

    files: PictureFiles
    resolution: int
    channels: int

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images as [b, resolution, resolution, channels]."""
        shape = (0, self.resolution, self.resolution, self.channels)
        squares = list(_in_threads(self._square, rows.tolist()))
        return np.stack(squares) if squares else np.empty(shape, dtype=np.uint8)

    def _square(self, row: int) -> NDArray[np.uint8]:
        try:
            with self.files.open_image(row) as image:
                return square(image, resolution=self.resolution, channels=self.channels)
        except Exception as error:  # decoders raise what they like
            raise OSError(
                f"{self.files.name_of(row)} can no longer be read: {error}. Leave the data alone "
                "while they are in use."
            ) from error


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What the check of a picture found."""

    shorter_side: int
    grey: bool


def found_in_files(
    splits: Mapping[SplitName, PictureFiles],
    *,
    classes: tuple[str, ...],
    resolution: int | None,
) -> FoundImages:
    """Return the splits without the pictures that cannot be decoded; each is decoded once here.

    The images are grey if all of `train` are. The size, if not given, is the median of the shorter
    sides in `train`, at most 224, rounded to a multiple of 32 where it is over 48.

    Raises:
        ValueError: if nothing in `train` can be read.
    """
    looks = {split: list(_in_threads(_looking(files), range(len(files.labels))))
             for split, files in splits.items()}  # fmt: skip
    seen = [look for look in looks["train"] if look]
    if not seen:
        raise ValueError("`data` must hold images, but got none in train that can be read. "
                         "Check the files.")  # fmt: skip
    channels = 1 if all(look.grey for look in seen) else 3
    size = resolution or usual_size([look.shorter_side for look in seen])
    found: dict[SplitName, Images] = {}
    for split, files in splits.items():
        rows = np.array([i for i, look in enumerate(looks[split]) if look], dtype=np.int64)
        pictures = DecodedPictures(files=files, resolution=size, channels=channels)
        found[split] = Images(labels=files.labels[rows], pictures=pictures, rows=rows)
    remarks = (*_broken_remark(splits, looks), *_grey_remark(looks, channels))
    return FoundImages(
        classes=classes, resolution=size, channels=channels, splits=found, remarks=remarks
    )


def _looking(files: PictureFiles) -> Callable[[int], _Look | None]:
    def look(row: int) -> _Look | None:
        try:
            with files.open_image(row) as image:
                found = _Look(shorter_side=min(image.size), grey=is_grey(image.mode))
                image.draft(None, _CHECKED_AT)
                image.load()  # a truncated file shows here only
        except Exception:  # decoders raise what they like
            return None
        return found

    return look


def _in_threads(function: Callable[[int], _Result], rows: Iterable[int]) -> Iterator[_Result]:
    """Map in order; decoders let other threads run."""
    asked, threads = list(rows), len(os.sched_getaffinity(0))
    size = min(_CHUNK, -(-len(asked) // threads)) or 1
    chunks = [asked[start : start + size] for start in range(0, len(asked), size)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for results in pool.map(lambda chunk: [function(row) for row in chunk], chunks):
            yield from results


def usual_size(shorter_sides: list[int]) -> int:
    """Return the size, in pixels, at which images with these shorter sides are used."""
    side = int(np.median(shorter_sides))
    return min(_LARGEST, 32 * round(side / 32)) if side > _EXACT else side


def _broken_remark(
    splits: Mapping[SplitName, PictureFiles], looks: Mapping[SplitName, list[_Look | None]]
) -> tuple[str, ...]:
    broken = [splits[split].name_of(row) for split, found in looks.items()
              for row, look in enumerate(found) if look is None]  # fmt: skip
    if not broken:
        return ()
    total = sum(map(len, looks.values()))
    verb = "was" if len(broken) == 1 else "were"
    return (f"{len(broken):,} of {total:,} images cannot be read and {verb} left out, the first: "
            f"{broken[0]}.",)  # fmt: skip


def _grey_remark(looks: Mapping[SplitName, list[_Look | None]], channels: int) -> tuple[str, ...]:
    """Say how many images have fewer or more colours than the training images together."""
    seen = [look for found in looks.values() for look in found if look]
    grey = sum(look.grey for look in seen)
    if channels == 3 and grey:
        return (f"{grey:,} of {len(seen):,} images are grey and were converted to RGB.",)
    if channels == 1 and grey < len(seen):
        coloured = len(seen) - grey
        return (f"{coloured:,} of {len(seen):,} images have colours, but none in train, and were "
                "converted to grey.",)  # fmt: skip
    return ()
