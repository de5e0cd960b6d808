"""Checkpoints: a network's weights in a safetensors file, and its config in that file's header.

The weights bear timm's names. Whatever reads safetensors reads them, and nothing in the file can
run code. Weights of other networks, from files of torch too, start networks of other shapes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save as packed
from torch import Tensor, nn

from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import from_mapping, load_config, to_mapping
from search_spaces.io import atomic_write, one_line, reason, short_repr
from search_spaces.network import FasterNet, build, check_weights

KEY = "fasternas"  # the header's only one: of several the order, and so the file, would vary
YAML = (".yaml", ".yml")
Json = dict[str, Any]
_FOREIGN = (
    "Give the config beside the weights: from_timm_weights(config, weights), or config= in "
    "timm.create_model."
)


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
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors, but got {str(path)!r}. Rename it.")
    header: Json = {
        "config": to_mapping(network.config),
        "classes": list(classes),
        "mean": list(mean),
        "std": list(std),
        "crop": crop,
    }
    _checked(header, network.config)
    weights = {k: w.detach().cpu().contiguous() for k, w in network.state_dict().items()}
    atomic_write(Path(path), packed(weights, {KEY: json.dumps(header)}))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Return what `save` wrote."""
    file = Path(path)
    with file.open("rb"):
        pass  # the reader's own errors do not all say what is missing
    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get(KEY)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        if file.suffix != ".safetensors":
            raise ValueError(
                f"{file}: The file must be a checkpoint that fasternas saved, but is of another "
                f"kind. {_FOREIGN}"
            ) from error
        raise ValueError(
            f"{file}: The file must be a whole checkpoint, but cannot be read: "
            f"{reason(error)[:100]}. Use an earlier one, or save it again."
        ) from error
    if header is None:
        raise ValueError(
            f"{file}: The file must hold the config of its weights, but has none. {_FOREIGN}"
        )
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
        raise ValueError(
            f"The header must hold a config, but holds {short_repr(given)}. Save the checkpoint "
            "again."
        )
    config = from_mapping(given["config"])
    with torch.device("meta"):
        check_weights(build(config).state_dict(), weights)
    return Checkpoint(
        config=config,
        weights={k: w.float() if w.is_floating_point() else w for k, w in weights.items()},
        **_checked(given, config),
    )


def _checked(header: Json, config: FasterNetConfig) -> Json:
    """What a header says besides the config."""
    classes = header.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"`classes` must be a list of names, but got {short_repr(classes)}.")
    if classes and len(classes) != config.classes:
        raise ValueError(
            f"`classes` must name the {config.classes} classes of the config, but got "
            f"{len(classes)}: {short_repr(classes)}. Leave it out."
        )
    for name in ("mean", "std"):
        values = header.get(name, [])
        if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
            raise ValueError(f"`{name}` must be a list of numbers, but got {short_repr(values)}.")
        if len(values) not in (0, 1, 3):
            raise ValueError(
                f"`{name}` must have a number for each of 1 or 3 channels, but got "
                f"{short_repr(values)}. Leave it out."
            )
    if not all(0 < value < math.inf for value in header.get("std", [])):
        raise ValueError(
            "`std` must be positive, since images are divided by it, but got "
            f"{short_repr(header['std'])}. Leave it out."
        )
    crop = header.get("crop", 0)
    if type(crop) not in (int, float) or not 0 <= crop <= 1:
        raise ValueError(f"`crop` must be a share from 0 to 1, but got {short_repr(crop)}.")
    found = {name: tuple(header.get(name, [])) for name in ("classes", "mean", "std")}
    return {**found, "crop": float(crop)}


_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "network")  # as trainers save


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a `.safetensors` file, or in a checkpoint of torch.

    Of a trainer's checkpoint it is the averaged weights if there are any. Nothing in the file can
    run code: a checkpoint that holds more than tensors and plain values is refused.
    """
    file = Path(path)
    with file.open("rb"):
        pass  # the readers' own errors do not all say what is missing
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise _unreadable(file, error) from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever it likes
        raise _unreadable(file, error) from error
    return _state_dict(content, file)


def _state_dict(content: object, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for name in _NESTED:
            if isinstance(content.get(name), Mapping):
                return _state_dict(content[name], file)
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    raise ValueError(
        f"`weights` must hold named tensors, but {file} holds none. Save a state dict with "
        "torch.save or safetensors."
    )


def _unreadable(file: Path, error: Exception) -> ValueError:
    return ValueError(
        f"`weights` must be a safetensors file or a checkpoint of torch, but {file} cannot be "
        f"read: {reason(error)[:100]}. Save it again."
    )


_CLASSIFIER = "classifier."


def inherit(network: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Copy what fits into a FasterNet or a supernet; return the share of its parameters that did.

    `weights` are a state dict of `build(config)` or of timm's `fasternet_*`, of any shape. Kernels
    of another size stay as they are, and so does a classifier of other classes. As in slimmable
    networks (arXiv 1812.08928) the leading channels are those that are copied, which also keeps
    what PConv convolves apart from the rest.
    """
    parameters = dict(network.named_parameters())
    inherited = 0
    with torch.no_grad():
        for name, own in network.state_dict().items():
            given = weights.get(_known_as(name))
            if given is None or not _fits(name, own, given):
                continue
            corner = tuple(slice(min(sides)) for sides in zip(own.shape, given.shape, strict=True))
            own[corner].copy_(given[corner])
            inherited += own[corner].numel() if name in parameters else 0
    if not inherited:
        names = ", ".join(list(weights)[:3])
        raise ValueError(
            f"`weights` must be those of a FasterNet, but got {len(weights)} tensors ({names}). "
            "Give a checkpoint of timm's fasternet_* or of fasternas."
        )
    return inherited / sum(parameter.numel() for parameter in parameters.values())


def _known_as(name: str) -> str:
    """The name in a plain FasterNet; a supernet has a stem for each stride."""
    stem, _, rest = name.partition(".")
    return f"patch_embed.{rest.partition('.')[2]}" if stem == "patch_embeds" else name


def _fits(name: str, own: Tensor, given: Tensor) -> bool:
    if own.ndim != given.ndim or own.shape[2:] != given.shape[2:]:
        return False
    return own.shape[0] == given.shape[0] if name.startswith(_CLASSIFIER) else True
