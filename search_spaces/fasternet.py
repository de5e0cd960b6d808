"""FasterNet (arXiv 2303.03667) as a config: its named sizes and spaces."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from search_spaces.fasternet_layers import (
    Activation as Activation,
    channels,
    dividing,
    fasternet_layers,
)
from search_spaces.io import short_repr
from search_spaces.layers import Fields, Layer
from search_spaces.space import AnySpace, Each, Space, each, oneof

StemKind = Literal["patch", "convs"]

INGREDIENTS: Mapping[str, int | str] = {
    "kernels": 3,
    "groups": 1,
    "untouched": "identity",
    "mixers": "pconv",
    "expands": "plain",
    "mlps": "plain",
}
"""The choices of a stage beside its size, each as FasterNet is published; see FasterNetConfig."""

_RATIOS = {"partial_ratios": 0.25, "expansions": 2.0}  # as published
_PUBLISHED: Mapping[str, float | str] = {**_RATIOS, **INGREDIENTS}
# What an ingredient may be, where that is a word.
_KINDS = {
    "untouched": ("identity", "gate"),
    "mixers": ("pconv", "attention"),
    "expands": ("plain", "fused"),
    "mlps": ("plain", "star"),
}
_CONV_STRIDES = {1: (1, 1), 2: (2, 1), 4: (2, 2)}  # of the two convolutions of a `convs` stem

_MOST_STAGES = 15
# No network comes near; whatever is larger is a slip, and overflows what computes with it.
_LARGEST = {
    "widths": 2**16,
    "depths": 1000,
    "partial_ratios": 1,
    "expansions": 1000,
    "kernels": 31,
    "groups": 2**16,
    "resolution": 2**14,
    "stem_stride": 2**14,
    "head_width": 2**16,
    "classes": 10**7,
}


_PAPER = "FasterNet, arXiv 2303.03667"
CHOICES: Mapping[str, str] = {
    "widths": f"Channels of each stage ({_PAPER}).",
    "depths": f"Blocks of each stage ({_PAPER}).",
    "partial_ratios": f"The share of a stage's channels that is convolved ({_PAPER}).",
    "expansions": f"Hidden channels of a block over its width ({_PAPER}).",
    "kernels": f"The side of the partial convolution's kernel ({_PAPER}: 3; CPUBone, arXiv "
    "2603.26425: 2).",
    "groups": "Groups of the partial convolution (CPUBone, arXiv 2603.26425); 1 where they do not "
    "divide its channels.",
    "untouched": "The channels that are not convolved: passed on, or weighted by a squeeze-excite "
    "gate (PATNet, arXiv 2503.03148; PartialNet, arXiv 2502.01303).",
    "mixers": "What mixes the positions: the partial convolution, or attention with one head on "
    "as many channels (SHViT, arXiv 2401.16456).",
    "expands": "Fused, the partial convolution and the first 1x1 are one convolution "
    "(EfficientNetV2, arXiv 2104.00298).",
    "mlps": "Star: the hidden channels are the product of two branches (StarNet, arXiv "
    "2403.19967).",
    "resolution": "The side of the image in pixels: smaller ones leave time for width "
    "(MobileNetV2, arXiv 1801.04381).",
    "stem_stride": f"Pixels of the image for one of the first map, a side ({_PAPER}: 4).",
    "stem": f"Patch: one convolution with kernel = stride ({_PAPER}); convs: two of 3x3 "
    "(arXiv 2106.14881).",
    "head_width": f"Channels between the pooling and the classifier ({_PAPER}: 1280); 0: no such "
    "layer.",
    "activation": f"The activation function ({_PAPER}: relu or gelu).",
    "activations": "The activation of each stage, where they differ.",
    "classes": "Outputs of the classifier; those of the data, where there are data.",
}
"""What each field of FasterNetConfig chooses, and the paper that it is from."""


@dataclass(frozen=True, kw_only=True)
class FasterNetConfig:
    """One FasterNet. The tuples have one entry for each stage, of which there may be 1 to 15.

    What has a default is as published where it is left out: each tuple but `activations` is then
    filled with that value, a partial ratio of 1/4 and an expansion of 2.

    Raises:
        ValueError: if a number is not positive or larger than any network's, a word is not known,
            a tuple has the wrong length, a partial ratio is not in (0, 1], or the image is too
            small for the strides.
    """

    widths: tuple[int, ...]  # channels c
    depths: tuple[int, ...]  # blocks; 0 in the last stage leaves that stage out
    partial_ratios: tuple[float, ...] = ()  # r: PConv convolves r*c channels
    expansions: tuple[float, ...] = ()  # hidden channels of a block over c
    kernels: tuple[int, ...] = ()  # side of the partial convolution's kernel
    groups: tuple[int, ...] = ()  # of the partial convolution; 1 where they do not divide r*c
    untouched: tuple[str, ...] = ()  # the other channels: identity, or a squeeze-excite gate
    mixers: tuple[str, ...] = ()  # what mixes r*c channels: pconv, or attention with one head
    expands: tuple[str, ...] = ()  # fused: PConv and the first 1x1 are one convolution c -> hidden
    mlps: tuple[str, ...] = ()  # star: the hidden channels are the product of two branches
    resolution: int = 224  # pixels, square
    stem_stride: int = 4
    stem: StemKind = "patch"  # a convolution with kernel = stride, or two of 3x3
    head_width: int = 1280  # channels between the pooling and the classifier; 0: no such layer
    activation: Activation = "relu"
    activations: tuple[Activation, ...] = ()  # of each stage, where they differ
    classes: int = 1000

    def __post_init__(self) -> None:
        _check_widths(self.widths)
        for name, published in _PUBLISHED.items():
            if getattr(self, name) == ():
                object.__setattr__(self, name, (published,) * len(self.widths))
        _check(self)

    @property
    def stages(self) -> int:
        """How many stages the network has: the last one only if it has a block."""
        return len(self.widths) - (self.depths[-1] == 0)

    @property
    def total_stride(self) -> int:
        """How many pixels of the image an element of the last map stands for."""
        return self.stem_stride << self.stages - 1

    @property
    def out_width(self) -> int:
        """Channels of the last map."""
        return self.widths[self.stages - 1]

    @property
    def partial_widths(self) -> tuple[int, ...]:
        """Channels that PConv convolves in each stage, c_p = floor(r*c) as in timm."""
        return tuple(channels(w * r) for w, r in zip(self.widths, self.partial_ratios, strict=True))

    @property
    def partial_groups(self) -> tuple[int, ...]:
        """Groups of the partial convolution in each stage: those that divide its channels."""
        pairs = zip(self.partial_widths, self.groups, strict=True)
        return tuple(dividing(c_p, groups) for c_p, groups in pairs)

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Channels between the two 1x1 convolutions of a block, floor(expansion*c) as in timm."""
        return tuple(channels(w * e) for w, e in zip(self.widths, self.expansions, strict=True))

    @property
    def stage_activations(self) -> tuple[Activation, ...]:
        """The activation of each stage."""
        return self.activations or (self.activation,) * len(self.widths)

    @property
    def unpublished(self) -> tuple[str, ...]:
        """The fields that no FasterNet as published has at this value."""
        found = [n for n, value in INGREDIENTS.items() if set(getattr(self, n)) != {value}]
        whole = {
            "depths": self.depths[-1] == 0,
            "stem": self.stem != "patch",
            "head_width": self.head_width == 0,
            "activation": self.activation == "hardswish",
            "activations": len(set(self.stage_activations) | {self.activation}) > 1,
        }
        return (*found, *(name for name, unlike in whole.items() if unlike))

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the deployed network; the blocks of a stage share one record."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        columns["activations"] = self.stage_activations
        return tuple(layer for layer in fasternet_layers(columns, len(self.widths)) if layer.repeat)

    @classmethod
    def bulk_layers(cls, fields: Fields) -> tuple[Layer, ...]:
        """Return the layers of n networks at once, each number an array of shape [n].

        `fields` maps a field's name to an array of shape [n], or [n, stages] where it is a tuple.
        """
        per_stage = ("widths", "depths", *_RATIOS, *INGREDIENTS)
        columns = {k: v.T if k in per_stage else v for k, v in fields.items()}
        stages = len(columns["widths"])
        own = fields["activations"].T
        columns["activations"] = own if len(own) else [columns["activation"]] * stages
        return tuple(fasternet_layers(columns, stages))


