"""Training one network in full, step by step; it can stop after each and go on bit for bit."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.training.distillation import open_teacher
from nas.training.full_batches import Feed, batch_of, pieces_of, steps_of
from nas.training.full_progress import Best, Progress, Row
from nas.training.full_recipe import FullRecipe, resolution_of
from nas.training.shared_layers import share_layers
from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.drawing import drawing_from
from predictors.training.kept_memory import keep_memory
from predictors.training.picture_loading import Batch
from predictors.training.timm_parts import timm_with
from predictors.training.trainer import DivergedError
from predictors.training.workers import Team
from search_spaces.network import FasterNet

_FORWARD = 1  # what is drawn in a forward pass, beside what is drawn for images


class FullTraining:
    """A network on its way through a recipe, alone or in a team.

    What is drawn follows from seed, epoch, step and image, so that `state`, taken after any step,
    is all there is: on a CPU the same network, data, recipe and threads give the same bits, stopped
    in between or not. A team gives the same up to rounding.

    Raises:
        ValueError: if the device or the teacher is not there, the data have other classes, or the
            batch cannot be dealt out to the team.
    """

    def __init__(
        self, network: FasterNet, data: ImageData, recipe: FullRecipe, *, device: torch.device,
        team: Team | None = None, loaders: int = 0,
    ) -> None:  # fmt: skip
        timm = timm_with("data", "loss", "optim", "scheduler", "utils")
        self.team = team or Team()
        self.config = network.config
        self.recipe = recipe
        self.steps = steps_of(recipe, len(data.train))
        self.rows: list[Row] = []
        self.best: Best | None = None
        self._data, self._device = data, device
        self._feed = Feed(data=data, recipe=recipe, team=self.team, loaders=loaders)
        _refuse(network, data, recipe, self.team)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        shared: Any = share_layers(network, self.team, device)
        moved: nn.Module = shared.to(device, memory_format=layout)
        self.network = moved
        self._forward = _in_team(moved, self.team, device)
        self._averaged = timm.utils.ModelEmaV3(moved, decay=recipe.ema) if recipe.ema else None
        self._optimizer = timm.optim.create_optimizer_v2(
            moved, opt="adamw", lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        total = recipe.epochs * self.steps
        self._schedule = timm.scheduler.CosineLRScheduler(
            self._optimizer, t_initial=total, lr_min=recipe.last_rate, t_in_epochs=False,
            warmup_t=round(recipe.warm_up * total), warmup_lr_init=recipe.first_rate,
        )  # fmt: skip
        self._teacher = open_teacher(recipe, data, device)
        self._mixup = _mixup(timm, recipe, len(data.classes))
        hard = timm.loss.LabelSmoothingCrossEntropy(recipe.smoothing)
        self._loss = timm.loss.SoftTargetCrossEntropy() if self._mixup else hard
        self.rate_scale = 1.0
        self._epoch = self._step = 0  # done, and done in the one after these
        self._losses, self._seconds = 0.0, 0.0  # of the epoch begun

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self._epoch >= self.recipe.epochs

    @property
    def judged(self) -> nn.Module:
        """The network that is judged and kept: the averaged one, if there is one."""
        averaged = self._averaged
        return self.network if averaged is None else averaged.module

    def run(self) -> Iterator[Progress]:
        """Train on to the end; yield after each step, when `state` may be taken.

        Raises:
            DivergedError: if the loss, or a weight at the end of an epoch, is no number.
        """
        keep_memory()
        while not self.finished:
            yield from self._run_epoch()

    def accuracy(self, images: Images) -> float:
        """Return the top-1 accuracy in percent at the full resolution."""
        network = self.judged.eval()
        right = torch.zeros(1, dtype=torch.float64, device=self._device)
        with torch.inference_mode():
            for batch, labels in self._feed.judging(images):
                said = network(self._placed(batch)).argmax(1)
                right += (said == labels.to(self._device)).sum()
        return 100 * float(self.team.summed(right)) / len(images)

    def slow_down(self) -> None:
        """Halve the learning rate from here on."""
        self.rate_scale /= 2
        self._scale_rates()

    def here(self, *, row: Row | None = None, remark: str = "") -> Progress:
        """Return how far it is."""
        between = self._step == 0 and self._epoch > 0
        epoch, step = (self._epoch, self.steps) if between else (self._epoch + 1, self._step)
        return Progress(epoch=epoch, step=step, steps=self.steps, row=row, remark=remark)

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, as torch.save takes it."""
        averaged = self._averaged.module.state_dict() if self._averaged else None
        return {
            "network": self.network.state_dict(), "optimizer": self._optimizer.state_dict(),
            "averaged": averaged, "best": self.best and vars(self.best),
            "rows": [asdict(row) for row in self.rows], "epoch": self._epoch, "step": self._step,
            "losses": self._losses, "seconds": self._seconds, "rate_scale": self.rate_scale,
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._averaged:
            self._averaged.module.load_state_dict(state["averaged"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.rows = [Row(**row) for row in state["rows"]]
        self._epoch, self._step = state["epoch"], state["step"]
        self._losses, self._seconds = state["losses"], state["seconds"]
        self.rate_scale = state["rate_scale"]
        self._scale_rates()

    def _run_epoch(self) -> Iterator[Progress]:
        resolution = resolution_of(self.recipe, self.config, self._epoch)
        begun = time.perf_counter()
        for pieces in self._feed.training(self._epoch, self._step, resolution):
            self._losses += self._take(pieces)
            self._step += 1
            self._seconds += time.perf_counter() - begun
            yield self._end(resolution) if self._step == self.steps else self.here()
            begun = time.perf_counter()

    def _take(self, pieces: list[Batch]) -> float:
        """One step of the optimizer on the gradients of all pieces of a batch; return the loss."""
        self.network.train()
        done = self._epoch * self.steps + self._step
        self._schedule.step_update(done)
        self._optimizer.zero_grad(set_to_none=True)
        images, total = sum(len(labels) for _, labels in pieces), 0.0
        for number, piece in enumerate(pieces):
            with drawing_from(self.recipe.seed, done, number, _FORWARD):
                loss = len(piece[1]) / images * self._loss_of(*piece)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        total = float(self.team.summed(torch.tensor([total], device=self._device))) / self.team.size
        if not np.isfinite(total):
            raise DivergedError(f"The loss must stay a number, but is {total} in epoch "
                                f"{self._epoch + 1}.")  # fmt: skip
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self._optimizer.step()
        if self._averaged:
            self._averaged.update(self.network, step=done)
        return total

    def _loss_of(self, images: Tensor, labels: Tensor) -> Tensor:
        images, targets = self._placed(images), labels.to(self._device)
        if self._mixup:
            images, targets = self._mixup(images, targets)
        with self._precision():
            logits = self._forward(images)
        loss: Tensor = self._loss(logits.float(), targets)
        if self._teacher:
            share = self.recipe.teacher_share
            loss = (1 - share) * loss + share * self._teacher.loss(images, logits.float())
        return loss

    def _end(self, resolution: int) -> Progress:
        """Judge the epoch that is over and count it."""
        if not all(bool(w.isfinite().all()) for w in self.network.parameters()):
            raise DivergedError(f"The weights must stay numbers, but do not in epoch "
                                f"{self._epoch + 1}.")  # fmt: skip
        accuracy = self.accuracy(self._data.validation)
        images = self.steps * batch_of(self.recipe, len(self._data.train))
        row = Row(epoch=self._epoch + 1, loss=self._losses / self.steps, accuracy=accuracy,
                  rate=self._optimizer.param_groups[0]["lr"], resolution=resolution,
                  seconds=self._seconds, images_per_s=images / self._seconds)  # fmt: skip
        self.rows.append(row)
        if self.best is None or accuracy > self.best.accuracy:
            weights = {name: w.detach().clone() for name, w in self.judged.state_dict().items()}
            self.best = Best(epoch=row.epoch, accuracy=accuracy, weights=weights)
        self._epoch, self._step = self._epoch + 1, 0
        self._losses, self._seconds = 0.0, 0.0
        return self.here(row=row)

    def _placed(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return images.to(self._device).contiguous(memory_format=layout)

    def _precision(self) -> AbstractContextManager[Any]:
        kind = self._device.type
        if not _in_bfloat16(self.recipe, self._device):
            return nullcontext()
        return torch.autocast(kind, dtype=torch.bfloat16)

    def _scale_rates(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr_scale"] = self.rate_scale  # timm's schedules heed it


def _refuse(network: FasterNet, data: ImageData, recipe: FullRecipe, team: Team) -> None:
    if network.config.classes != len(data.classes):
        raise ValueError(f"`classes` must be the {len(data.classes)} of {data.name}, but the "
                         f"network has {network.config.classes}. Change them in its "
                         "config.")  # fmt: skip
    batch = batch_of(recipe, len(data.train))
    pieces = [len(piece) for piece in pieces_of(np.arange(batch), recipe.at_once)]
    if team.size > 1 and any(piece % (2 * team.size) for piece in pieces):
        raise ValueError(f"`batch` must be dealt out in pairs to {team.size} workers, but is "
                         f"{batch} in pieces of {pieces[0]}. Set batch and at_once to multiples "
                         f"of {2 * team.size}.")  # fmt: skip


def _in_team(network: nn.Module, team: Team, device: torch.device) -> nn.Module:
    """The network whose gradients are averaged over the team."""
    if team.size == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    own = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=own)


def _mixup(timm: Any, recipe: FullRecipe, classes: int) -> Any:
    if not (recipe.mixing and (recipe.mixup or recipe.cutmix)):
        return None
    return timm.data.Mixup(mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, prob=recipe.mixing,
                           switch_prob=0.5, mode="batch", label_smoothing=recipe.smoothing,
                           num_classes=classes)  # fmt: skip


def _in_bfloat16(recipe: FullRecipe, device: torch.device) -> bool:
    """Whether to; on a CPU only if it is asked for.

    Raises:
        ValueError: if it is asked for where the CPU has no instructions for it.
    """
    if device.type == "cuda":
        return recipe.amp != "off" and torch.cuda.is_bf16_supported()
    if recipe.amp == "on" and not torch.cpu._is_avx512_bf16_supported():
        raise ValueError("`amp` must be auto or off here, but is on: this CPU has no bfloat16.")
    return recipe.amp == "on"
