"""A data set by the name that `--data` takes: its splits, classes, size and normalisation."""

import itertools
import tempfile
import zlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predictors.data.arrays import found_in_arrays
from predictors.data.images import FoundImages, Images, SplitName, cut, numbered
from predictors.data.pictures import (
    Look,
    PictureFiles,
    Seen,
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
        symmetric=name != "digits",
    )


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
    from predictors.data.idx import find_idx

    return path.exists() or bool(find_idx(path))


def _found(name: str, resolution: int | None) -> FoundImages:
    from predictors.data import arrays, folders, idx

    path = Path(name)
    if name == "digits":
        return arrays.load_digits(resolution=resolution)
    if sets := idx.find_idx(path):
        return idx.load_idx(path, sets, resolution=resolution)
    if path.is_dir():
        return folders.load_folder(path, resolution=resolution)
    if path.is_file() and path.suffix.lower() == ".npz":
        return arrays.load_npz(path, resolution=resolution)
    if is_named(name):
        return load_named(name, resolution=resolution)
    what = "is a file of another kind" if path.is_file() else "is none"
    advice = folders.advice_on([path]) if path.is_file() else ""
    raise ValueError(
        "`data` must be a folder of images or IDX files, an .npz file, digits, or a set of timm's "
        f"({', '.join(f'{prefix}/NAME' for prefix in PREFIXES)}), but got {name!r}, "
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
        remark = f"{missing:,} of {announced:,} images cannot be read and were left out."
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
