"""What devices can do: time networks by a clock, or predict latencies from a model of a board.

`source` tells the two kinds of `Device` apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from predictors.backends.model import Buildable, Model
from predictors.latency import Prediction
from predictors.measurement import Backend, Latency
from search_spaces.fasternet import FasterNetConfig

HOW_TO_ATTACH = (
    "These latencies are predicted from a profile, not measured. To measure, attach a board with "
    "`fasternas devices add NAME --ssh USER@HOST`, and name that: --device NAME."
)
Network = FasterNetConfig | Model | Buildable


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


ONNXRUNTIME = Backend("onnxruntime")


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """A device by its name, and the backends to time each network in: the fastest counts.

    `cores` are those to pin to; without, they are as registered or chosen by the topology.
    The name may be several boards of one kind with commas between them, which share the networks.
    """

    name: str
    backends: tuple[Backend, ...] = (ONNXRUNTIME,)
    budget_ms: float | None = None
    cores: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.backends:
            raise ValueError(f"`backends` must be one at least, but {self.name} has none.")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise ValueError(f"`budget` must be positive, but got {self.budget_ms:g} ms.")
        for backend in self.backends:
            if backend.threads < 1:
                raise ValueError(
                    f"`threads` must be a positive whole number, but got {backend.threads}."
                )

    @property
    def words(self) -> str:
        """All of it in a line: cpu within 10.0 ms, onnxruntime fp32, one thread."""
        budget = "" if self.budget_ms is None else f" within {self.budget_ms} ms"
        backends = ", ".join(
            f"{b.runtime} {b.precision}, {threads_of(b.threads)}" for b in self.backends
        )
        cores = f", cores {','.join(map(str, self.cores))}" if self.cores else ""
        return f"{self.name}{budget}, {backends}{cores}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DeviceSpec":
        """Return the spec that `dataclasses.asdict` spelled."""
        backends = tuple(Backend(**backend) for backend in values["backends"])
        cores = tuple(values.get("cores", ()))
        return cls(
            name=values["name"], backends=backends, budget_ms=values["budget_ms"], cores=cores
        )


def check_cores(cores: Sequence[int], threads: int, number_of_cores: int, *, machine: str) -> None:
    """Refuse threads and cores that a machine with so many cores does not have."""
    beyond = [core for core in cores if not 0 <= core < number_of_cores]
    if threads > number_of_cores or beyond:
        raise ValueError(
            f"`threads` and `cores` must be among the {number_of_cores} cores of {machine}, but "
            f"got {max([threads, *beyond])}."
        )
    if cores and threads > len(cores):
        raise ValueError(
            f"`cores` must be one for each of {threads} threads, but got "
            f"{','.join(map(str, cores))}. Name more, or fewer threads."
        )


def check_specs(devices: Sequence[DeviceSpec]) -> None:
    """Refuse no devices, one that is there twice, and a choice of backends on several devices."""
    if not devices:
        raise ValueError("`device` must name one at least, but names none.")
    for i, device in enumerate(devices):
        if len(devices) > 1 and len(device.backends) > 1:
            backends = ", ".join(f"{b.runtime} at {b.precision}" for b in device.backends)
            raise ValueError(
                "`runtime` and `precision` must be one for each of several devices, but "
                f"{device.name} has {backends}. Choose one."
            )
        if device.name in [other.name for other in devices[:i]]:
            raise ValueError(
                f"`device` must name each device once, but names {device.name} twice. Leave one "
                "out."
            )


def budgets_of(devices: Sequence[DeviceSpec]) -> dict[str, float]:
    """Return the budget of each device that has one, in milliseconds."""
    return {d.name: d.budget_ms for d in devices if d.budget_ms is not None}
