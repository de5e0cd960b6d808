"""Training one network by a recipe, alone or with other workers; it can stop after each step."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from itertools import accumulate
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from predictors.data.datasets import ImageData
from predictors.training.batches import (
    Batch,
    Feed,
    calibration_images,
    parts_of,
    resized,
    seeded,
    timm_with,
)
from predictors.training.distillation import open_teacher
from predictors.training.evaluate import accuracy
from predictors.training.recipe import (
    PICTURES,
    Best,
    DivergedError,
    EpochRow,
    Recipe,
    TrainingProgress,
    batch_of,
    crop_of,
    lr_at,
    resolution_at,
    steps_at,
)
from predictors.training.workers import Workers, device_of, keep_memory, share_layers
from search_spaces.network import FasterNet, recalibrate

_FORWARD = 1  # what is seeded in a forward pass, beside what is seeded for images
RECALIBRATED = 512  # images for batch norms: an accuracy after each epoch must not cost much
_RECENT = 3.0  # so that a polynomial average is over the last quarter of the steps, or so
_TOO_SMALL = (
    "`workers` must each have the memory for their share of a batch, but one has not. Ask for more "
    "of them."
)


class Trainer:
    """A network on its way through a recipe, alone or with other workers.

    All that is random follows from seed, epoch, step and image, so that `state`, taken after any
    step, is all there is: on a CPU the same network, data, recipe and threads give the same bits,
    stopped in between or not. Several workers give the same up to rounding.
    """

    def __init__(
        self,
        network: nn.Module,
        data: ImageData,
        recipe: Recipe,
        *,
        device: torch.device | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.workers = workers or Workers()
        self.recipe = recipe
        self.rows: list[EpochRow] = []
        self.best: Best | None = None
        self.micro_batches = 1  # in which a part of a batch is taken, where memory is short
        self.lr_scale = 1.0
        self.epochs_done = 0
        self._step = 0  # done of the next epoch
        self._losses, self._seconds = 0.0, 0.0  # of the epoch begun
        self._data, self.device = data, device or torch.device("cpu")
        self._batch = batch_of(recipe, len(data.train))
        steps = (steps_at(recipe, epoch, len(data.train)) for epoch in range(recipe.epochs))
        self._starts = [0, *accumulate(steps)]  # the steps before each epoch, and all of them
        self._stride = _refuse(network, data, recipe, self.workers)
        self._feed = Feed(data=data, recipe=recipe, workers=self.workers)
        share_layers(network, self.workers)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        moved = network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.network = cast(nn.Module, moved)
        averages = recipe.ema or recipe.polynomial_averaging
        self._averaged = _AveragedWeights(self.network, recipe) if averages else None
        self._optimizer = torch.optim.AdamW(_parameter_groups(self.network, recipe), lr=recipe.lr)
        self._loss = _Loss(self.network, data, recipe)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epochs_done >= self.recipe.epochs

    @property
    def steps_done(self) -> int:
        """Of all epochs."""
        return self._starts[self.epochs_done] + self._step

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the averaged one, if there is one.

        A polynomial average is for what comes before the last epoch.
        """
        if self._averaged is None or (self.recipe.polynomial_averaging and self.finished):
            return self.network
        return self._averaged.network

    def run(self) -> Iterator[TrainingProgress]:
        """Train on to the end; yield after each step, when `state` may be taken."""
        while not self.finished:
            yield from self.run_epoch()

    def run_epoch(self) -> Iterator[TrainingProgress]:
        """Train to the end of an epoch; yield after each step."""
        if self.finished:
            raise RuntimeError(f"`epochs` are done: {self.epochs_done}. Train by a longer recipe.")
        keep_memory()
        steps, resolution = self._steps(self.epochs_done), self._resolution(self.epochs_done)
        if self._step >= steps:
            raise ValueError(
                "`data` must be what the training began with, but epoch "
                f"{self.epochs_done + 1} has {steps:,} steps now, of which {self._step:,} are "
                "done. Put the data back, or begin another training."
            )
        begun = time.perf_counter()
        for parts in self._feed.epoch(self.epochs_done, self._step, resolution):
            self._losses += self._take(parts)
            self._step += 1
            self._seconds += time.perf_counter() - begun
            yield self._end_epoch(resolution) if self._step == steps else self.progress()
            begun = time.perf_counter()

    def progress(self, *, row: EpochRow | None = None, remark: str = "") -> TrainingProgress:
        """Return how far it is."""
        between = self._step == 0 and self.epochs_done > 0
        epoch = self.epochs_done if between else self.epochs_done + 1
        steps = self._steps(epoch - 1)
        step = steps if between else self._step
        return TrainingProgress(epoch=epoch, step=step, steps=steps, row=row, remark=remark)

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, as torch.save takes it."""
        return {
            "network": self.network.state_dict(),
            "averaged": self._averaged and self._averaged.network.state_dict(),
            "evaluated": self.evaluated.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self.best and vars(self.best),
            "rows": [asdict(row) for row in self.rows],
            "epochs_done": self.epochs_done,
            "step": self._step,
            "losses": self._losses,
            "seconds": self._seconds,
            "lr_scale": self.lr_scale,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._averaged:
            self._averaged.network.load_state_dict(state["averaged"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.rows = [EpochRow(**row) for row in state["rows"]]
        self.epochs_done, self._step = state["epochs_done"], state["step"]
        self._losses, self._seconds = state["losses"], state["seconds"]
        self.lr_scale = state["lr_scale"]

    def _steps(self, epoch: int) -> int:
        return self._starts[epoch + 1] - self._starts[epoch]

    def _resolution(self, epoch: int) -> int:
        return resolution_at(self.recipe, self._data.resolution, epoch, stride=self._stride)

    def _take(self, parts: list[Batch]) -> float:
        """One step of the optimizer; where memory is short, in more micro-batches."""
        while True:
            try:
                return self._optimize(parts)
            except RuntimeError as error:
                largest = max(len(labels) for _, labels in parts)
                whole = self.recipe.mixes or self.micro_batches >= largest
                cpu = "can't allocate memory" in str(error)
                if whole or not (cpu or isinstance(error, torch.OutOfMemoryError)):
                    raise
                if self.workers.size > 1:  # the others would not know of more of them
                    raise MemoryError(_TOO_SMALL) from error
                self.micro_batches *= 2

    def _optimize(self, parts: list[Batch]) -> float:
        """Add up the gradients of a batch's parts and of all workers, step; return the loss."""
        self.network.train()
        step = self.steps_done
        lr = lr_at(self.recipe, step, self._starts[-1]) * self.lr_scale
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for number, (images, labels) in enumerate(self._split(parts)):
            with seeded(self.recipe.seed, step, number, _FORWARD):
                share = len(labels) / self._batch
                loss = share * self._loss(self._placed(images), labels.to(self.device))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        self.workers.sum_gradients(self.network)
        total = float(self.workers.sum(torch.tensor([total], device=self.device)))
        if not math.isfinite(total):
            raise DivergedError(
                f"The loss must stay a number, but is {total} in epoch {self.epochs_done + 1}."
            )
        if self.recipe.grad_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self._optimizer.step()
        if self._averaged:
            self._averaged.update(self.network, step)
        return total

    def _split(self, parts: list[Batch]) -> Iterator[Batch]:
        for images, labels in parts:
            chunks = images.chunk(self.micro_batches), labels.chunk(self.micro_batches)
            yield from zip(*chunks, strict=True)

    def _end_epoch(self, resolution: int) -> TrainingProgress:
        """Count the epoch that is over and evaluate."""
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            raise DivergedError(
                f"The weights must stay numbers, but do not in epoch {self.epochs_done + 1}."
            )
        steps = self._step
        self.epochs_done, self._step = self.epochs_done + 1, 0
        row = EpochRow(
            epoch=self.epochs_done,
            loss=self._losses / steps,
            accuracy=self._accuracy(resolution),
            lr=self._optimizer.param_groups[0]["lr"],
            resolution=resolution,
            seconds=self._seconds,
            images_per_s=steps * self._batch / self._seconds,
        )
        self._losses, self._seconds = 0.0, 0.0
        self.rows.append(row)
        self._keep_best(row)
        return self.progress(row=row)

    def _keep_best(self, row: EpochRow) -> None:
        better = self.best is None or row.accuracy > self.best.accuracy
        if better if self.recipe.keep_best else self.finished:
            weights = {name: w.detach().clone() for name, w in self.evaluated.state_dict().items()}
            self.best = Best(epoch=row.epoch, accuracy=row.accuracy, weights=weights)

    def _accuracy(self, resolution: int) -> float:
        """On the validation split: whole images, or of the progressive stage just done."""
        staged = "resolution" in self.recipe.progressive
        side = resolution if staged else self._data.resolution
        if self.recipe.polynomial_averaging and self.evaluated is not self.network:
            some = calibration_images(self._data, count=RECALIBRATED)
            recalibrate(self.evaluated, (self._placed(resized(images, side)) for images in some))
        crop = crop_of(self.recipe, self._data.resolution)
        return accuracy(
            self.evaluated,
            self._data.validation,
            self._data,
            resolution=side,
            crop=crop,
            workers=self.workers,
        )

    def _placed(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return images.to(self.device).contiguous(memory_format=layout)


class _Loss:
    """Cross entropy with what the recipe adds to it: mixup, bfloat16, a teacher."""

    def __init__(self, network: nn.Module, data: ImageData, recipe: Recipe) -> None:
        self._network, self._recipe = network, recipe
        device = device_of(network)
        self._precision = precision(recipe, device, data.resolution)
        self._mixup = _open_mixup(recipe, len(data.classes)) if recipe.mixes else None
        self._teacher = open_teacher(recipe, data, device)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """(1 - a) CE(logits, targets) + a T^2 KL(teacher, logits)."""
        if self._mixup:
            images, labels = self._mixup(images, labels)
        with self._precision:
            logits = self._network(images)
        loss = self._cross_entropy(logits.float(), labels)
        if self._teacher is None:
            return loss
        share = self._recipe.teacher_share
        return (1 - share) * loss + share * self._teacher.loss(images, logits.float())

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self._mixup:  # targets [b, classes], smoothed already
            return torch.sum(-targets * F.log_softmax(logits, dim=-1), dim=-1).mean()
        return F.cross_entropy(logits, targets, label_smoothing=self._recipe.label_smoothing)


class _AveragedWeights:
    """Averages of a network's weights over the steps.

    `ema` averages exponentially, buffers too. The polynomial average (arXiv 1212.1824) is over a
    share of all steps, however many they are; its buffers are the latest.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network = deepcopy(network).eval()
        self._recipe = recipe

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the averages towards the latest weights, after a step (from 0)."""
        averages: list[Tensor] = list(self.network.parameters())
        latest: list[Tensor] = list(network.parameters())
        buffers = zip(self.network.buffers(), network.buffers(), strict=True)
        for ours, theirs in buffers:
            if self._recipe.ema and ours.is_floating_point():
                averages.append(ours)
                latest.append(theirs)
            else:
                ours.copy_(theirs)
        torch._foreach_lerp_(averages, latest, weight=1.0 - self._decay(step))

    def _decay(self, step: int) -> float:
        if self._recipe.ema:
            return self._recipe.ema if step > 1 else 0.0
        return 1 - (1 + _RECENT) / (1 + _RECENT + step)


def _refuse(network: nn.Module, data: ImageData, recipe: Recipe, workers: Workers) -> int:
    """Refuse what does not fit together; return the network's whole stride."""
    batch = batch_of(recipe, len(data.train))
    if recipe.polynomial_averaging and workers.size > 1:
        raise ValueError(
            f"`polynomial_averaging` must be false with several workers, but there are "
            f"{workers.size}. Train by one."
        )
    parts = [len(part) for part in parts_of(np.arange(batch), recipe.micro_batch_size)]
    if recipe.paired and workers.size > 1 and any(part % (2 * workers.size) for part in parts):
        raise ValueError(
            f"`batch_size` must be shared in pairs by {workers.size} workers, but is {batch} in "
            f"parts of {parts[0]}. Set batch_size and micro_batch_size to multiples of "
            f"{2 * workers.size}."
        )
    if workers.size > min(parts):
        raise ValueError(
            f"`workers` must be at most the {min(parts)} images of a step, but are "
            f"{workers.size}. Ask for fewer."
        )
    if not isinstance(network, FasterNet):
        return 1
    config = network.config
    if config.classes != len(data.classes):
        raise ValueError(
            f"`classes` must be the {len(data.classes)} of {data.name}, but the network has "
            f"{config.classes}. Change them in its config."
        )
    return config.total_stride


def _parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Decay matrices and kernels; leave biases and norms."""
    weights = list(network.parameters())
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]


def _open_mixup(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor], Batch]:
    mixup: Callable[[Tensor, Tensor], Batch] = timm_with("data").data.Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=0.5,
        mode="batch",
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )
    return mixup


def precision(
    recipe: Recipe, device: torch.device, resolution: int
) -> AbstractContextManager[object]:
    """Return what a forward pass of images of so many pixels is in: bfloat16, or nothing.

    Raises:
        ValueError: if the recipe wants bfloat16 of a CPU that has none.
    """
    if device.type == "cuda":
        there = wanted = torch.cuda.is_bf16_supported()
    else:
        there = torch.cpu._is_avx512_bf16_supported()
        wanted = there and resolution >= PICTURES
    if recipe.amp == "on" and device.type == "cpu" and not there:
        raise ValueError("`amp` must be auto or off here, but is on: this CPU has no bfloat16.")
    if recipe.amp == "off" or not (wanted or (there and recipe.amp == "on")):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
