"""How many instructions a network takes on an aarch64 core in ONNX Runtime, from closed forms.

Unlike MACs, instructions see what a kernel pays for: channels in fours, positions in eights, the
copies of im2col. A form is a sum of features of a layer, each times a coefficient fitted to exact
counts of single operators. One formula serves one network and, on arrays, a million at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search_spaces.layers import Layer

Numbers = float | NDArray[np.float64]  # of one network, or of n of them with shape [n]
Features = Mapping[str, Any]  # name -> how much of it a layer has
Form = Mapping[str, float]  # name -> instructions that one of it takes; absent: none
Forms = Mapping[str, Form]  # conv1 to conv4, fused_relu, and the other operators by their name
Table = Mapping[str, NDArray[Any]]  # the columns of a CSV file
Counted = Literal["instructions", "fma_instructions"]

_CONVS = ("conv1", "conv2", "conv3", "conv4")
_GEMM = ("inner", "rest", "odd_tile", "out", "out_again", "blocks", "bias", "one")
_MAP = ("elements", "channels", "one")

# What each form may be made of. FMAs are in matrix products and in Gelu's polynomial only. The
# stem was counted on three channels only, where its tiles tell the same as its inner products.
CANDIDATES: Mapping[Counted, Mapping[str, tuple[str, ...]]] = {
    "instructions": {
        "conv1": (*_GEMM, "columns", "relu"),
        "conv2": (*_GEMM, "columns", "column_rows"),
        "conv3": (*_GEMM, "columns", "column_rows"),
        "conv4": ("tile", "columns", "bias", "one"),
        "linear": ("inner", "out", "one"),
        **dict.fromkeys(("split_concat", "gelu", "relu", "add", "pool"), _MAP),
    },
    "fma_instructions": {
        "conv1": ("inner", "out_again"),
        "conv2": ("inner", "out_again"),
        "conv3": ("inner", "rest", "out", "out_again"),
        "conv4": ("tile",),
        "linear": ("inner", "out", "one"),
        "gelu": ("elements",),
    },
}


def count_layer(layer: Layer, *counted: Forms) -> tuple[Numbers, ...]:
    """Return what all repeats of a layer take, by each of the given sets of forms.

    A relu takes what it adds to the convolution that it is fused into.
    """
    values = features(layer)
    return tuple(
        layer.repeat * sum((c * values[name] for name, c in _form(layer, forms).items()), 0.0)
        for forms in counted
    )


def _form(layer: Layer, forms: Forms) -> Mapping[str, Any]:
    """The form of a layer; where the kernel is an array, so is each coefficient.

    Kernels that were not counted, and 4x4 on other than three channels, take conv2's form: im2col
    without padding, then the blocked product.
    """
    if layer.op != "conv":
        return forms.get("fused_relu" if layer.op == "relu" else layer.op, {})
    stem = np.equal(layer.kernel, 4) & np.equal(layer.c_in, 3)
    chosen = np.select([np.equal(layer.kernel, 1), np.equal(layer.kernel, 3), stem], [0, 2, 3], 1)
    names = dict.fromkeys(name for form in _CONVS for name in forms[form])
    table = {n: np.array([forms[form].get(n, 0.0) for form in _CONVS])[chosen] for n in names}
    return {name: coefficients for name, coefficients in table.items() if coefficients.any()}


def features(layer: Layer) -> Features:
    """Return what the cost of one repeat of a layer is made of."""
    if layer.op == "conv":
        return _conv_features(layer)
    c_in = np.asarray(layer.c_in, float)
    if layer.op == "linear":
        return {"inner": c_in * layer.c_out, "out": layer.c_out, "one": 1.0}
    return {"elements": c_in * layer.height * layer.width, "channels": c_in, "one": 1.0}


def _conv_features(layer: Layer) -> Features:
    """A convolution as the product of M output channels x K inputs by N positions.

    Its kernels take 4 channels x 16 positions at a time; of the channels left over one pass takes
    two and one takes one. Odd tiles are those of an odd number of eights. K is cut into blocks,
    each of which but the first reads and adds to the output again.
    """
    m, n = np.asarray(layer.c_out, float), np.asarray(layer.out_positions, float)
    k = np.asarray(layer.c_in, float) * layer.kernel**2
    block_k, block_n = block_sizes(k, n)
    blocks_k = np.ceil(k / block_k)
    fours, rest = m // 4, m % 4 // 2 + m % 2
    eights = np.ceil(n / 8)
    return {
        "inner": 4 * fours * 8 * eights * k,
        "rest": rest * 8 * eights * k,
        "tile": (fours + rest) * np.ceil(n / 16) * blocks_k,
        "odd_tile": (fours + rest) * (eights % 2) * blocks_k,
        "out": m * n,
        "out_again": m * n * (blocks_k - 1),
        "columns": k * n,  # numbers that im2col copies; of a 1x1 convolution, those it packs
        "column_rows": k * (layer.height // layer.stride),
        "blocks": blocks_k * np.ceil(n / block_n),
        "bias": m,
        "one": 1.0,
    }


def block_sizes(k: Any, n: Any) -> tuple[Any, Any]:
    """Return the lengths in K and in N of the blocks that a product of K by N is cut into.

    MLAS, the runtime's kernels, starts from 128 x 128 and, while the shorter side fits into half
    of its length, halves that one and doubles the other; in N it stops at 16. As both stay powers
    of two, no loop is needed.
    """
    long = n >= k
    short = np.where(long, np.clip(_power_of_two(k), 1, 128), np.clip(_power_of_two(n), 16, 128))
    other = 128 * 128 / short
    return np.where(long, short, other), np.where(long, other, short)


def _power_of_two(x: Any) -> Any:
    """The smallest power of two that is not below the whole number x."""
    return 2.0 ** np.frexp(x - 1)[1]


def fit(operators: Table, counted: Counted) -> dict[str, dict[str, float]]:
    """Fit the forms to counts of single operators: least squares of the relative error, each >= 0.

    `operators` has the columns of operators.csv. Coefficients have six digits; zeros are left out.
    """
    kernel = np.char.mod("%d", operators["kernel"])
    names = np.where(operators["op"] == "conv", np.char.add("conv", kernel), operators["op"])
    forms = {
        form: _fit_form({column: v[names == form] for column, v in operators.items()}, counted, of)
        for form, of in CANDIDATES[counted].items()
    }
    if "relu" in forms["conv1"]:  # a layer of its own here, whichever convolution it is fused into
        forms["fused_relu"] = {"elements": forms["conv1"].pop("relu")}
    return forms


def _fit_form(rows: Table, counted: Counted, candidates: Sequence[str]) -> dict[str, float]:
    columns: Any = {c: rows[c] for c in ("c_in", "c_out", "kernel", "stride", "height", "width")}
    values = dict(features(Layer(name="operator", op=rows["op"][0], **columns)))
    values["relu"] = values.get("out", 0.0) * (rows["activation"] == "relu")
    found = relative_fit([values[name] for name in candidates], rows[counted])
    return {n: float(f"{c:.6g}") for n, c in zip(candidates, found, strict=True) if c > 0}


def relative_fit(columns: Iterable[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Return the non-negative weights of the columns that bring their sum nearest to the target.

    Nearest by the sum of squared relative errors, so that small targets count as much as large.
    """
    from scipy.optimize import nnls

    matrix = np.stack([np.broadcast_to(column, target.shape) for column in columns], axis=1)
    weights: NDArray[np.float64] = nnls(matrix / target[:, None], np.ones(len(target)))[0]
    return weights
