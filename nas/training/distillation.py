"""Learning from a teacher besides the labels (arXiv 1503.02531)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.training.full_recipe import FullRecipe
from predictors.data.datasets import ImageData


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
    """
    if not recipe.teacher:
        return None
    network = _network(recipe, len(data.classes))
    theirs: Any = network.pretrained_cfg
    ours = (_planes(data.mean), _planes(data.std))
    # x * std + mean are pixels; (pixels - mean') / std' is what the teacher wants: one step.
    std = ours[1] / _planes(theirs["std"])
    mean = (ours[0] - _planes(theirs["mean"])) / _planes(theirs["std"])
    return Teacher(network.to(device).eval().requires_grad_(requires_grad=False), mean.to(device),
                   std.to(device), recipe.temperature)  # fmt: skip


def _network(recipe: FullRecipe, classes: int) -> "nn.Module":
    from search_spaces.timm_import import import_timm
    from search_spaces.weight_files import read_weights

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
        raise RuntimeError(f"The teacher's weights must be loaded, but: {str(error)[:200]} Give a "
                           "file as teacher_weights.") from error  # fmt: skip
    told: int = network.num_classes  # type: ignore[assignment]
    if told != classes:
        raise ValueError(f"`teacher` must tell the {classes} classes of the data apart, but "
                         f"{recipe.teacher} has {told}. Train one first, and give its file as "
                         "teacher_weights.")  # fmt: skip
    return network


def _planes(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
