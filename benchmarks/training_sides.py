"""The trainings that `training_speed.py` compares: each a run of steps, and its speed.

python benchmarks/training_sides.py SIDE SETTING            (JSON; prints images per second)
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import torch

from predictors.data.datasets import load_data
from predictors.training.batches import timm_with
from predictors.training.recipe import Amp, Recipe, recipe_for
from predictors.training.trainer import Trainer
from predictors.training.workers import Workers, keep_memory
from search_spaces.fasternet import FASTERNET
from search_spaces.network import build

Side = Literal["ours", "timm", "timm_kept"]  # the last keeps its memory as ours does


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What both train: a named size, on a folder of images, so many at once."""

    data: str
    classes: int
    network: str = "t0"
    resolution: int = 224
    batch: int = 32
    warm_up: int = 2  # steps that are not timed
    steps: int = 4  # of a block
    blocks: int = 3  # timed in a process
    threads: int = 1
    loaders: int = 1  # processes that decode images
    device: str = "cpu"

    @property
    def images(self) -> int:
        """How many are needed so that no epoch ends, and loaders work beside all that is timed."""
        ahead = 2 * self.loaders + 2  # loaders have two batches ready each
        return self.batch * (self.warm_up + self.steps * self.blocks + ahead)

    @property
    def recipe(self) -> Recipe:
        """The published recipe for the network; at the whole resolution from the first step on."""
        config = replace(FASTERNET[self.network], resolution=self.resolution)
        found = recipe_for(config, self.images, batch_size=self.batch)
        amp: Amp = "auto" if self.device == "cuda" else "off"  # as timm's side has it
        return replace(found, early_resolution=1.0, micro_batch_size=self.batch, amp=amp)


def speeds(side: Side, workload: Workload) -> list[float]:
    """Return images per second, block by block."""
    torch.set_num_threads(workload.threads)
    torch.manual_seed(0)
    if side == "timm_kept":
        keep_memory()
    run = _ours(workload) if side == "ours" else _timms(workload)
    for _ in islice(run, workload.warm_up):
        pass
    found = []
    for _ in range(workload.blocks):
        _wait(workload)
        begun = time.perf_counter()
        for _ in islice(run, workload.steps):
            pass
        _wait(workload)
        found.append(workload.batch * workload.steps / (time.perf_counter() - begun))
    return found


def _ours(workload: Workload) -> Iterator[object]:
    recipe = workload.recipe
    config = replace(
        FASTERNET[workload.network], resolution=workload.resolution, classes=workload.classes
    )
    trainer = Trainer(
        build(config, drop_path=recipe.drop_path),
        load_data(workload.data, resolution=workload.resolution),
        recipe,
        device=torch.device(workload.device),
        workers=Workers(loaders=workload.loaders),
    )
    yield from trainer.run()


def _timms(workload: Workload) -> Iterator[object]:
    """The loop of timm's train.py at its defaults: prefetcher, mixup while collating, no EMA."""
    timm, recipe = timm_with("data", "loss", "optim", "scheduler", "utils"), workload.recipe
    device = torch.device(workload.device)
    model = timm.create_model(
        f"fasternet_{workload.network}",
        num_classes=workload.classes,
        drop_path_rate=recipe.drop_path,
    )
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = timm.optim.create_optimizer_v2(
        model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    schedule = timm.scheduler.CosineLRScheduler(
        optimizer, t_initial=1000, t_in_epochs=False, lr_min=recipe.min_lr
    )
    loss_of, on_gpu = timm.loss.SoftTargetCrossEntropy(), device.type == "cuda"
    for step, (images, targets) in enumerate(_timms_loader(timm, workload, device)):
        taken = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=on_gpu):
            loss = loss_of(model(taken), targets)
        optimizer.zero_grad()
        loss.backward()
        if recipe.grad_clip:
            timm.utils.dispatch_clip_grad(model.parameters(), value=recipe.grad_clip)
        optimizer.step()
        schedule.step_update(num_updates=step)
        yield step


def _timms_loader(timm: Any, workload: Workload, device: torch.device) -> Any:
    recipe = workload.recipe
    mixing = timm.data.FastCollateMixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=0.5,
        mode="batch",
        label_smoothing=recipe.label_smoothing,
        num_classes=workload.classes,
    )
    return timm.data.create_loader(
        timm.data.create_dataset("", root=workload.data, split="train", is_training=True),
        input_size=(3, workload.resolution, workload.resolution),
        batch_size=workload.batch,
        is_training=True,
        scale=(recipe.crop, 1.0),
        hflip=0.5,
        color_jitter=None,
        auto_augment=recipe.augment or None,
        interpolation="bicubic",
        num_workers=workload.loaders,
        collate_fn=mixing,
        device=device,
    )


def _wait(workload: Workload) -> None:
    """Until the GPU is done with what it was given."""
    if workload.device != "cpu":
        torch.cuda.synchronize(workload.device)


if __name__ == "__main__":
    which: Any = sys.argv[1]
    print(json.dumps(speeds(which, Workload(**json.loads(sys.argv[2])))))
