"""Exporting a network: what it is, and each file written, checked against torch, and put in place.

A file that computes something else is refused, and nothing is left of it.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from predictors.backends.agreement import Agreement, Batches, agreement
from predictors.backends.export_subject import Subject
from predictors.backends.export_targets import Target
from predictors.backends.onnx_export import refuse_difference
from predictors.backends.quantization import refuse_correlation
from search_spaces.checkpoint import Checkpoint, is_checkpoint, read_checkpoint
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.formats import load_config
from search_spaces.io import make_folders, one_line, remove_empty
from search_spaces.network import build, from_timm_weights


@dataclass(frozen=True, kw_only=True)
class Export:
    """What came of a target: the path and size in bytes of what was written, or why it was not.

    `load` is how one loads it, in Python. `agreement` is None where there is nothing to compute.
    """

    target: Target
    path: Path
    size: int = 0
    load: str = ""
    agreement: Agreement | None = None
    refusal: str = ""


def find_weights(name: str, *, weights: str | None = None) -> tuple[Checkpoint, bool]:
    """Return a network by what it is called, and whether it has weights of its own.

    It is t0 to l, a config file or a checkpoint; `weights` is a file with those of a config.
    Otherwise they are random, the same every time. Of a file that does not say how its images
    are normalised and cropped, it is as timm says of its own FasterNets.

    Raises:
        ValueError: if there is no such network, a file is wrong, or the weights do not fit.
        OSError: if a file cannot be read.
    """
    if Path(name).suffix == ".safetensors":
        if weights is not None:
            raise ValueError(f"`weights` must be left out for {name}, which has its own.")
        return read_checkpoint(name), True
    config = FASTERNET[name] if name in FASTERNET else _read_config(name)
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Checkpoint(config=config, weights=build(config).state_dict()), False
    if is_checkpoint(weights):
        found = read_checkpoint(weights)
        if found.config != config:
            raise ValueError(f"`weights` must be those of {name}, but {weights} holds another "
                             f"config. Export {weights} itself.")  # fmt: skip
        return found, True
    from search_spaces.checkpoint import read_weights
    from search_spaces.timm_models import published

    loaded = from_timm_weights(config, read_weights(weights))
    return published(config, loaded.state_dict()), True


def export_each(
    subject: Subject, targets: Sequence[Target], folder: Path, images: Batches
) -> Iterator[Export]:
    """Export to each target in turn.

    Raises:
        ValueError: if the folder cannot be one.
        OSError: if a file cannot be written; then nothing is left of it.
    """
    made = make_folders(folder)
    try:
        for target in targets:
            yield _exported(subject, target, folder, images)
    finally:
        remove_empty(made)


def _exported(subject: Subject, target: Target, folder: Path, images: Batches) -> Export:
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder) as beside:
        room = Path(beside)
        try:
            main = target.write(subject, room)
            found = _checked(subject, target, main, images)
        except OSError:
            raise
        except Exception as error:  # runtimes and converters have errors of all kinds
            why = one_line(error)
            return Export(target=target, path=folder, refusal=why)
        size = sum(file.stat().st_size for file in room.rglob("*") if file.is_file())
        _put_in_place(room, main, folder)
        path = folder / main.name
        load = target.before(subject) + target.load.format(path=path, stem=path.with_suffix(""))
        return Export(target=target, path=path, size=size, load=load,
                      agreement=found)  # fmt: skip


def _checked(subject: Subject, target: Target, main: Path, images: Batches) -> Agreement | None:
    """Run the file and refuse it if it computes something else."""
    if target.run is None:
        return None
    found = agreement(target.run(subject, main), subject.network(), images,
                      at_once=subject.at_once, fill=subject.batch is not None)  # fmt: skip
    if target.int8:
        refuse_correlation(found.correlation, main)
    else:
        refuse_difference(found.difference, main)
    return found


def _put_in_place(room: Path, main: Path, folder: Path) -> None:
    """Move the files, the main one last: what it refers to is there when it appears."""
    files = [file for file in room.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file == main):
        place = folder / file.relative_to(room)
        place.parent.mkdir(exist_ok=True)
        file.replace(place)


def _read_config(name: str) -> FasterNetConfig:
    if not Path(name).is_file():
        of_run = ", a folder. Of a run name configs/NAME.yaml or trained/NAME/weights.safetensors"
        raise ValueError(f"`network` must be one of {', '.join(FASTERNET)}, or a config or "
                         f"checkpoint file that exists, but got {name!r}"
                         f"{of_run if Path(name).is_dir() else ''}.")  # fmt: skip
    return load_config(name)
