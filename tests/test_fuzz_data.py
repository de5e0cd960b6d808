"""Damaged image folders and arrays: data, or one line, as in test_fuzz.py."""

import io
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import Ran, damaged, for_a_while, said, working_in
from hypothesis import strategies as st
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in."""
    return working_in(tmp_path, monkeypatch)


def _said_of_data(path: Path) -> None:
    """Have data read, and then refuse the batches: nothing is trained."""
    more = ("--set", "batch_size=1000000", "--out", "out", "--device", "none", "--gpus", "0")
    assert "error: " in said("train", "t0@32", "--data", path, *more)


_ARRAYS = {
    "x_train",
    "y_train",
    "x_val",
    "y_val",
    "x_test",
    "y_test",
    "train_images",
    "labels",
    "x",
}
_DTYPES = ("u1", "i8", "f4", "f8", "?", "U3", "S3", "O", "M8[s]", "c8", "V2")


def _array(shape: list[int], dtype: str, seed: int) -> "np.ndarray[Any, Any]":
    values = np.random.default_rng(seed).integers(0, 256, shape)
    if dtype == "O":
        return np.full(shape, Ran(), dtype=object)
    if dtype == "V2":
        return np.zeros(shape, dtype="V2")
    return values.astype(dtype)


def test_any_npz_is_data_or_one_line(folder: Path) -> None:
    numbers = count()
    archive = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3), dtype=np.uint8)
    labels = np.arange(8) % 2
    np.savez_compressed(archive, x_train=images, y_train=labels, x_test=images, y_test=labels)

    def check(content: bytes | dict[str, "np.ndarray[Any, Any]"]) -> None:
        path = folder / f"{next(numbers)}.npz"  # what was read once is kept by its name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.savez(path, allow_pickle=True, **content)
        try:
            _said_of_data(path)
        finally:
            path.unlink()

    shapes = st.lists(st.sampled_from((0, 1, 2, 3, 4, 8, 9)), max_size=5)
    arrays = st.builds(_array, shapes, st.sampled_from(_DTYPES), st.integers(0, 3))
    for_a_while(
        check,
        st.one_of(
            damaged(archive.getvalue()),
            st.dictionaries(st.sampled_from(sorted(_ARRAYS)), arrays),
        ),
    )


_MODES = (
    ("RGB", "JPEG"),
    ("CMYK", "JPEG"),
    ("RGBA", "PNG"),
    ("P", "GIF"),
    ("L", "BMP"),
    ("F", "TIFF"),
    ("I;16", "TIFF"),
    ("RGB", "WEBP"),
    ("LAB", "TIFF"),
)


def _pictures() -> list[bytes]:
    """The same picture in many formats and modes."""
    found = []
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 4), dtype=np.uint8)
    for mode, kind in _MODES:
        rgba = Image.fromarray(pixels)
        if mode == "LAB":
            image = Image.fromarray(pixels[..., :3], mode="LAB")
        else:
            image = rgba.convert("L").convert(mode) if mode in "FI;16" else rgba.convert(mode)
        content = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(content, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        found.append(content.getvalue())
    return found


_NAMES = (
    b"a",
    b"b",
    b"train",
    b"val",
    b"test",
    b"@eaDir",
    b"caf\xe9",
    "\u732b".encode(),
    b"0.png",
    b"1.JPG",
    b"2.tif",
    b"3.heic",
    b".hidden.png",
    b"no ending",
    b"4.gif",
    b"new\nline.png",
    b"train-images-idx3-ubyte",
    b"t10k-labels-idx1-ubyte.gz",
    b"-r.webp",
)


def test_any_folder_is_data_or_one_line(folder: Path) -> None:
    numbers = count()

    def check(files: list[tuple[list[bytes], bytes]]) -> None:
        root = folder / f"{next(numbers)}"
        root.mkdir()
        for parts, content in files:
            path = root.joinpath(*map(os.fsdecode, parts))
            if not path.exists() and not any(p.is_file() for p in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        (root / "a" / "up").symlink_to(root) if (root / "a").is_dir() else None
        try:
            _said_of_data(root)
        finally:
            shutil.rmtree(root)

    names = st.lists(
        st.one_of(st.sampled_from(_NAMES), st.binary(min_size=1, max_size=9)),
        min_size=1,
        max_size=4,
    ).filter(lambda parts: not any(set(p) & {0, 47} or p in (b".", b"..") for p in parts))
    pictures = _pictures()
    content = st.one_of(
        st.sampled_from(pictures),
        st.sampled_from(pictures).flatmap(damaged),
        st.binary(max_size=40),
    )
    plain = st.tuples(st.sampled_from((b"a", b"b")), st.sampled_from(_NAMES)).map(list)
    for_a_while(check, st.lists(st.tuples(st.one_of(plain, names), content), max_size=12))
