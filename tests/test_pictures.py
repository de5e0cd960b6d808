"""Pictures are what people see: upright, scaled by their range, without alpha; also in streams."""

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_trees import coloured_tree
from PIL import Image
from PIL.Image import Exif

from predictors.data import pictures
from predictors.data.datasets import ImageData, load_data
from predictors.data.pictures import DecodedPictures, Levels, agreed, levels_of, open_picture
from predictors.data.timm_datasets import found_in_streams

SIDE = 48
Values = np.ndarray[Any, Any]


def _upright() -> Values:
    """A picture of which each corner has a grey of its own."""
    pixels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    half = SIDE // 2
    pixels[:half, half:], pixels[half:, :half], pixels[half:, half:] = 80, 160, 240
    return np.repeat(pixels[..., np.newaxis], 3, axis=2)


# What EXIF says of a picture that was stored so: how the stored rows and columns come about.
STORED: dict[int, Callable[[Values], Values]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}


def _exif(orientation: int) -> bytes:
    exif = Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _data(folder: Path, image: Image.Image, suffix: str = ".png", **options: Any) -> ImageData:
    """Two classes of three copies of a picture each."""
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(3):
            image.save(folder / name / f"{number}{suffix}", **options)
    return load_data(str(folder))


def _shown(data: ImageData) -> list[Values]:
    """An image as it is evaluated, and the whole picture that augmentations begin with."""
    pictures = data.validation.pictures
    assert isinstance(pictures, DecodedPictures)
    return [data.validation.pixels([0])[0], np.asarray(pictures.whole(0))]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".avif"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = _exif(orientation)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](_upright())))
    data = _data(tmp_path, stored, suffix, exif=exif, quality=95)
    for shown in _shown(data):
        assert np.abs(shown.astype(int) - _upright()).mean() < 5
    if suffix != ".tiff":  # Pillow turns these itself
        said = "6 of 6 images were turned upright, as their EXIF says."
        assert (said in data.remarks) == (orientation != 1)


def test_of_one_image_remarks_are_in_the_singular() -> None:
    assert agreed("were turned upright", 1) == "was turned upright"
    assert agreed("have transparent parts and were laid on white", 1).startswith("has transpa")
    assert agreed("are grey and were converted", 1) == "is grey and was converted"
    assert agreed("are grey and were converted", 2) == "are grey and were converted"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_orientation_is_read_from_xmp_and_corrupt_exif_turns_nothing(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](_upright())))
    for shown in _shown(_data(tmp_path, stored, ".jpg", xmp=xmp, quality=95)):
        assert np.abs(shown.astype(int) - _upright()).mean() < 5
    (tmp_path / "other").mkdir()
    bad = b"Exif\0\0II*\0\xff\xff\xff\xff"
    data = _data(tmp_path / "other", Image.fromarray(_upright()), ".jpg", exif=bad, quality=95)
    assert np.abs(_shown(data)[0].astype(int) - _upright()).mean() < 5


def test_the_centre_of_a_picture_on_its_side_is_that_of_the_upright_one(tmp_path: Path) -> None:
    wide = np.concatenate([_upright()[:, : SIDE // 2], _upright(), _upright()[:, : SIDE // 2]], 1)
    exif = _exif(8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[8](wide)))
    assert stored.size == (SIDE, 2 * SIDE)
    square, whole = _shown(_data(tmp_path, stored, exif=exif))
    assert np.array_equal(square, _upright())
    assert np.array_equal(whole, wide)


RAMP = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))  # from black to white


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP).astype(np.float32), 255 * RAMP),
        ((255 * RAMP).astype(np.float32), 255 * RAMP),
        ((2 * RAMP - 1).astype(np.float32), 255 * RAMP),
        ((1.04 * RAMP - 0.02).astype(np.float32), (255 * (1.04 * RAMP - 0.02)).clip(0, 255)),
        ((65535 * RAMP).astype(np.float32), 255 * RAMP),
        ((1e6 * RAMP - 3e5).astype(np.float32), 255 * RAMP),
        ((0.001 * RAMP).astype(np.float32), 255 * RAMP),
        ((65535 * RAMP).astype(np.uint16), 255 * RAMP),
        ((4095 * RAMP).astype(np.uint16), 255 * RAMP),
        ((255 * RAMP).astype(np.uint16), 255 * RAMP),
        ((30_000 + 500 * RAMP).astype(np.uint16), 255 * RAMP),
        ((4000 * RAMP - 1000).astype(np.int32), 255 * RAMP),
    ],
)
def test_values_are_scaled_by_their_range(tmp_path: Path, values: Values, expected: Values) -> None:
    data = _data(tmp_path, Image.fromarray(values), ".tiff")
    assert data.channels == 1
    square, whole = _shown(data)
    assert np.abs(square[..., 0].astype(float) - np.asarray(expected, float)).max() <= 1.5
    assert np.array_equal(whole[..., 1], square[..., 0])
    assert any("6 of 6 images have more than 8 bits, of which " in r for r in data.remarks)


