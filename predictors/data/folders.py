"""Images in folders of classes: checked once, then decoded when they are asked for."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.data.images import SPLIT_NAMES, FoundImages, Images, SplitName
from search_spaces.io import short_repr

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY = {"1", "L", "LA", "La", "I", "F"}  # PIL's modes without colour, I;16 and its like besides


def square(image: "Image", *, resolution: int, channels: int) -> NDArray[np.uint8]:
    """Return [resolution, resolution, channels]: the centre, resized."""
    from PIL.Image import Resampling

    # JPEG decodes at a fraction of its size, many times as fast; nothing else heeds it.
    image.draft("L" if channels == 1 else "RGB", (resolution, resolution))
    colours = _converted(image, "L" if channels == 1 else "RGB")
    width, height = colours.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    resized = colours.resize(
        (resolution, resolution),
        Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=3.0,
    )
    return np.asarray(resized).reshape(resolution, resolution, channels)


def _converted(image: "Image", mode: str) -> "Image":
    from PIL.Image import fromarray

    if image.mode == "I" or image.mode.startswith("I;"):  # 16 bits, which PIL would cut off at 255
        image = fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns of the direct way
    return image.convert(mode)


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


_Look = tuple[int, bool]  # a picture's shorter side, and whether it is grey


def found_in_files(
    splits: Mapping[SplitName, PictureFiles], *, classes: tuple[str, ...], resolution: int | None
) -> FoundImages:
    """Return the splits without the pictures that cannot be decoded; each is decoded once here.

    The images are grey if all of `train` are. The size, if not given, is the median of the shorter
    sides in `train`, at most 224, rounded to a multiple of 32 where it is over 48.
    """
    looks = {
        split: list(_in_threads(partial(_look, files), range(len(files.labels))))
        for split, files in splits.items()
    }
    seen = [look for look in looks["train"] if look]
    if not seen:
        raise ValueError(
            "`data` must hold images, but got none in train that can be read. Check the files."
        )
    channels = 1 if all(grey for _, grey in seen) else 3
    size = resolution or usual_size([shorter_side for shorter_side, _ in seen])
    found: dict[SplitName, Images] = {}
    for split, files in splits.items():
        rows = np.array([i for i, look in enumerate(looks[split]) if look], dtype=np.int64)
        pictures = DecodedPictures(files=files, resolution=size, channels=channels)
        found[split] = Images(labels=files.labels[rows], pictures=pictures, rows=rows)
    remarks = (*_broken_remark(splits, looks), *_grey_remark(looks, channels))
    return FoundImages(
        classes=classes, resolution=size, channels=channels, splits=found, remarks=remarks
    )


def _look(files: PictureFiles, row: int) -> _Look | None:
    try:
        with files.open_image(row) as image:
            found = min(image.size), image.mode in _GREY or image.mode.startswith("I;")
            image.draft(None, _CHECKED_AT)
            image.load()  # a truncated file shows here only
    except Exception:  # decoders raise what they like
        return None
    return found


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
    broken = [
        splits[split].name_of(row)
        for split, found in looks.items()
        for row, look in enumerate(found)
        if look is None
    ]
    if not broken:
        return ()
    total = sum(map(len, looks.values()))
    verb = "was" if len(broken) == 1 else "were"
    return (
        f"{len(broken):,} of {total:,} images cannot be read and {verb} left out, the first: "
        f"{broken[0]}.",
    )


def _grey_remark(looks: Mapping[SplitName, list[_Look | None]], channels: int) -> tuple[str, ...]:
    """Say how many images have fewer or more colours than the training images together."""
    seen = [look for found in looks.values() for look in found if look]
    grey = sum(is_grey for _, is_grey in seen)
    if channels == 3 and grey:
        return (f"{grey:,} of {len(seen):,} images are grey and were converted to RGB.",)
    if channels == 1 and grey < len(seen):
        coloured = f"{len(seen) - grey:,} of {len(seen):,} images have colours"
        return (f"{coloured}, but none in train, and were converted to grey.",)
    return ()


_PICTURE = re.compile(r"\.(avif|bmp|gif|jfif|jpe?g|p[gp]m|png|tiff?|webp)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Tree:
    """The image files of each class, and what else lies among them."""

    classes: dict[str, list[Path]]
    others: list[Path]
    links: list[Path]


def load_folder(root: Path, *, resolution: int | None) -> FoundImages:
    """Return the splits of a tree: SPLIT/CLASS/FILE, or CLASS/FILE, which is one split.

    Splits are called train, val or valid or validation, and test; files may lie deeper than their
    class folder; classes are numbered in the order of their names. Hidden files do not count.
    """
    folders, remarks = _split_folders(root)
    trees = {split: _tree(folder) for split, folder in folders.items()}
    classes = tuple(trees["train"].classes)
    for split, folder in folders.items():
        _refuse_other_classes(folder, set(trees[split].classes), set(classes))
    files = {split: _files(tree) for split, tree in trees.items()}
    found = found_in_files(files, classes=classes, resolution=resolution)
    links = _links_remark([path for tree in trees.values() for path in tree.links])
    others = _others_remark([path for tree in trees.values() for path in tree.others])
    return replace(found, remarks=(*remarks, *links, *others, *found.remarks))


def _split_folders(root: Path) -> tuple[dict[SplitName, Path], tuple[str, ...]]:
    """The folder of each split, and what is said of the others; no splits: the root is `train`."""
    found: dict[SplitName, Path] = {}
    others = []
    for folder in _folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not _folders(folder):  # a class may be called train, too
            others.append(folder)
        elif split in found:
            raise ValueError(
                f"`data` must have each split once, but {root} has the folders {found[split].name} "
                f"and {folder.name}. Rename one."
            )
        else:
            found[split] = folder
    if not found:
        _check_classes(others)
        return {"train": root}, tuple(
            f"The folder {folder} has a split's name, but no class folders, and became a class."
            for folder in others
            if folder.name.lower() in SPLIT_NAMES
        )
    if "train" not in found:
        raise ValueError(
            "`data` must have a folder train with class folders beside its other splits, but "
            f"{root} has {short_repr(sorted(folder.name for folder in found.values()))}. Add or "
            "rename it."
        )
    return found, tuple(
        f"The folder {folder} is no split with class folders and was left out." for folder in others
    )


def _check_classes(folders: list[Path]) -> None:
    """Refuse splits without classes in them, and a folder that is around the splits or classes."""
    if folders and all(folder.name.lower() in SPLIT_NAMES for folder in folders):
        raise ValueError(
            f"`data` must hold a folder for each class in each split, but {folders[0]} holds none. "
            "Move the images of each class into a folder with its name."
        )
    if len(folders) == 1 and _folders(folders[0]):
        raise ValueError(
            f"`data` must have two classes or more, but got 1 ({folders[0].name}). Name "
            f"{folders[0]} if the classes are in there."
        )


def _folders(root: Path) -> list[Path]:
    """The folders in a folder that are not hidden, by name as text sorts."""
    inside = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(inside, key=lambda path: path.name)


def _tree(root: Path) -> _Tree:
    folders = _folders(root)
    if not folders:
        raise ValueError(
            f"`data` must hold a folder for each class, but {root} holds none. Move the images of "
            "each class into a folder with its name."
        )
    whole = root.resolve()
    around = {_identity(path) for path in (*folders, whole, *whole.parents)}
    links: list[Path] = []
    files = {folder.name: list(_walk(folder, around, links)) for folder in folders}
    classes = {name: [path for path in paths if _is_image(path)] for name, paths in files.items()}
    empty = [name for name, paths in classes.items() if not paths]
    if empty:
        raise ValueError(
            f"`data` must have images in each class folder, but {root / empty[0]} has none. Add "
            "images or remove the folder."
        )
    beside = [path for path in sorted(root.iterdir()) if _is_image(path) and path.is_file()]
    odd = [path for paths in files.values() for path in paths if not _is_image(path)]
    return _Tree(classes=classes, others=beside + odd, links=links)


def _walk(folder: Path, around: Set[tuple[int, int]], links: list[Path]) -> Iterator[Path]:
    """All files below a folder that are not hidden, in order.

    Links are followed, but those go to `links` that lead to a folder around this one or one that
    was read: their images would count twice, or as of another class.
    """
    known = set(around)
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        inside = sorted(name for name in folders if not name.startswith("."))
        folders.clear()
        for path in (Path(where, name) for name in inside):
            if _identity(path) in known:
                links.append(path)
            else:
                known.add(_identity(path))
                folders.append(path.name)
        yield from (Path(where, name) for name in sorted(names) if not name.startswith("."))


def _identity(path: Path) -> tuple[int, int]:
    """What is the same for a folder and the links to it."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _raise(error: OSError) -> None:
    raise error


