"""The operators that PConv is compared with (arXiv 2303.03667, table 1), as networks to time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictors.backends.model import Model, identity

if TYPE_CHECKING:
    from torch import nn

LAYERS = 10  # stacked, as in the paper; the latency of one layer is a tenth
MAPS = ((96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7))  # channels, height, width


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A 3x3 convolution of some kind that keeps the shape of its input, without bias or norm."""

    name: str
    weights: Callable[[int], int]  # of one layer, from the number of channels
    layer: Callable[[int], "nn.Module"]


def operator_models() -> list[Model]:
    """Return each operator at each of the paper's map sizes, ten layers of it: size by size.

    They are called like "PConv3x3 96x56x56". MACs and parameters are analytic, of all ten layers;
    a weight is used once at each position.
    """
    return [_model(operator, shape) for shape in MAPS for operator in OPERATORS]


def _model(operator: Operator, shape: tuple[int, int, int]) -> Model:
    c, height, width = shape
    weights = LAYERS * operator.weights(c)

    def build() -> "nn.Module":
        from torch import nn

        return nn.Sequential(*(operator.layer(c) for _ in range(LAYERS)))

    return Model(
        name=f"{operator.name} {c}x{height}x{width}", shape=shape, build=build,
        identity=identity("operator", {"name": operator.name, "shape": shape, "layers": LAYERS}),
        macs=weights * height * width, params=weights,
    )  # fmt: skip


def _convolution(c: int, groups: int) -> "nn.Module":
    from torch import nn

    return nn.Conv2d(c, c, 3, padding=1, groups=groups, bias=False)


def _pconv(c: int) -> "nn.Module":
    from search_spaces.network import PConv

    return PConv(c, c // 4)


# In the order of the paper's table.
OPERATORS = (
    Operator(name="Conv3x3", weights=lambda c: 9 * c * c, layer=lambda c: _convolution(c, 1)),
    Operator(name="GConv3x3", weights=lambda c: 9 * c * c // 16,
             layer=lambda c: _convolution(c, 16)),
    Operator(name="DWConv3x3", weights=lambda c: 9 * c, layer=lambda c: _convolution(c, c)),
    Operator(name="PConv3x3", weights=lambda c: 9 * (c // 4) ** 2, layer=_pconv),
)  # fmt: skip
