"""timm: a folder that it loads, and the yaml of FasterNet's authors. Neither is timed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from predictors.backends.model import Model
    from predictors.backends.table import Run, Runtime
    from search_spaces.checkpoint import Checkpoint
    from search_spaces.fasternet import FasterNetConfig

PACKAGES = ("timm",)
EXTRA = ""


def write(model: Model, stem: Path, runtime: Runtime) -> Path:
    """Write a folder for `timm.create_model("local-dir:...")`, or the authors' yaml.

    A config that timm's own FasterNet can say needs timm alone; others need fasternas too.
    """
    if runtime.format == "yaml":
        return _write_yaml(_checkpoint(model).config, stem.with_name(f"{stem.name}.authors.yaml"))
    from safetensors.torch import save_file

    from search_spaces.timm_models import pretrained_config

    folder, given = stem.with_name(f"{stem.name}-timm"), _checkpoint(model)
    folder.mkdir()
    architecture, arguments = timm_arguments(given.config, features=model.features)
    header = {
        "architecture": architecture,
        "num_classes": given.config.classes,
        "num_features": given.config.out_width,
        "pretrained_cfg": {
            k: v for k, v in pretrained_config(given).items() if k != "architecture"
        },
        "model_args": arguments,
    }
    (folder / "config.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    weights = {k: w.detach().contiguous() for k, w in given.network().state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def run(model: Model, file: Path, runtime: Runtime) -> Run | None:
    """Run the folder in timm, by `features_only` if the features are wanted; not the yaml."""
    import torch

    from predictors.backends.torch import in_torch
    from search_spaces.timm_models import NAME, import_timm, register

    if runtime.format == "yaml":
        return None  # its writer has checked it
    header = json.loads((file / "config.json").read_text(encoding="utf-8"))
    if header["architecture"] == NAME:
        register()
    options = {"features_only": True} if model.features else {}
    with torch.random.fork_rng(devices=[]):
        network = import_timm().create_model(f"local-dir:{file}", pretrained=True, **options)
    return in_torch(network.eval())


def code(model: Model, file: Path, runtime: Runtime) -> str:
    """Return how the file is loaded, in Python."""
    from search_spaces.timm_models import NAME

    if runtime.format == "yaml":
        return f'fasternas.load_config("{file}")'
    ours = timm_arguments(_checkpoint(model).config, features=model.features)[0] == NAME
    registers = "import fasternas.timm; " if ours else ""
    return f'{registers}timm.create_model("local-dir:{file}", pretrained=True)'


def timm_arguments(config: FasterNetConfig, *, features: bool) -> tuple[str, dict[str, Any]]:
    """Return a model of timm and its arguments, as JSON has them: its own, or else ours.

    For features it is ours too if theirs would give wrong strides, or fail.
    """
    from search_spaces.formats import to_mapping, to_timm
    from search_spaces.timm_models import NAME, THEIRS

    ours: tuple[str, dict[str, Any]] = (NAME, {"config": to_mapping(config)})
    if features and (config.stem_stride, len(config.widths)) != (4, 4):
        return ours
    try:
        arguments = to_timm(config)
    except ValueError:
        return ours
    del arguments["act_layer"], arguments["num_classes"]  # said by the model, and apart
    return THEIRS[config.activation], {**arguments, "drop_path_rate": 0.0}


def _write_yaml(config: FasterNetConfig, path: Path) -> Path:
    from search_spaces.formats import load_config, to_authors_yaml
    from search_spaces.io import write_mapping

    classes = {"num_classes": config.classes}  # they take it from the data
    write_mapping(path, to_authors_yaml(config) | classes, comment="")
    if load_config(path) != config:
        raise RuntimeError(
            f"The exported {path.name} must say the config, but says another one. "
            "Please report the config."
        )
    return path


def _checkpoint(model: Model) -> Checkpoint:
    if model.checkpoint is None:
        raise ValueError(f"`network` must have a config and weights, but {model.name} has none.")
    return model.checkpoint
