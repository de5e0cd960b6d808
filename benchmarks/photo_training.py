"""How benchmarks train networks on photos: one recipe, and workers that share the work.

A training has one thread of a core, or a GPU where there is one, and a checkpoint after each epoch;
whoever finds one that nobody works on goes on with it. Each that is done is a line of a file.
"""

import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from photo_images import Photos, centres, open_photos, random_crops
from torch import Tensor, nn
from torch.nn import functional as F

from nas.study import journal
from predictors.devices.agent.host import processor
from predictors.devices.local import gpu_name
from predictors.training.batches import seed_of
from predictors.training.checkpoint import Checkpoints
from predictors.training.evaluate import packed
from predictors.training.workers import keep_memory
from search_spaces.checkpoint import begin_with
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import locked, one_line
from search_spaces.network import build
from search_spaces.timm_models import import_timm

TRAININGS = Path(__file__).parent / "results" / "photos" / "trainings.jsonl"
DEPLOYED = 224  # pixels of the networks that the recipe trains at its own resolution
_AT_ONCE = 64  # photos, when they are evaluated
_UNFINISHED = "unfinished"  # the folder of the checkpoints


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """A model of timm without its weights, to be trained beside ours."""

    timm: str
    resolution: int = DEPLOYED


Network = FasterNetConfig | TimmModel


@dataclass(frozen=True, kw_only=True)
class PhotoRecipe:
    """AdamW (arXiv 1711.05101) down a cosine; random resized crops and flips; bfloat16."""

    resolution: int = 128  # of a network for 224 px, and of others in proportion
    epochs: int = 15
    batch_size: int = 64
    lr: float = 5e-4  # at 2e-3 the narrowed T0s were more accurate than T0
    warmup: float = 1 / 15  # share of all steps in which the learning rate rises
    weight_decay: float = 0.05  # of matrices and kernels
    label_smoothing: float = 0.1
    crop: float = 0.25  # smallest share of a photo's area
    branches: bool = False  # partial convolutions are sums of three, which could be folded
    images: int = 0  # to train on, spread over the split; 0: all
    classes: int = 0  # to train on and to tell apart, spread over all; 0: all
    ended: int = 0  # after so many of the epochs; 0: all
    init: str = ""  # whose weights are sliced into the network at first; "": random ones

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step (from 0) of so many."""
        warm = max(round(self.warmup * steps), 1)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    def evaluates(self, epoch: int) -> bool:
        """Whether to evaluate after an epoch (from 1): a power of two, or the last one."""
        return epoch == (self.ended or self.epochs) or epoch.bit_count() == 1

    def resolution_of(self, config: Network) -> int:
        """Return the pixels at which a network is trained, a multiple of 8."""
        return 8 * round(self.resolution * config.resolution / DEPLOYED / 8)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A network to be trained from a seed, under a name for people."""

    name: str
    config: Network
    seed: int
    recipe: PhotoRecipe
    kept: bool = False  # its weights, without the classifier, for those that start from them

    @property
    def identity(self) -> str:
        """A word that only this training has."""
        what = (asdict(self.config), self.seed, asdict(self.recipe))
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class PhotoTrained:
    """What a training came to: validation accuracies in percent after some of its epochs.

    That after the last one is `correct` of `images`, computed in fp32; those before are in
    bfloat16. A training whose loss was no number has those until then, and its `error`.
    """

    name: str
    seed: int
    recipe: PhotoRecipe
    accuracies: tuple[tuple[int, float], ...]  # by epoch
    correct: int
    images: int
    seconds: float  # of CPU time, or by the wall on a GPU; with evaluation
    device: str
    error: str = ""

    @property
    def accuracy(self) -> float:
        """Top-1 after the last epoch, in percent."""
        return 100 * self.correct / self.images


Trained = tuple[FasterNetConfig, PhotoTrained]


def config_of(values: Mapping[str, Any]) -> FasterNetConfig:
    """Return the config that JSON spells."""
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return FasterNetConfig(**fields)


def network_of(values: Mapping[str, Any]) -> Network:
    """Return the model of timm, or the config, that JSON spells."""
    return TimmModel(**values) if "timm" in values else config_of(values)


def read_all(file: Path) -> list[tuple[Network, PhotoTrained]]:
    """Return the trainings of a file, each with its network."""
    found = []
    for entry in journal.read(file, growing=True):
        network = network_of(entry.pop("config"))
        recipe = PhotoRecipe(**entry.pop("recipe"))
        shares = tuple((epoch, share) for epoch, share in entry.pop("accuracies"))
        found.append((network, PhotoTrained(**entry, recipe=recipe, accuracies=shares)))
    return found


