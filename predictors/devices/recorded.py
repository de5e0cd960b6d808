"""A device that is not here: what was written down of the one that networks were timed on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from predictors.backends.model import Model, as_model
from predictors.devices.cache import Store
from predictors.devices.device import PROCESSES, threads_of
from predictors.latency import Prediction
from predictors.measurement import Latency, Source
from search_spaces.fasternet import FasterNetConfig

Find = Callable[[str], Latency | None]


@dataclass(frozen=True, kw_only=True)
class RecordedDevice:
    """Stands for a device whose measurements are at hand; it can take no more.

    `recall` finds a measurement by the network's JSON; without it only the name is known.
    """

    name: str
    description: str
    runtime: str
    threads: int
    precision: str = "fp32"
    source: Source = "measured"
    remarks: Sequence[str] = ()
    recall: Find | None = None

    def measure(self, network: FasterNetConfig | Model) -> Latency:
        """Return what was measured of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = PROCESSES
    ) -> Iterator[Latency]:
        """Yield what was measured of each network, by however many processes.

        Raises:
            RuntimeError: if a network was not measured, or the measurements cannot be read.
        """
        if self.recall is None:
            raise RuntimeError(f"The device must be at hand to measure, but only the record of "
                               f"{self.name} is. Open it by name.")  # fmt: skip
        for model in map(as_model, networks):
            found = self.recall(model.identity)
            if found is None:
                raise RuntimeError(
                    f"The network must be among those measured on {self.name}, but "
                    f"{model.identity} is not. Search with the options and seed of the run that "
                    "was exported, or measure it on the device and import that."
                )
            yield replace(found, device=self.name)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """This device was timed; fit a `LatencyPredictor` to its measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")


def open_recorded(
    name: str, *, runtime: str | None = None, threads: int | None = None,
    precision: str | None = None, store: Store | None = None,
) -> RecordedDevice | None:  # fmt: skip
    """Open a device whose measurements are stored; what is not given is as in most of them.

    None where there are none of that name.

    Raises:
        ValueError: if there are none with that runtime, precision or number of threads.
        RuntimeError: if the store cannot be read.
    """
    store = store or Store()
    holdings = store.holdings(name)
    if not holdings:
        return None
    settings = [holding.setting for holding in holdings]
    fitting = [s for s in settings if runtime in (None, s.runtime)
               and threads in (None, s.threads) and precision in (None, s.precision)]  # fmt: skip
    if not fitting:
        stored = ", ".join(dict.fromkeys(f"{s.runtime} in {s.precision} on {threads_of(s.threads)}"
                                         for s in settings))  # fmt: skip
        asked = (f"{runtime or 'any'} in {precision or 'any'} on "
                 f"{threads_of(threads) if threads else 'any'}")  # fmt: skip
        raise ValueError(
            f"`runtime`, `precision` and `threads` must be those that {name} was measured with "
            f"({stored}), but got {asked}. Measure it so and import that."
        )
    setting = fitting[0]
    return RecordedDevice(
        name=name, description=f"{setting.description}: measured earlier", runtime=setting.runtime,
        threads=setting.threads, precision=setting.precision,
        recall=partial(store.find_network, name, setting=setting),
    )  # fmt: skip
