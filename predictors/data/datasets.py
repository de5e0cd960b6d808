"""A data set by the name that `--data` takes: its splits, classes, size and normalisation."""

import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from predictors.data.arrays import load_digits, load_npz
from predictors.data.folders import advice_on, holds_pictures, load_folder
from predictors.data.idx import find_idx, load_idx
from predictors.data.images import FoundImages, Images, cut
from predictors.data.timm_datasets import PREFIXES, is_named, load_named

_VALIDATION_FRACTION = 0.1
_MEASURED = 10_000  # images, at most, from which mean and deviation are taken
_CHUNK = 256
_SMALLEST_DEVIATION = 1 / 255  # of images that are all alike, so that one can divide by it
_NEARLY_CONSTANT = 2 / 255  # deviation of a pixel from image to image, of which little is learned
_MOSTLY, _CONTRADICTING = 0.9, 0.01  # shares of the images that are the same
_UNEQUAL = 5  # times as many images as another class that are remarked on
_DIGESTED = 48  # pixels of a side that are compared


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


@dataclass(frozen=True, kw_only=True)
class DataCounts:
    """How many classes data have, and how many images of each split a search looks at."""

    classes: int
    train: int
    validation: int

    @classmethod
    def of(cls, data: ImageData) -> "DataCounts":
        """Count what is there."""
        counts = len(data.train), len(data.validation)
        return cls(classes=len(data.classes), train=counts[0], validation=counts[1])


def load_data(name: str, *, resolution: int | None = None, seed: int = 0) -> ImageData:
    """Return the data of a folder of images or IDX files, an .npz, `digits`, or a set of timm's.

    Without a validation split a tenth of each class is cut off `train`, chosen by `seed`. Images
    are made square; `resolution`, in pixels, is theirs if it is not given.
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
    of_train = _measured(train)
    return ImageData(
        name=name,
        classes=found.classes,
        resolution=found.resolution,
        channels=found.channels,
        mean=of_train.mean,
        std=of_train.std,
        train=train,
        validation=validation,
        test=found.splits.get("test"),
        remarks=(*remarks, *_nothing_to_learn(found, of_train)),
        symmetric=not has_characters(name),
    )


def has_characters(name: str) -> bool:
    """Whether a set is known to be of digits or letters, which are others in a mirror."""
    last = name.rpartition("@")[0] or Path(name).name
    return bool(re.search("digits|svhn|usps|mnist", last.lower())) and "fashion" not in last.lower()


def located(name: str) -> str:
    """Return a path as workers in other folders find it, and any other name as it is.

    Of a set by name that is the folder after its @.
    """
    if not name or name == "digits":
        return name
    if Path(name).exists() or (not is_named(name) and is_path_of_data(Path(name))):
        return str(Path(name).absolute())
    prefix, _, rest = name.partition("/")
    own, at, folder = rest.rpartition("@")
    if is_named(name) and at and folder:
        return f"{prefix}/{own}@{Path(folder).absolute()}"
    if prefix == "wds" and Path(rest).exists():
        return f"{prefix}/{Path(rest).absolute()}"
    return name


def is_set_name(name: str) -> bool:
    """Whether this is digits, or names a set of timm's."""
    return name == "digits" or (is_named(name) and not Path(name).exists())


def is_path_of_data(path: Path) -> bool:
    """Whether there is something at a path, or it names one of several sets in a folder."""
    return path.exists() or bool(find_idx(path))


def _digits(name: str, resolution: int | None) -> FoundImages | None:
    if name != "digits":
        return None
    if find_idx(Path(name)) or holds_pictures(Path(name)):
        raise ValueError(
            f"`data` must name one set, but got {name!r}, which is scikit-learn's and a folder "
            f"here. Write ./{name} for the folder; for scikit-learn's, work in another folder."
        )
    return load_digits(resolution=resolution)


def _idx(name: str, resolution: int | None) -> FoundImages | None:
    sets = find_idx(Path(name))
    return load_idx(Path(name), sets, resolution=resolution) if sets else None


def _folder(name: str, resolution: int | None) -> FoundImages | None:
    return load_folder(Path(name), resolution=resolution) if Path(name).is_dir() else None


def _npz(name: str, resolution: int | None) -> FoundImages | None:
    there = Path(name).is_file() and Path(name).suffix.lower() == ".npz"
    return load_npz(Path(name), resolution=resolution) if there else None


