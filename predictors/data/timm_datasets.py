"""Data sets that timm's `create_dataset` knows: Hugging Face's hub, torchvision's, streams."""

import itertools
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.data.arrays import found_in_arrays
from predictors.data.images import FoundImages, SplitName, numbered
from predictors.data.pictures import (
    Look,
    PictureFiles,
    Seen,
    agreed,
    found_in_files,
    look_of,
    open_picture,
    remarks_on,
    see,
    square,
    usual_size,
)
from search_spaces.io import reason

if TYPE_CHECKING:
    from PIL.Image import Image

_LOOKED_AT = 64  # images from which the size is chosen


class ImageStream(Protocol):
    """Pictures of PIL with their labels; the length is what was announced, or 0."""

    def __iter__(self) -> Iterator[tuple["Image", int]]: ...

    def __len__(self) -> int: ...


def found_in_streams(
    streams: Mapping[SplitName, ImageStream], *, names: tuple[str, ...], resolution: int | None
) -> FoundImages:
    """Return the splits; `names` are those of the classes, or empty.

    They are grey if in every image of every split red, green and blue are the same.
    """
    first = [see(image) for image, _ in itertools.islice(streams["train"], _LOOKED_AT)]
    if not first:
        raise ValueError("there are no images in train")
    size = resolution or usual_size([one.shorter_side for one in first])
    look, seen = replace(look_of(first), channels=3), list[Seen]()
    kept = {split: _kept(one, split, size, look, seen) for split, one in streams.items()}
    if all((image == image[..., :1]).all() for pixels, _ in kept.values() for image in pixels):
        kept = {split: (pixels[..., :1], labels) for split, (pixels, labels) in kept.items()}
    found = found_in_arrays(kept, resolution=size)
    announced = sum(len(stream) for stream in streams.values())
    missing = announced - sum(len(labels) for _, labels in kept.values())
    remarks = (*found.remarks, *remarks_on(seen, look))
    if missing > 0:
        left_out = agreed("cannot be read and were left out", missing)
        remark = f"{missing:,} of {announced:,} images {left_out}."
        remarks = (remark, *remarks)
    classes = names if len(names) == len(found.classes) else found.classes
    return replace(found, classes=classes, remarks=remarks)


