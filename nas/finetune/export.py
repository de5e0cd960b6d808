"""Exporting a network: each file written, compared with torch on images, and put in place.

A file that computes something else is refused, and nothing is left of it.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nas.networks import Kind, Typed, kind_of_file
from predictors.backends.agreement import Agreement, Batches, check
from predictors.backends.model import Model
from predictors.backends.table import Runtime
from predictors.data.datasets import ImageData, load_data
from predictors.training.evaluate import RealImages
from search_spaces.checkpoint import Checkpoint, is_checkpoint, read_checkpoint, weights_of
from search_spaces.extensions import extensions_named
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import load_config
from search_spaces.io import make_folders, reason, remove_empty, short_repr
from search_spaces.network import build


@dataclass(frozen=True, kw_only=True)
class Export:
    """What came of a format: the path and size in bytes of what was written, or why it was not.

    `code` is how one loads it, in Python. `agreement` is None if there is nothing to compute.
    """

    runtime: Runtime
    path: Path
    files: tuple[Path, ...] = ()  # all that was written; the main one last
    size: int = 0
    code: str = ""
    agreement: Agreement | None = None
    refusal: str = ""


def real_images(name: str, checkpoint: Checkpoint, *, trained: bool, count: int) -> RealImages:
    """Open the data on which a network is to be evaluated."""
    data = load_data(name, resolution=checkpoint.config.resolution)
    if trained:
        _refuse_other_classes(data, checkpoint)
    if checkpoint.mean and checkpoint.std:
        data = replace(data, mean=checkpoint.mean, std=checkpoint.std)
    return RealImages(data=data, count=count, labelled=trained, crop=checkpoint.crop)


def find_weights(name: str, *, weights: str | None = None) -> tuple[Checkpoint, bool]:
    """Return a network by what it is called, and whether it has weights of its own.

    It is t0 to l, a config file or a checkpoint; `weights` is a file with those of a config.
    Otherwise they are random, the same every time. Of a file that does not say how its images
    are normalised and cropped, it is as timm says of its own FasterNets.
    """
    typed = Typed.parse(name)
    config = typed.named_size
    if config is None:
        kind = _kind(typed)
        if kind == "checkpoint" and weights is not None:
            raise ValueError(f"`weights` must be left out for {name}, which has its own.")
        if kind == "checkpoint":
            found = read_checkpoint(typed.name)
            return replace(found, config=typed.resized(found.config)), True
        config = typed.resized(load_config(typed.name))
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Checkpoint(config=config, weights=build(config).state_dict()), False
    if is_checkpoint(weights):
        found = read_checkpoint(weights)
        if found.config != config:
            raise ValueError(
                f"`weights` must be those of {name}, but {weights} holds another config. "
                f"Export {weights} itself."
            )
        return found, True
    from search_spaces.timm_models import published

    return published(config, weights_of(config, weights).state_dict()), True


def export_each(
    model: Model, formats: Sequence[Runtime], folder: Path, images: Batches
) -> Iterator[Export]:
    """Export to each format in turn."""
    made = make_folders(folder)
    try:
        for runtime in formats:
            yield _exported(model, runtime, folder, images)
    finally:
        remove_empty(made)


def _exported(model: Model, runtime: Runtime, folder: Path, images: Batches) -> Export:
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder) as beside:
        try:
            with extensions_named():
                main = runtime.module.write(model, Path(beside, model.name), runtime)
                found = check(model, main, runtime, images)
        except OSError as error:
            raise _named(error, Path(beside), folder / model.name) from None
        except Exception as error:  # runtimes and converters have errors of all kinds
            return Export(runtime=runtime, path=folder, refusal=f"{reason(error)}.")
        files = _put_in_place(Path(beside), main, folder)
        path = folder / main.name
        return Export(
            runtime=runtime,
            path=path,
            files=files,
            size=sum(file.stat().st_size for file in files),
            code=runtime.module.code(model, path, runtime),
            agreement=found,
        )


def _named(error: OSError, room: Path, main: Path) -> OSError:
    """Name the file that was to be written where a full disk does not, or in a folder of ours."""
    known = error.filename is not None and not Path(str(error.filename)).is_relative_to(room)
    if known or not error.strerror:
        return error
    begun = [file for file in room.rglob("*") if file.is_file()]
    last = max(begun, key=lambda file: file.stat().st_mtime_ns, default=room / main.name)
    return OSError(error.errno, error.strerror, str(main.parent / last.relative_to(room)))


def _put_in_place(room: Path, main: Path, folder: Path) -> tuple[Path, ...]:
    """Move the files, the main one last: what it refers to is there when it appears."""
    files = [file for file in room.rglob("*") if file.is_file()]
    places = []
    for file in sorted(files, key=lambda file: file == main):
        places.append(folder / file.relative_to(room))
        places[-1].parent.mkdir(exist_ok=True)
        file.replace(places[-1])
    return tuple(places)


def _kind(typed: Typed) -> Kind:
    what = f"one of {', '.join(FASTERNET)}, or a config or checkpoint file that exists"
    if not Path(typed.name).exists():
        raise ValueError(f"`network` must be {what}, but got {typed.text!r}.")
    return kind_of_file(typed, kinds=("config", "checkpoint"), what=what)


def _refuse_other_classes(data: ImageData, checkpoint: Checkpoint) -> None:
    count, names = checkpoint.config.classes, checkpoint.classes
    if len(data.classes) != count:
        raise ValueError(
            f"`data` must have the {count} classes that the network tells apart, but got "
            f"{len(data.classes)} in {data.name}. Give the data that it was trained on."
        )
    other = sorted(set(data.classes) - set(names))
    if names and names != data.classes:
        what = f"{short_repr(other)}, which it does not know" if other else "them in another order"
        raise ValueError(
            f"`data` must have the classes that the network tells apart, but {data.name} has "
            f"{what}. Give the data that it was trained on."
        )
