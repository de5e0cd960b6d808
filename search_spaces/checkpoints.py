"""Checkpoints: a network's weights in a safetensors file, and its config in that file's header.

The weights bear timm's names. Whatever reads safetensors reads them, and nothing in the file can
run code.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed
from torch import Tensor

from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import from_mapping, load_config, to_mapping
from search_spaces.io import atomic_write, one_line, short_repr
from search_spaces.network import FasterNet, build, check_weights

KEY = "fasternas"  # the header's only one: of several the order, and so the file, would vary
YAML = (".yaml", ".yml")
_FOREIGN = ("Give the config beside the weights: from_timm_weights(config, weights), or config= in "
            "timm.create_model.")  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a file holds: the weights fit the config. What is not known is empty.

    `classes` are names, in the order of the logits; `mean` and `std` those of the training images
    per channel, in 0..1, by which images are normalised; `crop` is the share of a picture's side
    that it is judged by, in the middle, resized bicubically (0: images are taken as they are).
    """

    config: FasterNetConfig
    weights: Mapping[str, Tensor]
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop: float = 0.0

    def network(self, *, drop_path: float = 0.0) -> FasterNet:
        """Build the network with these weights, in evaluation mode; no random number is drawn."""
        with torch.device("meta"):
            network = build(self.config, drop_path=drop_path)
        network.load_state_dict({name: w.clone() for name, w in self.weights.items()}, assign=True)
        return network.eval()


def load(path: str | Path) -> FasterNet:
    """Return the network of a checkpoint, in evaluation mode; its `config` says what it is.

    That of a config file in YAML is freshly initialised, from torch's global generator.

    Raises:
        ValueError: if the file holds neither; the message is one line that names it.
        OSError: if it cannot be read.
    """
    if Path(path).suffix in YAML:
        return build(load_config(path)).eval()
    return read_checkpoint(path).network()


def save(
    network: FasterNet,
    path: str | Path,
    *,
    classes: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    crop: float = 0.0,
) -> None:
    """Write a checkpoint; the file appears under its name when it is whole.

    Raises:
        ValueError: if it is no .safetensors file, or there are more or fewer names than classes.
        OSError: if the file cannot be written; then nothing is left behind.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors, but got {str(path)!r}. Rename it.")
    header = {"config": to_mapping(network.config), "classes": list(classes),
              "mean": list(mean), "std": list(std), "crop": crop}  # fmt: skip
    _checked(header, network.config)
    weights = {k: w.detach().cpu().contiguous() for k, w in network.state_dict().items()}
    atomic_write(Path(path), packed(weights, {KEY: json.dumps(header)}))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Return what `save` wrote.

    Raises:
        ValueError: if the file is cut off, of another kind, or of a newer version.
        OSError: if it cannot be read.
    """
    file = Path(path)
    with file.open("rb"):
        pass  # the reader's own errors do not all say what is missing
    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get(KEY)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        if file.suffix != ".safetensors":
            raise ValueError(f"{file}: The file must be a checkpoint that fasternas saved, but is "
                             f"of another kind. {_FOREIGN}") from error  # fmt: skip
        raise ValueError(f"{file}: The file must be a whole checkpoint, but cannot be read: "
                         f"{_first_line(error)}. Use an earlier one, or save it "
                         "again.") from error  # fmt: skip
    if header is None:
        raise ValueError(f"{file}: The file must hold the config of its weights, but has none. "
                         f"{_FOREIGN}")  # fmt: skip
    try:
        return _checkpoint(header, weights)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{file}: {one_line(error)}") from error


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file is one of ours, apart from being right."""
    if Path(path).suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as opened:
            return KEY in (opened.metadata() or {})
    except SafetensorError:
        return True  # whoever reads it says what is wrong


def _checkpoint(header: str, weights: Mapping[str, Tensor]) -> Checkpoint:
    given = json.loads(header)
    if not isinstance(given, dict) or not isinstance(given.get("config"), dict):
        raise ValueError(f"The header must hold a config, but holds {short_repr(given)}. Save the "
                         "checkpoint again.")  # fmt: skip
    config = from_mapping(given["config"])
    with torch.device("meta"):
        check_weights(build(config).state_dict(), weights)
    return Checkpoint(
        config=config,
        weights={k: w.float() if w.is_floating_point() else w for k, w in weights.items()},
        **_checked(given, config),
    )


def _checked(header: Mapping[str, Any], config: FasterNetConfig) -> dict[str, Any]:
    """What a header says besides the config."""
    classes = header.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"`classes` must be a list of names, but got {short_repr(classes)}.")
    if classes and len(classes) != config.classes:
        raise ValueError(f"`classes` must name the {config.classes} classes of the config, but got "
                         f"{len(classes)}: {short_repr(classes)}. Leave it out.")  # fmt: skip
    for name in ("mean", "std"):
        values = header.get(name, [])
        if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
            raise ValueError(f"`{name}` must be a list of numbers, but got {short_repr(values)}.")
        if len(values) not in (0, 1, 3):
            raise ValueError(f"`{name}` must have a number for each of 1 or 3 channels, but got "
                             f"{short_repr(values)}. Leave it out.")  # fmt: skip
    if not all(0 < value < math.inf for value in header.get("std", [])):
        raise ValueError(f"`std` must be positive, since images are divided by it, but got "
                         f"{short_repr(header['std'])}. Leave it out.")  # fmt: skip
    crop = header.get("crop", 0)
    if type(crop) not in (int, float) or not 0 <= crop <= 1:
        raise ValueError(f"`crop` must be a share from 0 to 1, but got {short_repr(crop)}.")
    found = {name: tuple(header.get(name, [])) for name in ("classes", "mean", "std")}
    return {**found, "crop": float(crop)}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).strip(" .")[:100]
