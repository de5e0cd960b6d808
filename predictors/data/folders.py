"""Trees of image files: which folders are splits and classes, and which files count."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from unicodedata import normalize

import numpy as np

from predictors.data.images import SPLIT_NAMES, FoundImages, SplitName
from predictors.data.pictures import PictureFiles, begins_as_picture, found_in_files, open_picture
from search_spaces.io import listed, short_repr, shown

_PICTURE = re.compile(  # of what Pillow decodes
    r"\.(apng|avifs?|bmp|dds|dib|gif|icns|ico|jfif|jp[2efx]|jpeg|jpg|j2[ck]|mpo|p[bgnp]m|pcx|pfm|png|"
    r"psd|qoi|sgi|tga|tiff?|webp)",
    re.IGNORECASE,
)


# What systems put among a user's folders, in small letters: Synology and QNAP, archives of macOS,
# file systems, Windows, Android, Python.
_OF_SYSTEMS = {
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "@sharebin",
    "@snapshot",
    "@snapshots",
    "@synoresource",
    "@appstore",
    "@database",
    "@docker",
    "@__thumb",
    "@sharesnap",
    "@trash",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "__macosx",
    "network trash folder",
    "temporary items",
    "thevolumesettingsfolder",
    "icon\r",
    "lost+found",
    "lost.dir",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "msdownld.tmp",
    "__pycache__",
    "ipynb_checkpoints",
    "_gsdata_",
}
# What makes images of files that Pillow does not read, by the endings of their names.
_CONVERTERS = {
    ("heic", "heif", "hif"): "`heif-convert`",
    ("jxl",): "`djxl`",
    ("cr2", "cr3", "nef", "arw", "dng", "orf", "rw2", "raf", "pef", "srw"): "`darktable-cli`",
    ("svg", "svgz"): "`rsvg-convert`",
    ("pdf", "djvu"): "`pdftoppm -png`",
    ("dcm", "dicom"): "`dcm2img`",
    ("exr", "hdr", "xcf"): "ImageMagick's `convert`",
    ("mp4", "mov", "avi", "mkv", "webm", "m4v"): "`ffmpeg`",
    ("npy", "npz", "mat", "nii", "h5", "csv", "parquet", "arrow", "tfrecord", "bin", "pkl"): (
        "a script, or images and labels in one .npz,"
    ),
    ("zip", "tar", "tgz", "gz", "7z", "rar"): "unpacking them",
}


def _is_of_system(name: str) -> bool:
    return name.lower() in _OF_SYSTEMS or re.fullmatch(r"(?i)found\.\d{3}", name) is not None


def advice_on(files: Sequence[Path]) -> str:
    """What makes images of most of these files, if that is known."""
    endings = Counter(path.suffix.lower().removeprefix(".") for path in files if path.suffix)
    known = {ending: how for group, how in _CONVERTERS.items() for ending in group}
    for ending, count in endings.most_common():
        if ending in known:
            verb = "is" if count == 1 else "are"
            return f"{count:,} {verb} .{ending}, of which {known[ending]} makes images"
    return ""


@dataclass(frozen=True, kw_only=True)
class _Tree:
    """The image files of each class, and what else lies among them."""

    classes: dict[str, list[Path]]  # by names as they are shown
    folders: dict[str, Path]
    others: list[Path]
    links: list[Path]
    of_systems: list[Path]
    renamed: list[str]  # classes whose folders have other names


def load_folder(root: Path, *, resolution: int | None) -> FoundImages:
    """Return the splits of a tree: SPLIT/CLASS/FILE, or CLASS/FILE, which is one split.

    Splits are called train, val or valid or validation, and test; files may lie deeper than their
    class folder; classes are numbered in the order of their names. Hidden files do not count, nor
    do folders that systems make.
    """
    folders, remarks = _split_folders(root)
    trees = {split: _tree(folder) for split, folder in folders.items()}
    classes = tuple(trees["train"].classes)
    if "test" in trees and _has_no_labels(trees["test"], classes):
        (inside,) = trees.pop("test").classes
        words = f"The folder {folders.pop('test')} has no labels and was left out: its only folder"
        remarks += (f"{words}, {inside}, is no class of train.",)
    for split, folder in folders.items():
        _refuse_other_classes(folder, set(trees[split].classes), set(classes))
    files = {
        split: _files([tree.classes[name] for name in classes]) for split, tree in trees.items()
    }
    found = found_in_files(files, classes=classes, resolution=resolution)
    of_systems = {path for path in root.iterdir() if _is_of_system(path.name)}
    of_systems.update(path for tree in trees.values() for path in tree.of_systems)
    links = _links_remark([path for tree in trees.values() for path in tree.links])
    others = _others_remark([path for tree in trees.values() for path in tree.others])
    renamed = _renamed_remark([name for tree in trees.values() for name in tree.renamed])
    alike = _alike_remark(trees["train"])
    left_out = (*remarks, *_systems_remark(of_systems), *links, *others, *renamed, *alike)
    return replace(found, remarks=(*left_out, *found.remarks))


def holds_pictures(root: Path) -> bool:
    """Whether image files lie in folders of a folder; those beside a table are plots of ours."""
    inside = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    walks = chain.from_iterable(map(os.walk, inside))  # which enter links to classes
    endings = ({Path(file).suffix.lower() for file in files} for _, _, files in walks)
    return any(".csv" not in found and any(map(_PICTURE.fullmatch, found)) for found in endings)


def _split_folders(root: Path) -> tuple[dict[SplitName, Path], tuple[str, ...]]:
    """The folder of each split, and what is said of the others; no splits: the root is `train`."""
    inside = _folders(root)
    named = [(SPLIT_NAMES.get(folder.name.lower()), folder) for folder in inside]
    if not any(split and _folders(_inner(folder)) for split, folder in named):
        affixed = {folder: split for split, folder in _affixed(inside).items()}
        named = [(affixed.get(folder), folder) for folder in inside]
    found: dict[SplitName, Path] = {}
    others = []
    for split, folder in named:
        if split is None or not _folders(_inner(folder)):  # a class may be called train, too
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
    return {split: _inner(folder) for split, folder in found.items()}, tuple(
        f"The folder {folder} is no split with class folders and was left out." for folder in others
    )


_AFFIXED = re.compile(  # seg_train, training_set, train-images, test1
    rf"(?P<before>|.*[-_. ])(?P<split>{'|'.join(SPLIT_NAMES)})"
    r"(?P<after>|[-_. ]?(set|data|images?|imgs?))[-_. ]?\d?",
    re.IGNORECASE,
)


def _affixed(folders: Sequence[Path]) -> dict[SplitName, Path]:
    """Folders called after splits with one addition to all names: a train, and others."""
    groups: dict[tuple[str, str], dict[SplitName, Path]] = {}
    for folder in folders:
        if match := _AFFIXED.fullmatch(folder.name):
            group = groups.setdefault((match["before"].lower(), match["after"].lower()), {})
            group.setdefault(SPLIT_NAMES[match["split"].lower()], folder)
    return next((group for group in groups.values() if "train" in group and len(group) > 1), {})


def _inner(folder: Path) -> Path:
    """The folder itself, or the only one in it, of its name: archives are packed so."""
    inside = _folders(folder)
    alike = len(inside) == 1 and inside[0].name.lower() == folder.name.lower()
    return inside[0] if alike else folder


def _check_classes(folders: list[Path]) -> None:
    """Refuse splits without classes in them, and a folder that is around the splits or classes."""
    splits = {*_affixed(folders).values()}
    if folders and all(f.name.lower() in SPLIT_NAMES or f in splits for f in folders):
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
    """The folders in a folder that are not hidden nor a system's, by name as text sorts."""
    inside = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted((p for p in inside if not _is_of_system(p.name)), key=lambda path: path.name)


