"""A device that is not here: what was written down of the one that networks were timed on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from predictors.backends.model import as_model
from predictors.devices.cache import Cache
from predictors.devices.device import Network, threads_of
from predictors.measurement import Backend, Latency

Find = Callable[[str], Latency | None]


@dataclass(frozen=True, kw_only=True)
class RecordedDevice:
    """Stands for a device whose latencies are at hand; it can take no more.

    `find` gives the latency of a network by its JSON; without it only the name is known.
    """

    name: str
    description: str
    backends: tuple[Backend, ...]
    source: Literal["measured"] = "measured"
    remarks: Sequence[str] = ()
    find: Find | None = None

    def measure(self, network: Network) -> Latency:
        """Return what was measured of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield what was measured of each network, by however many processes.

        Raises:
            RuntimeError: if a network was not measured, or the latencies cannot be read.
        """
        if self.find is None:
            raise RuntimeError(
                f"The device must be at hand to measure, but only the record of {self.name} is. "
                "Open it by name."
            )
        for model in map(as_model, networks):
            found = self.find(model.identity)
            if found is None:
                raise RuntimeError(
                    f"The network must be among those measured on {self.name}, but "
                    f"{model.identity} is not. Search with the options and seed of the run that "
                    "was exported, or measure it on the device and import that."
                )
            yield replace(found, device=self.name)


def open_recorded(
    name: str,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cache: Cache | None = None,
) -> RecordedDevice | None:
    """Open a device whose latencies are cached; what is not given is as in most of them.

    None where there are none of that name.

    Raises:
        ValueError: if there are none with that runtime, precision or number of threads.
        RuntimeError: if the cache cannot be read.
    """
    cache = cache or Cache()
    settings = [holding.setting for holding in cache.holdings(name)]
    if not settings:
        return None
    asked = (runtime, precision, threads)
    fitting = [s for s in settings if _fits(s.backend, asked)]
    if not fitting:
        kinds = ", ".join(dict.fromkeys(_spelled(s.backend) for s in settings))
        wanted = (
            f"{runtime or 'any'} in {precision or 'any'} on "
            f"{threads_of(threads) if threads else 'any'}"
        )
        raise ValueError(
            f"`runtime`, `precision` and `threads` must be those that {name} was measured with "
            f"({kinds}), but got {wanted}. Measure it so and import that."
        )
    setting = fitting[0]
    return RecordedDevice(
        name=name,
        description=f"{setting.description}: measured earlier",
        backends=(setting.backend,),
        find=partial(cache.find_network, name, setting=setting),
    )


def _fits(backend: Backend, asked: tuple[str | None, str | None, int | None]) -> bool:
    own = (backend.runtime, backend.precision, backend.threads)
    return all(one in (None, other) for one, other in zip(asked, own, strict=True))


def _spelled(backend: Backend) -> str:
    return f"{backend.runtime} in {backend.precision} on {threads_of(backend.threads)}"