def _kept(
    stream: ImageStream, split: SplitName, size: int, look: Look, seen: list[Seen]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images of a split, in RGB, and their labels; what they are is added to `seen`."""
    labels = []
    with tempfile.TemporaryFile(prefix="fasternas-") as file:
        for image, label in stream:
            seen.append(see(image))
            file.write(square(image, resolution=size, look=look).tobytes())
            labels.append(int(label))
        if not labels:
            raise ValueError(f"there are no images in {split}")
        file.flush()
        pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(len(labels), size, size, 3))
    return pixels, np.array(labels, dtype=np.int64)


_PACKAGES = {
    "hfds": "datasets",
    "wds": "webdataset",
    "tfds": "tensorflow_datasets",
    "torch": "torchvision",
}
PREFIXES = tuple(_PACKAGES)
_TORCH = ("cifar10", "cifar100", "fashion_mnist", "kmnist", "mnist")


def is_named(name: str) -> bool:
    """Whether this is the name of a set, and no path."""
    prefix, slash, rest = name.partition("/")
    return prefix in _PACKAGES and bool(slash and rest)


def load_named(name: str, *, resolution: int | None) -> FoundImages:
    """Return the splits of a set. What is not there is downloaded, but for wds."""
    prefix, _, rest = name.partition("/")
    if find_spec(_PACKAGES[prefix]) is None:
        package = _PACKAGES[prefix].replace("_", "-")
        raise ValueError(
            f"`data` {name} needs the package {package}, which is not installed. Install it with "
            f"`pip install {package}`."
        )
    own, _, folder = rest.rpartition("@") if "@" in rest else (rest, "", "")
    load = {"hfds": _from_hub, "torch": _from_torch}.get(prefix, _from_stream)
    try:
        return load(f"{prefix}/{own}", folder or None, resolution)
    except Exception as error:  # each package has its own, and its assertions
        raise ValueError(
            f"`data` {name} cannot be read: {reason(error)}. Check its name, "
            "its place and the connection."
        ) from error


def _from_torch(name: str, folder: str | None, resolution: int | None) -> FoundImages:
    if name.partition("/")[2] not in _TORCH or folder is None:
        raise ValueError(f"of torchvision's sets it takes torch/{'|'.join(_TORCH)}@FOLDER")
    splits: tuple[SplitName, ...] = ("train", "test")
    opened = {split: _opened(name, folder, split, download=True) for split in splits}
    given = {split: (np.asarray(opened[split].data), opened[split].targets) for split in opened}
    found = found_in_arrays(given, resolution=resolution)
    return replace(found, classes=tuple(opened["train"].classes))


def _opened(name: str, folder: str | None, split: str, **options: Any) -> Any:
    from search_spaces.timm_models import import_timm

    return import_timm().data.create_dataset(name, root=folder, split=split, **options)


def _from_hub(name: str, folder: str | None, resolution: int | None) -> FoundImages:
    columns = _columns(name.partition("/")[2], folder)
    train = _opened(name, folder, "train", **columns).reader
    readers: dict[SplitName, Any] = {"train": train}
    for split, own in _other_splits(train.dataset.info.splits or {}):
        readers[split] = _opened(name, folder, own, **columns).reader
    given = {split: np.array(list(reader.iter_targets())) for split, reader in readers.items()}
    remarks: tuple[str, ...] = ()
    test = given.get("test")
    if test is not None and test.dtype.kind == "i" and (test < 0).all():  # -1, as ImageNet's
        del given["test"]
        remarks = ("The test split has no labels and was left out.",)
    names = tuple(train.class_to_idx)
    classes, labels, renumbered = (names, given, ()) if names else numbered(given)
    for split, numbers in labels.items():
        if not np.isin(numbers, np.arange(len(classes))).all():
            raise ValueError(f"{split} has labels that are no numbers of its classes")
    files = {
        split: _hub_files(readers[split], labels[split], f"{name}, {split}") for split in labels
    }
    found = found_in_files(files, classes=classes, resolution=resolution)
    return replace(found, remarks=(*remarks, *renumbered, *found.remarks))


def _columns(name: str, folder: str | None) -> dict[str, str]:
    """Which columns hold the images and their classes, where a set declares that."""
    import datasets

    declared = datasets.load_dataset_builder(name, cache_dir=folder).info.features or {}
    kinds = {type(feature).__name__: column for column, feature in reversed(declared.items())}
    image, label = kinds.get("Image", "image"), kinds.get("ClassLabel", "label")
    return {"input_key": image, "target_key": label}


def _hub_files(reader: Any, labels: NDArray[np.int64], name: str) -> PictureFiles:
    def open_image(row: int) -> "Image":
        with reader[row][0] as stream:
            return open_picture(stream.read())

    return PictureFiles(
        open_image=open_image, name_of=lambda row: f"{name}, row {row}", labels=labels
    )


def _other_splits(present: Container[str]) -> Iterator[tuple[SplitName, str]]:
    """Our name and the set's own of the validation and the test split, where it has one."""
    names = ("validation", "valid", "val")
    if validation := next((name for name in names if name in present), None):
        yield "validation", validation
    if "test" in present:
        yield "test", "test"


def _from_stream(name: str, folder: str | None, resolution: int | None) -> FoundImages:
    prefix, _, rest = name.partition("/")
    root = folder or (rest if prefix == "wds" else None)
    # timm would convert to RGB: alpha would be black, and 16 bits white
    options = {"download": True} if prefix == "tfds" else {"input_img_mode": ""}
    train = _opened(name, root, "train", **options)
    present = train.reader.builder.info.splits if prefix == "tfds" else train.reader.info["splits"]
    sets: dict[SplitName, Any] = {"train": train}
    for split, own in _other_splits(present):
        sets[split] = _opened(name, root, own, **options)
    names = tuple(train.reader.class_to_idx)
    return found_in_streams(sets, names=names, resolution=resolution)