def _of_timm(name: str, resolution: int | None) -> FoundImages | None:
    return load_named(name, resolution=resolution) if is_named(name) else None


# What `--data` takes, in the words of the error, and what reads it: the first that does not return
# None, which says that the name is of another kind.
KINDS: dict[str, Callable[[str, int | None], FoundImages | None]] = {
    "digits": _digits,
    "a folder of IDX files": _idx,
    "a folder of images": _folder,
    "an .npz file": _npz,
    f"a set of timm's ({', '.join(f'{prefix}/NAME' for prefix in PREFIXES)})": _of_timm,
}


def _found(name: str, resolution: int | None) -> FoundImages:
    for load in KINDS.values():
        if (found := load(name, resolution)) is not None:
            return found
    *others, last = KINDS
    is_file = Path(name).is_file()
    what = "is a file of another kind" if is_file else "is none"
    advice = advice_on([Path(name)]) if is_file else ""
    raise ValueError(
        f"`data` must be {', '.join(others)} or {last}, but got {name!r}, "
        f"which {what}{f': {advice}' * bool(advice)}. Check the path."
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


@dataclass(frozen=True, kw_only=True)
class _Statistics:
    """Of images that are spread evenly: mean and deviation per channel, and how they differ.

    `between` is the deviation of a pixel from image to image; `same` the most of them that are one
    and the same, and `contradicting` those that are the same as one of another class.
    """

    images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    between: float
    same: int
    contradicting: int


def _measured(images: Images) -> _Statistics:
    chosen = np.linspace(0, len(images) - 1, min(len(images), _MEASURED)).round().astype(np.int64)
    sums = squares = np.zeros(1)
    digests: list[int] = []
    for start in range(0, len(chosen), _CHUNK):
        pixels = images.pixels(chosen[start : start + _CHUNK])
        digests += map(_digest, pixels)
        values = pixels / 255.0
        sums = sums + values.sum(axis=0)
        squares = squares + (values**2).sum(axis=0)
    mean, square = sums / len(chosen), squares / len(chosen)
    channels = mean.mean(axis=(0, 1))
    variance = np.maximum(square.mean(axis=(0, 1)) - channels**2, _SMALLEST_DEVIATION**2)
    labels: dict[int, set[int]] = {}
    for digest, label in zip(digests, images.labels[chosen].tolist(), strict=True):
        labels.setdefault(digest, set()).add(label)
    return _Statistics(
        images=len(chosen),
        mean=tuple(channels.tolist()),
        std=tuple(np.sqrt(variance).tolist()),
        between=float(np.sqrt(np.maximum(square - mean**2, 0).mean())),
        same=Counter(digests).most_common(1)[0][1],
        contradicting=sum(len(labels[digest]) > 1 for digest in digests),
    )


def _digest(image: NDArray[np.uint8]) -> int:
    """A number that two images share only if they are the same; of large ones some pixels do."""
    step = max(len(image) // _DIGESTED, 1)
    return zlib.crc32(image[::step, ::step].tobytes())


def _nothing_to_learn(found: FoundImages, of_train: _Statistics) -> tuple[str, ...]:
    """What makes an accuracy say little: images that are alike, classes of unequal size."""
    remarks = []
    seen = f"the {of_train.images:,} training images looked at"
    if of_train.between < _NEARLY_CONSTANT:
        remarks.append(
            f"There is next to nothing to learn: {seen} differ by {255 * of_train.between:.1f} of "
            "255 in a pixel. Check how they were made."
        )
    elif of_train.same > _MOSTLY * of_train.images:
        remarks.append(
            f"There is next to nothing to learn: {of_train.same:,} of {seen} are one and the same."
        )
    elif of_train.contradicting > _CONTRADICTING * of_train.images:
        remarks.append(f"{of_train.contradicting:,} of {seen} equal one of another class.")
    train = found.splits["train"]
    counts = np.bincount(train.labels, minlength=len(found.classes))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if counts[largest] > _UNEQUAL * counts[smallest]:
        remarks.append(
            f"The classes have {counts[smallest]:,} ({found.classes[smallest]}) to "
            f"{counts[largest]:,} ({found.classes[largest]}) training images, "
            f"{counts[largest] / counts[smallest]:.3g} to 1: always guessing the largest gets "
            f"{train.largest_class:.1f} % of them right."
        )
    return tuple(remarks)
