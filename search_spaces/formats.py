"""Configs in other forms: our YAML files, the authors' yaml keys, timm's keyword arguments.

The authors and timm know one ratio and one expansion for all stages, and widths that double. A
config that cannot be said like that is refused, never rounded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search_spaces.fasternet import INGREDIENTS, FasterNetConfig
from search_spaces.io import one_line, read_mapping, short_repr, write_mapping

VERSION = 1  # of our YAML, the value of its key `fasternas`

_FLOATS = ("partial_ratios", "expansions")
_PER_STAGE = ("widths", "depths", *_FLOATS, *INGREDIENTS, "activations")

# What the authors' constructor takes where nothing is said, and what else a FasterNetConfig can be.
_DEFAULTS = {
    "embed_dim": 96,
    "depths": (1, 2, 8, 2),
    "mlp_ratio": 2.0,
    "n_div": 4,
    "patch_size": 4,
    "feature_dim": 1280,
    "num_classes": 1000,
}
_FIXED = {"in_chans": 3, "patch_norm": True, "layer_scale_init_value": 0}
_AUTHORS_KEYS = (
    *("image_size", "act_layer", "norm_layer", "patch_stride", "patch_size2", "patch_stride2"),
    *_DEFAULTS,
    *_FIXED,
)
_AUTHORS_TRAINING = ("batch_size",)  # is no slip of the pen, although it looks like patch_size


def load_config(path: str | Path) -> FasterNetConfig:
    """Read a config from a YAML file of ours or of FasterNet's authors.

    Raises:
        ValueError: if the file does not hold a config; the message is one line that names it.
    """
    try:
        given = read_mapping(Path(path))
        theirs = "embed_dim" in given and "fasternas" not in given
        return from_authors_yaml(given) if theirs else from_mapping(given)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def save_config(config: FasterNetConfig, path: str | Path, *, comment: str = "") -> None:
    """Write a config as YAML, below a comment; the file appears under its name when it is whole.

    Characters of the comment that YAML does not allow are written as Python escapes them.
    """
    write_mapping(Path(path), to_mapping(config), comment=comment)


def to_mapping(config: FasterNetConfig) -> dict[str, object]:
    """Return what `save_config` writes, in values that YAML and JSON have.

    Ingredients as published are left out.
    """
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    left_out = {*INGREDIENTS, "stem"} - {*config.unpublished}
    left_out |= {"activations"} if not config.activations else set()
    return {"fasternas": VERSION, **{k: v for k, v in fields.items() if k not in left_out}}


def from_mapping(given: Mapping[str, object]) -> FasterNetConfig:
    """Return the config that `to_mapping` says."""
    version = given.get("fasternas")
    if type(version) is not int or version < 1:
        raise ValueError(
            f"`fasternas` must be the version of the format, but got {short_repr(version)}. Begin "
            f"the file with `fasternas: {VERSION}`."
        )
    if version > VERSION:
        raise ValueError(
            f"`fasternas` must be at most {VERSION}, the format that this version reads, but got "
            f"{short_repr(version)}. Update fasternas."
        )
    _refuse_unknown(given, ("fasternas", *FasterNetConfig.__dataclass_fields__))
    for name in ("widths", "depths"):
        if name not in given:
            raise ValueError(
                f"`{name}` must be given, but is not there. Add `{name}: [...]` with an entry for "
                "each stage."
            )
    fields: dict[str, Any] = {
        name: _stages(name, value) if name in _PER_STAGE else value
        for name, value in given.items()
        if name != "fasternas"
    }
    return FasterNetConfig(**fields)


def from_authors_yaml(given: Mapping[str, Any]) -> FasterNetConfig:
    """Return the config that the keys of the authors' yaml files spell.

    `image_size` is the resolution. What is not about the architecture is passed over, as the
    authors' own code does, unless it looks like a slip of the pen; and so are their defaults
    taken. The number of classes, which they take from the data set, may be given as `num_classes`.
    """
    _refuse_ours(given)
    _refuse_slips(given)
    given = {"image_size": 224, "act_layer": "RELU", "norm_layer": "BN", **_DEFAULTS, **given}
    same = {"patch_stride": given["patch_size"], "patch_size2": 2, "patch_stride2": 2}
    _refuse_others(given, {**_FIXED, "norm_layer": "BN", **same})
    depths, ratio = _stages("depths", given["depths"]), given["mlp_ratio"]
    if 0 in depths:  # with us it would leave the stage out
        raise ValueError(
            f"`depths` must hold positive whole numbers only, but got {short_repr(depths)}: with "
            "the authors a stage of 0 blocks still merges. No FasterNetConfig does that."
        )
    stages = len(depths)
    if type(ratio) not in (int, float) or not 0 < ratio < float("inf"):
        raise ValueError(f"`mlp_ratio` must be a positive number, but got {short_repr(ratio)}.")
    layer = given["act_layer"]
    activation: Any = layer.lower() if isinstance(layer, str) else layer
    if activation not in ("gelu", "relu"):
        raise ValueError(f"`act_layer` must be GELU or ReLU, but got {short_repr(layer)}.")
    config = FasterNetConfig(
        widths=tuple(_whole(given, "embed_dim") * 2**i for i in range(stages)),
        depths=depths,
        partial_ratios=(1 / _whole(given, "n_div"),) * stages,
        expansions=(float(ratio),) * stages,
        resolution=_whole(given, "image_size"),
        stem_stride=_whole(given, "patch_size"),
        head_width=_whole(given, "feature_dim"),
        activation=activation,
        classes=_whole(given, "num_classes"),
    )
    _refuse_rounding(config)
    return config


def to_authors_yaml(config: FasterNetConfig) -> dict[str, object]:
    """Return the keys of the authors' yaml files that are about the architecture."""
    uniform = _to_uniform(config, "the authors' yaml")
    return {
        "model_name": "fasternet",
        "image_size": config.resolution,
        **uniform,
        "depths": list(config.depths),
        "patch_stride": config.stem_stride,
        "patch_size2": 2,
        "patch_stride2": 2,
        "layer_scale_init_value": 0,
        "norm_layer": "BN",
        "act_layer": config.activation.upper(),
    }