def stem_strides(stem_stride: int) -> tuple[int, int]:
    """Return the strides of the two convolutions of a `convs` stem."""
    return _CONV_STRIDES[stem_stride]


def _check_widths(widths: object) -> None:
    if not isinstance(widths, tuple) or not 0 < len(widths) <= _MOST_STAGES:
        raise ValueError(
            "`widths` must be a tuple with an entry for each stage, of which there may be 1 to "
            f"{_MOST_STAGES}, but got {short_repr(widths)}."
        )


def _check(config: FasterNetConfig) -> None:
    stages = len(config.widths)
    for name in ("widths", "depths", "partial_ratios", "expansions", "kernels", "groups"):
        _check_stages(name, getattr(config, name), stages)
    for name, kinds in _KINDS.items():
        _check_words(name, getattr(config, name), stages, kinds)
    if config.activations != ():
        _check_words("activations", config.activations, stages, get_args(Activation))
    if 0 in config.partial_widths:
        raise ValueError(
            "`partial_ratios` must leave PConv at least one channel, but got "
            f"{short_repr(config.partial_ratios)} of {short_repr(config.widths)}."
        )
    if 0 in config.hidden_widths:
        raise ValueError(
            "`expansions` must leave at least one hidden channel, but got "
            f"{short_repr(config.expansions)} of {short_repr(config.widths)}."
        )
    _check_whole(config)
    if config.resolution < config.total_stride:
        raise ValueError(
            f"`resolution` must be at least the total stride of {config.total_stride} pixels, but "
            f"got {config.resolution}. Use fewer stages."
        )


