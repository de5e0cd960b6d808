"""A device that is not at hand: latencies predicted from the bundled profile of a board."""

from collections.abc import Iterator, Sequence

import numpy as np

from predictors.backends.model import Model, as_model
from predictors.cost import layers_in_groups
from predictors.devices.device import HOW_TO_ATTACH, PROCESSES, threads_of
from predictors.latency import Prediction
from predictors.measurement import Backend, Latency, Source
from predictors.profile import load_profile
from search_spaces.fasternet import FasterNetConfig


class ProfiledDevice:
    """The Raspberry Pi 5 of the bundled profile; every latency is marked predicted.

    Raises:
        ValueError: if the profile has no such runtime, precision or number of threads.
    """

    source: Source = "predicted"
    remarks: Sequence[str] = ()

    def __init__(self, name: str, *, runtime: str, threads: int, precision: str = "fp32") -> None:
        for option, only, given in (("runtime", "onnxruntime", runtime),
                                    ("precision", "fp32", precision)):  # fmt: skip
            if given != only:
                raise ValueError(
                    f"`{option}` must be {only} for the profile of the Raspberry Pi 5, but got "
                    f"{given!r}. Others need the board itself."
                )
        self.name = name
        self.runtime = runtime
        self.precision = precision
        self.threads = threads
        self._profile = load_profile("raspberry_pi_5")
        self._rates = self._profile.rates_for(threads)

    @property
    def description(self) -> str:
        """One line on the board and the error."""
        return (f"{self._profile.board}, {self._profile.runtime} "
                f"{self._profile.runtime_version}, {threads_of(self.threads)}: predicted from a "
                f"profile, \u00b1{self._rates.interval:.0%}")  # fmt: skip

    def measure(self, network: FasterNetConfig | Model) -> Latency:
        """Return the predicted latency; the interval is the profile's stated error.

        Raises:
            ValueError: if the network's layers are not known, or it takes several inputs at once.
        """
        model = as_model(network)
        if not model.layers:
            raise ValueError(f"`network` must be a FasterNet for a profile to predict it, but got "
                             f"{model.name}. {HOW_TO_ATTACH}")  # fmt: skip
        if model.batch_size > 1:
            raise ValueError(f"`batch` must be 1 for a profile, but {model.name} takes "
                             f"{model.batch_size}. {HOW_TO_ATTACH}")  # fmt: skip
        mean, low, high = self._profile.latency_ms(model.layers, threads=self.threads)
        return Latency(
            median_ms=float(mean), low_ms=float(low), high_ms=float(high), source="predicted",
            device=self.name, backend=Backend(self.runtime, threads=self.threads),
            context={"profile": self._profile.name, "source": self._profile.source},
        )  # fmt: skip

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = PROCESSES
    ) -> Iterator[Latency]:
        """Yield the predicted latency of each network; a profile needs no repeated processes."""
        return (self.measure(network) for network in networks)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return the predicted latencies of many networks at once."""
        mean, low, high = (np.zeros(len(configs)) for _ in range(3))
        for indices, layers in layers_in_groups(configs):
            mean[indices], low[indices], high[indices] = self._profile.latency_ms(
                layers, threads=self.threads
            )
        return Prediction(mean, low, high)
