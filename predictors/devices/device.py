"""What every device can do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from predictors.backends.model import Model
from predictors.latency import Prediction
from predictors.measurement import Latency, Source
from search_spaces.fasternet import FasterNetConfig

PROCESSES = 7  # that time a network, unless told: one lies in memory otherwise than the next
HOW_TO_ATTACH = (
    "These latencies are predicted from a profile, not measured. To measure, attach a board with "
    "`fasternas devices add NAME --ssh USER@HOST`: then `--device arm` is that board."
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How a device is to time; with `reuse`, what was measured before is not timed again."""

    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    reuse: bool = False


class Device(Protocol):
    """A place where latency is known: a clock or, for a profile, a model of one."""

    @property
    def name(self) -> str:
        """The name by which it was opened."""

    @property
    def description(self) -> str:
        """One line: the hardware, the runtime and how far its latencies can be trusted."""

    @property
    def remarks(self) -> Sequence[str]:
        """What went otherwise than expected while it timed, one sentence each."""

    @property
    def source(self) -> Source:
        """Whether its latencies are measured or predicted."""

    @property
    def runtime(self) -> str:
        """The runtime that executes the networks."""

    @property
    def precision(self) -> str:
        """The numbers that it computes with: fp32, bf16 or int8."""

    @property
    def threads(self) -> int:
        """The number of threads of one inference."""

    def measure(self, network: FasterNetConfig | Model) -> Latency:
        """Return the latency of one network."""

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = PROCESSES
    ) -> Iterator[Latency]:
        """Yield the latency of each network, in order, timed beside one another in groups.

        `processes` fresh processes time each group; more make the interval narrower.
        """

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return latencies without timing anything.

        Raises:
            RuntimeError: if the device knows none: its source is "measured".
        """


def threads_of(threads: int) -> str:
    """Say how many threads."""
    return "one thread" if threads == 1 else f"{threads} threads"
