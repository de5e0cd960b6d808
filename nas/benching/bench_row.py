"""One line of a benchmark: a network and its latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nas.benching.bench_subjects import Subject
from predictors.measurement import Latency


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network with its latency, or with the reason why it has none.

    `done` is True where it was timed before, in the same folder on the same device.
    """

    subject: Subject
    latency: Latency | None = None
    failed: str = ""
    done: bool = False

    @property
    def gflops(self) -> float | None:
        """Achieved speed in 10^9 operations a second; None where it is unknown."""
        return self.subject.model.gflops(self.latency.median_ms) if self.latency else None

    def as_json(self) -> dict[str, Any]:
        """Return it flat, for JSON and CSV; None where something is unknown."""
        model, latency = self.subject.model, self.latency
        return {
            "name": model.name, "kind": self.subject.kind,
            "shape": "x".join(map(str, model.shape)), "resolution": _resolution(model.shape),
            "batch": model.batch_size, "macs": model.macs, "params": model.params,
            **{name: getattr(latency, field, None) for name, field in _OF_LATENCY.items()},
            "images_per_s": model.images_per_s(latency.median_ms) if latency else None,
            "gflops": self.gflops, "failed": self.failed,
        }  # fmt: skip


_OF_LATENCY = {
    "latency_ms": "median_ms", "low_ms": "low_ms", "high_ms": "high_ms", "unstable": "unstable",
    "source": "source", "device": "device", "runtime": "runtime", "precision": "precision",
    "threads": "threads",
}  # fmt: skip


def _resolution(shape: Sequence[int]) -> int | None:
    return shape[-1] if len(shape) == 3 else None
