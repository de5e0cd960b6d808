"""A device that is not at hand: latencies predicted from the bundled profile of a board."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from predictors.backends.model import as_model
from predictors.cost import layers_in_groups
from predictors.devices.device import HOW_TO_ATTACH, Device, Network, threads_of
from predictors.devices.local import is_arm_machine, open_cpu
from predictors.latency import Prediction
from predictors.measurement import Backend, Context, Latency, TimingProtocol
from predictors.profile import load_profile
from search_spaces.fasternet import FasterNetConfig


class ProfiledDevice:
    """The Raspberry Pi 5 of the bundled profile; every latency is marked predicted.

    Raises:
        ValueError: if the profile has no such runtime, precision or number of threads.
    """

    source: Literal["predicted"] = "predicted"
    remarks: Sequence[str] = ()

    def __init__(self, name: str, backend: Backend) -> None:
        options = (
            ("runtime", "onnxruntime", backend.runtime),
            ("precision", "fp32", backend.precision),
        )
        for option, only, given in options:
            if given != only:
                raise ValueError(
                    f"`{option}` must be {only} for the profile of the Raspberry Pi 5, but got "
                    f"{given!r}. Others need the board itself."
                )
        self.name = name
        self.backends = (backend,)
        self._threads = backend.threads
        self._profile = load_profile("raspberry_pi_5")
        self._rates = self._profile.rates_for(backend.threads)

    @property
    def description(self) -> str:
        """One line on the board and the error."""
        profile = self._profile
        return (
            f"{profile.board}, {profile.runtime} {profile.runtime_version}, "
            f"{threads_of(self._threads)}: predicted from a profile, "
            f"\u00b1{self._rates.interval:.0%}"
        )

    def measure(self, network: Network) -> Latency:
        """Return the predicted latency; the interval is the profile's stated error.

        Raises:
            ValueError: if the network's layers are not known, or it takes several inputs at once.
        """
        model = as_model(network)
        if not model.layers:
            raise ValueError(
                f"`network` must be a FasterNet for a profile to predict it, but got {model.name}. "
                f"{HOW_TO_ATTACH}"
            )
        if model.batch_size > 1:
            raise ValueError(
                f"`batch` must be 1 for a profile, but {model.name} takes {model.batch_size}. "
                f"{HOW_TO_ATTACH}"
            )
        mean, low, high = self._profile.latency_ms(model.layers, threads=self._threads)
        return Latency(
            median_ms=float(mean),
            low_ms=float(low),
            high_ms=float(high),
            source="predicted",
            device=self.name,
            backend=self.backends[0],
            context=Context(profile=self._profile.name, profile_source=self._profile.source),
        )

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the predicted latency of each network; a profile needs no repeated processes."""
        return (self.measure(network) for network in networks)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return the predicted latencies of many networks at once."""
        mean, low, high = (np.zeros(len(configs)) for _ in range(3))
        for indices, layers in layers_in_groups(configs):
            mean[indices], low[indices], high[indices] = self._profile.latency_ms(
                layers, threads=self._threads
            )
        return Prediction(mean, low, high)


def open_arm(name: str, backend: Backend, protocol: TimingProtocol) -> Device:
    """Open this machine where it is an ARM one, else the profile."""
    return open_cpu(name, backend, protocol) if is_arm_machine() else ProfiledDevice(name, backend)