def _tree(root: Path) -> _Tree:
    folders = _by_class(root)
    whole = root.resolve()
    around = {_identity(path) for path in (*folders.values(), whole, *whole.parents)}
    links: list[Path] = []
    of_systems = [path for path in root.iterdir() if _is_of_system(path.name)]
    classes: dict[str, list[Path]] = {}
    others = [path for path in sorted(root.iterdir()) if _is_image(path) and path.is_file()]
    for name, folder in folders.items():
        classes[name] = []
        odd: list[Path] = []
        for path in _walk(folder, around, links, of_systems):
            (classes[name] if _is_image(path) and _is_plain(path) else odd).append(path)
        if not classes[name]:
            raise _no_images(folder, odd)
        others += odd
    return _Tree(
        classes=classes,
        folders=folders,
        others=others,
        links=links,
        of_systems=of_systems,
        renamed=[name for name, folder in folders.items() if name != folder.name],
    )


def _no_images(folder: Path, files: Sequence[Path]) -> ValueError:
    advice = advice_on(files)
    why = f": {advice}" if advice else ""
    if files and not advice:
        why = f", and {shown(files[0].name)} is none by its name"
    return ValueError(
        f"`data` must have images in each class folder, but {shown(folder)} has none{why}. "
        f"{'Convert them' if advice else 'Add images'} or remove the folder."
    )


