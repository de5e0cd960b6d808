"""A device that is not here: what a run wrote down of the one that it was timed on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from predictors.latency import Prediction
from predictors.models import Model
from predictors.timing import Measurement, Source
from search_spaces.fasternet import FasterNetConfig


@dataclass(frozen=True, kw_only=True)
class RecordedDevice:
    """Stands for a device whose measurements are at hand; it can take no more."""

    name: str
    description: str
    runtime: str
    threads: int
    source: Source = "measured"

    def measure(self, network: FasterNetConfig | Model) -> Measurement:
        """This device is not here."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = 3
    ) -> Iterator[Measurement]:
        """This device is not here."""
        raise RuntimeError(f"The device must be at hand to measure, but only the record of "
                           f"{self.name} is. Open it by name.")  # fmt: skip

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """This device was timed; fit a `LatencyPredictor` to its measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")
