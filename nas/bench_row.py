"""One line of a benchmark: a network and its latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nas.bench_subjects import Subject
from predictors.timing import Measurement


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network with its latency, or with the reason why it has none.

    `done` is True where it was timed before, in the same folder on the same device.
    """

    subject: Subject
    latency: Measurement | None = None
    failed: str = ""
    done: bool = False

    @property
    def gflops(self) -> float | None:
        """Achieved speed in 10^9 operations a second: 2 * MACs / latency.

        A multiply-accumulate is two operations, a multiplication and an addition; what the paper
        (arXiv 2303.03667) calls FLOPs are MACs. None where either is unknown.
        """
        macs = self.subject.model.macs
        return 2e-6 * macs / self.latency.median_ms if macs and self.latency else None

    def as_json(self) -> dict[str, Any]:
        """Return it flat, for JSON and CSV; None where something is unknown."""
        model, latency = self.subject.model, self.latency
        return {
            "name": model.name, "kind": self.subject.kind,
            "shape": "x".join(map(str, model.shape)), "resolution": _resolution(model.shape),
            "macs": model.macs, "params": model.params,
            **{name: getattr(latency, field, None) for name, field in _OF_LATENCY.items()},
            "gflops": self.gflops, "failed": self.failed,
        }  # fmt: skip


_OF_LATENCY = {
    "latency_ms": "median_ms", "low_ms": "low_ms", "high_ms": "high_ms", "unstable": "unstable",
    "source": "source", "device": "device", "runtime": "runtime", "precision": "precision",
    "threads": "threads",
}  # fmt: skip


def _resolution(shape: Sequence[int]) -> int | None:
    return shape[-1] if len(shape) == 3 else None