def test_one_range_holds_for_all_pictures_of_a_set(tmp_path: Path) -> None:
    for name, value in (("dark", 0.2), ("light", 0.903)):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.full((SIDE, SIDE), value, dtype=np.float32)
            pixels[0, 0] = 0
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.tif")
    data = load_data(str(tmp_path))
    found = {data.classes[i]: data.validation.pixels([i])[0, 9, 9, 0] for i in (0, 1)}
    assert found == {"dark": 51, "light": 230}
    assert any("of which 0 to 1 in floats became 0 to 255." in r for r in data.remarks)


def test_what_is_no_number_is_black_and_spoils_no_range(tmp_path: Path) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    square, _ = _shown(_data(tmp_path, Image.fromarray(values), ".tiff"))
    assert np.abs(square[1:, :, 0] - 255 * RAMP[1:]).max() <= 1
    assert square[0, :2, 0].tolist() == [0, 255]


def test_wide_tiff_files_in_which_white_is_zero_are_as_viewers_show_them(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray((65535 * RAMP).astype(np.uint16)).save(content, "TIFF")
    entry = b"\x06\x01\x03\x00\x01\x00\x00\x00"  # PhotometricInterpretation: 1, black is zero
    assert content.getvalue().count(entry + b"\x01") == 1
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            inverted = content.getvalue().replace(entry + b"\x01", entry + b"\x00")
            (tmp_path / name / f"{number}.tif").write_bytes(inverted)
    square, _ = _shown(load_data(str(tmp_path)))
    assert np.abs(square[..., 0].astype(float) - 255 * (1 - RAMP)).max() <= 1


def test_a_set_without_wide_pictures_or_of_one_value_has_a_range() -> None:
    assert levels_of([], floats=False) == Levels(0, 65535)
    assert levels_of([], floats=True) == Levels(0, 1)
    assert levels_of([(7.0, 7.0)], floats=True) == Levels(7, 8)


def _drawing(colour: int, mode: str = "RGBA") -> Image.Image:
    """A square of a grey in the middle of a ground that does not show, and is of that grey too."""
    image = Image.new("RGBA", (SIDE, SIDE), (colour, colour, colour, 0))
    image.paste((colour, colour, colour, 255), (16, 16, 32, 32))
    return image if mode == "RGBA" else image.convert(mode)


def _palette_with_bytes(colour: int) -> Image.Image:
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([colour] * 6)
    image.paste(1, (16, 16, 32, 32))
    image.info["transparency"] = bytes([0, 255])
    return image


def _colour_key(colour: int) -> Image.Image:
    """The colour 1, 2, 3 is what does not show."""
    image = Image.new("RGB", (SIDE, SIDE), (1, 2, 3))
    image.paste((colour,) * 3, (16, 16, 32, 32))
    image.info["transparency"] = (1, 2, 3)
    return image


@pytest.mark.parametrize(("colour", "ground"), [(0, 255), (120, 255), (255, 0)])
@pytest.mark.parametrize(
    ("draw", "suffix"),
    [
        (_drawing, ".png"),
        (_drawing, ".webp"),
        (_drawing, ".tiff"),
        (lambda colour: _drawing(colour, "LA"), ".png"),
        (_palette_with_bytes, ".png"),
        (_colour_key, ".png"),
    ],
)
def test_alpha_is_laid_on_white_or_on_black_where_all_is_white(
    tmp_path: Path, draw: Callable[[int], Image.Image], suffix: str, colour: int, ground: int
) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    data = _data(tmp_path, draw(colour), suffix, **options)
    for shown in _shown(data):
        assert np.all(shown[4, 4] == ground)
        assert np.all(shown[24, 24] == colour)
    assert any(r.startswith("6 of 6 images have transparent parts") for r in data.remarks)


def test_opaque_alpha_is_not_spoken_of(tmp_path: Path) -> None:
    data = _data(tmp_path, Image.new("RGBA", (SIDE, SIDE), (9, 99, 199, 255)))
    assert np.all(_shown(data)[0] == (9, 99, 199))
    assert not any("transparent" in remark for remark in data.remarks)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("CMYK", ".jpg"),
        ("CMYK", ".tiff"),
        ("LAB", ".tiff"),
        ("P", ".png"),
        ("P", ".gif"),
        ("YCbCr", ".tiff"),
        ("RGB", ".jp2"),
        ("RGB", ".tga"),
    ],
)
def test_colours_are_those_of_the_picture_in_any_mode(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    red = (204, 51, 51)
    image = Image.new("RGB", (SIDE, SIDE), red)
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (SIDE, SIDE), v) for v in (110, 191, 166)])
        red = (208, 21, 34)
    image = image if mode == "LAB" else image.convert(mode)
    for shown in _shown(_data(tmp_path, image, suffix)):
        assert np.abs(shown[20, 20].astype(int) - red).max() <= 12


