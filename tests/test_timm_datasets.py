"""Sets by timm's names: read offline where their packages are installed, else the remedy."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from predictors.data.datasets import load_data
from predictors.data.images import SplitName
from predictors.data.timm_datasets import ImageStream, found_in_streams

COLOURS = {"green": (30, 200, 30), "red": (200, 30, 30)}


def _write_mnist(folder: Path) -> np.ndarray[Any, Any]:
    """MNIST's files as torchvision keeps them, made small; returns the test images."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    for stem, count in (("train", 40), ("t10k", 10)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (
            (f"{stem}-images-idx3-ubyte", images[:count]),
            (f"{stem}-labels-idx1-ubyte", labels),
        ):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            (raw / name).write_bytes(header + array.tobytes())
            (raw / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return images[:10]


def test_a_set_of_torchvision_is_read_through_timm(tmp_path: Path) -> None:
    images = _write_mnist(tmp_path)
    data = load_data(f"torch/mnist@{tmp_path}")
    assert (len(data.classes), data.resolution, data.channels) == (10, 28, 1)
    assert data.classes[3] == "3 - three"
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [30, 10, 10]
    assert np.array_equal(data.test.pixels(range(10))[..., 0], images)


@pytest.mark.parametrize("name", ["torch/imagenet@somewhere", "torch/mnist"])
def test_other_sets_of_torchvision_are_refused(name: str) -> None:
    message = rf"^`data` {name} cannot be read: of torchvision's sets it takes .*@FOLDER. Check"
    with pytest.raises(ValueError, match=message):
        load_data(name)


@pytest.mark.parametrize(
    ("prefix", "package", "remedy"),
    [
        ("hfds", "datasets", "datasets"),
        ("wds", "webdataset", "webdataset"),
        ("tfds", "tensorflow_datasets", "tensorflow-datasets"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    prefix: str, package: str, remedy: str
) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed here.")
    message = f"^`data` {prefix}/some needs the package {remedy}, .* `pip install {remedy}`"
    with pytest.raises(ValueError, match=message):
        load_data(f"{prefix}/some")


class _Stream:
    """Images one after another, of which more were announced."""

    def __init__(self, images: list[Image.Image], announced: int) -> None:
        self._images, self._announced = images, announced

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return iter([(image, number % 2) for number, image in enumerate(self._images)])

    def __len__(self) -> int:
        return self._announced


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_images_that_come_one_after_another_can_be_read_in_any_order(
    mode: str, channels: int
) -> None:
    images = [Image.new("RGB", (40, 60), (number, 0, 7)).convert(mode) for number in range(100)]
    streams: dict[SplitName, ImageStream] = {
        "train": _Stream(images, 103),
        "test": _Stream(images[:10], 10),
    }
    found = found_in_streams(streams, names=("even", "odd"), resolution=None)
    assert (found.resolution, found.channels, found.classes) == (40, channels, ("even", "odd"))
    assert found.remarks == ("3 of 113 images cannot be read and were left out.",)
    train = found.splits["train"]
    expected = [np.asarray(images[i]).reshape(60, 40, channels)[10:50] for i in (71, 3)]
    assert np.array_equal(train.pixels([71, 3]), expected)
    assert train.labels[:3].tolist() == [0, 1, 0]


def test_a_stream_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no images in train"):
        found_in_streams({"train": _Stream([], 0)}, names=(), resolution=8)


def _png(colour: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(content, "PNG")
    return content.getvalue()


def _shard(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            colour = list(COLOURS.values())[number % 2]
            for suffix, content in (("png", _png(colour)), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


# webdataset leaves its tar files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_of_webdataset_are_read_through_timm(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    sizes = {"train": 30, "validation": 6}
    for name, count in sizes.items():
        _shard(tmp_path / f"{name}.tar", count)
    splits = {
        name: {
            "name": name,
            "num_samples": count,
            "filenames": [f"{name}.tar"],
            "shard_lengths": [count],
        }
        for name, count in sizes.items()
    }
    (tmp_path / "info.json").write_text(json.dumps({"splits": splits}), encoding="utf-8")
    data = load_data(f"wds/{tmp_path}")
    assert (data.classes, data.resolution, data.channels) == (("0", "1"), 40, 3)
    assert [len(data.train), len(data.validation), data.test] == [30, 6, None]
    for image, label in zip(data.train.pixels(range(30)), data.train.labels, strict=True):
        assert np.all(image == list(COLOURS.values())[label])


def test_a_folder_of_hugging_face_datasets_is_read_through_timm(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for split, count in (("train", 10), ("test", 4)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.png").write_bytes(_png(colour))
    (tmp_path / "set" / "train" / "red" / "0.png").write_bytes(_png((0, 0, 0))[:-30])
    data = load_data(f"hfds/{tmp_path / 'set'}@{tmp_path / 'cache'}")
    assert (data.classes, data.resolution, data.channels) == (("green", "red"), 40, 3)
    assert data.test is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [17, 2, 8]
    assert any(remark.startswith("1 of 28 images cannot be read") for remark in data.remarks)
    for image, label in zip(data.test.pixels(range(8)), data.test.labels, strict=True):
        assert np.all(image == list(COLOURS.values())[label])