def read_trained(file: Path) -> list[Trained]:
    """Return the trainings of FasterNets in a file, each with its config."""
    return [(one, row) for one, row in read_all(file) if isinstance(one, FasterNetConfig)]


def missing(jobs: Sequence[Job], file: Path) -> list[Job]:
    """Return those that are not in the file yet, or whose weights are wanted and not there."""
    rows = read_all(file)
    done = {Job(name="", config=n, seed=r.seed, recipe=r.recipe).identity for n, r in rows}
    return [
        job
        for job in jobs
        if job.identity not in done or (job.kept and not weights_file(job.name, file).exists())
    ]


def weights_file(name: str, file: Path) -> Path:
    """Return where the weights of a kept training lie, beside the checkpoints of others."""
    return file.parent / _UNFINISHED / f"{name}.pt"


class PhotoTraining:
    """A network on its way through the recipe; `state`, after any epoch, is all there is."""

    def __init__(
        self, job: Job, photos: Photos, device: torch.device, init: Path | None = None
    ) -> None:
        photos = photos.of_classes(job.recipe.classes)
        self._job, self._recipe, self._photos, self._device = job, job.recipe, photos, device
        self._side = self._recipe.resolution_of(job.config)
        torch.manual_seed(job.seed)
        network = _built(job, self._side, photos.classes)
        if init is not None:
            begin_with(network, init, least_share=0.0)
        network = network.to(device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.AdamW(self._groups(), lr=self._recipe.lr)
        total, wanted = len(photos.train_labels), self._recipe.images
        count = min(wanted, total) if wanted else total
        self._rows = np.linspace(0, total - 1, count).round().astype(np.int64)
        self._steps = max(count // self._recipe.batch_size, 1)  # of an epoch
        self.epochs_done = 0
        self.accuracies: list[tuple[int, float]] = []
        self.correct = 0
        self.seconds = 0.0

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epochs_done == (self._recipe.ended or self._recipe.epochs)

    def run_epoch(self) -> Iterator[float]:
        """Train to the end of an epoch and evaluate; yield the loss of each step."""
        begun, epoch = self._clock(), self.epochs_done
        rng = torch.Generator().manual_seed(seed_of(self._job.seed, epoch))
        order = torch.randperm(len(self._rows), generator=rng).numpy()
        self._network.train()
        for step in range(self._steps):
            at = slice(step * self._recipe.batch_size, (step + 1) * self._recipe.batch_size)
            lr = self._recipe.lr_at(epoch * self._steps + step, self._recipe.epochs * self._steps)
            yield self._step(self._rows[order[at]], lr, rng)
        self.epochs_done += 1
        if self._recipe.evaluates(self.epochs_done):
            self.correct = self._count_correct(exactly=self.finished)
            accuracy = 100 * self.correct / len(self._photos.validation_labels)
            self.accuracies.append((self.epochs_done, accuracy))
        self.seconds += self._clock() - begun

    def progress(self) -> str:
        """Say how far it is."""
        epoch, accuracy = self.accuracies[-1]
        images = self.epochs_done * self._steps * self._recipe.batch_size
        return (
            f"epoch {self.epochs_done} of {self._recipe.epochs}, {accuracy:.2f} % after "
            f"{epoch}, {images / self.seconds:.0f} photos/s"
        )

    def result(self, error: str) -> PhotoTrained:
        """Return what it came to."""
        on = gpu_name() if self._device.type == "cuda" else processor()
        return PhotoTrained(
            name=self._job.name,
            seed=self._job.seed,
            recipe=self._recipe,
            accuracies=tuple(self.accuracies),
            correct=0 if error else self.correct,
            images=len(self._photos.validation_labels),
            seconds=round(self.seconds, 1),
            device=on,
            error=error,
        )

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on, as torch.save takes it."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "epochs_done": self.epochs_done,
            "accuracies": self.accuracies,
            "correct": self.correct,
            "seconds": self.seconds,
        }

    def weights(self) -> dict[str, Tensor]:
        """Return what others may start from: all but the classifier."""
        state = self._network.state_dict()
        return {name: w for name, w in state.items() if not name.startswith("classifier.")}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.epochs_done, self.accuracies = state["epochs_done"], state["accuracies"]
        self.correct, self.seconds = state["correct"], state["seconds"]

    def _clock(self) -> float:
        """Seconds: of CPU time, which other programs and pauses do not lengthen, but on a GPU."""
        return time.process_time() if self._device.type == "cpu" else time.monotonic()

    def _groups(self) -> list[dict[str, object]]:
        """Decay matrices and kernels; leave biases and norms."""
        weights = list(self._network.parameters())
        return [
            {
                "params": [w for w in weights if w.ndim > 1],
                "weight_decay": self._recipe.weight_decay,
            },
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]

    def _step(self, rows: NDArray[np.int64], lr: float, rng: torch.Generator) -> float:
        chosen = torch.from_numpy(rows).to(self._device)
        photos = self._photos.train.index_select(0, chosen)  # indexing takes ten times as long
        images = random_crops(photos, self._side, self._recipe.crop, rng)
        labels = self._photos.train_labels[chosen]
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._logits(images, exactly=False)
        loss = F.cross_entropy(logits, labels, label_smoothing=self._recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.item()

    def _logits(self, images: Tensor, *, exactly: bool) -> Tensor:
        shown = packed(self._photos.normalised(images), self._device)
        faster = not exactly and _has_bfloat16(self._device)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=faster):
            logits: Tensor = self._network(shown)
        return logits.float()

    @torch.inference_mode()
    def _count_correct(self, *, exactly: bool) -> int:
        self._network.eval()
        correct = 0
        for start in range(0, len(self._photos.validation_labels), _AT_ONCE):
            at = slice(start, start + _AT_ONCE)
            images = centres(self._photos.validation[at], self._side)
            guesses = self._logits(images, exactly=exactly).argmax(1)
            correct += int((guesses == self._photos.validation_labels[at]).sum())
        return correct


def _built(job: Job, side: int, classes: int) -> nn.Module:
    if isinstance(job.config, TimmModel):
        return cast(nn.Module, import_timm().create_model(job.config.timm, num_classes=classes))
    config = replace(job.config, resolution=side, classes=classes)
    return build(config, branches=job.recipe.branches)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def train_all(jobs: Sequence[Job], file: Path, photos: Path, *, workers: int) -> None:
    """Train what the file has not, in so many processes; append each when it is done.

    Other calls, also of other programs, may work on the same jobs meanwhile: each takes what
    nobody else has.
    """
    open_photos(photos, torch.device("cpu"))  # so that they are decoded once
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_serve, args=(jobs, file, photos, os.getpid()), daemon=True)
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("Not all trainings ended well: see above, and begin again to go on with them.")


