"""An operator is called by more words where it takes another loop than the one that was counted."""

from dataclasses import replace

import pytest

from predictors.aarch64.node import Node, Shape, Value, operator_of
from predictors.aarch64.operators import count_node

MAP = (1, 8, 16, 16)
TWICE = (1, 8, 32, 32)
DOWN = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
SLOW = "Resize to the nearest but not twice the side"


def _plain(op: str, output: Shape = MAP, **attributes: Value) -> Node:
    return Node(op=op, inputs=(MAP, MAP), output=output, attributes=attributes)


def _reduce(op: str, *axes: int) -> Node:
    return _plain(op, axes=axes)


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (_plain("Relu"), "Relu"),
        (_plain("Pow", exponent=2), "Pow"),
        (_plain("Pow", exponent=3), "Pow"),
        (_plain("Pow", exponent=-1), "Pow by other than 2 and 3"),
        (_plain("Pow", exponent="other"), "Pow by other than 2 and 3"),
        (_plain("MaxPool", kernel_shape=(3, 3), dilations=(1, 1)), "MaxPool"),
        (_plain("MaxPool", dilations=(1, 2)), "MaxPool with dilation"),
        (replace(_plain("MaxPool"), outputs=2), "MaxPool with indices"),
        (_plain("MaxPool", storage_order=1), "MaxPool with indices"),
        (_plain("ConvTranspose", strides=(2, 2)), "ConvTranspose"),
        (_plain("ConvTranspose", group=8), "ConvTranspose in groups"),
        (_plain("ConvTranspose", dilations=(2, 2)), "ConvTranspose with dilation"),
        (_plain("ConvTranspose", (1, 8, 16)), "ConvTranspose over 1 dimensions"),
        (_plain("Gemm"), "Gemm by a computed matrix"),
        (Node(op="Gemm", inputs=(), output=(), constant=True), "Gemm"),
        (_plain("FusedMatMul", transA=1), "FusedMatMul"),
        (_plain("FusedMatMul", transBatchB=1), "FusedMatMul across batches"),
        (_plain("Cast"), "Cast"),
        (_plain("Cast", (1, 3, 64, 64)), "Cast of a map"),
        (_plain("Gelu", approximate="none"), "Gelu"),
        (_plain("Gelu", approximate="tanh"), "Gelu by tanh"),
        (_plain("Pad", mode="constant"), "Pad"),
        (_plain("Pad", mode="edge"), "Pad by edge"),
        (_plain("Resize", TWICE), "Resize"),
        (_plain("Resize", TWICE, **DOWN), "Resize"),
        (_plain("Resize", TWICE, nearest_mode="ceil"), SLOW),
        (_plain("Resize", (1, 8, 48, 48), **DOWN), SLOW),
        (_plain("Resize", (1, 8, 48, 40), mode="linear"), "Resize"),
        (_plain("Resize", (1, 9, 32, 16)), "Resize of other than the last two sides"),
        (_plain("Resize", nearest_mode="ceil"), "Resize"),
        (_reduce("ReduceMean"), "ReduceMean"),
        (_reduce("ReduceMean", 1), "ReduceMean"),
        (_reduce("ReduceMean", 2, -1), "ReduceMean"),
        (_reduce("ReduceMean", 2), "ReduceMean over sides in between"),
        (_reduce("ReduceSum", 1, 3), "ReduceSum over sides in between"),
        (_reduce("ReduceL2", 3), "ReduceL2"),
        (_reduce("ReduceL2", 1), "ReduceL2 over outer sides"),
        (Node(op="ReduceMean", inputs=((),), output=(), attributes={"axes": (0,)}), "ReduceMean"),
    ],
)
def test_another_loop_has_another_name(node: Node, name: str) -> None:
    assert operator_of(node) == name


def test_depth_to_space_is_taken_for_a_transpose_of_many_axes() -> None:
    node = Node(op="DepthToSpace", inputs=((1, 64, 32, 32),), output=(1, 16, 64, 64))
    shape, moved = (1, 2, 2, 16, 32, 32), (1, 16, 32, 2, 32, 2)
    order: dict[str, Value] = {"perm": (0, 3, 4, 1, 5, 2)}
    like = Node(op="Transpose", inputs=(shape,), output=moved, attributes=order)
    assert count_node(node) == count_node(like)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceL2"])
def test_a_reduction_over_nothing_may_copy(op: str) -> None:
    copied = count_node(_plain("Resize"))
    assert count_node(_plain(op, noop_with_empty_axes=1)) == copied
    assert count_node(_plain(op, noop_with_empty_axes=1, axes=(3,))) != copied
    assert count_node(replace(_plain(op, (1, 1, 1, 1)))) != copied
