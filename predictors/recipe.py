"""How networks are trained: the settings, and what follows from them step by step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW with decoupled weight decay (arXiv 1711.05101), a warm-up, then a cosine to 0."""

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warm_up: float = 0.15  # share of all steps
    flip: bool = True  # left and right are alike in these images
    seed: int = 0


def steps_of(recipe: Recipe, images: int) -> int:
    """Return how many steps training takes on so many images; a last small batch is left out."""
    return recipe.epochs * max(images // recipe.batch_size, 1)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
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
