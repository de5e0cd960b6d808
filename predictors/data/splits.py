"""Cut one split of images into two, each class in proportion, by a seed alone."""

import numpy as np
from numpy.typing import NDArray

from predictors.data.images import Images


def cut(images: Images, *, fraction: float, seed: int) -> tuple[Images, Images]:
    """Return what is left of a split, and the `fraction` of each class that was cut off.

    At least one image of each class is cut off, and at least one stays, which comes first. Both
    keep the order of the split; one seed gives one cut.

    Raises:
        ValueError: if no class has two images.
    """
    chosen = _chosen(images.labels, fraction, np.random.default_rng(seed))
    if not chosen.any():
        raise ValueError(
            "`data` must have two images of a class at least for a validation split to be cut, "
            "but got one of each. Add images, or a validation split."
        )
    return images.subset(np.flatnonzero(~chosen)), images.subset(np.flatnonzero(chosen))


def _chosen(
    labels: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[rng.permutation(members)[:count]] = True
    return chosen
