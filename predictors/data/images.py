"""Images with labels and splits: what every kind of data is read as."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search_spaces.io import short_repr

SplitName = Literal["train", "validation", "test"]

SPLIT_NAMES: dict[str, SplitName] = {  # in folders and files, in small letters
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


class Pictures(Protocol):
    """Images by number, all of one size and one count of channels."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images as [b, height, width, channels]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """A split: `labels` are int64 of shape [n]; image i of it is number `rows[i]` of `pictures`."""

    labels: NDArray[np.int64]
    pictures: Pictures
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def largest_class(self) -> float:
        """What always guessing the largest class gets right, in percent."""
        return 100 * int(np.bincount(self.labels).max()) / len(self)

    def pixels(self, indices: ArrayLike) -> NDArray[np.uint8]:
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


def cut(images: Images, *, fraction: float, seed: int) -> tuple[Images, Images]:
    """Return what is left of a split, and the `fraction` of each class that was cut off.

    At least one image of each class is cut off, and at least one stays, which comes first. Both
    keep the order of the split; one seed gives one cut.
    """
    rng, labels = np.random.default_rng(seed), images.labels
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    if not chosen.any():
        raise ValueError(
            "`data` must have two images of a class at least for a validation split to be cut, but "
            "got one of each. Add images, or a validation split."
        )
    return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))


Labels = dict[SplitName, NDArray[np.int64]]


def numbered(
    given: Mapping[SplitName, ArrayLike],
) -> tuple[tuple[str, ...], Labels, tuple[str, ...]]:
    """Return the names of the classes, the labels of each split as 0..n-1, and remarks.

    The classes are the labels of `train`, in ascending order; their names are those labels.
    """
    plain = {split: _plain(np.asarray(labels), split) for split, labels in given.items()}
    known = np.unique(plain["train"])
    for split, labels in plain.items():
        unknown = sorted({str(label) for label in labels} - {str(label) for label in known})
        if unknown or labels.dtype.kind != known.dtype.kind:
            raise ValueError(
                f"`data` must have the classes of train in every split, but got {split} with "
                f"{short_repr(unknown)}, which train has not. Label all splits alike."
            )
    places = {split: np.searchsorted(known, labels) for split, labels in plain.items()}
    classes = tuple(str(label) for label in known)
    if np.array_equal(known, np.arange(len(known))):
        return classes, places, ()
    shown = classes if len(classes) <= 3 else (*classes[:2], f"... {classes[-1]}")
    remark = f"The labels {', '.join(shown)} were numbered 0 to {len(classes) - 1}."
    return classes, places, (remark,)


def _plain(labels: NDArray[Any], split: SplitName) -> NDArray[np.generic]:
    """The labels of a split as a vector of int64 or of text."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"`data` must have one label an image, but got labels of shape {list(labels.shape)} in "
            f"{split}. Give their class numbers as a vector."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind not in "iubU":
        raise ValueError(
            f"`data` must have labels that are whole numbers or text, but got {labels.dtype} in "
            f"{split}. Convert them, for example with labels.astype(int)."
        )
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)
