"""The published recipe of FasterNet's full training, fitted to a network and a data set.

The table is that of the authors' config files (arXiv 2303.03667, appendix), ImageNet-1k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from predictors.cost import cost
from search_spaces.fasternet import FASTERNET, FasterNetConfig

Mixed = Literal["auto", "on", "off"]

PICTURES = 96  # pixels from which images are cropped and altered by timm's transforms
# By size, from T0 to L: weight decay, RandAugment's magnitude, mixup, drop path.
_SIZES = ("t0", "t1", "t2", "s", "m", "l")
_DECAYS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.05)
_MAGNITUDES = (0.0, 3.0, 5.0, 7.0, 7.0, 7.0)
_MIXUPS = (0.05, 0.1, 0.1, 0.3, 0.5, 0.7)
_DROP_PATHS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
_CLIPS = {"m": 1.0, "l": 0.01}  # smaller ones are not clipped
_BATCH, _BATCH_OF_LARGE = 4096, 2048
_STEPS = 200  # an epoch, at least, if there are images for that; ImageNet's have 312
_SMALLEST_BATCH = 32
_SMALL_STEPS = 8000  # of a whole training on images below 96 px, at least, if there are images
_SMALL_RATE = 2e-3  # for these, at least
_WARM_UP, _LONGEST_WARM_UP = 20 / 300, 0.3
_LONG = 100  # epochs, from which every batch is mixed, and small images are shifted


@dataclass(frozen=True, kw_only=True)
class FullRecipe:
    """AdamW with a linear warm-up and a cosine, timm's augmentation, mixup and cutmix.

    Raises:
        ValueError: if a value is out of range.
    """

    epochs: int = 300
    batch: int = _BATCH  # images a step, of all workers together
    at_once: int = 512  # of these in one forward pass; batch norms see so many
    rate: float = 4e-3  # the highest learning rate
    first_rate: float = 1e-6
    last_rate: float = 1e-5
    warm_up: float = _WARM_UP  # share of all steps
    weight_decay: float = 0.02
    clip: float = 0.0  # of the gradient's norm; 0: not at all
    flip: bool = True  # left and right are alike in these images
    shift: bool = True  # of images below 96 px, by up to an eighth
    crop: float = 0.08  # smallest share of a picture of 96 px or more that a random crop takes
    augment: str = ""  # timm's RandAugment, such as rand-m5-mstd0.5-inc1
    mixup: float = 0.1
    cutmix: float = 1.0
    mixing: float = 1.0  # share of the batches to which mixup or cutmix is done
    smoothing: float = 0.1
    drop_path: float = 0.05
    early_resolution: float = 192 / 224  # share of the resolution, but in the last epochs
    full_resolution: float = 20 / 300  # share of the epochs that have it whole
    test_crop: float = 0.9  # share of a picture's side that is looked at when judging
    ema: float = 0.0  # decay of the averaged weights; 0: none
    amp: Mixed = "auto"  # bfloat16 where it pays: on GPUs that have it
    channels_last: bool = True
    teacher: str = ""  # to learn from besides the labels: a timm model, or fasternas
    teacher_weights: str = ""  # its checkpoint, if it is not the published one
    teacher_share: float = 0.5  # of the loss
    temperature: float = 1.0  # at which the teacher is listened to
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if math.isinf(value):
                raise ValueError(f"`{name}` must be finite, but got {value}. Give a smaller one.")
            if not low <= value <= high:
                raise ValueError(f"`{name}` must be from {low:g} to {high:g}, but got {value}.")
        if self.amp not in ("auto", "on", "off"):
            raise ValueError(f"`amp` must be auto, on or off, but got {self.amp!r}.")
        if self.teacher_weights and not self.teacher:
            raise ValueError(f"`teacher` must be given with its weights, but only teacher_weights "
                             f"is: {self.teacher_weights!r}. Set teacher=fasternas, or the timm "
                             "model that they are of.")  # fmt: skip
        if self.mixing and (self.mixup or self.cutmix) and (self.batch % 2 or self.at_once % 2):
            raise ValueError(f"`batch` and `at_once` must be even, since images are mixed in "
                             f"pairs, but got {self.batch} and {self.at_once}. Change them, or "
                             "set mixing=0.")  # fmt: skip


_SHARES = ("warm_up", "mixing", "full_resolution", "teacher_share")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 10**6), "batch": (2, 10**6), "at_once": (2, 10**6), "rate": (0, math.inf),
    "first_rate": (0, math.inf), "last_rate": (0, math.inf), "weight_decay": (0, 10),
    "clip": (0, math.inf), "crop": (0.01, 1), "mixup": (0, 100), "cutmix": (0, 100),
    "smoothing": (0, 0.99), "drop_path": (0, 0.99), "early_resolution": (0.1, 1),
    "test_crop": (0.1, 1), "ema": (0, 0.999999), "temperature": (0.01, 100), "seed": (0, 2**31 - 1),
    **dict.fromkeys(_SHARES, (0, 1)),
}  # fmt: skip
FIELDS = {field.name: field for field in fields(FullRecipe)}


def recipe_for(
    config: FasterNetConfig, images: int, *, epochs: int = 300, batch: int | None = None
) -> FullRecipe:
    """Return the published recipe for a network of that size and so many training images.

    Regularisation is interpolated over the logarithm of the MACs. Fewer images make smaller
    batches, so that an epoch has steps enough; the learning rate falls linearly with the batch down
    to 2048, as published, and below with its square root (arXiv 2205.10287). Few epochs have a
    longer warm-up and mix fewer batches. A `batch` that is given brings its rate.

    Images below 96 px get no RandAugment: its rotations, shears and shifts are shares of the side,
    and at 28 px what they interpolate and push out is the content. They are flipped and shifted.
    Small networks on few of them underfit before anything else. So a training has 8,000 steps, by
    smaller batches, if there are images for that, the learning rate is at least 2e-3, and only 100
    epochs or more shift images.

    Raises:
        ValueError: if there are fewer than two images, or no epochs.
    """
    if images < 2:
        raise ValueError(f"`images` must be 2 or more, but got {images}. Add training images.")
    if epochs < 1:
        raise ValueError(f"`epochs` must be 1 or more, but got {epochs}.")
    size, small = _log_macs(config), config.resolution < PICTURES
    if batch is None:
        steps = max(_STEPS, _SMALL_STEPS / epochs) if small else _STEPS
        batch = batch_for(images, steps=steps, largest=_largest_batch(size))
    return FullRecipe(
        epochs=epochs, batch=batch, rate=max(rate_for(batch), _SMALL_RATE if small else 0.0),
        warm_up=_rounded(max(_WARM_UP, min(_LONGEST_WARM_UP, 2 / epochs))),
        weight_decay=_between(size, _DECAYS), clip=_clip(size),
        augment="" if small else _augment(size), shift=epochs >= _LONG,
        mixup=_between(size, _MIXUPS), mixing=min(1.0, epochs / _LONG),
        drop_path=_between(size, _DROP_PATHS),
    )  # fmt: skip


def batch_for(images: int, *, steps: float = _STEPS, largest: int = _BATCH) -> int:
    """Return the largest power of two, from 32, with so many steps an epoch; fewer images, all."""
    wanted: int = 2 ** math.floor(math.log2(max(images / steps, 1)))
    batch = min(max(wanted, _SMALLEST_BATCH), largest)
    return min(batch, images - images % 2)


def rate_for(batch: int) -> float:
    """Return the highest learning rate for a batch."""
    linear = 0.001 * batch / 1024
    small = batch / _BATCH_OF_LARGE
    return _rounded(linear if small >= 1 else 0.002 * math.sqrt(small))


def with_batch(recipe: FullRecipe, batch: int) -> FullRecipe:
    """Return the recipe with another batch and the learning rate that goes with it."""
    return replace(recipe, batch=batch, rate=rate_for(batch))


def resolution_of(recipe: FullRecipe, config: FasterNetConfig, epoch: int) -> int:
    """Return the image size of an epoch (from 0): smaller at first, whole in the last ones.

    It is a multiple of the network's whole stride.
    """
    late = max(round(recipe.full_resolution * recipe.epochs), 1)
    if epoch >= recipe.epochs - late:
        return config.resolution
    stride = config.stem_stride * 2 ** (len(config.widths) - 1)
    early = stride * round(recipe.early_resolution * config.resolution / stride)
    return int(min(max(early, stride), config.resolution))


def takes_pictures(recipe: FullRecipe, resolution: int) -> bool:
    """Whether images of that size go through timm's transforms."""
    return resolution >= PICTURES or bool(recipe.augment)


