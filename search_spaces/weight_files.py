"""Weights in files: safetensors, or what torch.save wrote of tensors alone."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "network")  # as trainers save


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a `.safetensors` file, or in a checkpoint of torch.

    Of a trainer's checkpoint it is the averaged weights if there are any. Nothing in the file can
    run code: a checkpoint that holds more than tensors and plain values is refused.

    Raises:
        ValueError: if the file holds no weights, or cannot be read as such.
        OSError: if it cannot be opened.
    """
    file = Path(path)
    with file.open("rb"):
        pass  # the readers' own errors do not all say what is missing
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

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
    raise ValueError(f"`weights` must hold named tensors, but {file} holds none. Save a state dict "
                     "with torch.save or safetensors.")  # fmt: skip


def _unreadable(file: Path, error: Exception) -> ValueError:
    line = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
    return ValueError(f"`weights` must be a safetensors file or a checkpoint of torch, but {file} "
                      f"cannot be read: {line}. Save it again.")  # fmt: skip
