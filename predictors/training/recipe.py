"""How networks are trained: one table of settings, the published recipe and the short one.

The published recipe is that of the authors' config files (arXiv 2303.03667, appendix), ImageNet-1k,
fitted to a network and a data set. `lr_at`, `resolution_at` and `steps_at` say what follows from
the settings epoch by epoch.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from predictors.cost import cost
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import atomic_write, one_line, read_mapping, short_repr

if TYPE_CHECKING:
    from torch import Tensor

Amp = Literal["auto", "on", "off"]
Fidelity = Literal["resolution", "images"]
Seeding = Literal["step", "epoch"]
Value = bool | int | float | str | tuple[str, ...]

PICTURES = 96  # pixels from which images are cropped and altered by timm's transforms
STAGES = (1 / 4, 1 / 2)  # of the epochs: where the second and the last progressive stage begin
GROWTH: dict[Fidelity, tuple[float, float, float]] = {
    "resolution": (3 / 4, 7 / 8, 1.0),
    "images": (1 / 2, 3 / 4, 1.0),
}
# By size, from T0 to L: weight decay, RandAugment's magnitude, mixup, drop path.
_SIZES = ("t0", "t1", "t2", "s", "m", "l")
_DECAYS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.05)
_MAGNITUDES = (0.0, 3.0, 5.0, 7.0, 7.0, 7.0)
_MIXUPS = (0.05, 0.1, 0.1, 0.3, 0.5, 0.7)
_DROP_PATHS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
_GRAD_CLIPS = {"m": 1.0, "l": 0.01}  # smaller ones are not clipped
_BATCH, _BATCH_OF_LARGE = 4096, 2048
_STEPS = 200  # an epoch, at least, if there are images for that; ImageNet's have 312
_SMALLEST_BATCH = 32
_SMALL_STEPS = 8000  # of a whole training on images below 96 px, at least, if there are images
_SMALL_LR = 2e-3  # for these, at least
_WARMUP, _LONGEST_WARMUP = 20 / 300, 0.3
_LONG = 100  # epochs, from which every batch is mixed, and small images are shifted


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW (arXiv 1711.05101), a linear warm-up and a cosine; timm's augmentation and mixup."""

    epochs: int = 300
    batch_size: int = _BATCH  # images a step, of all workers together
    micro_batch_size: int = 512  # of these in one forward pass; batch norms see so many
    lr: float = 4e-3  # the highest learning rate
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    warmup: float = _WARMUP  # share of all steps
    warmup_prefix: bool = False  # the cosine begins after the warm-up, not below it
    weight_decay: float = 0.02  # of matrices and kernels
    grad_clip: float = 0.0  # of the gradient's norm; 0: not at all
    flip: bool = True  # left and right are alike in these images
    shift: bool = True  # of images below 96 px, by up to an eighth
    crop: float = 0.08  # smallest share that a crop takes of a picture of 96 px or more; 0: none
    augment: str = ""  # timm's RandAugment, such as rand-m5-mstd0.5-inc1
    mixup: float = 0.1
    cutmix: float = 1.0
    mixup_prob: float = 1.0  # share of the batches to which mixup or cutmix is done
    label_smoothing: float = 0.1
    drop_path: float = 0.05
    branches: bool = False  # partial convolutions are trained as sums of three, folded at the end
    early_resolution: float = 192 / 224  # share of the resolution, but in the last epochs
    full_resolution: float = 20 / 300  # share of the epochs that have it whole
    progressive: tuple[Fidelity, ...] = ()  # smaller in the first quarter and second of the epochs
    test_crop: float = 0.9  # share of a picture's side that is looked at in evaluation
    ema: float = 0.0  # decay of the averaged weights; 0: none
    polynomial_averaging: bool = False  # average over the last quarter or so of the steps so far
    keep_best: bool = True  # the weights of the best epoch
    amp: Amp = "auto"  # bfloat16 where it pays: on GPUs, and for pictures on CPUs that have it
    channels_last: bool = True
    teacher: str = ""  # to learn from besides the labels: a timm model, or fasternas
    teacher_weights: str = ""  # its checkpoint, if it is not the published one
    teacher_share: float = 0.5  # of the loss
    temperature: float = 1.0  # of teacher and student in the distillation
    seeding: Seeding = "step"  # what has a random generator of its own for flips and shifts
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if math.isinf(value):
                raise ValueError(f"`{name}` must be finite, but got {value}. Give a smaller one.")
            if not low <= value <= high:
                raise ValueError(f"`{name}` must be from {low:g} to {high:g}, but got {value}.")
        if self.amp not in get_args(Amp):
            raise ValueError(f"`amp` must be auto, on or off, but got {self.amp!r}.")
        if self.seeding not in get_args(Seeding):
            raise ValueError(f"`seeding` must be step or epoch, but got {self.seeding!r}.")
        if unknown := set(self.progressive) - set(get_args(Fidelity)):
            raise ValueError(
                f"`progressive` must be of {', '.join(get_args(Fidelity))}, but got "
                f"{min(unknown)!r}."
            )
        self._check_pairs()

    def _check_pairs(self) -> None:
        """What only makes sense together."""
        if self.teacher_weights and not self.teacher:
            raise ValueError(
                "`teacher` must be given with its weights, but only teacher_weights is: "
                f"{self.teacher_weights!r}. Set teacher=fasternas, or the timm model that they "
                "are of."
            )
        if self.ema and self.polynomial_averaging:
            raise ValueError(
                f"`ema` must be 0 with polynomial_averaging, but is {self.ema}. Set one of them."
            )
        if self.mixes and (self.batch_size % 2 or self.micro_batch_size % 2):
            raise ValueError(
                "`batch_size` and `micro_batch_size` must be even, since images are mixed in "
                f"pairs, but got {self.batch_size} and {self.micro_batch_size}. Change them, or "
                "set mixup_prob=0."
            )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed by mixup or cutmix."""
        return bool(self.mixup_prob and (self.mixup or self.cutmix))

    @property
    def paired(self) -> bool:
        """Whether workers have to share a batch in pairs, as it draws across the whole batch."""
        return self.mixes or self.drop_path > 0


_SHARES = ("warmup", "mixup_prob", "full_resolution", "teacher_share", "crop")
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("batch_size", "micro_batch_size"), (2, 10**6)),
    # What torch computes in ends at 3e38; where a rate is too large for a training, that says so.
    **dict.fromkeys(("lr", "warmup_lr", "min_lr", "grad_clip"), (0, 1e30)),
    **dict.fromkeys(("early_resolution", "test_crop"), (0.1, 1)),
    **dict.fromkeys(("mixup", "cutmix"), (0, 100)),
    **dict.fromkeys(("label_smoothing", "drop_path"), (0, 0.99)),
    **dict.fromkeys(_SHARES, (0, 1)),
    "epochs": (1, 10**6),
    "weight_decay": (0, 10),
    "ema": (0, 0.999999),
    "temperature": (0.01, 100),
    "seed": (0, 2**31 - 1),
}
FIELDS = {field.name: field for field in fields(Recipe)}

# The short trainings of a search. Averaged weights are evaluated before the last epoch: while the
# learning rate is high, they come nearer than the latest to what the whole training will give.
SHORT = Recipe(
    epochs=8,
    batch_size=64,
    lr=2e-3,
    warmup_lr=0.0,
    min_lr=0.0,
    warmup=0.3,
    warmup_prefix=True,
    weight_decay=0.05,
    shift=False,  # which would be worth its harm only in more epochs
    crop=0.0,
    mixup_prob=0.0,
    drop_path=0.0,
    early_resolution=1.0,
    polynomial_averaging=True,
    keep_best=False,
    amp="off",
    seeding="epoch",
)
_PICTURES_LR = 5e-4  # of short trainings: at 2e-3 a quarter of T0 learns more of photos than T0
_PICTURES_CROP = 0.25  # of longer ones: as those of PConv-Bench-Photos


def short_recipe(resolution: int, epochs: int = SHORT.epochs) -> Recipe:
    """Return `SHORT` for images of so many pixels, with so many epochs.

    Pictures want a lower rate, and bfloat16; in more epochs than those of `SHORT` they are cropped,
    or they would be learned by heart.
    """
    if resolution < PICTURES:
        return replace(SHORT, epochs=epochs)
    crop = _PICTURES_CROP if epochs > SHORT.epochs else 0.0
    return replace(SHORT, epochs=epochs, lr=_PICTURES_LR, crop=crop, amp="auto")


def recipe_for(
    config: FasterNetConfig, images: int, *, epochs: int = 300, batch_size: int | None = None
) -> Recipe:
    """Return the published recipe for a network of that size and so many training images.

    Regularisation is interpolated over the logarithm of the MACs. Fewer images make smaller
    batches, so that an epoch has steps enough; the learning rate falls linearly with the batch down
    to 2048, as published, and below with its square root (arXiv 2205.10287). Few epochs have a
    longer warm-up and mix fewer batches. A `batch_size` that is given brings its learning rate.

    Images below 96 px get no RandAugment: its rotations, shears and shifts are shares of the side,
    and at 28 px what they interpolate and push out is the content. They are flipped and shifted.
    Small networks on few of them underfit before anything else. So a training has 8,000 steps, by
    smaller batches, if there are images for that, the learning rate is at least 2e-3, and only 100
    epochs or more shift images.
    """
    if images < 2:
        raise ValueError(f"`images` must be 2 or more, but got {images}. Add training images.")
    if epochs < 1:
        raise ValueError(f"`epochs` must be 1 or more, but got {epochs}.")
    size, small = _log_macs(config), config.resolution < PICTURES
    if batch_size is None:
        steps = max(_STEPS, _SMALL_STEPS / epochs) if small else _STEPS
        largest = _BATCH_OF_LARGE if _is_large(size) else _BATCH
        batch_size = batch_size_for(images, steps=steps, largest=largest)
    magnitude = round(_between(size, _MAGNITUDES))
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=max(lr_for(batch_size), _SMALL_LR if small else 0.0),
        warmup=_rounded(max(_WARMUP, min(_LONGEST_WARMUP, 2 / epochs))),
        weight_decay=_between(size, _DECAYS),
        grad_clip=_grad_clip(size),
        augment=f"rand-m{magnitude}-mstd0.5-inc1" if magnitude and not small else "",
        shift=epochs >= _LONG,
        mixup=_between(size, _MIXUPS),
        mixup_prob=min(1.0, epochs / _LONG),
        drop_path=_between(size, _DROP_PATHS),
    )


def batch_size_for(images: int, *, steps: float = _STEPS, largest: int = _BATCH) -> int:
    """Return the largest power of two, from 32, with so many steps an epoch; fewer images, all."""
    wanted: int = 2 ** math.floor(math.log2(max(images / steps, 1)))
    batch = min(max(wanted, _SMALLEST_BATCH), largest)
    return min(batch, images - images % 2)


def lr_for(batch_size: int) -> float:
    """Return the highest learning rate for a batch."""
    linear = 0.001 * batch_size / 1024
    small = batch_size / _BATCH_OF_LARGE
    return _rounded(linear if small >= 1 else 0.002 * math.sqrt(small))


def lr_at(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step (from 0) of so many: up in a line, down in a cosine."""
    warm = max(round(recipe.warmup * steps), int(recipe.warmup_prefix))
    rise = recipe.lr - recipe.warmup_lr
    if step < warm and recipe.warmup_prefix:
        return recipe.warmup_lr + rise * ((step + 1) / warm)
    if step < warm:
        return recipe.warmup_lr + step * (rise / warm)
    begun = warm if recipe.warmup_prefix else 0
    angle = math.pi * (step - begun) / max(steps - begun, 1)
    return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * (1 + math.cos(angle))


