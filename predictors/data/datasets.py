"""A data set by the name that `--data` takes: its splits, classes, size and normalisation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predictors.data.images import FoundImages, Images, cut

_VALIDATION_FRACTION = 0.1
_MEASURED = 10_000  # images, at most, from which mean and deviation are taken
_CHUNK = 256
_SMALLEST_DEVIATION = 1 / 255  # of images that are all alike, so that one can divide by it


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """Images with labels, in two or three splits; a search looks at no `test`.

    `mean` and `std` are per channel, of the training split, in 0..1; `remarks` are sentences on
    what was left out or converted.
    """

    name: str
    classes: tuple[str, ...]
    resolution: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Images
    validation: Images
    test: Images | None
    remarks: tuple[str, ...]
    symmetric: bool = True  # as far as is known, a mirrored image is one of the same class


def load_data(name: str, *, resolution: int | None = None, seed: int = 0) -> ImageData:
    """Return the data of a folder of images or IDX files, an .npz, `digits`, or a set of timm's.

    Without a validation split a tenth of each class is cut off `train`, chosen by `seed`. Images
    are made square; `resolution`, in pixels, is theirs if it is not given.

    Raises:
        ValueError: if there is no such data, something is wrong with them, or the package that
            reads them is missing.
    """
    if resolution is not None and resolution < 1:
        raise ValueError(
            f"`resolution` must be 1 pixel or more, but got {resolution}. Leave it out to take "
            "that of the images."
        )
    found = _found(name, resolution)
    _refuse_few_classes(found)
    train, validation = found.splits["train"], found.splits.get("validation")
    remarks = found.remarks
    if validation is None:
        train, validation = cut(train, fraction=_VALIDATION_FRACTION, seed=seed)
        remarks = (
            *remarks,
            f"There is no validation split: {len(validation):,} of the "
            f"{len(train) + len(validation):,} training images became one.",
        )
    mean, std = _measured(train)
    return ImageData(
        name=name,
        classes=found.classes,
        resolution=found.resolution,
        channels=found.channels,
        mean=mean,
        std=std,
        train=train,
        validation=validation,
        test=found.splits.get("test"),
        remarks=remarks,
        symmetric=name != "digits",
    )


def located(name: str) -> str:
    """Return a path as workers in other folders find it, and any other name as it is."""
    return str(Path(name).absolute()) if name and name != "digits" and Path(name).exists() else name


def _found(name: str, resolution: int | None) -> FoundImages:
    from predictors.data import arrays, folders, timm_datasets

    path = Path(name)
    if name == "digits":
        return arrays.load_digits(resolution=resolution)
    if path.is_dir() and arrays.is_idx_folder(path):
        return arrays.load_idx(path, resolution=resolution)
    if path.is_dir():
        return folders.load_folder(path, resolution=resolution)
    if path.is_file() and path.suffix == ".npz":
        return arrays.load_npz(path, resolution=resolution)
    if timm_datasets.is_named(name):
        return timm_datasets.load_named(name, resolution=resolution)
    what = "is a file of another kind" if path.is_file() else "is none"
    raise ValueError(
        "`data` must be a folder of images or IDX files, an .npz file, digits, or a set of timm's "
        f"({', '.join(f'{prefix}/NAME' for prefix in timm_datasets.PREFIXES)}), but got {name!r}, "
        f"which {what}. Check the path."
    )


def _refuse_few_classes(found: FoundImages) -> None:
    if len(found.classes) < 2:
        raise ValueError(
            f"`data` must have two classes or more, but got {len(found.classes)}"
            f"{''.join(f' ({name})' for name in found.classes)}. There is nothing to tell apart."
        )
    counts = np.bincount(found.splits["train"].labels, minlength=len(found.classes))
    if not counts.all():
        raise ValueError(
            "`data` must have training images of every class, but got none that can be read of "
            f"{found.classes[int(np.argmin(counts))]}. Add images or remove the class."
        )
    empty = [split for split, images in found.splits.items() if not len(images)]
    if empty:
        raise ValueError(
            f"`data` must have images in every split, but got none that can be read in {empty[0]}. "
            "Add images or remove the split."
        )


def _measured(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, over images that are spread evenly."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), _MEASURED)).round().astype(np.int64)
    sums = squares = np.zeros(1)
    for start in range(0, len(chosen), _CHUNK):
        pixels = images.pixels(chosen[start : start + _CHUNK]) / 255.0
        sums = sums + pixels.mean(axis=(1, 2)).sum(axis=0)
        squares = squares + (pixels**2).mean(axis=(1, 2)).sum(axis=0)
    mean = sums / len(chosen)
    variance = np.maximum(squares / len(chosen) - mean**2, _SMALLEST_DEVIATION**2)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
