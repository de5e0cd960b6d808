"""What came of a trained network at the end, as its folder keeps it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from predictors.backends.agreement import Agreement
from predictors.measurement import Latency
from predictors.training.evaluate import EvalResult
from search_spaces.io import atomic_write

RESULT = "final.json"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A trained network: its files, how accurate and how fast it is.

    `weights` is the SHA-256 of its weights, `deployed` the file that is timed and of which
    `judged` speaks, `agreement` that file's with torch on validation images. `validation` is the
    accuracy, in percent, by which the epoch was chosen. `latency` is None until it is timed, on
    the device that `described` describes; `runtime` and `precision` are those of the file, known
    before it is timed. On several devices `budgets_ms` are their budgets, and
    `budget_ms` is 100, as latencies are shares in per cent.
    """

    name: str
    weights: str
    epoch: int
    judged: EvalResult
    validation: float
    files: tuple[str, ...]  # in its folder
    deployed: str
    agreement: Agreement
    macs: int
    params: int
    budget_ms: float | None = None
    latency: Latency | None = None
    described: str = ""
    runtime: str = ""
    precision: str = ""
    budgets_ms: tuple[float, ...] = ()

    @property
    def kept(self) -> bool | None:
        """Whether the upper end of the latency's interval is within the budget; None: unknown."""
        if self.latency is None or self.budget_ms is None:
            return None
        return self.latency.meets(self.budget_ms)

    @property
    def on_each(self) -> list[tuple[str, Latency, float | None]]:
        """The name of each device that it was timed on, the latency there, and the budget."""
        if self.latency is None:
            return []
        budgets = self.budgets_ms if self.latency.parts else (self.budget_ms,)
        pairs = zip(self.latency.on_each, budgets, strict=True)
        return [(name, part, budget_ms) for (name, part), budget_ms in pairs]


def keep_ending(folder: Path, ending: Ending) -> None:
    """Write it into the network's folder.

    Raises:
        OSError: if it cannot be written.
    """
    latency = ending.latency and ending.latency.as_json()
    values = {**asdict(replace(ending, latency=None)), "latency": latency}
    atomic_write(folder / RESULT, json.dumps(values, indent=2) + "\n")


def read_ending(folder: Path) -> Ending | None:
    """Return what was written; None where there is nothing, or nothing that can be read."""
    try:
        return _ending(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # then the end is done again


def _ending(values: Mapping[str, Any]) -> Ending:
    latency = values["latency"]
    if latency is not None:
        latency = Latency.from_json(latency)
    return Ending(**{
        **values, "files": tuple(values["files"]), "judged": EvalResult(**values["judged"]),
        "agreement": Agreement(**values["agreement"]), "latency": latency,
        "budgets_ms": tuple(values.get("budgets_ms", ())),
    })  # fmt: skip
