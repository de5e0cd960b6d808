"""The images of one split with their labels, wherever their pixels come from."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SplitName = Literal["train", "validation", "test"]

SPLIT_NAMES: dict[str, SplitName] = {  # in folders and files, in small letters
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


class Pictures(Protocol):
    """Images by number, all of one size and one count of channels."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images as [b, height, width, channels].

        Raises:
            OSError: if one can no longer be read.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """A split: `labels` are int64 of shape [n]; image i of it is number `rows[i]` of `pictures`."""

    labels: NDArray[np.int64]
    pictures: Pictures
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def pixels(self, indices: Any) -> NDArray[np.uint8]:
        """Return the images of these indices as [b, height, width, channels], 0 to 255."""
        return self.pictures.read(self.rows[np.asarray(indices, dtype=np.int64)])

    def subset(self, indices: NDArray[np.int64]) -> "Images":
        """Return the images of these indices, in this order, as a split of their own."""
        return replace(self, labels=self.labels[indices], rows=self.rows[indices])


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundImages:
    """What lies in one place: the splits that it has, with labels 0..n-1, at one size."""

    classes: tuple[str, ...]
    resolution: int
    channels: int
    splits: dict[SplitName, Images]
    remarks: tuple[str, ...] = ()