def _check_stages(name: str, values: Any, stages: int) -> None:
    _check_length(name, values, stages)
    number = (int, float) if name in _RATIOS else int
    if not all(isinstance(v, number) and not isinstance(v, bool) for v in values) or not all(
        v > 0 or (name == "depths" and v == 0 < i == stages - 1) for i, v in enumerate(values)
    ):
        raise ValueError(
            f"`{name}` must hold positive {'' if name in _RATIOS else 'whole '}numbers only, but "
            f"got {short_repr(values)}."
        )
    _check_size(name, max(values))


def _check_words(name: str, values: Any, stages: int, known: tuple[str, ...]) -> None:
    _check_length(name, values, stages)
    for value in values:
        if value not in known:
            raise ValueError(
                f"`{name}` must hold {' or '.join(known)}, but got {short_repr(value)}."
            )


def _check_length(name: str, values: Any, stages: int) -> None:
    if not isinstance(values, tuple) or len(values) != stages:
        raise ValueError(
            f"`{name}` must be a tuple with one entry for each of the {stages} stages of `widths`, "
            f"but got {short_repr(values)}."
        )


def _check_whole(config: FasterNetConfig) -> None:
    for name in ("resolution", "stem_stride", "head_width", "classes"):
        value, least = getattr(config, name), 0 if name == "head_width" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(
                f"`{name}` must be a positive whole number{' or 0' * (not least)}, but got "
                f"{short_repr(value)}."
            )
        _check_size(name, value)
    for name, kinds in (("activation", Activation), ("stem", StemKind)):
        if (value := getattr(config, name)) not in get_args(kinds):
            raise ValueError(
                f"`{name}` must be {' or '.join(get_args(kinds))}, but got {short_repr(value)}."
            )
    if config.stem == "convs" and config.stem_stride not in _CONV_STRIDES:
        raise ValueError(
            "`stem_stride` must be 1, 2 or 4 for a stem of two convolutions, but got "
            f"{config.stem_stride}. Use stem='patch'."
        )


def _check_size(name: str, value: float) -> None:
    if value > _LARGEST[name]:
        raise ValueError(
            f"`{name}` must be at most {_LARGEST[name]}, but got {short_repr(value)}. Choose a "
            "smaller one."
        )


def _named(base: int, depths: tuple[int, ...], activation: Activation) -> FasterNetConfig:
    return FasterNetConfig(
        widths=(base, 2 * base, 4 * base, 8 * base), depths=depths, activation=activation
    )


