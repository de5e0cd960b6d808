"""The kernels' loops, counted, agree with what was executed, on numbers and on arrays."""

from collections.abc import Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from fit_profile import FormError, form_errors

from predictors.aarch64.graph import _unfolded
from predictors.aarch64.kernels import Conv, Pair, Window, block_lengths, count_conv, count_product
from predictors.aarch64.layers import LayerShape, count_instructions, layer_nodes
from predictors.aarch64.node import Node
from predictors.aarch64.operators import count_node
from predictors.aarch64.parts import macs
from predictors.devices.profiled import PROFILES, load_profile
from search_spaces.fasternet import SPACES
from search_spaces.layers import Layer

FORMS = load_profile("raspberry_pi_5").forms
ERRORS = form_errors(FORMS, PROFILES / "raspberry_pi_5" / "operators.csv")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("conv", FormError(463, 0.0044, 0.086, 0.0002)),
        ("depthwise3x3", FormError(41, 0.0050, 0.032, 0.0)),
        ("gemm", FormError(29, 0.0009, 0.003, 0.001)),
        ("matmul", FormError(68, 0.0091, 0.039, 0.0)),
        ("gelu", FormError(20, 0.0005, 0.005, 0.0)),
        ("split", FormError(15, 0.0086, 0.032, 0.0)),
        ("concat", FormError(15, 0.0074, 0.039, 0.0)),
        ("binary_spans", FormError(47, 0.0051, 0.054, 0.0)),
        ("softmax", FormError(17, 0.0110, 0.039, 0.0)),
    ],
)
def test_the_forms_predict_the_counted_operators(kind: str, expected: FormError) -> None:
    found = ERRORS[kind]
    assert found.operators == expected.operators
    assert found[1:] == pytest.approx(expected[1:], abs=1e-3, rel=0.02)


def test_each_form_was_fitted_to_operators_of_the_table() -> None:
    assert ERRORS.keys() == FORMS.keys() - {"run"}
    assert sum(error.operators for error in ERRORS.values()) == 1183


@pytest.mark.parametrize(
    ("n", "k", "lengths"),
    [
        (128, 128, (128, 128)),
        (3136, 64, (256, 64)),
        (3136, 65, (128, 128)),
        (12544, 27, (512, 32)),
        (12544, 1, (16384, 1)),
        (49, 1024, (64, 256)),
        (4, 512, (16, 1024)),
    ],
)
def test_the_shorter_side_of_a_block_shrinks_to_what_it_holds(
    n: int, k: int, lengths: tuple[int, int]
) -> None:
    assert block_lengths(n, k) == lengths


def test_positions_are_padded_to_eights_and_channels_are_not() -> None:
    counts = count_product(10, 49, 16)
    assert counts["macs_4"] == 8 * 16 * 56
    assert counts["macs_2"] == 2 * 16 * 56
    assert counts["macs_1"] == 0
    assert counts["calls"] == 3
    assert counts["eights_4"] == 2 * 16


def test_a_single_row_takes_a_loop_of_its_own() -> None:
    assert count_product(1, 10, 7) == {"row_fours": 21, "row_columns": 4}
    assert "macs_1" in count_product(1, 10, 7, packed=True)


@pytest.mark.parametrize("kind", ["Gemm", "MatMul", "constant", "Conv"])
def test_each_further_row_of_a_product_takes_more(kind: str) -> None:
    """Rows are taken in fours, twos and ones, by loops that not every kind was fitted to."""
    k, n = 128, 64

    def counted(rows: int) -> tuple[float, float]:
        left, right, made = (rows, k), (k, n), (rows, n)
        if kind == "Conv":
            inputs = ((1, k, 8, 8), (rows, k, 1, 1))
            return count_node(Node(op="Conv", inputs=inputs, output=(1, rows, 8, 8))).instructions(
                FORMS
            )
        op, constant = ("Gemm", True) if kind == "Gemm" else ("MatMul", kind == "constant")
        node = Node(op=op, inputs=(left, right), output=made, constant=constant)
        return count_node(node).instructions(FORMS)

    found = np.array([counted(rows) for rows in range(1, 13)])
    per_mac = np.diff(found, axis=0) / (k * n)
    assert (per_mac[:, 0] > 0.1).all()
    assert (found[:, 0] < 0.55 * k * n * np.arange(1, 13) + 6000).all()
    np.testing.assert_allclose(found[:, 1], k * n * np.arange(1, 13) / 4, rtol=0.01)


