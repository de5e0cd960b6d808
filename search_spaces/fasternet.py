"""FasterNet (arXiv 2303.03667) as a config: its named sizes and spaces, and its layers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from search_spaces.io import short_repr
from search_spaces.layers import Layer
from search_spaces.space import Each, Space, each, oneof

Activation = Literal["gelu", "relu"]

_MOST_STAGES = 15
# No network comes near; whatever is larger is a slip, and overflows what computes with it.
_LARGEST = {
    "widths": 2**16,
    "depths": 1000,
    "partial_ratios": 1,
    "expansions": 1000,
    "resolution": 2**14,
    "stem_stride": 2**14,
    "head_width": 2**16,
    "classes": 10**7,
}


@dataclass(frozen=True, kw_only=True)
class FasterNetConfig:
    """One FasterNet. The tuples have one entry for each stage, of which there may be 1 to 15.

    Raises:
        ValueError: if a number is not positive or larger than any network's, a tuple has the
            wrong length, a partial ratio is not in (0, 1], or the image is too small for the
            strides.
    """

    widths: tuple[int, ...]  # channels c
    depths: tuple[int, ...]  # blocks
    partial_ratios: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)  # r: PConv convolves r*c channels
    expansions: tuple[float, ...] = (2.0, 2.0, 2.0, 2.0)  # hidden channels of a block over c
    resolution: int = 224  # pixels, square
    stem_stride: int = 4  # the stem is a convolution with kernel = stride
    head_width: int = 1280  # channels between the pooling and the classifier
    activation: Activation = "relu"
    classes: int = 1000

    def __post_init__(self) -> None:
        _check(self)

    @property
    def partial_widths(self) -> tuple[int, ...]:
        """Channels that PConv convolves in each stage, c_p = floor(r*c) as in timm."""
        return tuple(_floor(w * r) for w, r in zip(self.widths, self.partial_ratios, strict=True))

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Channels between the two 1x1 convolutions of a block, floor(expansion*c) as in timm."""
        return tuple(_floor(w * e) for w, e in zip(self.widths, self.expansions, strict=True))

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the deployed network; the blocks of a stage share one record."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return tuple(layer for layer in _layers(columns, len(self.widths)) if layer.repeat)

    @classmethod
    def bulk_layers(cls, fields: Mapping[str, Any]) -> tuple[Layer, ...]:
        """Return the layers of n networks at once, each number an array of shape [n].

        `fields` maps a field's name to an array of shape [n], or [n, stages] where it is a tuple.
        """
        per_stage = ("widths", "depths", "partial_ratios", "expansions")
        columns = {k: v.T if k in per_stage else v for k, v in fields.items()}
        return tuple(_layers(columns, len(columns["widths"])))


def _layers(config: Mapping[str, Any], stages: int) -> list[Layer]:
    """The layer formula, in arithmetic that holds for numbers and for arrays alike."""
    height = config["resolution"] // config["stem_stride"]
    gelu = (config["activation"] == "gelu") * 1
    layers = [
        Layer(
            name="stem",
            op="conv",
            c_in=3,
            c_out=config["widths"][0],
            norm=True,
            kernel=config["stem_stride"],
            stride=config["stem_stride"],
            height=config["resolution"],
            width=config["resolution"],
        )
    ]
    for i in range(stages):
        if i > 0:
            layers.append(
                Layer(
                    name=f"stages.{i}.merging",
                    op="conv",
                    kernel=2,
                    stride=2,
                    norm=True,
                    c_in=config["widths"][i - 1],
                    c_out=config["widths"][i],
                    height=height,
                    width=height,
                )
            )
            height = height // 2
        layers += _block_layers(config, i, height, gelu)
    return layers + _head_layers(config, height, gelu)


