"""Labels as they are given, numbered 0..n-1 as networks need them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.data.images import SplitName
from search_spaces.io import short_repr

Labels = dict[SplitName, NDArray[np.int64]]


def numbered(given: Mapping[SplitName, Any]) -> tuple[tuple[str, ...], Labels, tuple[str, ...]]:
    """Return the names of the classes, the labels of each split as 0..n-1, and remarks.

    The classes are the labels of `train`, in ascending order; their names are those labels.

    Raises:
        ValueError: if labels are neither whole numbers nor text, or a split has one that `train`
            has not.
    """
    plain = {split: _plain(np.asarray(labels), split) for split, labels in given.items()}
    known = np.unique(plain["train"])
    for split, labels in plain.items():
        _refuse_unknown(split, labels, known)
    places = {split: np.searchsorted(known, labels) for split, labels in plain.items()}
    classes = tuple(str(label) for label in known)
    if np.array_equal(known, np.arange(len(known))):
        return classes, places, ()
    shown = (
        ", ".join(classes) if len(classes) <= 3 else f"{', '.join(classes[:2])}, ... {classes[-1]}"
    )
    remark = f"The labels {shown} were numbered 0 to {len(classes) - 1}."
    return classes, places, (remark,)


def _plain(labels: NDArray[Any], split: SplitName) -> NDArray[Any]:
    """The labels of a split as a vector of int64 or of text."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"`data` must have one label an image, but got labels of shape {list(labels.shape)} "
            f"in {split}. Give their class numbers as a vector."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind not in "iubU":
        raise ValueError(
            f"`data` must have labels that are whole numbers or text, but got {labels.dtype} in "
            f"{split}. Convert them, for example with labels.astype(int)."
        )
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _refuse_unknown(split: SplitName, labels: NDArray[Any], known: NDArray[Any]) -> None:
    unknown = sorted({str(label) for label in labels} - {str(label) for label in known})
    if unknown or labels.dtype.kind != known.dtype.kind:
        raise ValueError(
            f"`data` must have the classes of train in every split, but got {split} with "
            f"{short_repr(unknown)}, which train has not. Label all splits alike."
        )