def _serve(jobs: Sequence[Job], file: Path, photos: Path, parent: int) -> None:
    torch.set_num_threads(1)
    keep_memory()
    os.nice(5)
    work(jobs, file, photos, parent=parent)


def work(jobs: Sequence[Job], file: Path, photos: Path, *, parent: int = 0) -> None:
    """Do one training after another; end with the parent process, if one is given.

    Raises:
        RuntimeError: at the end, if trainings could not be done.
    """
    (file.parent / _UNFINISHED).mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    failed = 0
    for job in _claimed(jobs, file):
        try:
            init = weights_file(job.recipe.init, file) if job.recipe.init else None
            training = PhotoTraining(job, open_photos(photos, device), device, init)
            _train(job, file, training, parent)
        except (RuntimeError, ValueError, OSError, MemoryError) as error:
            failed += 1
            _log(job, f"failed: {one_line(error)}")
    if failed:
        raise RuntimeError(f"{failed} trainings failed.")


def _claimed(jobs: Sequence[Job], file: Path) -> Iterator[Job]:
    """Yield each job that is not done and that nobody works on, locked until the next one."""
    for job in jobs:
        lock = _unfinished(job, file, ".lock")
        lock.touch()
        with suppress(BlockingIOError), locked(lock):
            if missing([job], file):
                yield job
            if not missing([job], file):
                lock.unlink(missing_ok=True)


def _train(job: Job, file: Path, training: PhotoTraining, parent: int) -> None:
    """Go on from the checkpoint to the end, or to where the loss is no number; append."""
    checkpoints = Checkpoints(file=_unfinished(job, file, ".pt"))
    if found := checkpoints.newest():
        training.load_state(found.content)
    error = ""
    while not (training.finished or error):
        for loss in training.run_epoch():
            if parent and os.getppid() != parent:
                sys.exit("The parent is gone.")
            if not math.isfinite(loss):
                error = f"the loss is {loss}"
                break
        else:
            checkpoints.write(training.state())
            _log(job, training.progress())
    journal.append(file, [{"config": asdict(job.config), **asdict(training.result(error))}])
    if job.kept:
        torch.save(training.weights(), weights_file(job.name, file))
    checkpoints.file.unlink(missing_ok=True)


def _unfinished(job: Job, file: Path, suffix: str) -> Path:
    return file.parent / _UNFINISHED / f"{job.identity}{suffix}"


def _log(job: Job, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {job.name}, seed {job.seed}: {what}", flush=True)