def rungs(epochs: int) -> tuple[int, ...]:
    """Return after how many epochs a progressive stage ends: a quarter, a half, all of them."""
    return tuple(sorted({*(math.ceil(share * epochs) for share in STAGES), epochs}))


def fidelity(recipe: Recipe, kind: Fidelity, epoch: int) -> float:
    """Return the share of the resolution, or of the images, that an epoch (from 0) has."""
    if kind not in recipe.progressive or epoch == recipe.epochs - 1:
        return 1.0
    return GROWTH[kind][sum(epoch >= math.ceil(share * recipe.epochs) for share in STAGES)]


def stage_costs(progressive: Collection[Fidelity]) -> tuple[float, float, float]:
    """Return what an epoch of each progressive stage costs, as a share of a whole one."""
    powers: dict[Fidelity, int] = {"resolution": 2, "images": 1}
    first, second, last = (
        math.prod(GROWTH[kind][stage] ** powers[kind] for kind in progressive) for stage in range(3)
    )
    return first, second, last


def batch_of(recipe: Recipe, images: int) -> int:
    """Return the images of a step: those of the recipe, or all; of pairs, but for an odd one."""
    return min(recipe.batch_size, images - images % 2 if recipe.paired else images)


def steps_at(recipe: Recipe, epoch: int, images: int) -> int:
    """Return the steps of an epoch (from 0) on so many images; a last small batch is left out."""
    share = fidelity(recipe, "images", epoch)
    return max(int(share * images) // recipe.batch_size, 1)


def resolution_at(recipe: Recipe, resolution: int, epoch: int, *, stride: int = 1) -> int:
    """Return the image size of an epoch (from 0): smaller at first, whole in the last ones.

    It is no less than the network's whole stride; the published recipe's is a multiple of that.
    """
    if "resolution" in recipe.progressive:
        smaller = round(fidelity(recipe, "resolution", epoch) * resolution)
        return min(max(smaller, stride), resolution)
    late = max(round(recipe.full_resolution * recipe.epochs), 1)
    if epoch >= recipe.epochs - late or recipe.early_resolution == 1:
        return resolution
    early = stride * round(recipe.early_resolution * resolution / stride)
    return min(max(early, stride), resolution)


def takes_pictures(recipe: Recipe, resolution: int) -> bool:
    """Whether images of that size go through timm's transforms."""
    return bool(recipe.augment) or (resolution >= PICTURES and recipe.crop > 0)


def crop_of(recipe: Recipe, resolution: int) -> float:
    """Return the share of a picture's side that is seen in evaluation; 0: images as they are."""
    return recipe.test_crop if takes_pictures(recipe, resolution) else 0.0


def recipe_with(recipe: Recipe, overrides: Mapping[str, str]) -> Recipe:
    """Return the recipe with values as people write them: `{"batch_size": "64", "flip": "no"}`.

    A batch size brings the learning rate that goes with it, unless that is given too.
    """
    changes = {name: _value(name, text) for name, text in overrides.items()}
    batch_size = changes.get("batch_size", recipe.batch_size)
    if isinstance(batch_size, int) and batch_size != recipe.batch_size:
        changes = {"lr": lr_for(batch_size), **changes}
    return replace(recipe, **changes)  # type: ignore[arg-type]


def read_overrides(path: Path) -> dict[str, str]:
    """Return the settings in a YAML file, as text; it need not have all."""
    try:
        given = read_mapping(path)
        for name, value in given.items():
            if not isinstance(value, str | int | float):
                raise ValueError(f"`{name}` must be one value, but got {short_repr(value)}.")
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    return {str(name): str(value) for name, value in given.items()}


def read_recipe(path: Path) -> Recipe:
    """Return the recipe that `save_recipe` wrote."""
    return recipe_with(Recipe(), read_overrides(path))


def save_recipe(recipe: Recipe, path: Path, *, comment: str) -> None:
    """Write a recipe as YAML, a setting a line; the file is whole when it has its name."""
    import yaml

    values = asdict(recipe) | {"progressive": ",".join(recipe.progressive)}
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=False)
    atomic_write(path, f"# {comment}\n{text}")


