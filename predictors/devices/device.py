"""What devices can do: time networks by a clock, or predict latencies from a model of a board.

`source` tells the two kinds of `Device` apart.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from predictors.backends.model import Model
from predictors.latency import Prediction
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FasterNetConfig

HOW_TO_ATTACH = (
    "These latencies are predicted from a profile, not measured. To measure, attach a board with "
    "`fasternas devices add NAME --ssh USER@HOST`: then `--device arm` is that board."
)
Network = FasterNetConfig | Model


class _Answers(Protocol):
    """What both kinds have in common."""

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
    def backends(self) -> tuple[Backend, ...]:
        """The backends in which it runs networks; of several the fastest counts."""

    def measure(self, network: Network) -> Latency:
        """Return the latency of one network."""

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the latency of each network, in order, timed beside one another in groups.

        `repeats` fresh processes time each group; more make the interval narrower.
        """


class Measures(_Answers, Protocol):
    """A device with a clock."""

    @property
    def source(self) -> Literal["measured"]:
        """Its latencies are measured."""


class Predicts(_Answers, Protocol):
    """A model of a device: its latencies are predicted, also those that `measure` returns."""

    @property
    def source(self) -> Literal["predicted"]:
        """Its latencies are predicted."""

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return the latencies of many networks at once."""


Device = Measures | Predicts


def threads_of(threads: int) -> str:
    """Say how many threads."""
    return "one thread" if threads == 1 else f"{threads} threads"
