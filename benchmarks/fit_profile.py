"""Checks a device profile's forms against the tables beside it, and fits its rates anew.

    python benchmarks/fit_profile.py predictors/profiles/raspberry_pi_5 [NETWORK ...]

The forms are compared with the exact instruction counts of single operators (operators.csv). The
rates of four threads are fitted to published latencies (networks.csv), and what is said of their
error is that of families of networks that were left out. profile.json is written in place.

With names of timm's networks, or `all` of those in networks.csv, the instructions predicted of
these are compared with those that were executed, and nothing is written.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictors.aarch64.node import Node, Shape, Value
from predictors.aarch64.operators import Forms, count_node
from search_spaces.io import atomic_write

Table = Mapping[str, NDArray[Any]]  # the columns of a CSV file

_PUBLISHED = 4  # threads of the latencies in networks.csv
_COVERED = 0.9  # of the published latencies, by the stated interval


class FormError(NamedTuple):
    """How far a form is from the counts of its operators; the errors are relative."""

    operators: int
    mean: float
    largest: float
    largest_fma: float


def form_errors(forms: Forms, operators: Path) -> dict[str, FormError]:
    """Return how far each form is from the counts that operators.csv holds."""
    errors = defaultdict(list)
    for node, *counted in read_operators(operators):
        work = count_node(node)
        pairs = zip(work.instructions(forms), counted, strict=True)
        errors[work.kind].append(
            [abs(found / count - 1) if count else 0.0 for found, count in pairs]
        )
    return {
        kind: FormError(len(rows), *(float(x) for x in _summary(np.array(rows))))
        for kind, rows in sorted(errors.items())
    }


def _summary(errors: NDArray[np.float64]) -> tuple[float, float, float]:
    return errors[:, 0].mean(), errors[:, 0].max(), errors[:, 1].max()


def read_operators(path: Path) -> Iterator[tuple[Node, int, int]]:
    """Yield the operators of operators.csv with their instructions and vector multiply-adds."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield _node(row), int(row["instructions"]), int(row["fma_instructions"])


def _node(row: Mapping[str, str]) -> Node:
    settings = dict(pair.split("=") for pair in row["settings"].split(";") if pair)
    fused: dict[str, Any] = {k: settings.pop(k) for k in ("activation", "summand") if k in settings}
    fused |= {k: int(settings.pop(k)) for k in ("outputs", "opset") if k in settings}
    return Node(
        op=row["op"],
        inputs=tuple(_shape(text) for text in row["inputs"].split()),
        output=_shape(row["output"]),
        constant=bool(settings.pop("constant", "")),
        attributes={name: _value(name, text) for name, text in settings.items()},
        **fused,
    )


def _shape(text: str) -> Shape:
    return () if text == "scalar" else tuple(int(side) for side in text.split("x"))


def _value(name: str, text: str) -> Value:
    if name == "mode":
        return text
    numbers = tuple(int(number) for number in text.split())
    return numbers if name in _LISTS else numbers[0]


_LISTS = ("axes", "kernel_shape", "pads", "perm", "steps", "strides")


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


def fit_rates(networks: Table) -> dict[str, float]:
    """Fit what an FMA and another instruction cost to the latencies published, in milliseconds.

    The errors are of the networks of each family in turn, by rates fitted to the other families.
    The interval holds nine in ten of them.
    """
    known = ~np.isnan(networks["published_ms"])
    total, fma, ms = (
        networks[c][known] for c in ("instructions", "fma_instructions", "published_ms")
    )
    counts = np.stack([fma, total - fma])
    weights = relative_fit(counts, ms)
    families = np.array([str(name).split("_")[0] for name in networks["name"][known]])
    errors = np.zeros(len(ms))
    for family in np.unique(families):
        left_out = families == family
        rates = relative_fit(counts[:, ~left_out], ms[~left_out])
        errors[left_out] = np.abs(rates @ counts[:, left_out] / ms[left_out] - 1)
    return {
        "ms_per_fma": float(f"{weights[0]:.4g}"),
        "ms_per_other": float(f"{weights[1]:.4g}"),
        "interval": round(float(np.sort(errors)[ceil(_COVERED * (len(ms) + 1)) - 1]), 3),
        "mean_error": round(float(errors.mean()), 4),
        "max_error": round(float(errors.max()), 4),
    }


def relative_fit(
    columns: Sequence[NDArray[np.float64]] | NDArray[np.float64], target: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the non-negative weights of the columns that bring their sum nearest to the target.

    Nearest by the sum of squared relative errors, so that small targets count as much as large.
    """
    from scipy.optimize import nnls

    matrix = np.stack(list(columns), axis=1)
    weights: NDArray[np.float64] = nnls(matrix / target[:, None], np.ones(len(target)))[0]
    return weights


def refit(folder: Path) -> None:
    """Write anew what profile.json owes to networks.csv: the rates of four threads.

    The rates of one thread stay as they are: they come from a benchmark that is not bundled.
    """
    path = folder / "profile.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["rates"][str(_PUBLISHED)] |= fit_rates(read_table(folder / "networks.csv"))
    atomic_write(path, json.dumps(fields, indent=2) + "\n")


def check_forms(folder: Path) -> None:
    """Print how far each form is from the operators that it was fitted to."""
    forms = json.loads((folder / "profile.json").read_text(encoding="utf-8"))["forms"]
    print(f"{'kind':<26}operators  mean %  largest %  FMA largest %")
    for kind, (operators, *errors) in form_errors(forms, folder / "operators.csv").items():
        mean, largest, fma = (100 * error for error in errors)
        print(f"{kind:<26}{operators:9}{mean:8.2f}{largest:11.1f}{fma:15.2f}")


def check_networks(folder: Path, names: Sequence[str]) -> None:
    """Print how far the instructions of timm's networks are from those that were executed."""
    from predictors.backends.model import timm_model
    from predictors.devices.profiled import ProfiledDevice
    from predictors.measurement import Backend
    from search_spaces.timm_models import import_timm

    table, device = read_table(folder / "networks.csv"), ProfiledDevice("arm", Backend())
    rows = [i for i, n in enumerate(table["name"]) if n in names or "all" in names]
    errors = []
    for row in rows:
        name = str(table["name"][row])
        if not import_timm().is_model(name):
            continue
        parts = device.parts(timm_model(f"{name}@{table['resolution'][row]:.0f}"))
        counted = table["instructions"][row], table["fma_instructions"][row]
        found = [sum(p.instructions for p in parts), sum(p.fma_instructions for p in parts)]
        both = [100 * (x / y - 1) for x, y in zip(found, counted, strict=True)]
        errors.append(abs(both[0]))
        print(f"{name:<28}{both[0]:+8.3f} % of instructions{both[1]:+8.3f} % of FMA", flush=True)
    print(f"{len(errors)} networks: mean {np.mean(errors):.2f} %, largest {max(errors):.2f} %")


if __name__ == "__main__":
    if sys.argv[2:]:
        check_networks(Path(sys.argv[1]), sys.argv[2:])
    else:
        refit(Path(sys.argv[1]))
        check_forms(Path(sys.argv[1]))
