"""The spaces that come with fasternas, by name."""

from collections.abc import Mapping
from typing import Any

from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import Each, Space, each, oneof


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