def crop_of(recipe: FullRecipe, resolution: int) -> float:
    """Return the share of a picture's side that is seen when judging; 0: images as they are."""
    return recipe.test_crop if takes_pictures(recipe, resolution) else 0.0


def _log_macs(config: FasterNetConfig) -> float:
    """log MACs at 224 px; with another stem than T0's, on images that give as large maps."""
    return math.log(cost(replace(config, resolution=56 * config.stem_stride)).macs)


def _named(name: str) -> float:
    return _log_macs(FASTERNET[name])


def _between(size: float, values: Sequence[float]) -> float:
    return _rounded(float(np.interp(size, [_named(name) for name in _SIZES], values)))


def _augment(size: float) -> str:
    magnitude = round(_between(size, _MAGNITUDES))
    return f"rand-m{magnitude}-mstd0.5-inc1" if magnitude else ""


def _clip(size: float) -> float:
    """Nothing for what is nearer to S than to M; from M to L on a line in the logarithms."""
    if not _is_large(size):
        return 0.0
    logs = [math.log(clip) for clip in _CLIPS.values()]
    return _rounded(math.exp(float(np.interp(size, [_named(name) for name in _CLIPS], logs))))


def _largest_batch(size: float) -> int:
    return _BATCH_OF_LARGE if _is_large(size) else _BATCH


def _is_large(size: float) -> bool:
    return size > (_named("s") + _named("m")) / 2


def _rounded(value: float) -> float:
    """Three significant figures, as a recipe file shows it."""
    return float(f"{value:.3g}")
