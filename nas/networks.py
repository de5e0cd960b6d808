"""How the command line finds a network by what it is called."""

from dataclasses import replace
from pathlib import Path

from predictors.backends.model import Model, config_model
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import load_config


def find_network(name: str) -> Model:
    """Return a named size, the network of a config file or an ONNX file, or a model of timm.

    A size and a model of timm may be followed by @ and the image size, as in t0@192.

    Raises:
        ValueError: if it is none of these, the file is wrong, or the image is too small.
    """
    base, at, pixels = name.partition("@")
    if base in FASTERNET and (pixels.isdecimal() or not at):
        config = FASTERNET[base]
        sized = replace(config, resolution=int(pixels)) if at else config
        return config_model(sized, name=name)
    path = Path(name)
    if path.suffix == ".onnx" and path.is_file():
        from predictors.backends.foreign import onnx_model

        return onnx_model(path)
    if path.is_file():
        return config_model(load_config(path), name=name)
    if "/" in name or path.suffix in (".yaml", ".yml", ".onnx"):
        raise ValueError(f"`network` must be a file that exists, but got {name!r}.")
    from predictors.backends.foreign import timm_model

    return timm_model(name)