class _Stream:
    def __init__(self, images: list[Image.Image]) -> None:
        self.images = images

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        yield from ((image.copy(), i % 2) for i, image in enumerate(self.images))

    def __len__(self) -> int:
        return len(self.images)


def test_streams_are_opened_alike() -> None:
    exif = _exif(6)
    content = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](_upright())))
    stored.save(content, "PNG", exif=exif)
    turned, wide = open_picture(content.getvalue()), Image.fromarray(RAMP.astype(np.float32))
    images = [turned, _drawing(0), wide, wide]
    found = found_in_streams({"train": _Stream(images)}, names=(), resolution=None)
    pixels = found.splits["train"].pixels(range(4))
    assert np.array_equal(pixels[0], _upright()[..., : pixels.shape[-1]])
    assert pixels[1, 4, 4, 0] == 255
    assert np.abs(pixels[2, ..., 0] - 255 * RAMP).max() <= 1
    assert len(found.remarks) == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "nothing is in it"),
        (b"<!DOCTYPE html><html>", "a web page, so get it again"),
        (b"\0\0\0\x18ftypheic", "HEIC, of which `heif-convert` makes JPEG"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, so run `git lfs"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "a note of macOS on a file"),
        (b"no picture", "no image that Pillow knows by its content"),
    ],
)
def test_the_reason_of_most_of_what_cannot_be_read_is_said(
    tmp_path: Path, content: bytes, why: str
) -> None:
    whole = (coloured_tree(tmp_path) / "green" / "0.png").read_bytes()
    (tmp_path / "green" / "0.png").write_bytes(whole[:60])
    for number in (3, 4, 5):
        (tmp_path / "red" / f"{number}.png").write_bytes(content)
    (remark,) = [r for r in load_data(str(tmp_path)).remarks if "cannot be read" in r]
    assert remark.startswith("4 of 20 images cannot be read and were left out, the first: ")
    assert f"red/3.png. Of 3 the reason is: {why}" in remark


def test_a_reason_is_said_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured_tree(tmp_path)
    Image.new("1", (200, 200)).save(tmp_path / "red" / "huge.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10_000)
    (remark,) = [r for r in load_data(str(tmp_path)).remarks if "cannot be read" in r]
    assert "the reason is: Image size exceeds limit of 20000 pixels" in remark


def test_a_class_of_pictures_that_are_too_large_names_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured_tree(tmp_path)
    huge = tmp_path / "blue" / "huge.png"
    huge.parent.mkdir()
    Image.new("1", (200, 200)).save(huge)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10_000)
    words = r"can be read of blue: Image size exceeds limit .* attack \(the first: .*huge\.png\)\."
    with pytest.raises(ValueError, match=words):
        load_data(str(tmp_path))


def test_of_a_large_picture_no_warning_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured_tree(tmp_path)
    Image.new("1", (200, 200)).save(tmp_path / "red" / "large.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 30_000)
    pictures._take_large_ones.cache_clear()
    with warnings.catch_warnings(record=True) as seen:
        data = load_data(str(tmp_path))
    assert not seen
    assert len(data.train) + len(data.validation) == 21
