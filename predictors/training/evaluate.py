"""How accurate a network is, and how sure the figure is."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.batches import Batch, evaluation_batches, resized
from predictors.training.workers import Workers, device_of

Split = Literal["test", "validation"]
Logits = Callable[[Tensor], Tensor]  # of images [b, 3, h, w]: [b, classes]
_QUANTILE = 1.959964  # of the normal distribution, for 95 %
_AT_ONCE = 250
CALIBRATION_IMAGES = 256  # of the training split, for int8
RANDOM_IMAGES = 8  # to compare on, if there are no real ones


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """Of how many images of a split a network tells the right class.

    `largest_class` is what always guessing the largest class of the split reaches, in percent; None
    where that was not kept.
    """

    split: Split
    images: int
    correct: int
    largest_class: float | None = None

    @property
    def accuracy(self) -> float:
        """Top-1, in percent."""
        return 100 * self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, in percent."""
        return _wilson(self.correct / self.images, self.images)

    @property
    def is_guess(self) -> bool:
        """Whether always guessing the largest class may be as good, by the interval."""
        return self.largest_class is not None and self.interval[0] <= self.largest_class


@dataclass(frozen=True, kw_only=True)
class ValidationSplit:
    """How many images judge the networks; what always guessing their largest class gets, in %."""

    images: int
    largest_class: float

    @classmethod
    def of(cls, images: Images) -> "ValidationSplit":
        """Describe the images of a split."""
        return cls(images=len(images), largest_class=images.largest_class)

    def interval(self, accuracy: float, *, among: int = 1) -> tuple[float, float]:
        """Return the 95 % interval of an accuracy on them, in percent; seeds are not in it.

        Of so many networks at once, each interval is wider, so that all hold at 95 % (Bonferroni).
        """
        return _wilson(accuracy / 100, self.images, z=NormalDist().inv_cdf(1 - 0.025 / among))


def chance_of_best(accuracies: Sequence[float], images: int) -> float:
    """Return how likely the highest of accuracies [n], in percent, is the best on other images.

    Each is taken as normal with mean and deviation of what is known of it after so many images, all
    accuracies being alike before, and independent of the others. On the same images they are not:
    then it is likelier than this.
    """
    seen = np.sort(np.clip(np.asarray(accuracies, dtype=float) / 100, 0.0, 1.0))
    shares = (seen * images + 1) / (images + 2)
    errors = np.sqrt(shares * (1 - shares) / (images + 3))
    steps = np.linspace(-5, 5, 401)
    at = shares[-1] + steps * errors[-1]
    below = [_normal((at - share) / error) for share, error in zip(shares, errors, strict=True)]
    density = np.exp(-0.5 * steps**2)
    return float(density @ np.prod(below[:-1], axis=0) / density.sum())


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])


def _wilson(share: float, n: int, *, z: float = _QUANTILE) -> tuple[float, float]:
    """Wilson's interval, in percent (J. Am. Stat. Assoc. 22, 209-212, 1927)."""
    whole = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / whole
    half = z / whole * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return 100 * max(middle - half, 0.0), 100 * min(middle + half, 1.0)


def count_correct(logits: Logits, images: Iterable[Batch]) -> int:
    """Return how many images get their label from what computes logits [b, classes]."""
    return sum(int((logits(batch).argmax(1).cpu() == labels).sum()) for batch, labels in images)


def accuracy(
    network: nn.Module,
    images: Images,
    data: ImageData,
    *,
    resolution: int | None = None,
    crop: float = 0.0,
    workers: Workers | None = None,
) -> float:
    """Return the top-1 accuracy in percent, at the resolution of the data unless told otherwise.

    Each of several workers evaluates some of the images. `crop` is as `evaluation_batches` takes
    it. The network is left in evaluation mode.
    """
    network.eval()
    workers, side, place = workers or Workers(), resolution or data.resolution, device_of(network)

    def logits(batch: Tensor) -> Tensor:
        found: Tensor = network(packed(resized(batch, side), place))
        return found

    own = images.subset(workers.share(len(images)))
    shown = evaluation_batches(own, data=data, crop=crop, at_once=_AT_ONCE, loaders=workers.loaders)
    with torch.inference_mode():
        correct = torch.tensor([count_correct(logits, shown)], device=place)
    return 100 * int(workers.sum(correct)) / len(images)


def packed(images: Tensor, place: torch.device) -> Tensor:
    """Channels last, which is faster on CPUs."""
    return images.to(place).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Images of a data set, as the network is evaluated on, with labels if it was trained."""

    data: ImageData
    count: int
    labelled: bool
    crop: float = 0.0

    def __call__(self, at_once: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches of validation images, spread evenly, and their labels."""
        chosen = _spread(self.data.validation, min(self.count, len(self.data.validation)))
        shown = evaluation_batches(chosen, data=self.data, crop=self.crop, at_once=at_once)
        yield from ((images, labels if self.labelled else None) for images, labels in shown)

    def calibration_images(self, at_once: int) -> "CalibrationImages":
        """Return training images in whole batches."""
        return CalibrationImages(data=self.data, at_once=at_once, crop=self.crop)


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationImages:
    """Batches of training images, as often as one asks for them."""

    data: ImageData
    at_once: int
    crop: float = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        count = max(CALIBRATION_IMAGES // self.at_once, 1) * self.at_once
        chosen = _spread(self.data.train, count)
        shown = evaluation_batches(chosen, data=self.data, crop=self.crop, at_once=self.at_once)
        yield from (images for images, _ in shown)


@dataclass(frozen=True, kw_only=True)
class RandomImages:
    """Noise, the same every time."""

    shape: tuple[int, ...]
    count: int = RANDOM_IMAGES

    def __call__(self, at_once: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield batches without labels."""
        rng = torch.Generator().manual_seed(1)
        for images in torch.split(torch.randn(self.count, *self.shape, generator=rng), at_once):
            yield images, None


def _spread(images: Images, count: int) -> Images:
    """So many images at even distances; some twice if there are fewer."""
    return images.subset(np.linspace(0, len(images) - 1, count).round().astype(np.int64))
