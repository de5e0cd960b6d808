"""Fits a device profile anew to the tables beside it.

    python benchmarks/fit_profile.py predictors/profiles/raspberry_pi_5

The forms are fitted to exact instruction counts of single operators (operators.csv), the rates of
four threads to published latencies (networks.csv). profile.json is written in place.
"""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.devices.profiled import COUNTED, Counted, features
from search_spaces.io import atomic_write
from search_spaces.layers import Layer

Table = Mapping[str, NDArray[Any]]  # the columns of a CSV file

_PUBLISHED = 4  # threads of the latencies in networks.csv
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


def read_table(path: Path) -> Table:
    """Return the columns of a CSV file, as floats where the cells are numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = {name: np.array(column) for name, *column in zip(header, *rows, strict=True)}
    return {name: _numbers(column) for name, column in columns.items()}


def _numbers(column: NDArray[np.str_]) -> NDArray[Any]:
    """The column as numbers if it holds such, an empty cell as nan; else as it is."""
    try:
        return np.where(column == "", "nan", column).astype(float)
    except ValueError:
        return column


def refit(folder: Path) -> None:
    """Write anew what profile.json owes to the tables beside it: forms and rates of four threads.

    The rates of one thread stay as they are: they come from a benchmark that is not bundled.
    """
    path = folder / "profile.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    operators = read_table(folder / "operators.csv")
    fields["forms"] = {counted: fit(operators, counted) for counted in COUNTED}
    fields["rates"][str(_PUBLISHED)] |= fit_rates(read_table(folder / "networks.csv"))
    atomic_write(path, json.dumps(fields, indent=2) + "\n")


def fit_rates(networks: Table) -> dict[str, float]:
    """Fit what an FMA and another instruction cost to the latencies published, in milliseconds."""
    known = ~np.isnan(networks["published_ms"])
    total, fma, ms = (networks[c][known] for c in (*COUNTED, "published_ms"))
    counts = np.stack([fma, total - fma])
    weights = relative_fit(counts, ms)
    others = ~np.eye(len(ms), dtype=bool)
    left_out = [relative_fit(counts[:, keep], ms[keep]) @ counts[:, ~keep] for keep in others]
    errors = np.abs(np.concatenate(left_out) / ms - 1)
    return {
        "ms_per_fma": float(f"{weights[0]:.4g}"),
        "ms_per_other": float(f"{weights[1]:.4g}"),
        "mean_error": round(float(errors.mean()), 4),
        "max_error": round(float(errors.max()), 4),
    }


if __name__ == "__main__":
    refit(Path(sys.argv[1]))
