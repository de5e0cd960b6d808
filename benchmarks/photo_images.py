"""Photos in folders of classes, decoded once, as the trainings of benchmarks see them.

They are kept in the folder for temporary files.
"""

import hashlib
import json
import math
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from predictors.data.datasets import load_data
from predictors.data.images import Images
from predictors.training.batches import resized

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
_SEEN, _SIDE = 8 / 9, 144  # share of a photo's side that is evaluated; pixels that are kept
_AT_ONCE = 64  # photos, when they are decoded
_ASPECT = 4 / 3  # of a crop, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Photos:
    """Photos [n, side, side, 3] in bytes with labels [n]; `mean` and `std` are those of `train`."""

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int

    def normalised(self, images: Tensor) -> Tensor:
        """Return images [b, 3, h, w], 0 to 255, with mean 0 and deviation 1."""
        mean, std = (
            255 * torch.tensor(values, device=images.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return images.sub_(mean).div_(std)

    def of_classes(self, count: int) -> "Photos":
        """Return those of so many classes, spread over all; 0: of all."""
        if not count:
            return self
        kept = torch.linspace(0, self.classes - 1, count).round().long()
        number = torch.full((self.classes,), -1).index_copy(0, kept, torch.arange(count))

        def part(photos: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            new = number.to(labels.device)[labels]
            return photos[new >= 0], new[new >= 0]

        train, train_labels = part(self.train, self.train_labels)
        validation, validation_labels = part(self.validation, self.validation_labels)
        return replace(
            self,
            train=train,
            train_labels=train_labels,
            validation=validation,
            validation_labels=validation_labels,
            classes=count,
        )


@cache
def open_photos(folder: Path, device: torch.device) -> Photos:
    """Return the photos of a folder, which are decoded where that was not done yet."""
    kept = _decoded(folder.resolve())
    about = json.loads((kept / "about.json").read_text())

    def opened(name: str) -> Tensor:
        return torch.from_numpy(np.load(kept / f"{name}.npy", mmap_mode="c")).to(device)

    return Photos(
        train=opened("train"),
        train_labels=opened("train_labels"),
        validation=opened("validation"),
        validation_labels=opened("validation_labels"),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        classes=about["classes"],
    )


def _decoded(folder: Path) -> Path:
    """The folder with the decoded photos; the first who wants them decodes them."""
    known = f"{folder} {_SIDE} {sum(1 for _ in folder.rglob('*'))}"
    name = hashlib.sha256(known.encode()).hexdigest()[:8]
    kept = Path(tempfile.gettempdir(), f"fasternas-photos-{name}")
    if kept.exists():
        return kept
    data = load_data(str(folder), resolution=_SIDE)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{kept.name}-", dir=kept.parent))
    for split, images in (("train", data.train), ("validation", data.validation)):
        np.save(unfinished / f"{split}.npy", _pixels(images))
        np.save(unfinished / f"{split}_labels.npy", images.labels)
    about = {"mean": data.mean, "std": data.std, "classes": len(data.classes)}
    (unfinished / "about.json").write_text(json.dumps(about))
    try:
        unfinished.rename(kept)
    except OSError:  # somebody else was first
        rmtree(unfinished)
    return kept


def _pixels(images: Images) -> NDArray[np.uint8]:
    parts = np.array_split(np.arange(len(images)), math.ceil(len(images) / _AT_ONCE))
    return np.concatenate([images.pixels(part) for part in parts])


def random_crops(photos: Tensor, side: int, smallest: float, rng: torch.Generator) -> Tensor:
    """Return [b, 3, side, side], 0 to 255, of photos [b, h, w, 3] in bytes.

    A crop has `smallest` to all of a photo's area, at 3:4 to 4:3; every other one is mirrored.
    """
    count = len(photos)
    draws = torch.rand(5, count, 1, generator=rng)
    area = smallest + (1 - smallest) * draws[0]
    aspect = _ASPECT ** (draws[1] - 0.5)  # the root of width by height
    width, height = (area.sqrt() * aspect).clamp(max=1), (area.sqrt() / aspect).clamp(max=1)
    centres = (torch.arange(side) + 0.5) / side
    x = (1 - width) * draws[2] + width * centres
    y = (1 - height) * draws[3] + height * centres
    x = torch.where(torch.rand(count, 1, generator=rng) < 0.5, 1 - x, x)
    shape = (count, side, side)
    grid = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), dim=-1)
    return F.grid_sample(
        photos.permute(0, 3, 1, 2).float(),
        (2 * grid - 1).to(photos.device),
        padding_mode="border",
        align_corners=False,
    )


def centres(photos: Tensor, side: int) -> Tensor:
    """Return the middle of photos [b, h, w, 3] in bytes as [b, 3, side, side], 0 to 255."""
    whole = photos.shape[1]
    seen = round(_SEEN * whole)
    start = (whole - seen) // 2
    middle = photos[:, start : start + seen, start : start + seen].permute(0, 3, 1, 2)
    return resized(middle.float(), side)
