"""A board that is not at hand, as a profile: instruction counts, times rates that were measured.

    load_profile("raspberry_pi_5").latency_ms(config.layers(), threads=1)  # mean, low, high

What comes out is a prediction, not a measurement. `refit` makes a profile's numbers anew.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from predictors.instructions import (
    Counted,
    Forms,
    Numbers,
    Table,
    count_layer,
    fit,
    relative_fit,
)
from search_spaces.layers import Layer

PROFILES = Path(__file__).parent / "profiles"
_COUNTED: tuple[Counted, Counted] = ("instructions", "fma_instructions")
_PUBLISHED = 4  # threads of the latencies in networks.csv


@final
@dataclass(frozen=True, kw_only=True)
class Rates:
    """What instructions cost at one number of threads, and how far that is wrong.

    The errors are relative and leave-one-out, over the networks that the rates were fitted to.
    """

    ms_per_fma: float  # a vector multiply-add
    ms_per_other: float  # any other instruction
    interval: float  # half-width of the stated interval, as a part of the mean
    mean_error: float
    max_error: float
    source: str


@final
@dataclass(frozen=True, kw_only=True)
class Profile:
    """One board with one runtime, batch 1."""

    name: str
    board: str
    runtime: str
    runtime_version: str
    source: str
    per_run: float  # instructions of a run before the first operator, with the head's Flatten
    forms: Mapping[Counted, Forms]
    rates: Mapping[int, Rates]  # by the number of threads

    def instructions(self, layers: Sequence[Layer]) -> tuple[Numbers, Numbers]:
        """Return the instructions of one run, and how many of them are vector FMAs."""
        layer_counts = [count_layer(x, *(self.forms[c] for c in _COUNTED)) for x in layers]
        total, fma = (sum(column, 0.0) for column in zip(*layer_counts, strict=True))
        return total + self.per_run, fma

    def latency_ms(
        self, layers: Sequence[Layer], *, threads: int = 1
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return the predicted latency in milliseconds and its stated interval: mean, low, high.

        Raises:
            ValueError: if the profile has no rates for that many threads.
        """
        rates = self.rates_for(threads)
        total, fma = self.instructions(layers)
        mean = rates.ms_per_fma * fma + rates.ms_per_other * (total - fma)
        return mean, mean * (1 - rates.interval), mean * (1 + rates.interval)

    def rates_for(self, threads: int) -> Rates:
        """Return the rates for that many threads.

        Raises:
            ValueError: if the profile has none.
        """
        if threads not in self.rates:
            known = " or ".join(str(n) for n in sorted(self.rates))
            raise ValueError(f"`threads` must be {known}, but got {threads!r}. The profile "
                             "holds no other rates; measure on the board itself.")  # fmt: skip
        return self.rates[threads]


def profile_names() -> tuple[str, ...]:
    """Return the names of the bundled profiles."""
    return tuple(sorted(path.parent.name for path in PROFILES.glob("*/profile.json")))


@cache
def load_profile(name: str) -> Profile:
    """Return a bundled profile.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in profile_names():
        raise ValueError(f"`name` must be a bundled profile, but got {name!r}. "
                         f"Choose from {', '.join(profile_names())}.")  # fmt: skip
    return read_profile(PROFILES / name)


def read_profile(folder: Path) -> Profile:
    """Return the profile that a folder's profile.json holds."""
    fields = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    rates = {int(threads): Rates(**rates) for threads, rates in fields.pop("rates").items()}
    return Profile(rates=rates, **fields)


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
    fields["forms"] = {counted: fit(operators, counted) for counted in _COUNTED}
    fields["rates"][str(_PUBLISHED)] |= fit_rates(read_table(folder / "networks.csv"))
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def fit_rates(networks: Table) -> dict[str, float]:
    """Fit what an FMA and another instruction cost to the latencies published, in milliseconds."""
    known = ~np.isnan(networks["published_ms"])
    total, fma, ms = (networks[c][known] for c in (*_COUNTED, "published_ms"))
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
