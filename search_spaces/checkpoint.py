"""Checkpoints: a network's weights in a safetensors file, and its config in that file's header.

The weights bear timm's names. Whatever reads safetensors reads them, and nothing in the file can
run code. Weights of other networks, from files of torch too, start networks of other shapes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save as packed
from torch import Tensor, nn

from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import from_mapping, load_config, to_mapping
from search_spaces.io import (
    atomic_write,
    listed,
    one_line,
    other_file,
    reason,
    short_repr,
)
from search_spaces.network import FasterNet, build, check_weights
from search_spaces.torch_file import read_torch_file
from search_spaces.weight_names import FileWeights, matched

KEY = "fasternas"  # the header's only one: of several the order, and so the file, would vary
YAML = (".yaml", ".yml")
Json = dict[str, Any]
_FOREIGN = (
    "Name the config of the weights, or give both: `export CONFIG --weights FILE`, `train CONFIG "
    "--init FILE`, from_timm_weights(config, weights), or config= in timm.create_model."
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
            f"{reason(error)}. Use an earlier one, or save it again."
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


_OF_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")


def read_weights(path: str | Path, own: Mapping[str, Tensor]) -> FileWeights:
    """Return what a file has of a network's weights; `own` are the network's.

    The file is one of safetensors or of torch, by whichever trainer: the weights may lie in other
    containers, with whatever a trainer keeps beside them, and their names may begin with what all
    of them share. They may be the names of FasterNet's authors. Of weights and their averages it
    is the averages. Nothing in the file is run.
    """
    file = Path(path)
    if file.is_dir():
        inside = sorted(p.name for p in file.iterdir() if p.suffix in _OF_WEIGHTS)
        raise ValueError(
            f"`weights` must be a file, but {file} is a folder. Name the file of weights in it"
            f"{f': {listed(inside)}' * bool(inside)}."
        )
    with file.open("rb"):
        pass  # the readers' own errors do not all say what is missing
    safe = file.suffix.lower() == ".safetensors"
    try:
        found = load_file(file) if safe else read_torch_file(file)
    except (SafetensorError, ValueError) as error:
        with file.open("rb") as stream:
            why = other_file(stream.read(64)) or reason(error)
        raise ValueError(
            f"`weights` must be a safetensors file or a checkpoint of torch, but {file} cannot be "
            f"read: {why}. Save a state dict with torch.save or safetensors."
        ) from error
    if not found:
        raise ValueError(
            f"`weights` must hold named tensors, but {file} holds none. Save a state dict with "
            "torch.save or safetensors."
        )
    return matched(found, own)


def weights_of(config: FasterNetConfig, path: str | Path) -> FasterNet:
    """Build a config's network with all of the weights in a file.

    Raises:
        ValueError: if a weight is missing, left over or of another shape.
    """
    network = build(config)
    found = read_weights(path, network.state_dict())
    _refuse_infinite(found.weights, path)
    try:
        load_all(network, found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return network


def load_all(network: nn.Module, found: FileWeights) -> None:
    """Give a network of any kind the weights that a file has for it: all of them.

    Raises:
        ValueError: if a weight is missing, left over or of another shape, or which it is is open.
    """
    if found.rivals:
        raise ValueError(
            "The weights must be one network's, but the file has several of these names, under "
            f"{listed(found.rivals)}. Save the one that is meant by itself."
        )
    own = network.state_dict()
    counters = {name: weight for name, weight in own.items() if not weight.ndim}  # may be missing
    given = {**counters, **found.weights}
    check_weights(own, given, left_over=found.left_over)
    network.load_state_dict(given)


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """The share of a network's parameters that came over, and the names of those that are new."""

    share: float
    new: tuple[str, ...]
    left_over: tuple[str, ...] = ()
    averaged: bool = False
    rivals: tuple[str, ...] = ()

    def words(self, file: str | Path) -> str:
        """Say all of it in a line."""
        several = ""
        if self.rivals:
            several = (
                f"; of several networks in the file it is the one under {listed(self.rivals[:1])}, "
                f"not {listed(self.rivals[1:])}"
            )
        said = f"{100 * self.share:.3g} % of the parameters begin as in {self.words_of_file(file)}"
        new = f"; new are {listed(self.new)}" if self.new else ""
        return f"{said}{several}{new}{self.words_of_rest()}."

    def words_of_file(self, file: str | Path) -> str:
        """Name the file, and say if the weights are averages that it had."""
        return f"{file}{' (its averaged weights)' * self.averaged}"

    def words_of_rest(self) -> str:
        """Say what was left over in the file, after a semicolon; nothing if nothing was."""
        return f"; left over in the file are {listed(self.left_over)}" if self.left_over else ""


