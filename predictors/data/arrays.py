"""Images in files of arrays: NumPy's .npz, and scikit-learn's digits."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictors.data.images import SPLIT_NAMES, FoundImages, Images, SplitName, cut, numbered
from search_spaces.io import other_file, reason, short_repr


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
    given: Mapping[SplitName, tuple[ArrayLike, ArrayLike]], *, resolution: int | None
) -> FoundImages:
    """Return the splits of (pixels, labels); the size is the images' shorter side if not given.

    Pixels are uint8 of shape [n, height, width] or [n, height, width, channels].
    """
    arrays = {split: _images(np.asarray(pixels), split) for split, (pixels, _) in given.items()}
    height, width, channels = arrays["train"].shape[1:]
    for split, array in arrays.items():
        labels_shape = np.shape(given[split][1])
        if array.shape[1:] != (height, width, channels):
            raise ValueError(
                f"`data` must have images of one shape, but got {[height, width, channels]} in "
                f"train and {list(array.shape[1:])} in {split}. Make them alike."
            )
        if labels_shape[:1] != (len(array),):
            raise ValueError(
                f"`data` must have one label an image, but got {len(array)} images and "
                f"{(*labels_shape, 1)[0]} labels in {split}. Check how the arrays were made."
            )
    classes, labels, remarks = numbered({split: pair[1] for split, pair in given.items()})
    size = resolution or min(height, width)
    splits = {
        split: Images(
            labels=labels[split],
            pictures=ArrayPictures(pixels=array, resolution=size),
            rows=np.arange(len(array)),
        )
        for split, array in arrays.items()
    }
    return FoundImages(
        classes=classes, resolution=size, channels=channels, splits=splits, remarks=remarks
    )


def _images(array: NDArray[Any], split: SplitName) -> NDArray[np.uint8]:
    """The images of a split with their channels last; grey ones may come without."""
    if array.shape[:1] == (0,):
        raise ValueError(
            f"`data` must have images in every split, but got none in {split}. Add images or "
            "remove the split."
        )
    if array.dtype != np.uint8:
        raise ValueError(
            f"`data` must have pixels from 0 to 255 in uint8, but got {array.dtype} in {split}. "
            "Scale and convert them."
        )
    shaped = array[..., np.newaxis] if array.ndim == 3 else array
    if shaped.ndim != 4 or shaped.shape[-1] not in {1, 3} or 0 in shaped.shape:
        raise ValueError(
            "`data` must have images of shape [n, height, width] or [n, height, width, channels] "
            f"with 1 or 3 channels, but got {list(array.shape)} in {split}. Put the channels last, "
            "and leave out alpha."
        )
    return shaped


def _resized(square: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    import torch

    planes = torch.from_numpy(square).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(
        planes, size=(size, size), mode="bilinear", antialias=True
    )
    return np.asarray(resized.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).numpy())


Array = NDArray[np.generic]
_SPLITS = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
_KINDS = {
    "x": r"x|images?|imgs?|pictures|pixels|data",
    "y": r"y|labels?|targets?",
}
_NPZ_NAME = re.compile(  # x_train, train_images, trainLabels, Y-test; without a split x, images
    "|".join(
        rf"(?P<{kind}1>{words})[^a-z0-9]*(?P<{kind}2>{_SPLITS})|"
        rf"(?P<{kind}3>{_SPLITS})[^a-z0-9]*(?P<{kind}4>{words})|(?P<{kind}5>{words})"
        for kind, words in _KINDS.items()
    ),
    re.IGNORECASE,
)
_NPZ: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
_NPY = b"\x93NUMPY"  # how a file of one array begins
_DIGITS_SIZE = 32
_TEST_FRACTION = 0.2


def load_npz(path: Path, *, resolution: int | None) -> FoundImages:
    """Return the splits of an .npz file: x_train and y_train, also x_val, y_val, x_test, y_test.

    Splits may have their other names, such as x_valid, and arrays those of MedMNIST and others:
    train_images, train_labels. What other arrays there are is remarked on.
    """
    _refuse_no_archive(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = _npz_names(path, file.files)
            arrays: dict[str, Array] = {name: file[own] for name, own in names.items()}
            unused = sorted(set(file.files) - set(names.values()))
    except (MemoryError, _RepeatedError):
        raise
    except Exception as error:  # zip files and NumPy's headers have errors of all kinds
        if "allow_pickle" in str(error):  # they would run what is in them
            raise ValueError(
                f"`data` must have arrays of numbers or text, but {path} has some of Python's "
                "objects. Convert them, for example with labels.astype(str), and save them again."
            ) from error
        raise not_readable(path, reason(error)) from error
    pairs = {split: (f"x_{name}", f"y_{name}") for split, name in _NPZ.items()}
    present = {
        split: pair for split, pair in pairs.items() if split == "train" or arrays.keys() & {*pair}
    }
    needed = {name for pair in present.values() for name in pair}
    if missing := sorted(needed - arrays.keys()):
        instead = f" and has {short_repr(unused)}" if unused else ""
        raise ValueError(
            f"`data` must hold the arrays {', '.join(sorted(needed))}, but {path} lacks "
            f"{', '.join(missing)}{instead}. Save them with numpy.savez."
        )
    given = {split: (arrays[x], arrays[y]) for split, (x, y) in present.items()}
    found = found_in_arrays(given, resolution=resolution)
    if not unused:
        return found
    what = "array is" if len(unused) == 1 else "arrays are"
    remark = f"{len(unused):,} {what} no split's by name and not used: {short_repr(unused)}."
    return replace(found, remarks=(*found.remarks, remark))


def _refuse_no_archive(path: Path) -> None:
    """Refuse what NumPy would read in another way, and say so in its words."""
    with path.open("rb") as stream:
        start = stream.read(64)
        if start.startswith(_NPY):
            raise ValueError(
                f"`data` must be an archive of arrays, but {path} is a single one. Save images and "
                "labels together with numpy.savez."
            )
    if not zipfile.is_zipfile(path):
        why = other_file(start) or "it is no .npz archive, or not the whole of one"
        raise not_readable(path, why)


class _RepeatedError(ValueError):
    """Two arrays have one meaning."""


def _npz_names(path: Path, files: Sequence[str]) -> dict[str, str]:
    """The names of the arrays of splits, by what they are: x_train, y_val.

    Names without a split count as of train where no other name has one.
    """
    named = {name: match for name in files if (match := _NPZ_NAME.fullmatch(name))}
    if any(_split_of(match) for match in named.values()):
        named = {name: match for name, match in named.items() if _split_of(match)}
    found: dict[str, str] = {}
    for name, match in named.items():
        kind = str(match.lastgroup)[0]
        split = SPLIT_NAMES[(_split_of(match) or "train").lower()]
        other = found.setdefault(f"{kind}_{_NPZ[split]}", name)
        if other != name:
            raise _RepeatedError(
                f"`data` must have each split once, but {path} has the arrays {other} and {name}. "
                "Remove one."
            )
    return found


def _split_of(match: re.Match[str]) -> str:
    return next(
        (text for group, text in match.groupdict().items() if group[1] in "23" and text), ""
    )


def load_digits(*, resolution: int | None) -> FoundImages:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels, each pixel repeated to 32 x 32.

    The fifth that is the test split is the same whatever seed cuts the validation split.
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    factor = _DIGITS_SIZE // small.shape[1]
    pixels = small.repeat(factor, axis=1).repeat(factor, axis=2)
    found = found_in_arrays({"train": (pixels, digits.target)}, resolution=resolution)
    train, test = cut(found.splits["train"], fraction=_TEST_FRACTION, seed=0)
    return replace(found, splits={"train": train, "test": test})


def not_readable(path: Path, why: str) -> ValueError:
    """Return the error of a file of arrays that is damaged, or is none."""
    return ValueError(
        f"`data` must be a file that can be read, but {path} cannot: {why}. Get it again."
    )
