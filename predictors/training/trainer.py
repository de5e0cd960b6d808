"""Training one network by a fixed recipe, epoch by epoch; it can stop after each and go on."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.batches import (
    batches,
    calibration_images,
    drawn_moves,
    moved,
    scaled,
)
from predictors.training.kept_memory import keep_memory
from predictors.training.recipe import (
    Recipe,
    fidelity,
    parameter_groups,
    steps_in,
    steps_of,
    warm_cosine,
)
from predictors.training.workers import Team
from search_spaces.batch_norms import recalibrate

_TOO_SMALL = ("`workers` must each have the memory for their share of a batch, but one has not. "
              "Ask for more of them.")  # fmt: skip
_CALIBRATED = 512  # images for batch norms: an accuracy after each epoch must not cost much
_RECENT = 3.0  # so that the average is over the last quarter of the steps, or so


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What came of an epoch: the mean training loss and the validation accuracy in percent."""

    number: int  # from 1
    loss: float
    accuracy: float


class DivergedError(RuntimeError):
    """The loss is no number any more."""


Loss = Callable[[Tensor, Tensor, int], Tensor]  # of images, labels and the number of the step


class Training:
    """A network on its way through a recipe; `state` and `load_state` carry it elsewhere.

    On a CPU the same network, data and recipe give the same weights, stopped in between or not. The
    loss is the cross entropy and the judge the accuracy on the validation split, unless others are
    given.
    """

    def __init__(
        self, network: nn.Module, data: ImageData, recipe: Recipe, *, loss: Loss | None = None,
        judge: Callable[[], float] | None = None, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._data = data
        self._recipe = recipe
        self._loss = loss or self._cross_entropy
        self._judge = judge or self._accuracy
        self._averaged = (AveragedModel(network, multi_avg_fn=_average)
                          if recipe.averaging and judge is None else None)  # fmt: skip
        self.pieces = 1  # that a batch is taken in, where memory is short
        self._team = Team()
        self._batch = min(recipe.batch_size, len(data.train))
        self._done = 0
        self._optimizer = torch.optim.AdamW(
            parameter_groups(network, recipe), lr=recipe.learning_rate
        )
        steps = steps_of(recipe, len(data.train))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, warm_cosine(steps, recipe.warm_up)
        )

    def join(self, team: Team) -> None:
        """Take a share of each batch from here on; the others of the team take the rest.

        It comes to what one worker alone comes to, up to rounding, if the network's batch norms
        are over the whole batch.

        Raises:
            ValueError: if a step has fewer images than the team has workers.
        """
        if team.size > self._batch:
            raise ValueError(f"`workers` must be at most the {self._batch} images of a step, but "
                             f"are {team.size}. Ask for fewer.")  # fmt: skip
        self._team = team

    @property
    def judged(self) -> nn.Module:
        """The network whose accuracy is told: before the last epoch, that of averaged weights."""
        judged: nn.Module = self.network
        if self._averaged is not None and self._done < self._recipe.epochs:
            judged = self._averaged.module
        return judged

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return self._done

    def run_epoch(self) -> Epoch:
        """Train for one more epoch and evaluate.

        Raises:
            RuntimeError: if all epochs are done, or (`DivergedError`) the loss is no number.
            MemoryError: if a worker of a team has too little for its share of a batch.
        """
        if self._done >= self._recipe.epochs:
            raise RuntimeError(f"`epochs` are done: {self._done}. Train with a longer recipe.")
        keep_memory()
        # Each epoch has its own generator: what was drawn before does not matter to it.
        rng = torch.Generator().manual_seed(1_000_003 * self._recipe.seed + self._done)
        self.network.train()
        losses = [self._step(images, labels) for images, labels in self._batches(rng)]
        self._done += 1
        return Epoch(number=self._done, loss=fmean(losses), accuracy=self._judge())

    def _accuracy(self) -> float:
        """At the resolution of the epoch before; averaged weights with batch norms of their own."""
        scale = fidelity(self._recipe, "resolution", self._done - 1)
        if self.judged is not self.network:
            place = device_of(self.network)
            some = calibration_images(self._data, count=_CALIBRATED)
            recalibrate(self.judged, (_packed(scaled(images, scale), place) for images in some))
        return accuracy(self.judged, self._data.validation, self._data, scale=scale,
                        team=self._team)  # fmt: skip

    def _cross_entropy(self, images: Tensor, labels: Tensor, _: int) -> Tensor:
        return F.cross_entropy(self.network(images), labels,
                               label_smoothing=self._recipe.label_smoothing)  # fmt: skip

    def _batches(self, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """What the epoch trains on, as the recipe alters it."""
        recipe, images, whole = self._recipe, self._data.train, self._batch
        scale = fidelity(recipe, "resolution", self._done)
        flip = recipe.flip and self._data.symmetric
        own = self._team.share(whole)
        steps = steps_in(recipe, self._done, len(images))
        order = torch.randperm(len(images), generator=rng)[: steps * whole].view(steps, whole)
        read = images.subset(order[:, own].flatten().numpy())
        for pixels, labels in batches(read, data=self._data, batch_size=len(own), rng=None):
            shape = (whole, *pixels.shape[1:])  # for which all workers draw alike
            rows, columns = drawn_moves(shape, rng=rng, flip=flip, shift=recipe.shift)
            yield scaled(moved(pixels, rows[own], columns[own]), scale), labels

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, as torch.save takes it."""
        averaged = None if self._averaged is None else self._averaged.state_dict()
        return {"network": self.network.state_dict(), "averaged": averaged,
                "judged": self.judged.state_dict(), "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(), "done": self._done}  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._done = state["done"]

    def _step(self, images: Tensor, labels: Tensor) -> float:
        while True:
            try:
                return self._step_in_pieces(images, labels)
            except RuntimeError as error:
                if not _is_out_of_memory(error) or self.pieces >= len(images):
                    raise
                if self._team.size > 1:  # the others would not know of more pieces
                    raise MemoryError(_TOO_SMALL) from error
                self.pieces *= 2

    def _step_in_pieces(self, images: Tensor, labels: Tensor) -> float:
        """Add up the gradients of the batch's pieces and of all workers, then take the step."""
        self._optimizer.zero_grad(set_to_none=True)
        total, place = 0.0, device_of(self.network)
        for part, targets in zip(images.chunk(self.pieces), labels.chunk(self.pieces), strict=True):
            loss = self._loss(_packed(part, place), targets.to(place), self._schedule.last_epoch)
            share = len(part) / self._batch
            (share * loss).backward()  # type: ignore[no-untyped-call]
            total += share * loss.item()
        self._team.sum_gradients(self.network)
        total = float(self._team.summed(torch.tensor([total], device=place)))
        self._check(total)
        self._optimizer.step()
        self._schedule.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self.network)
        return total

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss must stay a number, but is {loss} in epoch {self._done + 1}. "
                "Use a smaller learning rate."
            )


