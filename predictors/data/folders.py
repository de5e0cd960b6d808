"""Trees of image files: which folders are splits and classes, and which files count."""

import os
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from predictors.data.images import SPLIT_NAMES, FoundImages, SplitName
from predictors.data.pictures import PictureFiles, found_in_files, open_picture
from search_spaces.io import short_repr

_PICTURE = re.compile(  # of what Pillow decodes
    r"\.(apng|avifs?|bmp|dds|dib|gif|icns|ico|jfif|jp[2efx]|jpeg|jpg|j2[ck]|mpo|p[bgnp]m|pcx|pfm|png|"
    r"psd|qoi|sgi|tga|tiff?|webp)",
    re.IGNORECASE,
)


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
    paths = [path for members in tree.classes.values() for path in members]
    sizes = [len(members) for members in tree.classes.values()]
    return PictureFiles(
        open_image=lambda i: open_picture(paths[i]),
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