def _is_image(path: Path) -> bool:
    return bool(_PICTURE.fullmatch(path.suffix)) and not path.name.startswith(".")


def _files(tree: _Tree) -> PictureFiles:
    from PIL import Image

    paths = [path for members in tree.classes.values() for path in members]
    sizes = [len(members) for members in tree.classes.values()]
    return PictureFiles(
        open_image=lambda i: Image.open(paths[i]),
        name_of=lambda i: str(paths[i]),
        labels=np.repeat(np.arange(len(sizes), dtype=np.int64), sizes),
    )


def _refuse_other_classes(folder: Path, classes: set[str], known: set[str]) -> None:
    if classes != known:
        differing = [
            f"{word} {short_repr(sorted(names))}"
            for word, names in (("adds", classes - known), ("lacks", known - classes))
            if names
        ]
        raise ValueError(
            f"`data` must have the classes of train in every split, but {folder} "
            f"{' and '.join(differing)}. Give each split the same class folders."
        )


def _links_remark(links: list[Path]) -> tuple[str, ...]:
    if not links:
        return ()
    rest = f", nor {len(links) - 1:,} more links" if len(links) > 1 else ""
    return (f"{links[0]} leads to a folder that is read elsewhere and was not followed{rest}.",)


def _others_remark(others: list[Path]) -> tuple[str, ...]:
    if not others:
        return ()
    what = "file is no image by its name or in no class folder and was left out"
    if len(others) > 1:
        what = (
            "files are no images by their names or in no class folder and were left out, the first"
        )
    return (f"{len(others):,} {what}: {others[0]}.",)
