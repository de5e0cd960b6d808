"""The closed forms agree with the counts that they were fitted to, on numbers and on arrays."""

from dataclasses import fields
from random import Random
from typing import Any

import numpy as np
import pytest
from fit_profile import fit, read_table

from predictors.devices.profiled import (
    PROFILES,
    Counted,
    block_sizes,
    count_layer,
    features,
    load_profile,
)
from search_spaces.fasternet import SPACES
from search_spaces.layers import Layer

OPERATORS = read_table(PROFILES / "raspberry_pi_5" / "operators.csv")
FORMS = load_profile("raspberry_pi_5").forms


@pytest.mark.parametrize("counted", ["instructions", "fma_instructions"])
def test_a_fit_to_the_tables_reproduces_the_shipped_coefficients(counted: Counted) -> None:
    again = fit(OPERATORS, counted)
    assert again.keys() == FORMS[counted].keys()
    for form, coefficients in again.items():
        assert coefficients == pytest.approx(FORMS[counted][form], rel=1e-4), form


@pytest.mark.parametrize(
    ("op", "kernel", "mean_error"),
    [
        ("conv", 1, 0.011),
        ("conv", 2, 0.006),
        ("conv", 3, 0.016),
        ("conv", 4, 0.0002),
        ("split_concat", 1, 0.003),
        ("gelu", 1, 0.001),
        ("add", 1, 0.004),
        ("pool", 1, 0.006),
        ("linear", 1, 0.05),
    ],
)
def test_the_forms_predict_the_counted_operators(op: str, kernel: int, mean_error: float) -> None:
    chosen = (OPERATORS["op"] == op) & (OPERATORS["kernel"] == kernel)
    chosen &= OPERATORS["activation"] == "none"
    layer = _rows_as_layer(op, chosen)
    (predicted,) = count_layer(layer, FORMS["instructions"])
    errors = np.abs(predicted / OPERATORS["instructions"][chosen] - 1)
    assert errors.mean() < mean_error


def test_multiply_adds_of_1x1_convolutions_are_a_quarter_of_the_padded_macs() -> None:
    chosen = (OPERATORS["op"] == "conv") & (OPERATORS["kernel"] == 1)
    (predicted,) = count_layer(_rows_as_layer("conv", chosen), FORMS["fma_instructions"])
    np.testing.assert_allclose(predicted, OPERATORS["fma_instructions"][chosen], rtol=2e-3)


def test_block_sizes_equal_the_loop_of_the_runtime() -> None:
    sides = [*range(1, 70), 127, 128, 129, 255, 256, 257, 1000, 3136, 12544]
    pairs = np.array([(k, n) for k in sides for n in sides], float)
    block_k, block_n = block_sizes(pairs[:, 0], pairs[:, 1])
    loop = np.array([_block_sizes_by_loop(k, n) for k, n in pairs])
    np.testing.assert_array_equal(np.stack([block_k, block_n], axis=1), loop)


def test_positions_are_padded_to_eights_and_channels_to_fours() -> None:
    conv = Layer(name="x", op="conv", c_in=16, c_out=10, height=7, width=7)
    found = features(conv)
    assert found["inner"] == 8 * 16 * 56
    assert found["rest"] == 1 * 16 * 56
    assert found["odd_tile"] == 3


@pytest.mark.parametrize("space", ["fasternet", "fasternet-32"])
def test_arrays_give_what_the_networks_give_one_by_one(space: str) -> None:
    rng = Random(0)
    configs = [SPACES[space].sample(rng) for _ in range(100)]
    profile = load_profile("raspberry_pi_5")
    one_by_one = np.array([profile.instructions(config.layers()) for config in configs])
    columns = {f.name: np.array([getattr(c, f.name) for c in configs]) for f in fields(configs[0])}
    total, fma = profile.instructions(type(configs[0]).bulk_layers(columns))
    np.testing.assert_allclose(np.stack([total, fma], axis=1), one_by_one, rtol=1e-12)


def test_each_kernel_of_an_array_takes_its_own_form() -> None:
    kernels = [1, 2, 3, 4, 8]
    (together,) = count_layer(_stem(np.array(kernels)), FORMS["instructions"])
    alone = [count_layer(_stem(kernel), FORMS["instructions"])[0] for kernel in kernels]
    np.testing.assert_allclose(np.array(together), np.array(alone), rtol=1e-12)


def test_kernels_that_were_not_counted_take_the_form_of_2x2() -> None:
    values = features(_stem(8))
    form = FORMS["instructions"]["conv2"]
    (found,) = count_layer(_stem(8), FORMS["instructions"])
    assert found == pytest.approx(sum(c * values[name] for name, c in form.items()))


def test_an_operator_that_stands_nowhere_takes_nothing() -> None:
    add = Layer(name="x", op="add", c_in=64, c_out=64, height=14, width=14, repeat=0)
    assert count_layer(add, FORMS["instructions"], FORMS["fma_instructions"]) == (0.0, 0.0)


def _stem(kernel: Any) -> Layer:
    return Layer(
        name="stem", op="conv", c_in=3, c_out=40, height=48, width=48, kernel=kernel, stride=kernel
    )


def _rows_as_layer(op: Any, chosen: Any) -> Layer:
    names = ("c_in", "c_out", "kernel", "stride", "height", "width")
    columns: dict[str, Any] = {name: OPERATORS[name][chosen] for name in names}
    return Layer(name="rows", op=op, **columns)


def _block_sizes_by_loop(k: float, n: float) -> tuple[float, float]:
    block_k = block_n = 128.0
    if n >= k:
        while block_k / 2 >= k:
            block_n, block_k = 2 * block_n, block_k / 2
    else:
        while block_n > 16 and block_n / 2 >= n:
            block_k, block_n = 2 * block_k, block_n / 2
    return block_k, block_n
