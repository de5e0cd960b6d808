"""PConv-Bench as it was recorded: networks that were both trained and timed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from nas.study import journal
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.space import Genes

Array = NDArray[np.float64]

SPACE = SPACES["fasternet-32"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The networks of PConv-Bench, latencies and, by seed, accuracies after each epoch."""

    genes: Sequence[Genes]
    latencies_ms: Array
    half_width: float  # of the latencies' 95 % intervals, the mean, as a share
    accuracies: Sequence[Mapping[int, Sequence[float]]]

    @property
    def configs(self) -> list[FasterNetConfig]:
        """The networks."""
        return [SPACE.decode(genes) for genes in self.genes]

    @property
    def truth(self) -> Array:
        """The accuracy after the last epoch, averaged over seeds."""
        return self.after(-1)

    def part(self, chosen: NDArray[np.bool_]) -> "Bench":
        """The networks for which that is true."""
        at = np.flatnonzero(chosen).tolist()
        return replace(
            self,
            genes=[self.genes[i] for i in at],
            latencies_ms=self.latencies_ms[at],
            accuracies=[self.accuracies[i] for i in at],
        )

    def after(self, epoch: int) -> Array:
        """The accuracy at an index of the epochs, averaged over seeds."""
        return np.array([fmean(run[epoch] for run in runs.values()) for runs in self.accuracies])


def read_bench(folder: Path) -> Bench:
    """Return the networks that were both trained and timed."""
    timed = {tuple(row["genes"]): row for row in journal.read(folder / "latencies.jsonl")}
    runs: dict[Genes, dict[int, list[float]]] = {}
    for row in journal.read(folder / "trainings.jsonl"):
        runs.setdefault(tuple(row["genes"]), {})[row["seed"]] = row["accuracies"]
    both = [genes for genes in runs if genes in timed]
    rows = [timed[genes] for genes in both]
    return Bench(
        genes=both,
        latencies_ms=np.array([row["median_ms"] for row in rows]),
        half_width=fmean((row["high_ms"] - row["low_ms"]) / 2 / row["median_ms"] for row in rows),
        accuracies=[runs[genes] for genes in both],
    )