def accuracy(
    network: nn.Module, images: Images, data: ImageData, *, scale: float = 1.0,
    team: Team | None = None,
) -> float:  # fmt: skip
    """Return the top-1 accuracy in percent, at a share of the images' resolution.

    Each worker of a team judges some of the images. The network is left in evaluation mode.
    """
    network.eval()
    team = team or Team()
    own = images.subset(team.share(len(images)))
    place = device_of(network)
    right = torch.zeros(1, dtype=torch.int64, device=place)
    with torch.inference_mode():
        for batch, labels in batches(own, data=data, batch_size=500, rng=None):
            said = network(_packed(scaled(batch, scale), place)).argmax(1)
            right += (said == labels.to(place)).sum()
    return 100 * int(team.summed(right)) / len(images)


def _average(averaged: Sequence[Tensor], latest: Sequence[Tensor], steps: Tensor | int) -> None:
    """Move averages towards the latest weights, over the last quarter or so of so many steps.

    Polynomial-decay averaging (arXiv 1212.1824): the average is over a share of all steps, however
    many they are.
    """
    decay = 1 - (1 + _RECENT) / (1 + _RECENT + int(steps))
    get_ema_multi_avg_fn(decay)(averaged, latest, steps)  # type: ignore[no-untyped-call]


def training_device() -> torch.device:
    """Return the GPU if torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's weights are."""
    return next(network.parameters()).device


def _packed(images: Tensor, place: torch.device) -> Tensor:
    """Channels last, which is faster on CPUs."""
    return images.to(place).contiguous(memory_format=torch.channels_last)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the GPU's memory is used up, or, as torch words it, the machine's."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