def _block_layers(config: Mapping[str, Any], i: int, height: Any, gelu: int) -> list[Layer]:
    """The layers of stage i: x + Conv1x1(act(BN(Conv1x1(PConv3x3(x)))))."""
    c, n = config["widths"][i], config["depths"][i]
    c_p, hidden = _floor(c * config["partial_ratios"][i]), _floor(c * config["expansions"][i])
    name = f"stages.{i}.block"
    at: dict[str, Any] = {"height": height, "width": height}
    return [
        Layer(
            name=f"{name}.split_concat",
            op="split_concat",
            c_in=c,
            c_out=c_p,
            repeat=n * (c_p != c),
            **at,
        ),
        Layer(name=f"{name}.pconv", op="conv", c_in=c_p, c_out=c_p, kernel=3, repeat=n, **at),
        Layer(name=f"{name}.expand", op="conv", c_in=c, c_out=hidden, norm=True, repeat=n, **at),
        Layer(name=f"{name}.gelu", op="gelu", c_in=hidden, c_out=hidden, repeat=n * gelu, **at),
        Layer(
            name=f"{name}.relu", op="relu", c_in=hidden, c_out=hidden, repeat=n * (1 - gelu), **at
        ),
        Layer(name=f"{name}.project", op="conv", c_in=hidden, c_out=c, repeat=n, **at),
        Layer(name=f"{name}.add", op="add", c_in=c, c_out=c, repeat=n, **at),
    ]


def _head_layers(config: Mapping[str, Any], height: int, gelu: int) -> list[Layer]:
    """The layers of the head: Linear(act(Conv1x1(pool(x))))."""
    c, head = config["widths"][-1], config["head_width"]
    vector: dict[str, Any] = {"height": 1, "width": 1}
    return [
        Layer(name="head.pool", op="pool", c_in=c, c_out=c, height=height, width=height),
        Layer(name="head.conv", op="conv", c_in=c, c_out=head, **vector),
        Layer(name="head.gelu", op="gelu", c_in=head, c_out=head, repeat=gelu, **vector),
        Layer(name="head.relu", op="relu", c_in=head, c_out=head, repeat=1 - gelu, **vector),
        Layer(name="head.classifier", op="linear", c_in=head, c_out=config["classes"], **vector),
    ]


def _floor(x: Any) -> Any:
    """floor(x) for numbers and arrays, forgiving the rounding of ratios such as 1/3."""
    floor = (x + 1e-6) // 1
    return int(floor) if isinstance(floor, float) else floor


def _check(config: FasterNetConfig) -> None:
    if not isinstance(config.widths, tuple) or not 0 < len(config.widths) <= _MOST_STAGES:
        raise ValueError(
            "`widths` must be a tuple with an entry for each stage, of which there may be 1 to "
            f"{_MOST_STAGES}, but got {short_repr(config.widths)}."
        )
    for name in ("widths", "depths", "partial_ratios", "expansions"):
        _check_stages(name, getattr(config, name), len(config.widths))
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
    total_stride = config.stem_stride * 2 ** (len(config.widths) - 1)
    if config.resolution < total_stride:
        raise ValueError(
            f"`resolution` must be at least the total stride of {total_stride} pixels, but got "
            f"{config.resolution}. Use fewer stages."
        )


def _check_stages(name: str, values: Any, stages: int) -> None:
    if not isinstance(values, tuple) or len(values) != stages:
        raise ValueError(
            f"`{name}` must be a tuple with one entry for each of the {stages} stages of `widths`, "
            f"but got {short_repr(values)}."
        )
    number = int if name in ("widths", "depths") else (int, float)
    if not all(isinstance(v, number) and not isinstance(v, bool) and v > 0 for v in values):
        raise ValueError(f"`{name}` must hold positive numbers only, but got {short_repr(values)}.")
    _check_size(name, max(values))


def _check_whole(config: FasterNetConfig) -> None:
    for name in ("resolution", "stem_stride", "head_width", "classes"):
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"`{name}` must be a positive whole number, but got {short_repr(value)}."
            )
        _check_size(name, value)
    if config.activation not in get_args(Activation):
        raise ValueError(
            f"`activation` must be gelu or relu, but got {short_repr(config.activation)}."
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


def _stages(*choices: tuple[float, ...]) -> Each:
    return each(*(oneof(*stage) for stage in choices))


# The widths and ratios make every c_p a multiple of 4, as the kernels of most runtimes want it;
# the one exception is the 10 of 40 channels that T0 has.
_EXPANSIONS = (1.0, 1.5, 2.0, 3.0, 4.0)

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
    activation=oneof("relu", "gelu"),
    resolution=224,
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

SPACES: Mapping[str, Space[Any]] = {"fasternet": _FASTERNET, "fasternet-32": _FASTERNET_32}
"""`fasternet` holds T0 to L and reaches down to 15 MMACs at 224 px; `fasternet-32` is for images
of 32x32 pixels, 2 to 60 MMACs for the most part."""
