"""What is exported: T0 with timm's weights, and two small networks that differ in activation."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from beats_the_hand import by_hand

from nas.cli.main import main as fasternas
from nas.finetune.export import find_weights, real_images
from nas.finetune.folder import WEIGHTS
from predictors.backends.model import Model, checkpoint_model
from predictors.data.datasets import located
from predictors.training.estimators import loaded
from predictors.training.evaluate import RealImages, Split
from predictors.training.recipe import SHORT
from predictors.training.trainer import Trainer
from search_spaces.checkpoint import Checkpoint, read_weights
from search_spaces.fasternet import FASTERNET, Activation
from search_spaces.formats import save_config
from search_spaces.io import atomic_write
from search_spaces.network import build
from search_spaces.timm_models import import_timm

ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu")
WIDTH = 16  # of the small networks' first stage
PUBLISHED = 224  # px, of the weights that timm publishes


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A network with weights, where these are from, and the images that it is evaluated on."""

    model: Model
    images: RealImages
    weights: str
    split: Split = "validation"


@dataclass(frozen=True, kw_only=True)
class Short:
    """The short training of timm's module: its data as `load_data` takes it, size and length."""

    data: str
    resolution: int
    epochs: int

    @property
    def name(self) -> str:
        """What the weights are kept as."""
        location = located(self.data).encode()  # two files may have one name
        data = f"{Path(self.data).stem}-{hashlib.sha256(location).hexdigest()[:8]}"
        return f"fasternet_t0-{data}-{self.resolution}px-{self.epochs}-epochs"


def given_t0(weights: Path, data: str, *, resolution: int, count: int, folder: Path) -> Exported:
    """T0 with timm's published weights; images are normalised as timm says of them."""
    checkpoint = _t0(weights, resolution, folder)
    return _exported("t0", checkpoint, data, count=count, weights=f"as given: {weights.name}")


def trained_t0(short: Short, *, count: int, folder: Path) -> Exported:
    """T0 with what a short training made of timm's own module."""
    weights = train_timms(short, folder)
    data = loaded(short.data, short.resolution)  # whose statistics it was trained by
    checkpoint = replace(
        _t0(weights, short.resolution, folder), mean=data.mean, std=data.std, crop=0.0
    )
    words = (
        f"for want of the published ones those of timm's own module after {short.epochs} "
        f"epochs on {Path(short.data).name} at {short.resolution} px"
    )
    return _exported("t0", checkpoint, short.data, count=count, weights=words)


def train_timms(short: Short, folder: Path) -> Path:
    """Train timm's `fasternet_t0` and save it as timm does; go on from the last epoch, if any."""
    file, kept = folder / f"{short.name}.pth", folder / f"{short.name}.training.pt"
    if file.exists():
        return file
    data = loaded(short.data, short.resolution)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = import_timm().create_model("fasternet_t0", num_classes=len(data.classes))
    trainer = Trainer(network, data, replace(SHORT, epochs=short.epochs))
    if kept.exists():
        trainer.load_state(torch.load(kept, weights_only=True))
    for progress in trainer.run():
        if row := progress.row:
            _keep(trainer.state(), kept)
            print(
                f"fasternet_t0: epoch {row.epoch} of {short.epochs}: {row.accuracy:.2f} %",
                flush=True,
            )
    _keep(network.state_dict(), file)
    kept.unlink()
    return file


def trained_small(data: str, *, epochs: int, folder: Path) -> Iterator[Exported]:
    """FasterNet scaled to 32 px with either activation, fully trained, evaluated on test images."""
    for activation in ACTIVATIONS:
        name = f"fasternet-32-{activation}"
        classes = len(loaded(data, by_hand(WIDTH).resolution).classes)
        config = replace(by_hand(WIDTH), activation=activation, classes=classes)
        save_config(config, folder / f"{name}.yaml")
        _train(
            [
                str(folder / f"{name}.yaml"),
                "--data",
                data,
                "--epochs",
                str(epochs),
                "--device",
                "none",
                "--out",
                str(folder),
                "--resume",
            ]
        )
        checkpoint, _ = find_weights(str(folder / name / WEIGHTS))
        found = _exported(
            name,
            checkpoint,
            data,
            count=0,
            weights=f"trained for {epochs} epochs on {Path(data).name}",
        )
        yield _on_test(found)


def _t0(weights: Path, resolution: int, folder: Path) -> Checkpoint:
    """T0 as `fasternas export CONFIG --weights FILE` finds it, for as many classes as are there."""
    own = build(FASTERNET["t0"]).state_dict()
    classes = len(read_weights(weights, own).weights["classifier.weight"])
    config = replace(FASTERNET["t0"], classes=classes, resolution=resolution)
    save_config(config, folder / "t0.yaml")
    checkpoint, _ = find_weights(str(folder / "t0.yaml"), weights=str(weights))
    return checkpoint


def _exported(
    name: str, checkpoint: Checkpoint, data: str, *, count: int, weights: str
) -> Exported:
    """There are labels to evaluate by where the data have as many classes as the network."""
    config = checkpoint.config
    known = len(loaded(data, config.resolution).classes) == config.classes
    images = real_images(data, checkpoint, trained=known, count=count)
    model = checkpoint_model(name, checkpoint, calibration_images=images.calibration_images(1))
    return Exported(model=model, images=images, weights=weights)


def _on_test(exported: Exported) -> Exported:
    """The same evaluated on the whole test split, or where there is none on validation."""
    data = exported.images.data
    split: Split = "validation" if data.test is None else "test"
    last = data.validation if data.test is None else data.test
    images = replace(exported.images, data=replace(data, validation=last), count=len(last))
    return replace(exported, images=images, split=split)


def _train(arguments: Sequence[str]) -> None:
    if fasternas(["train", *arguments]) != 0:
        raise RuntimeError(f"`fasternas train {arguments[0]}` must end well, but did not.")


def _keep(content: dict[str, Any], path: Path) -> None:
    packed = io.BytesIO()
    torch.save(content, packed)
    atomic_write(path, packed.getvalue())