def _by_class(root: Path) -> dict[str, Path]:
    """The class folders in a folder, by the names of the classes.

    A name is the folder's: composed, as macOS decomposes names and others do not, and with what
    cannot be written spelled out. So a training finds out now what its last file would say.
    """
    found: dict[str, Path] = {}
    for folder in _folders(root):
        name = normalize("NFC", shown(folder.name))
        other = found.setdefault(name, folder)
        if other != folder:
            raise ValueError(
                f"`data` must have each class once, but {shown(root)} has two folders {name}, "
                f"{other.name!a} and {folder.name!a}. Rename one."
            )
    if not found:
        advice = advice_on([path for path in root.iterdir() if path.is_file()])
        raise ValueError(
            f"`data` must hold a folder for each class, but {shown(root)} holds none"
            f"{f': {advice}' * bool(advice)}. Move the images of each class into a folder with its "
            "name."
        )
    return found


def _walk(
    folder: Path, around: Set[tuple[int, int]], links: list[Path], of_systems: list[Path]
) -> Iterator[Path]:
    """All files below a folder that are not hidden, in order.

    Links are followed, but those go to `links` that lead to a folder around this one or one that
    was read: their images would count twice, or as of another class. Systems' folders go to
    `of_systems`.
    """
    known = set(around)
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        inside = sorted(name for name in folders if not name.startswith("."))
        folders.clear()
        of_systems += (Path(where, name) for name in inside if _is_of_system(name))
        for path in (Path(where, name) for name in inside if not _is_of_system(name)):
            if _identity(path) in known:
                links.append(path)
                continue
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
    """Whether a file is one by its name or, where that has no ending, by how it begins."""
    if path.name.startswith("."):
        return False
    if path.suffix and not path.suffix[1:].isdecimal():
        return bool(_PICTURE.fullmatch(path.suffix))
    return path.is_file() and begins_as_picture(path)


def _is_plain(path: Path) -> bool:
    """Whether reading it ends, as of pipes it does not; who reads says if it is not there."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _files(classes: Sequence[Sequence[Path]]) -> PictureFiles:
    paths = [path for members in classes for path in members]
    sizes = [len(members) for members in classes]
    return PictureFiles(
        open_image=lambda i: open_picture(paths[i]),
        name_of=lambda i: shown(paths[i]),
        labels=np.repeat(np.arange(len(sizes), dtype=np.int64), sizes),
    )


def _has_no_labels(tree: _Tree, classes: Sequence[str]) -> bool:
    """Whether its images are in one folder that is no class, as those of a contest's test are."""
    return len(classes) > 1 and len(tree.classes) == 1 and tree.classes.keys().isdisjoint(classes)


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
    first = shown(links[0])
    return (f"{first} leads to a folder that is read elsewhere and was not followed{rest}.",)


def _systems_remark(folders: Set[Path]) -> tuple[str, ...]:
    if not folders:
        return ()
    names = ", ".join(sorted({shown(path.name) for path in folders}))
    what = "folder of a system's was" if len(folders) == 1 else "folders of systems were"
    return (f"{len(folders):,} {what} passed over: {names}.",)


def _renamed_remark(names: list[str]) -> tuple[str, ...]:
    """Say what classes are called whose folders have names that cannot be written."""
    escaped = [name for name in dict.fromkeys(names) if "\\" in name]
    if not escaped:
        return ()
    words = (
        "The name of a class folder is" if len(escaped) == 1 else "The names of class folders are"
    )
    return (f"{words} no plain UTF-8; the classes are called {', '.join(escaped)}.",)


def _alike_remark(tree: _Tree) -> tuple[str, ...]:
    """Say that all classes have the same folders in them: classes, or images and their masks."""
    inner = [
        {path.relative_to(folder).parts[0] for path in tree.classes[name] if path.parent != folder}
        for name, folder in tree.folders.items()
    ]
    if len(inner) < 2 or len(inner[0]) < 2 or any(names != inner[0] for names in inner):
        return ()
    return (
        f"Each class folder holds the folders {listed(sorted(map(shown, inner[0])))}, of which all "
        "images count as of that class. If these are classes, or some no images to learn from, "
        "name another folder or move them.",
    )


def _others_remark(others: list[Path]) -> tuple[str, ...]:
    if not others:
        return ()
    what = "file is no image by its name or in no class folder and was left out"
    if len(others) > 1:
        what = (
            "files are no images by their names or in no class folder and were left out, the first"
        )
    advice = advice_on(others)
    more = f" {advice[0].upper()}{advice[1:]}." if advice else ""
    return (f"{len(others):,} {what}: {shown(others[0])}.{more}",)
