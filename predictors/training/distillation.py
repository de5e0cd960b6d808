"""Learning from a teacher besides the labels (arXiv 1503.02531)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.data.datasets import ImageData
from predictors.training.batches import resized
from predictors.training.recipe import Recipe
from search_spaces.checkpoint import is_checkpoint, load_all, read_checkpoint, read_weights
from search_spaces.io import reason
from search_spaces.timm_models import import_timm

OURS = "fasternas"  # the teacher's name where its weights are a checkpoint of ours


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that is not trained; x * std + mean is what it takes for images x of the data."""

    network: nn.Module
    mean: Tensor
    std: Tensor
    temperature: float
    side: int | None = None  # pixels of the images that it takes, if these only

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """T^2 KL(teacher / T || student / T); `images` are normalised as the data are."""
        with torch.no_grad():
            shown = images if self.side is None else resized(images, self.side)
            taught = self.network(shown * self.std + self.mean) / self.temperature
        learned = (logits / self.temperature).log_softmax(1)
        taught = taught.log_softmax(1)
        divergence = F.kl_div(learned, taught, log_target=True, reduction="batchmean")
        return divergence * self.temperature**2


# A network, and the mean and deviation by which it wants its images normalised.
_Opened = tuple[nn.Module, tuple[float, ...], tuple[float, ...]]


def open_teacher(recipe: Recipe, data: ImageData, device: torch.device) -> Teacher | None:
    """Return the recipe's teacher, if it has one."""
    if not recipe.teacher:
        return None
    if recipe.teacher_weights and is_checkpoint(recipe.teacher_weights):
        network, mean, std = _from_checkpoint(recipe, data)
    else:
        network, mean, std = _from_timm(recipe, len(data.classes))
    # x * s + m are pixels; (pixels - mean) / std is what the teacher wants: one step.
    cfg: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    side = cfg["input_size"][-1] if cfg.get("fixed_input_size") else None
    shift = (_planes(data.mean) - _planes(mean)) / _planes(std)
    scale = _planes(data.std) / _planes(std)
    network = network.to(device).eval().requires_grad_(requires_grad=False)
    return Teacher(network, shift.to(device), scale.to(device), recipe.temperature, side)


def _from_checkpoint(recipe: Recipe, data: ImageData) -> _Opened:
    if recipe.teacher != OURS and not recipe.teacher.startswith("fasternet_"):
        raise ValueError(
            f"`teacher` must be {OURS} where its weights are a checkpoint that {OURS} saved, but "
            f"got {recipe.teacher!r}. Set teacher={OURS}."
        )
    found = read_checkpoint(recipe.teacher_weights)
    names = found.classes or data.classes
    if found.config.classes != len(data.classes) or names != data.classes:
        raise ValueError(
            f"`teacher_weights` must tell the {len(data.classes)} classes of the data apart, but "
            f"{recipe.teacher_weights} tells others. Train it on these data first."
        )
    return found.network(), found.mean or data.mean, found.std or data.std


def _from_timm(recipe: Recipe, classes: int) -> _Opened:
    if recipe.teacher == OURS:
        raise ValueError(
            f"`teacher_weights` must be a checkpoint that {OURS} saved for teacher={OURS}, but "
            f"got {recipe.teacher_weights!r}. Give its weights.safetensors."
        )
    if not import_timm().is_model(recipe.teacher):
        raise ValueError(
            f"`teacher` must be a model of timm, but got {recipe.teacher!r}. timm.list_models() "
            "has them."
        )
    network = _of_file(recipe, classes) if recipe.teacher_weights else _published(recipe, classes)
    published = cast("dict[str, tuple[float, ...]]", network.pretrained_cfg)
    return network, published["mean"], published["std"]


def _of_file(recipe: Recipe, classes: int) -> nn.Module:
    network: nn.Module = import_timm().create_model(recipe.teacher, num_classes=classes)
    found = read_weights(recipe.teacher_weights, network.state_dict())
    try:
        load_all(network, found)
    except ValueError as error:
        raise ValueError(
            f"`teacher_weights` must be those of a {recipe.teacher} with {classes} classes, but in "
            f"{recipe.teacher_weights}: {error}"
        ) from None
    return network


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep off the terminal how often the hub is tried; why it failed is said at the end."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _published(recipe: Recipe, classes: int) -> nn.Module:
    timm = import_timm()
    try:
        with _quiet_hub():
            network: nn.Module = timm.create_model(recipe.teacher, pretrained=True)
    except Exception as error:  # the hub raises what it likes
        raise RuntimeError(
            f"The teacher's weights must be loaded, but: {reason(error)}. Give a file as "
            "teacher_weights."
        ) from error
    if network.num_classes != classes:
        raise ValueError(
            f"`teacher` must tell the {classes} classes of the data apart, but {recipe.teacher} "
            f"has {network.num_classes}. Train one first, and give its file as teacher_weights."
        )
    return network


def _planes(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