@pytest.mark.parametrize("activation", ["Relu", "Clip", "HardSigmoid", "Sigmoid", "Tanh"])
def test_an_activation_takes_after_a_depthwise_convolution_what_it_takes_after_others(
    activation: str,
) -> None:
    def taken(groups: int) -> float:
        inputs = ((1, 32, 14, 14), (32, 32 // groups, 3, 3), (32,))
        settings: Any = {"attributes": {"group": groups, "pads": (1,) * 4}}
        node = Node(op="Conv", inputs=inputs, output=(1, 32, 14, 14), **settings)
        both = [replace(node, activation=a) for a in (activation, "")]
        with_it, without = (count_node(one).instructions(FORMS)[0] for one in both)
        return (with_it - without) / (32 * 14 * 14)

    assert taken(32) == pytest.approx(taken(1), abs=0.11)


def test_an_attention_of_several_heads_is_its_products() -> None:
    shapes = (1, 64, 48), (1, 80, 48), (1, 80, 48)
    heads = {"num_heads": 3}
    node = Node(op="MultiHeadAttention", inputs=shapes, output=shapes[0], attributes=heads)
    nodes = _unfolded(node)
    assert [n.op for n in nodes] == [*["Transpose"] * 4, "FusedMatMul", "Softmax", "MatMul"]
    assert sum(map(macs, nodes)) == 2 * 64 * 80 * 48
    packed = Node(op="MultiHeadAttention", inputs=((1, 64, 3, 3, 16),), output=(1, 64, 48))
    assert _unfolded(packed) == [packed]
    masked = replace(node, inputs=(*shapes, (), (), (1, 3, 64, 80)))
    assert _unfolded(masked) == [masked]


def test_an_attention_is_a_product_before_one_of_several_heads() -> None:
    x, heads = (1, 64, 48), {"num_heads": 3}
    inputs: Any = (x, (48, 144), (144,))
    node = Node(op="Attention", inputs=inputs, output=x, attributes=heads, constant=True)
    nodes = _unfolded(node)
    assert [n.op for n in nodes] == ["Gemm", "FusedMatMul", "Softmax", "MatMul", "Transpose"]
    assert nodes[0].constant
    assert nodes[-1].output == (1, 3, 64, 16)
    assert sum(map(macs, nodes)) == 64 * 48 * 144 + 2 * 64 * 64 * 48
    for other in (
        replace(node, constant=False),
        replace(node, inputs=(x, x, x)),  # as ONNX's own has them
        replace(node, inputs=(*inputs, (1,))),
        replace(node, attributes=heads | {"unidirectional": 1}),
    ):
        assert _unfolded(other) == [other]


@pytest.mark.parametrize("op", ["Sum", "Max", "Min"])
def test_a_sum_or_a_maximum_is_loops_like_those_of_an_addition(op: str) -> None:
    shape = (1, 32, 14, 14)
    for other in (shape, (), (1, 32, 1, 1)):
        given: Any = {"inputs": (shape, other), "output": shape}
        assert count_node(Node(op=op, **given)) == count_node(Node(op="Add", **given))
    three = Node(op=op, inputs=((32, 1, 1), (14,), shape), output=shape)
    assert [(n.inputs, n.output) for n in _unfolded(three)] == [
        (((32, 1, 1), (14,)), (32, 1, 14)),
        (((32, 1, 14), shape), shape),
    ]
    one = Node(op=op, inputs=(shape,), output=shape)
    assert count_node(one) == count_node(replace(one, op="Expand"))


def test_a_matrix_that_is_computed_is_packed_in_each_run() -> None:
    """Also for a single row where it is transposed: the loop of a row goes along the other side."""
    inputs: Any = ((1, 1280), (1000, 1280), (1000,))
    given: Any = {"inputs": inputs, "output": (1, 1000), "attributes": {"transB": 1}}
    known, computed = (count_node(Node(op="Gemm", constant=c, **given)) for c in (True, False))
    assert (known.kind, computed.kind) == ("gemm", "matmul")
    assert computed.counts["macs_1"] == known.counts["macs_1"] == 1000 * 1280
    assert computed.counts["packed_strips"] + computed.counts["packed_rests"] == 63 * 1280
    turned, plain = computed.instructions(FORMS)[0], known.instructions(FORMS)[0]
    assert turned - plain == pytest.approx(1.62 * 1000 * 1280, rel=0.01)
    straight = Node(op="Gemm", inputs=((1, 1280), (1280, 1000), (1000,)), output=(1, 1000))
    assert count_node(straight).counts["row_fours"] == 1280 * 250
    assert count_node(straight).counts["outputs"] == 1000


def test_a_cast_of_a_map_is_a_loop_over_vectors_that_was_not_counted() -> None:
    def counted(op: str, side: int) -> float:
        shape = (1, 3, side, side)
        return count_node(Node(op=op, inputs=(shape,), output=shape)).instructions(FORMS)[0]

    assert counted("Cast", 32) == counted("Reshape", 32)
    assert counted("Cast", 224) == counted("Abs", 224) > 3 * 224**2


def test_a_gelu_is_loops_around_an_erf_or_a_tanh() -> None:
    def per_element(op: str, *bias: tuple[int, ...], **attributes: str) -> tuple[float, ...]:
        shape = (1, 1000, 1000)
        node = Node(op=op, inputs=(shape, *bias), output=shape, attributes=attributes)
        return tuple(round(x / 1e6, 1) for x in count_node(node).instructions(FORMS))

    assert per_element("Gelu") == (22.3, 5.5)
    assert per_element("BiasGelu", (1000,)) == (23.0, 5.5)
    assert per_element("Gelu", approximate="tanh") == per_element("FastGelu") == (11.8, 2.2)
    assert per_element("FastGelu", (1000,)) == (12.5, 2.2)


def test_matrices_that_one_is_multiplied_by_are_a_single_one() -> None:
    left = (1, 4, 49, 32)
    one, several = (
        count_node(Node(op="MatMul", inputs=(left, right), output=(1, 4, 49, 16)))
        for right in ((1, 1, 32, 16), (1, 4, 32, 16))
    )
    assert (one.counts["batch"], several.counts["batch"]) == (1, 4)
    assert one.counts["macs_4"] == 4 * 49 * 32 * 16
    across = Node(op="FusedMatMul", inputs=(left, (32, 16)), output=(1, 4, 49, 16))
    assert count_node(across) == one


def test_a_gemm_without_a_bias_adds_nothing() -> None:
    given = {"output": (4, 16), "constant": True}
    plain = Node(op="Gemm", inputs=((4, 8), (8, 16)), **given)  # type: ignore[arg-type]
    added = replace(plain, inputs=(*plain.inputs, (16,)))
    assert (count_node(plain).counts["outputs"], count_node(plain).counts["accumulated"]) == (0, 0)
    assert (count_node(added).counts["outputs"], count_node(added).counts["accumulated"]) == (
        64,
        64,
    )


def test_same_padding_reaches_as_far_as_a_dilated_kernel() -> None:
    inputs = ((1, 8, 16, 16), (8, 8, 3, 3))
    same, fixed = (
        Node(
            op="Conv", inputs=inputs, output=(1, 8, 16, 16), attributes=how | {"dilations": (2, 2)}
        )
        for how in ({"auto_pad": "SAME_UPPER"}, {"pads": (2,) * 4})
    )
    assert count_node(same) == count_node(fixed)


def test_each_image_of_a_batch_is_normalised() -> None:
    for op in ("InstanceNormalization", "BatchNormalization"):
        one, two = (
            count_node(Node(op=op, inputs=((n, 8, 5, 5), (8,)), output=(n, 8, 5, 5))).counts
            for n in (1, 2)
        )
        assert two == {name: count * (2 - (name == "one")) for name, count in one.items()}


def test_what_follows_the_first_block_is_added_to_it() -> None:
    blocks = block_lengths(4, 4000)[1]
    counts = count_product(4, 4, 4000)
    assert counts["blocks"] == -(-4000 // blocks)
    assert counts["accumulated"] == 4 * 8 * (counts["blocks"] - 1)
    assert count_product(4, 4, 4000, accumulate=True)["accumulated"] == 4 * 8 * counts["blocks"]


@pytest.mark.parametrize("seed", range(60))
def test_im2col_copies_what_lies_inside_and_pads_the_rest(seed: int) -> None:
    window, conv = _random_conv(seed)
    _, counts = count_conv(conv)
    inside, beside, beyond = _classified(window)
    copied = 4 * counts["fours"] + counts["strided"] + counts["strided_at_edge"]
    copied += sum(i * counts[f"tails_of_{i}"] for i in (1, 2, 3))
    assert copied + counts["padding"] == conv.c_in * (inside + beside)
    if window.stride.x == 1 or not counts["strided_at_edge"]:  # which runs on past the edge
        assert copied == conv.c_in * inside
    assert (counts["zero_segments"] > 0) == (beyond > 0)


@pytest.mark.parametrize("stride", [1, 2])
def test_only_a_depthwise_3x3_of_stride_1_has_a_kernel_of_its_own(stride: int) -> None:
    side = 14 // stride
    given: Any = {"attributes": {"group": 32, "pads": (1,) * 4, "strides": (stride,) * 2}}
    inputs = ((1, 32, 14, 14), (32, 1, 3, 3))
    work = count_node(Node(op="Conv", inputs=inputs, output=(1, 32, side, side), **given))
    assert work.kind == ("depthwise3x3" if stride == 1 else "conv")
    per_mac = work.instructions(FORMS)[0] / (9 * 32 * side**2)
    assert per_mac == pytest.approx(2.7 if stride == 1 else 12.3, abs=0.3)


def test_a_batch_repeats_all_but_the_start() -> None:
    one, two = (
        count_node(Node(op="Conv", inputs=((n, 8, 4, 4), (8, 8, 1, 1)), output=(n, 8, 4, 4)))
        for n in (1, 2)
    )
    assert two.counts == {k: v * (1 if k == "one" else 2) for k, v in one.counts.items()}


def test_an_operator_that_was_not_counted_is_named() -> None:
    with pytest.raises(ValueError, match="the operator NonZero"):
        count_node(Node(op="NonZero", inputs=((4,),), output=(1, 4)))
    cubic = Node(op="Resize", inputs=((1, 1, 2, 2),), output=(1, 1, 4, 4), attributes={"mode": "x"})
    with pytest.raises(ValueError, match="the mode x of Resize"):
        count_node(cubic)
    with pytest.raises(ValueError, match="a convolution over 3 dimensions"):
        count_node(Node(op="Conv", inputs=((1,) * 5, (1,) * 5), output=(1,) * 5))


def test_a_map_that_is_gathered_is_copied() -> None:
    def counted(shape: tuple[int, ...]) -> float:
        node = Node(op="Gather", inputs=(shape, (shape[1],)), output=shape)
        return count_node(node).instructions(FORMS)[0]

    few = counted((1, 16, 2, 2))
    assert counted((1, 16, 8, 8)) == few
    assert counted((1, 256, 56, 56)) > 256 * 56 * 56 / 4


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node(op="MaxPool", inputs=((1,) * 5,), output=(1,) * 5), "MaxPool over 3 dimensions"),
        (
            Node(op="Relu", inputs=((1, 8, 64, 64),), output=(1, 8, 64, 64), dtype="float64"),
            "Relu on numbers of float64",
        ),
        (Node(op="MatMul", inputs=((4, 8), (8,)), output=(4,)), "MatMul with a vector"),
    ],
)
def test_what_the_profile_does_not_know_of_an_operator_is_said(node: Node, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_node(node)


@pytest.mark.parametrize("space", SPACES)
def test_arrays_give_what_the_networks_give_one_by_one(space: str) -> None:
    rng = Random(0)
    configs = [SPACES[space].sample(rng) for _ in range(50)]
    one_by_one = np.array([count_instructions(config.layers(), FORMS) for config in configs])
    columns = {f.name: np.array([getattr(c, f.name) for c in configs]) for f in fields(configs[0])}
    total, fma = count_instructions(type(configs[0]).bulk_layers(columns), FORMS)
    np.testing.assert_allclose(np.stack([total, fma], axis=1), one_by_one, rtol=1e-12)


def test_a_layer_that_stands_nowhere_takes_nothing() -> None:
    add = Layer(name="x", op="add", c_in=64, c_out=64, height=14, width=14, repeat=0)
    nowhere = _instructions([replace(add, repeat=np.zeros(3, int))])  # type: ignore[arg-type]
    assert _instructions([add]) == _instructions([])
    np.testing.assert_array_equal(nowhere, np.full(3, _instructions([])))


def test_an_activation_is_fused_into_the_convolution_before() -> None:
    conv = Layer(name="x", op="conv", c_in=16, c_out=32, height=14, width=14)
    relu = Layer(name="y", op="relu", c_in=32, c_out=32, height=14, width=14)
    (node,) = layer_nodes(LayerShape("conv", 16, 32, 14, 14))
    fused = count_node(replace(node, activation="Relu")).instructions(FORMS)[0]
    per_node = FORMS["run"]["instructions"]["node"]
    expected = _instructions([]) + per_node + fused
    assert _instructions([conv, relu]) == pytest.approx(expected)


def _instructions(layers: Sequence[Layer]) -> Any:
    return count_instructions(layers, FORMS)[0]


def _random_conv(seed: int) -> tuple[Window, Conv]:
    rng = Random(seed)
    size = Pair(rng.randint(3, 20), rng.randint(3, 20))
    kernel, stride = (Pair(rng.randint(1, 3), rng.randint(2, 3)) for _ in range(2))
    if rng.random() < 0.5:
        stride = Pair(1, 1)
    before, after = ((k - 1) // 2 for k in kernel), (k // 2 for k in kernel)
    window = Window(
        size=size,
        out=Pair(*((side - 1) // s + 1 for side, s in zip(size, stride, strict=True))),
        kernel=kernel,
        stride=stride,
        before=Pair(*before),
        after=Pair(*after),
        dilation=Pair(1, 1),
    )
    return window, Conv(c_in=rng.randint(1, 5), c_out=rng.randint(2, 200), window=window)


def _classified(window: Window) -> tuple[int, int, int]:
    """Elements of the columns that lie inside the input, beside it, and above or below."""
    y, x, i, j = np.meshgrid(*(np.arange(n) for n in (*window.out, *window.kernel)))
    row = y * window.stride.y + i - window.before.y
    column = x * window.stride.x + j - window.before.x
    rows = (row >= 0) & (row < window.size.y)
    columns = (column >= 0) & (column < window.size.x)
    return int((rows & columns).sum()), int((rows & ~columns).sum()), int((~rows).sum())
