"""IDX files of MNIST and of sets made like it, as these are laid out, good and bad."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictors.data.datasets import load_data, located

FASHION = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(0)


def _images(count: int, *, size: tuple[int, ...] = (8, 8)) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (count, *size), dtype=np.uint8)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _idx(path: Path, array: np.ndarray[Any, Any], *, compress: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    content = header + array.tobytes()
    if compress:
        path = path.with_name(f"{path.name}.gz")
    path.write_bytes(gzip.compress(content) if compress else content)


def _idx_folder(folder: Path, *, compress: bool = False) -> Path:
    for stem, count in (("train", 20), ("t10k", 6)):
        images, labels = _images(count), (np.arange(count) % 2).astype(np.uint8)
        _idx(folder / f"{stem}-images-idx3-ubyte", images, compress=compress)
        _idx(folder / f"{stem}-labels-idx1-ubyte", labels, compress=compress)
    return folder


@pytest.mark.parametrize("compress", [False, True])
def test_idx_folders_are_read_plain_and_compressed(tmp_path: Path, *, compress: bool) -> None:
    data = load_data(str(_idx_folder(tmp_path, compress=compress)))
    assert (data.classes, data.resolution, data.channels) == (("0", "1"), 8, 1)
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 2, 6]
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_idx_pixels_keep_their_place(tmp_path: Path) -> None:
    _idx_folder(tmp_path)
    images = _images(20, size=(5, 7))
    _idx(tmp_path / "train-images-idx3-ubyte", images, compress=False)
    _idx(tmp_path / "t10k-images-idx3-ubyte", images[:6], compress=False)
    data = load_data(str(tmp_path))
    assert data.test is not None
    assert np.array_equal(data.test.pixels(range(6))[..., 0], images[:6, :, 1:6])


def test_fashion_mnist_of_debian_is_read() -> None:
    if not FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed here.")
    data = load_data(str(FASHION))
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [54_000, 6_000, 10_000]
    assert (data.resolution, data.channels, len(data.classes)) == (28, 1, 10)
    assert data.mean == pytest.approx((0.2860,), abs=0.002)  # as is published
    assert data.std == pytest.approx((0.3530,), abs=0.002)
    assert np.bincount(data.validation.labels).tolist() == [600] * 10


def _other_magic(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 0]))


def _too_short(folder: Path) -> None:
    _truncated(folder / "train-images-idx3-ubyte")


def _no_labels(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").unlink()


def _no_test_labels(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def _short_gz(folder: Path) -> None:
    compressed = folder / "train-images-idx3-ubyte.gz"
    compressed.write_bytes(gzip.compress(_images(20).tobytes())[:-50])


def _no_gz(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_magic, "begins with 00000801 and not with 00000803. Get the file again"),
        (_too_short, "has 1,180 bytes where 20 x 8 x 8 were announced. Get the file again"),
        (_no_labels, "lacks train-labels-idx1-ubyte. Add that file, or its .gz"),
        (_no_test_labels, "lacks t10k-labels-idx1-ubyte. Add that file"),
        (_short_gz, "train-images-idx3-ubyte.gz cannot: Compressed file ended"),
        (_no_gz, "train-images-idx3-ubyte.gz cannot: Not a gzipped file"),
    ],
)
def test_bad_idx_folders_are_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(_idx_folder(tmp_path))
    with pytest.raises(ValueError, match=f"^`data` .*{message}"):
        load_data(str(tmp_path))


SETS = ("emnist-letters", "emnist-digits")


def _emnist(folder: Path) -> Path:
    """Two sets of EMNIST's archive, whose first labels are 1; the images of each have its grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(SETS):
        for split, count in (("train", 20), ("test", 6)):
            images = np.full((count, 8, 8), 100 + number, dtype=np.uint8)
            labels = (np.arange(count) % 2 + 1).astype(np.uint8)
            _idx(folder / f"{name}-{split}-images-idx3-ubyte", images, compress=True)
            _idx(folder / f"{name}-{split}-labels-idx1-ubyte", labels, compress=True)
    (folder / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("inner", ["", "gzip", "EMNIST/raw"])
def test_one_of_emnists_sets_is_named(tmp_path: Path, inner: str) -> None:
    _emnist(tmp_path / inner)
    names = [f"EMNIST/{name}" if inner == "EMNIST/raw" else name for name in SETS]
    message = (
        rf"must be one set, but .* holds {names[1]}, {names[0]}. Name one of them: .*{names[1]}"
    )
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path))
    data = load_data(str(tmp_path / names[0]))
    assert (data.classes, data.resolution, data.channels) == (("A", "B"), 8, 1)
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 2, 6]
    assert np.all(data.test.pixels(range(6)) == 100)
    assert any("mirrored at the diagonal" in remark for remark in data.remarks)
    assert load_data(str(tmp_path / names[1])).classes == ("1", "2")


@pytest.mark.parametrize("place", [".", "MNIST", "MNIST/raw"])
def test_torchvisions_folders_are_read_from_any_of_them(tmp_path: Path, place: str) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for compress in (False, True):  # it keeps both
        RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
        _idx_folder(tmp_path / "MNIST" / "raw", compress=compress)
    data = load_data(str(tmp_path / place))
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 2, 6]


def test_several_sets_of_torchvision_are_told_apart(tmp_path: Path) -> None:
    for name in ("KMNIST", "MNIST"):
        (tmp_path / name / "raw").mkdir(parents=True)
        _idx_folder(tmp_path / name / "raw")
    with pytest.raises(ValueError, match=r"but .* holds KMNIST, MNIST. Name one of them: .*KMNIST"):
        load_data(str(tmp_path))
    assert len(load_data(str(tmp_path / "MNIST")).train) == 18


def test_qmnist_and_names_with_dots_are_read(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 6)):
        _idx(tmp_path / f"qmnist-{split}-images-idx3-ubyte", _images(count), compress=True)
        labels = np.stack([np.arange(count) % 2, *[np.arange(count)] * 7], axis=1).astype(">i4")
        header = bytes([0, 0, 12, 2]) + np.array(labels.shape, dtype=">u4").tobytes()
        content = gzip.compress(header + labels.tobytes())
        (tmp_path / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(content)
    data = load_data(str(tmp_path))
    assert data.test is not None
    assert data.test.labels.tolist() == [0, 1, 0, 1, 0, 1]
    dotted = tmp_path / "kaggle"
    dotted.mkdir()
    _idx(dotted / "train-images.idx3-ubyte", _images(20), compress=False)
    (dotted / "train-labels-idx1-ubyte").mkdir()
    inner = dotted / "train-labels-idx1-ubyte" / "train-labels-idx1-ubyte"
    _idx(inner, (np.arange(20) % 2).astype(np.uint8), compress=False)
    assert len(load_data(str(dotted)).train) == 18


def test_a_named_set_is_found_from_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _emnist(tmp_path / "gzip")
    monkeypatch.chdir(tmp_path)
    assert located("gzip/emnist-letters") == str(tmp_path / "gzip" / "emnist-letters")
    assert located("torch/mnist@raw") == f"torch/mnist@{tmp_path / 'raw'}"
    assert located("wds/gzip") == f"wds/{tmp_path / 'gzip'}"
    for name in ("", "digits", "hfds/user/name", "nowhere"):
        assert located(name) == name