FASTERNET: Mapping[str, FasterNetConfig] = {
    "t0": _named(40, (1, 2, 8, 2), "gelu"),
    "t1": _named(64, (1, 2, 8, 2), "gelu"),
    "t2": _named(96, (1, 2, 8, 2), "relu"),
    "s": _named(128, (1, 2, 13, 2), "relu"),
    "m": _named(144, (3, 4, 18, 3), "relu"),
    "l": _named(192, (3, 4, 18, 3), "relu"),
}
"""The published sizes T0 to L (table 1 of the paper); drop path belongs to training, not here."""

PUBLISHED_TOP1: Mapping[str, float] = {
    "t0": 71.9,
    "t1": 76.2,
    "t2": 78.9,
    "s": 81.3,
    "m": 83.0,
    "l": 83.5,
}
"""Their top-1 on ImageNet-1k in percent, at 224 pixels (the same table)."""


def _stages(*choices: tuple[float | str, ...]) -> Each:
    return each(*(oneof(*stage) for stage in choices))


# The widths and ratios make every c_p a multiple of 4, as the kernels of most runtimes want it;
# the one exception is the 10 of 40 channels that T0 has.
_EXPANSIONS = (1.0, 1.5, 2.0, 3.0, 4.0)
_HEADS = (0, 960, 1280)
_SIDES = (128, 160, 192, 224)

_FASTERNET = Space(
    FasterNetConfig,
    widths=_stages(
        (16, 32, 40, 48, 64, 80, 96, 112, 128, 144, 160, 192),
        (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 288, 384),
        (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 768),
        (128, 160, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1152, 1536),
    ),
    depths=_stages((1, 2, 3, 4), (1, 2, 3, 4, 6), (1, 2, 4, 6, 8, 10, 13, 18), (1, 2, 3, 4)),
    partial_ratios=_stages(
        (0.25, 0.5, 1.0), (0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 1.0)
    ),
    expansions=_stages(_EXPANSIONS, _EXPANSIONS, _EXPANSIONS, _EXPANSIONS),
    head_width=oneof(*_HEADS),
    activation=oneof("relu", "gelu"),
    resolution=oneof(*_SIDES),
)

_FASTERNET_32 = Space(
    FasterNetConfig,
    widths=_stages((16, 32, 48), (32, 48, 64, 96), (32, 64, 96, 128, 192), (64, 96, 128, 192, 256)),
    depths=_stages((1, 2, 3), (1, 2, 3), (1, 2, 4, 6, 8), (1, 2, 3)),
    partial_ratios=_stages(
        (0.25, 0.5), (0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 1.0)
    ),
    expansions=_stages(*[(1.0, 1.5, 2.0, 3.0)] * 4),
    stem_stride=oneof(1, 2),
    activation=oneof("relu", "gelu"),
    resolution=32,
    head_width=256,
    classes=10,
)

_PCONV = Space(
    FasterNetConfig,
    **{
        **_FASTERNET.fields,
        "kernels": _stages(*[(3, 5, 7)] * 4),
        "groups": _stages(*[(1, 2, 4)] * 4),
        "untouched": _stages(*[_KINDS["untouched"]] * 4),
        "mixers": _stages(*[("pconv",)] * 3, _KINDS["mixers"]),
        "expands": _stages(*[_KINDS["expands"]] * 2, *[("plain",)] * 2),
        "stem": oneof(*get_args(StemKind)),
    },
)
_INGREDIENTS_32 = ("kernels", "groups", "untouched", "mixers", "expands", "stem")
_PCONV_32 = _FASTERNET_32.replace(
    **{name: _PCONV.fields[name] for name in _INGREDIENTS_32},
    head_width=oneof(0, 64, 128, 256),
)

SPACES: Mapping[str, AnySpace] = {
    "fasternet": _FASTERNET,
    "fasternet-32": _FASTERNET_32,
    "pconv": _PCONV,
    "pconv-32": _PCONV_32,
}
"""`fasternet` holds T0 to L and reaches down to 15 MMACs at 224 px and to 5 at 128;
`fasternet-32` is for images of 32x32 pixels, 2 to 60 MMACs for the most part. `pconv` and
`pconv-32` hold all of them, and ingredients of the blocks besides. Star products, hardswish, 2x2
kernels, three stages and heads of 320 and 640 channels are left out: with each, networks of equal
latency learn less of photos (benchmarks/ingredients.py)."""
