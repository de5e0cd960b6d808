"""Images in IDX files, the format of MNIST, EMNIST and QMNIST, as these sets are laid out."""

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictors.data.arrays import found_in_arrays, not_readable
from predictors.data.images import SPLIT_NAMES, FoundImages, SplitName
from search_spaces.io import reason

_NAME = re.compile(  # of MNIST, EMNIST, QMNIST, and as Kaggle spells it
    rf"(?P<set>.*?)[-_.]?(?P<split>{'|'.join(SPLIT_NAMES)}|t10k)[-_.](?P<kind>image|label)s?[-_.]"
    r"idx\d[-_.](ubyte|int)(\.gz)?",
    re.IGNORECASE,
)
_PLACES = ("raw", "gzip")  # folders of torchvision and of EMNIST's archive
_Types = dict[bytes, np.dtype[np.generic]]
_IMAGES: _Types = {
    bytes([0, 0, 8, 3]): np.dtype(np.uint8)
}  # how files of bytes with 3 dimensions begin
_LABELS: _Types = {bytes([0, 0, 8, 1]): np.dtype(np.uint8), bytes([0, 0, 12, 2]): np.dtype(">i4")}


@dataclass(frozen=True, kw_only=True)
class IdxSet:
    """The files of a set's splits, and the one in which EMNIST says what its labels mean."""

    images: dict[SplitName, Path]
    labels: dict[SplitName, Path]
    mapping: Path


def idx_sets(folder: Path) -> dict[str, IdxSet]:
    """Return the sets of IDX files in a folder, by what is added to its path; MNIST's is "".

    They may lie in folders named raw or gzip, or as single files in folders of their names.
    """
    found: dict[str, IdxSet] = {}
    for name, place in _places(folder):
        for file in sorted(place.iterdir()):
            match = _NAME.fullmatch(file.name)
            if match is None or not file.is_file():
                continue
            own = match["set"]
            mapping = place / f"{own}-mapping.txt"
            key = "/".join(filter(None, (name, own)))
            one = found.setdefault(key, IdxSet(images={}, labels={}, mapping=mapping))
            files = one.images if match["kind"].lower() == "image" else one.labels
            split = SPLIT_NAMES.get(match["split"].lower(), "test")  # t10k
            files[split] = file  # if both are there, the .gz, which comes after
    return found


def _places(folder: Path) -> Iterator[tuple[str, Path]]:
    """Folders that may hold IDX files, with what is added to the path to name their sets."""
    yield "", folder
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inner.name in _PLACES or _NAME.fullmatch(inner.name):
            yield "", inner
        else:
            yield from ((inner.name, inner / n) for n in _PLACES if (inner / n).is_dir())


def find_idx(path: Path) -> dict[str, IdxSet]:
    """Return the sets that a path names: a folder's, or one of them, as FOLDER/emnist-letters."""
    if path.is_dir():
        return idx_sets(path)
    if path.is_file():
        return {}
    around = next((folder for folder in path.parents if folder.is_dir()), path)
    if around == path or not path.name:
        return {}
    name = path.relative_to(around).as_posix()
    return {"": found} if (found := idx_sets(around).get(name)) else {}


def load_idx(path: Path, sets: Mapping[str, IdxSet], *, resolution: int | None) -> FoundImages:
    """Return the splits of one set's IDX files, each plain or as .gz.

    The format: yann.lecun.com/exdb/mnist. Without files of a test split there is no test.
    """
    if len(sets) > 1:
        raise ValueError(
            f"`data` must be one set, but {path} holds {', '.join(sorted(sets))}. Name one of them:"
            f" {path / min(sets)}."
        )
    (one,) = sets.values()
    splits: tuple[SplitName, ...] = tuple(dict.fromkeys(("train", *one.images, *one.labels)))
    given: dict[SplitName, tuple[ArrayLike, ArrayLike]] = {}
    for split in splits:
        images, labels = one.images.get(split), one.labels.get(split)
        if images is None or labels is None:
            raise ValueError(
                f"`data` must hold images and labels, but {path} lacks "
                f"{_missing(one, split)}. Add that file, or its .gz."
            )
        numbers = _read(labels, _LABELS)
        given[split] = _read(images, _IMAGES), numbers if numbers.ndim == 1 else numbers[:, 0]
    return _named(found_in_arrays(given, resolution=resolution), one.mapping)


def _missing(one: IdxSet, split: SplitName) -> str:
    """The name that the file would have which is not there."""
    if beside := one.images.get(split):
        return re.sub("image", "label", beside.name).replace("idx3", "idx1").removesuffix(".gz")
    if beside := one.labels.get(split):
        name = re.sub("label", "image", beside.name).removesuffix(".gz")
        return re.sub(r"idx\d([-_.])\w+", r"idx3\1ubyte", name)
    return "the images of train"


def _named(found: FoundImages, mapping: Path) -> FoundImages:
    """Name classes by the characters that EMNIST's mapping has for them: label, codes."""
    if not mapping.is_file():
        return found
    rows = [line.split() for line in mapping.read_text("utf-8", "replace").splitlines()]
    names = {row[0]: chr(int(row[1])) for row in rows if len(row) > 1 and row[1].isdecimal()}
    classes = tuple(names.get(label, label) for label in found.classes)
    remark = "EMNIST's files hold characters mirrored at the diagonal, and so networks learn them."
    distinct = len(set(classes)) == len(classes)
    return replace(
        found,
        classes=classes if distinct else found.classes,
        remarks=(*found.remarks, remark),
    )


def _read(path: Path, known: _Types) -> NDArray[np.integer[Any]]:
    """An IDX file: two zeros, the type, the number of dimensions, their sizes, the values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise not_readable(path, reason(error)) from error
    magic = content[:4]
    start = 4 + 4 * magic[3] if magic in known else 0
    if not start or len(content) < start:
        raise ValueError(
            f"`data` must hold IDX files, but {path} begins with {magic.hex() or 'nothing'} "
            f"and not with {min(known).hex()}. Get the file again."
        )
    shape, values = np.frombuffer(content[4:start], dtype=">u4").tolist(), known[magic]
    if len(content) - start != math.prod(shape) * values.itemsize:
        raise ValueError(
            f"`data` must hold whole files, but {path} has {len(content) - start:,} bytes where "
            f"{' x '.join(map(str, shape))} were announced. Get the file again."
        )
    return np.frombuffer(content, dtype=values, offset=start).reshape(shape)
