"""Pictures as people see them: opened, upright, in 8 bits and without alpha, then made square.

Everything that is a picture in a file or in a stream of bytes is opened and converted here.
"""

import io
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictors.data.images import FoundImages, Images, SplitName
from search_spaces.io import other_file, reason

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

# What Pillow logs of a broken file is in its error, too; unhandled, it would reach the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_GREY = {"1", "L", "LA", "La", "I", "F"}  # PIL's modes without colour, I;16 and its like besides
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (  # of what is found in files named as pictures
    (rb".{4}ftyp(heic|heix|heim|hevc|mif1|msf1)", "HEIC, of which `heif-convert` makes JPEG"),
    (rb"\s*(<\?xml|<svg)", "a drawing (SVG) without pixels"),
    (rb"\x00\x05\x16\x07", "a note of macOS on a file"),
)

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")


def open_picture(source: Path | bytes) -> "Image":
    """Return a picture of a file or of its bytes, not decoded yet; OSError says what it is else."""
    from PIL import Image, UnidentifiedImageError

    _take_large_ones()
    try:
        return Image.open(source if isinstance(source, Path) else io.BytesIO(source))
    except UnidentifiedImageError as error:
        if isinstance(source, Path):
            with source.open("rb") as file:
                source = file.read(64)
        found = (why for start, why in _BEGINNINGS if re.match(start, source[:64], re.I | re.S))
        why = other_file(source) or next(found, "no image that Pillow knows by its content")
        raise OSError(why) from error


@cache
def _take_large_ones() -> None:
    """Have Pillow open a large picture, up to what it refuses, without a warning on the way."""
    from PIL.Image import DecompressionBombWarning

    warnings.simplefilter("ignore", DecompressionBombWarning)


def begins_as_picture(path: Path) -> bool:
    """Whether a file without an ending begins as a picture does."""
    with path.open("rb") as file:
        start = file.read(16)
    return start.startswith(_SIGNATURES) or start[8:12] == b"WEBP"