LEAST_SHARE = 0.1  # of the parameters, or else half of the weights


def begin_with(
    network: nn.Module, path: str | Path, *, least_share: float = LEAST_SHARE
) -> Inherited:
    """Copy what fits from a file of weights; say how much that was, and what was left over.

    `least_share` of the parameters must come over, or half of the weights.

    Raises:
        ValueError: if the file has little of the network, or weights that are no numbers.
    """
    found = read_weights(path, network.state_dict())
    if not found.weights:
        raise ValueError(
            f"`weights` must be those of a FasterNet, but {path} has {len(found.left_over)} others "
            f"({listed(found.left_over)}). Give a checkpoint of timm's fasternet_*, of FasterNet's "
            "authors or of fasternas."
        )
    _refuse_infinite(found.weights, path)
    inherited = replace(
        inherit(network, found.weights),
        left_over=found.left_over,
        averaged=found.averaged,
        rivals=found.rivals,
    )
    if inherited.share < least_share and 2 * len(inherited.new) > len(network.state_dict()):
        raise ValueError(
            "`weights` must be much of the network, but with these "
            f"{inherited.words(path).rstrip('.')}. Give those of a similar FasterNet."
        )
    return inherited


def _refuse_infinite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    for name, weight in weights.items():
        if weight.is_floating_point() and not weight.float().isfinite().all():
            raise ValueError(
                f"`weights` must be finite numbers, but {path} has others in {name}. Use an "
                "earlier checkpoint."
            )


_CLASSIFIER, _HEAD = "classifier.", "conv_head.weight"
_PARTIAL = "partial_conv3.weight"


def inherit(network: nn.Module, weights: Mapping[str, Tensor]) -> Inherited:
    """Copy what fits into a FasterNet; say the share of its parameters that did.

    `weights` are a state dict of `build(config)` or of timm's `fasternet_*`, of any shape. Kernels
    of another size stay as they are, and so does a classifier of other classes. As in slimmable
    networks (arXiv 1812.08928) the leading channels are those that are copied, which also keeps
    what PConv convolves apart from the rest. Where only one of both has a head, the classifier
    stays as it is: its inputs are others.
    """
    parameters = dict(network.named_parameters())
    inherited, new, state = 0, [], network.state_dict()
    same_head = (_HEAD in state) == (_HEAD in weights)
    with torch.no_grad():
        for name, own in state.items():
            given = weights.get(name) if same_head or not name.startswith(_CLASSIFIER) else None
            if given is None or not _fits(name, own, given):
                new += [name] if own.ndim else []  # counters are no weights
                continue
            copied = _copy_leading(name, own, given)
            inherited += copied if name in parameters else 0
    total = sum(parameter.numel() for parameter in parameters.values())
    return Inherited(share=inherited / total, new=tuple(new))


def _copy_leading(name: str, own: Tensor, given: Tensor) -> int:
    """Copy the leading channels; return how many numbers that are."""
    if name.endswith(_PARTIAL):
        return _copy_groups(own, given)
    corner = tuple(slice(min(sides)) for sides in zip(own.shape, given.shape, strict=True))
    own[corner].copy_(given[corner])
    return own[corner].numel()


def _copy_groups(own: Tensor, given: Tensor) -> int:
    """Copy what connects the same channels, whatever the groups of the two convolutions are."""
    n, inputs = min(len(own), len(given)), _inputs_of(own)
    dense, outputs = own.new_zeros(n, n, *own.shape[2:]), torch.arange(n)[:, None]
    given_inputs = _inputs_of(given)[:n]
    inside = given_inputs < n
    dense[outputs.expand_as(given_inputs)[inside], given_inputs[inside]] = given[:n][inside].to(own)
    inside = inputs[:n] < n
    own[:n][inside] = dense[outputs.expand_as(inputs[:n])[inside], inputs[:n][inside]]
    return int(inside.sum()) * own.shape[2:].numel()


def _inputs_of(weight: Tensor) -> Tensor:
    """The input channels of each output of a grouped convolution, of shape [c, c / groups]."""
    each = weight.shape[1]
    return torch.arange(len(weight))[:, None] // each * each + torch.arange(each)


def _fits(name: str, own: Tensor, given: Tensor) -> bool:
    if own.ndim != given.ndim or own.shape[2:] != given.shape[2:]:
        return False
    return own.shape[0] == given.shape[0] if name.startswith(_CLASSIFIER) else True