_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _value(name: str, text: str) -> Value:
    if name not in FIELDS:
        near = get_close_matches(name, FIELDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"They are {', '.join(FIELDS)}."
        raise ValueError(f"`recipe` must have known settings, but got {name!r}. {hint}")
    kind = type(FIELDS[name].default)
    try:
        return _as(kind, text.strip())
    except (KeyError, ValueError):
        raise ValueError(f"`{name}` must be {_KINDS[kind]}, but got {short_repr(text)}.") from None


def _as(kind: type, text: str) -> Value:
    if kind is bool:
        return _TRUTHS[text.lower()]
    if kind is tuple:
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if kind is str:
        # YAML reads a bare `on` and `off` as truths; the one setting with these words is `amp`.
        return {"True": "on", "False": "off"}.get(text, text)
    if kind is float and text.lower().strip("+-") == "nan":
        raise ValueError(text)
    return int(text) if kind is int else float(text)


def _log_macs(config: FasterNetConfig) -> float:
    """log MACs at 224 px; with another stem than T0's, on images that give as large maps."""
    side = max(56 * config.stem_stride, config.total_stride)
    return math.log(cost(replace(config, resolution=side)).macs)


def _named(name: str) -> float:
    return _log_macs(FASTERNET[name])


def _between(size: float, values: Sequence[float]) -> float:
    return _rounded(float(np.interp(size, [_named(name) for name in _SIZES], values)))


def _grad_clip(size: float) -> float:
    """Nothing for what is nearer to S than to M; from M to L on a line in the logarithms."""
    if not _is_large(size):
        return 0.0
    logs = [math.log(clip) for clip in _GRAD_CLIPS.values()]
    return _rounded(math.exp(float(np.interp(size, [_named(name) for name in _GRAD_CLIPS], logs))))


def _is_large(size: float) -> bool:
    return size > (_named("s") + _named("m")) / 2


def _rounded(value: float) -> float:
    """Three significant figures, as a recipe file shows it."""
    return float(f"{value:.3g}")


LAST, BEFORE = "last.pt", "last-1.pt"  # the checkpoints of a full training


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """An epoch: mean training loss, validation accuracy in percent, what it took."""

    epoch: int  # from 1
    loss: float
    accuracy: float
    lr: float  # the learning rate of its last step
    resolution: int
    seconds: float  # of its steps, without evaluation
    images_per_s: float


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training is: so many steps of an epoch (from 1); after its last one, its row."""

    epoch: int
    step: int
    steps: int  # of this epoch
    row: EpochRow | None = None
    remark: str = ""  # of what happened besides


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """The weights of the most accurate epoch so far."""

    epoch: int
    accuracy: float
    weights: "dict[str, Tensor]"


class DivergedError(RuntimeError):
    """The loss is no number any more."""
