"""One machine in several backends: each network counts in the fastest of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, final

from predictors.backends.table import find_runtime, runtimes as lines_of
from predictors.devices.connection import DeviceLostError, OverwhelmedError
from predictors.devices.device import Measures, Network
from predictors.measurement import Backend, Latency, TimingProtocol
from search_spaces.io import one_line

Refusal = ValueError | RuntimeError  # why a backend cannot do a network


@final
class MultiBackendDevice:
    """Times each network in every backend; the fastest counts.

    Each runtime's milliseconds are those of its own references, which were first timed when the
    machine may have been slower: what was timed just now is compared by what it took just now.

    A latency says which backend that was, and has the others as `slower`. A backend that cannot do
    a network is left out for that one; one that can do none of those that it was given first is
    left out for good, and a remark says so. `devices` are the machine in each of the backends.
    """

    source: Literal["measured"] = "measured"

    def __init__(
        self, name: str, devices: Sequence[Measures], protocol: TimingProtocol | None = None
    ) -> None:
        self.name = name
        self.devices = tuple(devices)
        self.backends = tuple(backend for device in devices for backend in device.backends)
        self.description = "; ".join(device.description for device in devices)
        self.protocol = protocol or TimingProtocol()
        self._begun: set[int] = set()  # the places of those that could do a network
        self._refused: dict[int, str] = {}

    @property
    def remarks(self) -> Sequence[str]:
        """Those of the backends, and which of them were left out."""
        left_out = [
            f"Without {self.backends[i].runtime} in {self.backends[i].precision}: {why}"
            for i, why in self._refused.items()
        ]
        return [*left_out, *(remark for device in self.devices for remark in device.remarks)]

    def measure(self, network: Network) -> Latency:
        """Return the latency of one network in its fastest backend."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the latency of each network in its fastest backend, in order."""
        for start in range(0, len(networks), self.protocol.group):
            group = networks[start : start + self.protocol.group]
            places = [i for i in range(len(self.devices)) if i not in self._refused]
            columns = [self._timed(i, group, repeats) for i in places]
            for row in zip(*columns, strict=True):
                latencies = [one for one in row if isinstance(one, Latency)]
                if not latencies:
                    raise next(one for one in row if not isinstance(one, Latency))
                fastest, *slower = _by_speed(latencies)
                yield replace(fastest, slower=tuple(slower))

    def _timed(
        self, place: int, group: Sequence[Network], repeats: int | None
    ) -> Sequence[Latency | Refusal]:
        """Time a group, or, if it cannot be timed as a whole, one by one."""
        device = self.devices[place]
        try:
            found: list[Latency | Refusal] = [*device.measure_each(group, repeats=repeats)]
        except (ValueError, RuntimeError) as error:
            _raise_if_lost(error)
            found = [error] if len(group) == 1 else [_alone(device, n, repeats) for n in group]
        timed_any = any(isinstance(one, Latency) for one in found)
        if timed_any:
            self._begun.add(place)
        elif place not in self._begun and len(self._refused) + 1 < len(self.devices):
            self._refused[place] = one_line(str(found[0]))
        return found


def backend_pairs(
    runtimes: Sequence[str], precisions: Sequence[str], threads: int
) -> tuple[Backend, ...]:
    """Return the backends that there are of these runtimes and precisions."""
    runtimes, precisions = tuple(dict.fromkeys(runtimes)), tuple(dict.fromkeys(precisions))
    found = [pair for runtime in runtimes for pair in _pairs(runtime, precisions, threads)]
    alone = set(precisions) - {backend.precision for backend in found}
    if alone:
        there = {line.precision for line in lines_of() if line.name in runtimes}
        raise ValueError(
            f"`precision` must be one that a runtime has, but none of {', '.join(runtimes)} has "
            f"{min(alone)!r}. Leave it out: there are {', '.join(sorted(there))}."
        )
    return tuple(found)


def _pairs(runtime: str, precisions: Sequence[str], threads: int) -> list[Backend]:
    """Those of a runtime."""
    found, errors = [], []
    for precision in precisions:
        try:
            find_runtime(runtime, precision)
            found.append(Backend(runtime, precision, threads))
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _alone(device: Measures, network: Network, repeats: int | None) -> Latency | Refusal:
    try:
        return next(device.measure_each([network], repeats=repeats))
    except (ValueError, RuntimeError) as error:
        _raise_if_lost(error)
        return error


def _raise_if_lost(error: Exception) -> None:
    """Raise it again if the machine is gone; a backend that is too much for it may be left out."""
    if isinstance(error, DeviceLostError) and not isinstance(error, OverwhelmedError):
        raise error


def _by_speed(latencies: Sequence[Latency]) -> list[Latency]:
    """The fastest first: by the clock, unless the cache has one of another time."""
    cached = any(latency.context.cached for latency in latencies)
    return sorted(latencies, key=lambda one: one.median_ms if cached else one.now_ms())
