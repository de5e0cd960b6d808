"""A folder that timm loads, and the yaml of FasterNet's authors."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from predictors.backends.export_subject import Subject
from search_spaces.checkpoint import Checkpoint
from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import load_config, to_authors_yaml, to_mapping, to_timm
from search_spaces.io import write_mapping
from search_spaces.timm_models import NAME, THEIRS, pretrained_config


def write_timm(subject: Subject, room: Path) -> Path:
    """Write a folder for `timm.create_model("local-dir:...", pretrained=True)`.

    A config that timm's own FasterNet can say needs timm alone; others need fasternas too.
    """
    folder = room / f"{subject.name}-timm"
    folder.mkdir()
    given = subject.checkpoint
    architecture, arguments = timm_arguments(given.config, features=subject.features)
    said = {
        "architecture": architecture, "num_classes": given.config.classes,
        "num_features": given.config.widths[-1], "pretrained_cfg": _pretrained(given),
        "model_args": arguments,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    weights = {k: w.detach().contiguous() for k, w in given.network().state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def before_timm(subject: Subject) -> str:
    """What timm must be told before it can load the folder."""
    ours = timm_arguments(subject.config, features=subject.features)[0] == NAME
    return "import fasternas.timm; " if ours else ""


def timm_arguments(config: FasterNetConfig, *, features: bool) -> tuple[str, dict[str, Any]]:
    """Return a model of timm and its arguments, as JSON has them: its own, or else ours.

    For features it is ours too where theirs would give wrong strides, or fail.
    """
    ours: tuple[str, dict[str, Any]] = (NAME, {"config": to_mapping(config)})
    if features and (config.stem_stride, len(config.widths)) != (4, 4):
        return ours
    try:
        arguments = to_timm(config)
    except ValueError:
        return ours
    del arguments["act_layer"], arguments["num_classes"]  # said by the model, and apart
    return THEIRS[config.activation], {**arguments, "drop_path_rate": 0.0}


def write_authors_yaml(subject: Subject, room: Path) -> Path:
    """Write the config under the authors' keys.

    Raises:
        ValueError: if they cannot say it.
        RuntimeError: if what was written is another config.
    """
    path = room / f"{subject.name}.authors.yaml"
    classes = {"num_classes": subject.config.classes}  # they take it from the data
    write_mapping(path, to_authors_yaml(subject.config) | classes, comment="")
    if load_config(path) != subject.config:
        raise RuntimeError(f"The exported {path.name} must say the config, but says another one. "
                           "Please report the config.")  # fmt: skip
    return path


def _pretrained(given: Checkpoint) -> dict[str, Any]:
    said = pretrained_config(given)
    del said["architecture"]
    return said
