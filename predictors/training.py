"""Training one network by a fixed recipe, epoch by epoch; it can stop after each and go on."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.datasets import ImageData
from predictors.image_batches import augmented, batches
from predictors.images import Images


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


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What came of an epoch: the mean training loss and the validation accuracy in percent."""

    number: int  # from 1
    loss: float
    accuracy: float


class DivergedError(RuntimeError):
    """The loss is no number any more."""


class Training:
    """A network on its way through a recipe; `state` and `load_state` carry it elsewhere.

    The same network, data and recipe give the same weights, stopped in between or not.
    """

    def __init__(self, network: nn.Module, data: ImageData, recipe: Recipe) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._data = data
        self._recipe = recipe
        self._done = 0
        self._optimizer = torch.optim.AdamW(_groups(network, recipe), lr=recipe.learning_rate)
        steps = recipe.epochs * max(len(data.train) // recipe.batch_size, 1)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, _warm_cosine(steps, recipe.warm_up)
        )

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return self._done

    def run_epoch(self) -> Epoch:
        """Train for one more epoch and evaluate.

        Raises:
            RuntimeError: if all epochs are done, or (`DivergedError`) the loss is no number.
        """
        if self._done >= self._recipe.epochs:
            raise RuntimeError(f"`epochs` are done: {self._done}. Train with a longer recipe.")
        # Each epoch has its own generator: what was drawn before does not matter to it.
        rng = torch.Generator().manual_seed(1_000_003 * self._recipe.seed + self._done)
        self.network.train()
        losses = [self._step(augmented(images, rng=rng, flip=self._recipe.flip), labels)
                  for images, labels in self._batches(rng)]  # fmt: skip
        self._done += 1
        right = accuracy(self.network, self._data.validation, self._data)
        return Epoch(number=self._done, loss=fmean(losses), accuracy=right)

    def _batches(self, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._recipe.batch_size
        images = self._data.train
        return batches(images, data=self._data, batch_size=size, rng=rng,
                       drop_last=len(images) >= size)  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, as torch.save takes it."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(), "done": self._done}  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._done = state["done"]

    def _step(self, images: Tensor, labels: Tensor) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        images = images.contiguous(memory_format=torch.channels_last)  # a quarter faster on CPUs
        loss = F.cross_entropy(self.network(images), labels,
                               label_smoothing=self._recipe.label_smoothing)  # fmt: skip
        if not torch.isfinite(loss):
            raise DivergedError(
                f"The loss must stay a number, but is {loss.item()} in epoch {self._done + 1}. "
                "Use a smaller learning rate."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        return loss.item()


def accuracy(network: nn.Module, images: Images, data: ImageData) -> float:
    """Return the top-1 accuracy in percent; the network is left in evaluation mode."""
    network.eval()
    right = 0
    with torch.inference_mode():
        for batch, labels in batches(images, data=data, batch_size=500, rng=None):
            batch = batch.contiguous(memory_format=torch.channels_last)
            right += int((network(batch).argmax(1) == labels).sum())
    return 100 * right / len(images)


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Decay matrices and kernels; leave biases and norms."""
    weights = list(network.parameters())
    return [{"params": [w for w in weights if w.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip


def _warm_cosine(steps: int, warm_up: float) -> Callable[[int], float]:
    warm = max(round(warm_up * steps), 1)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    return factor
