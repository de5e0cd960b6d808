"""The work of layers, sorted by the kind of kernel that does it."""

from dataclasses import dataclass

import pytest

from predictors.features import LAYER_FEATURES, layer_features
from search_spaces.layers import Layer


@dataclass(frozen=True)
class One:
    """A network of one layer."""

    layer: Layer

    def layers(self) -> tuple[Layer, ...]:
        return (self.layer,)


def _conv(kernel: int, stride: int, groups: int) -> Layer:
    return Layer(
        name="conv",
        op="conv",
        c_in=16,
        c_out=32,
        height=8,
        width=8,
        kernel=kernel,
        stride=stride,
        groups=groups,
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "kind"),
    [
        (1, 1, 1, "conv1x1"),
        (1, 1, 4, "grouped"),
        (2, 2, 1, "patchify"),
        (2, 2, 16, "grouped"),
        (3, 1, 1, "conv"),
        (3, 1, 4, "grouped"),
    ],
)
def test_a_convolution_is_of_one_kind(kernel: int, stride: int, groups: int, kind: str) -> None:
    layer = _conv(kernel, stride, groups)
    (row,) = layer_features([One(layer)])
    macs = {
        name.removesuffix(".macs"): value
        for name, value in zip(LAYER_FEATURES, row, strict=True)
        if name.endswith(".macs") and value
    }
    assert macs == {kind: layer.macs}
    assert (row >= 0).all()
