"""How networks are trained: the settings, and what follows from them step by step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Fidelity = Literal["resolution", "images"]

STAGES = (1 / 4, 1 / 2)  # of the epochs: where the second and the last stage begin
GROWTH: dict[Fidelity, tuple[float, float, float]] = {
    "resolution": (3 / 4, 7 / 8, 1.0),
    "images": (1 / 2, 3 / 4, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW with decoupled weight decay (arXiv 1711.05101), a warm-up, then a cosine to 0.

    What is in `growing`, the images' size or how many of them an epoch takes, is smaller in the
    first quarter of the epochs and in the second, which makes these cheaper. With `averaging`,
    averaged weights are judged before the last epoch: while the learning rate is high, these come
    nearer than the latest ones to what the whole training will give.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warm_up: float = 0.3  # share of all steps
    flip: bool = True  # left and right are alike in these images
    shift: bool = False  # which would be worth its harm only in more epochs
    growing: tuple[Fidelity, ...] = ()
    averaging: bool = True
    seed: int = 0


def rungs(epochs: int) -> tuple[int, ...]:
    """Return after how many epochs a stage of the recipe ends: a quarter, a half, all of them."""
    return tuple(sorted({*(math.ceil(share * epochs) for share in STAGES), epochs}))


def fidelity(recipe: Recipe, of: Fidelity, epoch: int) -> float:
    """Return the share of the resolution, or of the images, that an epoch (from 0) has."""
    if of not in recipe.growing or epoch == recipe.epochs - 1:
        return 1.0
    return GROWTH[of][sum(epoch >= math.ceil(share * recipe.epochs) for share in STAGES)]


def steps_in(recipe: Recipe, epoch: int, images: int) -> int:
    """Return the steps of an epoch (from 0) on so many images; a last small batch is left out."""
    share = fidelity(recipe, "images", epoch)
    return max(int(share * images) // recipe.batch_size, 1)


def steps_of(recipe: Recipe, images: int) -> int:
    """Return how many steps all epochs take on so many images."""
    return sum(steps_in(recipe, epoch, images) for epoch in range(recipe.epochs))


def parameter_groups(network: "nn.Module", recipe: Recipe) -> list[dict[str, Any]]:
    """Decay matrices and kernels; leave biases and norms."""
    weights = list(network.parameters())
    return [{"params": [w for w in weights if w.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip


def warm_cosine(steps: int, warm_up: float) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step: up in a line, down in a cosine."""
    warm = max(round(warm_up * steps), 1)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    return factor