def to_timm(config: FasterNetConfig) -> dict[str, object]:
    """Return the keyword arguments with which timm builds the config's network.

    Any of timm's `fasternet_*` takes them too, to override its own: `create_model("fasternet_t0",
    **to_timm(config))`. They do not say the resolution.
    """
    uniform = _to_uniform(config, "timm")
    from search_spaces.network import activation  # imports torch

    return {**uniform, "merge_size": 2, "act_layer": type(activation(config.activation))}


def _to_uniform(config: FasterNetConfig, target: str) -> dict[str, object]:
    """Return the keys that the authors and timm share."""
    if config.unpublished:
        raise ValueError(
            f"`{config.unpublished[0]}` must be as FasterNet was published to be said to {target}, "
            f"but got {getattr(config, config.unpublished[0])}. Save the config with `save_config`."
        )
    for name in ("partial_ratios", "expansions"):
        values = getattr(config, name)
        if len(set(values)) > 1:
            raise ValueError(
                f"`{name}` must be the same in all stages to be said to {target}, but got "
                f"{values}. Save the config with `save_config`."
            )
    if any(wide != config.widths[0] * 2**i for i, wide in enumerate(config.widths)):
        raise ValueError(
            f"`widths` must double from stage to stage to be said to {target}, but got "
            f"{config.widths}. Save the config with `save_config`."
        )
    ratio = config.partial_ratios[0]
    n_div = round(1 / ratio)
    if 1 / n_div != ratio:
        raise ValueError(
            f"`partial_ratios` must be 1/n_div with a whole n_div to be said to {target}, but got "
            f"{ratio}; the nearest is {1 / n_div}."
        )
    _refuse_rounding(config)
    return {
        "embed_dim": config.widths[0],
        "depths": config.depths,
        "mlp_ratio": config.expansions[0],
        "n_div": n_div,
        "patch_size": config.stem_stride,
        "feature_dim": config.head_width,
        "num_classes": config.classes,
    }


def _refuse_rounding(config: FasterNetConfig) -> None:
    """Refuse what both of them round down although it is whole, such as 100 * 1.15."""
    for c, hidden, ratio in zip(
        config.widths, config.hidden_widths, config.expansions, strict=True
    ):
        if hidden != int(c * ratio):
            raise ValueError(
                f"`expansions` must give timm {hidden} hidden channels of {c}, but got {ratio}: "
                f"int({c} * {ratio}) is {int(c * ratio)}. Choose another expansion."
            )


def _refuse_others(given: Mapping[str, object], fixed: Mapping[str, object]) -> None:
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise ValueError(
                f"`{name}` must be {value!r} in a FasterNetConfig, but got "
                f"{short_repr(given[name])}. No other is supported."
            )


def _refuse_unknown(given: Iterable[object], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(
                f"The keys must be among {', '.join(known)}, but got {short_repr(key)}. Remove or "
                "rename it."
            )


def _refuse_ours(given: Mapping[str, object]) -> None:
    for key in FasterNetConfig.__dataclass_fields__:
        if key in given and key not in _AUTHORS_KEYS:
            raise ValueError(
                f"`{key}` must be left out beside the authors' keys, but got "
                f"{short_repr(given[key])}: it is a key of ours. Begin the file with `fasternas: "
                f"{VERSION}` and use ours alone, or use theirs."
            )


def _refuse_slips(given: Iterable[object]) -> None:
    """Refuse what is almost a key of the authors; other keys of theirs are about training."""
    for key in given:
        if key in (*_AUTHORS_KEYS, *_AUTHORS_TRAINING):
            continue
        if near := get_close_matches(str(key)[:99].lower(), _AUTHORS_KEYS, n=1, cutoff=0.85):
            raise ValueError(
                f"The keys must be the authors', but got {short_repr(key)}, which is close to "
                f"`{near[0]}`. Rename or remove it."
            )


def _whole(given: Mapping[str, object], name: str) -> int:
    value = given[name]
    if type(value) is not int or value < 1:
        raise ValueError(f"`{name}` must be a positive whole number, but got {short_repr(value)}.")
    return value


def _stages(name: str, values: object) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or any(isinstance(v, list | dict) for v in values):
        raise ValueError(
            f"`{name}` must be a list with an entry for each stage, but got {short_repr(values)}."
        )
    return tuple(float(v) if name in _FLOATS and type(v) is int else v for v in values)
