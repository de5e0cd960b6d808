"""Learning from a teacher besides the labels (arXiv 1503.02531)."""

import textwrap
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.training.full_recipe import FullRecipe
from predictors.data.datasets import ImageData
from search_spaces.io import one_line

OURS = "fasternas"  # the teacher's name where its weights are a checkpoint of ours
_LONGEST = 200  # characters of another's error message


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that is not trained, and how it wants its images normalised."""

    network: nn.Module
    mean: Tensor
    std: Tensor
    temperature: float

    def loss(self, images: Tensor, logits: Tensor) -> Tensor:
        """T^2 KL(teacher / T || student / T); `images` are normalised as the data are."""
        with torch.no_grad():
            said = self.network(images * self.std + self.mean) / self.temperature
        learned = (logits / self.temperature).log_softmax(1)
        divergence = F.kl_div(learned, said.log_softmax(1), log_target=True, reduction="batchmean")
        return divergence * self.temperature**2


def open_teacher(recipe: FullRecipe, data: ImageData, device: torch.device) -> Teacher | None:
    """Return the recipe's teacher, if it has one.

    Raises:
        ValueError: if timm has no such model, or it tells other classes apart.
        RuntimeError: if its weights cannot be had.
        OSError: if a file with them cannot be read.
    """
    from search_spaces.checkpoint import is_checkpoint

    if not recipe.teacher:
        return None
    if recipe.teacher_weights and is_checkpoint(recipe.teacher_weights):
        network, mean, std = _ours(recipe, data)
    else:
        network, mean, std = _timms(recipe, len(data.classes))
    # x * s + m are pixels; (pixels - mean) / std is what the teacher wants: one step.
    shift, scale = (_planes(data.mean) - mean) / std, _planes(data.std) / std
    return Teacher(network.to(device).eval().requires_grad_(requires_grad=False), shift.to(device),
                   scale.to(device), recipe.temperature)  # fmt: skip


def _ours(recipe: FullRecipe, data: ImageData) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of a checkpoint, and the mean and the deviation that it was trained by."""
    from search_spaces.checkpoint import read_checkpoint

    if recipe.teacher != OURS and not recipe.teacher.startswith("fasternet_"):
        raise ValueError(f"`teacher` must be {OURS} where its weights are a checkpoint that "
                         f"{OURS} saved, but got {recipe.teacher!r}. Set teacher={OURS}."
                         )  # fmt: skip
    found = read_checkpoint(recipe.teacher_weights)
    names = found.classes or data.classes
    if found.config.classes != len(data.classes) or names != data.classes:
        raise ValueError(f"`teacher_weights` must tell the {len(data.classes)} classes of the data "
                         f"apart, but {recipe.teacher_weights} tells others. Train it on these "
                         "data first.")  # fmt: skip
    return found.network(), _planes(found.mean or data.mean), _planes(found.std or data.std)


def _timms(recipe: FullRecipe, classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model of timm's, and the mean and the deviation that timm says of it."""
    if recipe.teacher == OURS:
        raise ValueError(f"`teacher_weights` must be a checkpoint that {OURS} saved for teacher="
                         f"{OURS}, but got {recipe.teacher_weights!r}. Give its "
                         "weights.safetensors.")  # fmt: skip
    network = _network(recipe, classes)
    said: Any = network.pretrained_cfg
    return network, _planes(said["mean"]), _planes(said["std"])


def _network(recipe: FullRecipe, classes: int) -> nn.Module:
    from search_spaces.checkpoint import read_weights
    from search_spaces.timm_models import import_timm

    timm = import_timm()
    if not timm.is_model(recipe.teacher):
        raise ValueError(f"`teacher` must be a model of timm, but got {recipe.teacher!r}. "
                         "timm.list_models() has them.")  # fmt: skip
    if recipe.teacher_weights:
        network: nn.Module = timm.create_model(recipe.teacher, num_classes=classes)
        try:
            network.load_state_dict(read_weights(recipe.teacher_weights))
        except RuntimeError as error:
            raise ValueError(f"`teacher_weights` must be those of a {recipe.teacher} with "
                             f"{classes} classes, but: {str(error).splitlines()[-1].strip()}"
                             ) from None  # fmt: skip
        return network
    try:
        network = timm.create_model(recipe.teacher, pretrained=True)
    except Exception as error:  # the hub raises what it likes
        raise RuntimeError(f"The teacher's weights must be loaded, but: {_sentence(error)}. Give "
                           "a file as teacher_weights.") from error  # fmt: skip
    told: int = network.num_classes  # type: ignore[assignment]
    if told != classes:
        raise ValueError(f"`teacher` must tell the {classes} classes of the data apart, but "
                         f"{recipe.teacher} has {told}. Train one first, and give its file as "
                         "teacher_weights.")  # fmt: skip
    return network


def _sentence(error: Exception) -> str:
    """The first one of a message, whole if it is not too long."""
    first = one_line(error).partition(". ")[0] or type(error).__name__
    return textwrap.shorten(first, _LONGEST, placeholder=" ...").rstrip(".:")


def _planes(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