class Levels(NamedTuple):
    """Which values of pictures with more than 8 bits become 0 and 255."""

    low: float
    high: float

    def to_bytes(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Return [height, width] in 0..255; what is no number is 0."""
        wide = values.astype(np.float64) - self.low
        if values.dtype.kind == "f":
            wide = np.rint(np.nan_to_num(wide, posinf=np.inf) * (255 / (self.high - self.low)))
        else:
            wide = np.floor(wide * (256 / (self.high - self.low + 1)))
        return wide.clip(0, 255).astype(np.uint8)


# The usual ranges, of which the first that fits is taken.
_OF_INTEGERS = tuple(Levels(0.0, 2.0**bits - 1) for bits in (8, 10, 12, 14, 16))
_OF_FLOATS = (Levels(0.0, 1.0), Levels(-1.0, 1.0), Levels(0.0, 255.0), Levels(0.0, 65535.0))
_OVERSHOOT = 0.1  # of a usual range of floats: resampled images leave it a little
_FILLED = 0.25  # of a usual range, at least


def levels_of(extremes: Sequence[tuple[float, float]], *, floats: bool) -> Levels:
    """Return the usual range that all these lowest and highest values fit, else their own.

    They are those of a whole data set, so that a dark picture stays darker than a bright one.
    """
    usual, overshoot = (_OF_FLOATS, _OVERSHOOT) if floats else (_OF_INTEGERS, 0.0)
    if not extremes:
        return _OF_FLOATS[0] if floats else _OF_INTEGERS[-1]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    for one in usual:
        span = one.high - one.low
        within = one.low - overshoot * span <= low and high <= one.high + overshoot * span
        if within and high - low >= _FILLED * span:
            return one
    return Levels(low, high if high > low else low + 1)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a data set's pictures become bytes: their channels, 1 or 3, and two ranges of values."""

    channels: int = 3
    integers: Levels = _OF_INTEGERS[-1]
    floats: Levels = _OF_FLOATS[0]


def as_seen(image: "Image", look: Look) -> "Image":
    """Return a picture in L or RGB, upright, alpha laid on white, wide values scaled to bytes."""
    image.load()  # of TIFF files this turns them upright, too
    mode, turn = "L" if look.channels == 1 else "RGB", _turn_of(image)
    if is_wide(image):
        image = _in_bytes(image, look)
    elif image.has_transparency_data:
        image = _on_ground(image)
    elif image.mode == "LAB":
        image = _from_lab(image)
    plain = image if image.mode == mode else image.convert(mode)
    return plain if turn is None else plain.transpose(turn)


def square(image: "Image", *, resolution: int, look: Look) -> NDArray[np.uint8]:
    """Return [resolution, resolution, channels]: the centre, resized."""
    from PIL.Image import Resampling

    # JPEG decodes at a fraction of its size, many times as fast; nothing else heeds it.
    image.draft("L" if look.channels == 1 else "RGB", (resolution, resolution))
    colours = as_seen(image, look)
    width, height = colours.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    resized = colours.resize(
        (resolution, resolution),
        Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=3.0,
    )
    return np.asarray(resized).reshape(resolution, resolution, look.channels)


def is_wide(image: "Image") -> bool:
    """Whether the values of a picture are more than a byte: 16 or 32 bits, or floats."""
    return image.mode in {"I", "F"} or image.mode.startswith("I;")


_ORIENTATION, _PHOTOMETRIC = 0x0112, 0x0106  # tags of EXIF and of TIFF
_SAY_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def _turn_of(image: "Image") -> "Transpose | None":
    """What turns a picture upright that was decoded, where its EXIF or XMP says that it lies."""
    if image.info.keys().isdisjoint(_SAY_ORIENTATION):
        return None
    from PIL.Image import Transpose

    turns = (
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # corrupt EXIF turns nothing, in viewers neither
        return None
    return turns[orientation - 2] if 2 <= orientation <= 8 else None


def _in_bytes(image: "Image", look: Look) -> "Image":
    from PIL.Image import fromarray
    from PIL.TiffImagePlugin import TiffImageFile

    values = np.asarray(image)
    pixels = (look.floats if values.dtype.kind == "f" else look.integers).to_bytes(values)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:  # 0 is white
        pixels = 255 - pixels
    return fromarray(pixels)


_WHITE, _DARKER, _FEW = 255, 224, 0.01


def _on_ground(image: "Image") -> "Image":
    """Lay a picture on white; on black if almost nothing of it would be seen on white."""
    from PIL import Image

    colours = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = np.asarray(colours.getchannel("A"))
    if alpha.min() == _WHITE:
        return colours.convert("RGB")
    visible = np.asarray(colours.convert("L"))[alpha > _WHITE // 2]
    is_white = visible.size > 0 and (visible < _DARKER).mean() < _FEW
    ground = Image.new("RGBA", colours.size, (*[0 if is_white else _WHITE] * 3, _WHITE))
    return Image.alpha_composite(ground, colours).convert("RGB")


def _from_lab(image: "Image") -> "Image":
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    found = ImageCms.applyTransform(image, transform)
    assert found is not None  # it is not in place
    return found


_LARGEST = 224  # pixels, unless a resolution is asked for
_EXACT = 48  # pixels up to which a size is kept as it is
_CHECKED_AT = (32, 32)  # the size that JPEG files are decoded to when they are checked
_CHUNK = 64  # images at most that a thread takes at a time

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureFiles:
    """The pictures of a split, not decoded yet, and their labels 0..n-1.

    `open_image` returns picture i as `open_picture` does; `name_of` what messages call it.
    """

    open_image: "Callable[[int], Image]"
    name_of: Callable[[int], str]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedPictures:
    """Pictures that are opened, centre-cropped and resized whenever they are read."""

    files: PictureFiles
    resolution: int
    look: Look

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return images as [b, resolution, resolution, channels]."""
        shape = (0, self.resolution, self.resolution, self.look.channels)
        squares = list(_in_threads(self._square, rows.tolist()))
        return np.stack(squares) if squares else np.empty(shape, dtype=np.uint8)

    def whole(self, row: int) -> "Image":
        """Return all of a picture, in RGB."""
        with self._opened(row) as image:
            return as_seen(image, self.look).convert("RGB")

    def _square(self, row: int) -> NDArray[np.uint8]:
        with self._opened(row) as image:
            return square(image, resolution=self.resolution, look=self.look)

    @contextmanager
    def _opened(self, row: int) -> "Iterator[Image]":
        try:
            with self.files.open_image(row) as image:
                yield image
        except Exception as error:  # decoders raise what they like
            raise OSError(
                f"{self.files.name_of(row)} can no longer be read: {reason(error)}. Leave the data "
                "alone while they are in use."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a picture was found to be; `extremes` are those of the values of a wide one."""

    shorter_side: int
    is_grey: bool
    is_turned: bool
    is_transparent: bool
    extremes: tuple[float, float] | None
    is_float: bool


def see(image: "Image") -> Seen:
    """Look at a picture; JPEG is decoded as small as that goes."""
    shorter_side = min(image.size)
    image.draft(None, _CHECKED_AT)
    image.load()  # a truncated file shows here only
    transparent = False
    if image.has_transparency_data and not is_wide(image):
        alpha = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        transparent = alpha.getchannel("A").getextrema()[0] != _WHITE
    return Seen(
        shorter_side=shorter_side,
        is_grey=image.mode in _GREY or is_wide(image),
        is_turned=_turn_of(image) is not None,
        is_transparent=transparent,
        extremes=_extremes(image) if is_wide(image) else None,
        is_float=image.mode == "F",
    )


def _extremes(image: "Image") -> tuple[float, float]:
    """The lowest and the highest value that is a number; zeros where there is none."""
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def look_of(train: Sequence[Seen], others: Sequence[Seen] = ()) -> Look:
    """Return how pictures become bytes: by those to train on, as far as these tell."""
    levels = []
    for floats in (False, True):
        wide = [
            [one.extremes for one in some if one.extremes and one.is_float == floats]
            for some in (train, others)
        ]
        levels.append(levels_of(wide[0] or wide[1], floats=floats))
    channels = 1 if all(one.is_grey for one in train) else 3
    return Look(channels=channels, integers=levels[0], floats=levels[1])


_Found = Seen | str  # or why it cannot be read


def found_in_files(
    splits: Mapping[SplitName, PictureFiles], *, classes: tuple[str, ...], resolution: int | None
) -> FoundImages:
    """Return the splits without the pictures that cannot be decoded; each is decoded once here.

    The images are grey if all of `train` are. The size, if not given, is the median of the shorter
    sides in `train`, at most 224, rounded to a multiple of 32 where it is over 48.
    """
    found = {
        split: list(_in_threads(partial(_try_to_see, files), range(len(files.labels))))
        for split, files in splits.items()
    }
    _refuse_unreadable(splits, found, classes)
    seen = {split: [one for one in ones if isinstance(one, Seen)] for split, ones in found.items()}
    every = [one for ones in seen.values() for one in ones]
    look = look_of(seen["train"], every)
    size = resolution or usual_size([one.shorter_side for one in seen["train"]])
    images: dict[SplitName, Images] = {}
    for split, files in splits.items():
        rows = np.flatnonzero([isinstance(one, Seen) for one in found[split]])
        pictures = DecodedPictures(files=files, resolution=size, look=look)
        images[split] = Images(labels=files.labels[rows], pictures=pictures, rows=rows)
    broken, grey = _broken_remark(splits, found), _grey_remark(every, look.channels)
    remarks = (*broken, *grey, *remarks_on(every, look))
    return FoundImages(
        classes=classes, resolution=size, channels=look.channels, splits=images, remarks=remarks
    )


def _try_to_see(files: PictureFiles, row: int) -> _Found:
    try:
        with files.open_image(row) as image:
            return see(image)
    except Exception as error:  # decoders raise what they like
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return re.sub(r"\s*\([^)]*\)|\s*['\"<].*", "", reason(error)) or type(error).__name__


def _in_threads(function: Callable[[int], _Result], rows: Iterable[int]) -> Iterator[_Result]:
    """Map in order; decoders let other threads run. An interruption leaves the rest undone."""
    asked, threads = list(rows), len(os.sched_getaffinity(0))
    size = min(_CHUNK, -(-len(asked) // threads)) or 1
    chunks = [asked[start : start + size] for start in range(0, len(asked), size)]
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        for results in pool.map(lambda chunk: [function(row) for row in chunk], chunks):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def usual_size(shorter_sides: list[int]) -> int:
    """Return the size, in pixels, at which images with these shorter sides are used."""
    side = int(np.median(shorter_sides))
    return min(_LARGEST, 32 * round(side / 32)) if side > _EXACT else side


def _refuse_unreadable(
    splits: Mapping[SplitName, PictureFiles],
    found: Mapping[SplitName, Sequence[_Found]],
    classes: Sequence[str],
) -> None:
    """Refuse a split, and a class to train on, of which nothing can be read."""
    for split, files in splits.items():
        if why := _why_none(files, found[split], range(len(found[split]))):
            raise ValueError(
                f"`data` must have images in every split, but got none that can be read in {split}:"
                f" {why}. Add images or remove the split."
            )
    train = splits["train"]
    for number, name in enumerate(classes):
        rows = np.flatnonzero(train.labels == number).tolist()
        if why := _why_none(train, found["train"], rows):
            raise ValueError(
                "`data` must have training images of every class, but got none that can be read of "
                f"{name}: {why}. Add images or remove the class."
            )


def _why_none(files: PictureFiles, found: Sequence[_Found], rows: Sequence[int]) -> str:
    """Why none of some pictures can be read, and the first; nothing if one can, or of none."""
    if not rows or any(isinstance(found[row], Seen) for row in rows):
        return ""
    why, _ = _most_frequent(found[row] for row in rows)
    return f"{why} (the first: {files.name_of(next(row for row in rows if found[row] == why))})"


def _most_frequent(found: Iterable[_Found]) -> tuple[str, int]:
    """The most frequent reason why pictures cannot be read, and of how many."""
    return Counter(one for one in found if isinstance(one, str)).most_common(1)[0]


def _broken_remark(
    splits: Mapping[SplitName, PictureFiles], found: Mapping[SplitName, Sequence[_Found]]
) -> tuple[str, ...]:
    broken = [
        (splits[split].name_of(row), one)
        for split, ones in found.items()
        for row, one in enumerate(ones)
        if isinstance(one, str)
    ]
    if not broken:
        return ()
    total = sum(map(len, found.values()))
    why, count = _most_frequent(one for _, one in broken)
    first = next(name for name, one in broken if one == why)
    left_out = agreed("cannot be read and were left out", len(broken))
    return (
        f"{len(broken):,} of {total:,} images {left_out}, the first: {first}. Of {count:,} the "
        f"reason is: {why}.",
    )


def agreed(words: str, count: int) -> str:
    """Return what is said of so many images: "1 of 62 images was turned upright"."""
    singular = {"are": "is", "were": "was", "have": "has"}
    return " ".join(singular.get(word, word) for word in words.split()) if count == 1 else words


def _grey_remark(seen: Sequence[Seen], channels: int) -> tuple[str, ...]:
    """Say how many images have fewer or more colours than the training images together."""
    total, grey = len(seen), sum(one.is_grey for one in seen)
    if channels == 3 and grey:
        what = agreed("are grey and were converted to RGB", grey)
        return (f"{grey:,} of {total:,} images {what}.",)
    if channels == 1 and grey < total:
        what = agreed("have colours, but none in train, and were converted to grey", total - grey)
        return (f"{total - grey:,} of {total:,} images {what}.",)
    return ()


def remarks_on(seen: Sequence[Seen], look: Look) -> tuple[str, ...]:
    """Say how many images are shown in another way than as they lie in their files."""
    by_kind = {"": look.integers, " in floats": look.floats}
    kinds = {" in floats" if one.is_float else "" for one in seen if one.extremes}
    ranges = [f"{by_kind[kind].low:g} to {by_kind[kind].high:g}{kind}" for kind in sorted(kinds)]
    counts = {
        "were turned upright, as their EXIF says": sum(one.is_turned for one in seen),
        "have transparent parts and were laid on white, or on black if all that shows is white": (
            sum(one.is_transparent for one in seen)
        ),
        f"have more than 8 bits, of which {' and '.join(ranges)} became 0 to 255": (
            sum(one.extremes is not None for one in seen)
        ),
    }
    return tuple(
        f"{n:,} of {len(seen):,} images {agreed(what, n)}." for what, n in counts.items() if n
    )
