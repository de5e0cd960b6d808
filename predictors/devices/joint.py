"""Several devices as one: a network is measured on each, and held against a budget on each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from predictors.backends.model import Model
from predictors.devices.device import Device
from predictors.devices.spec import one_of
from predictors.latency import Prediction
from predictors.measurement import Backend, Latency
from predictors.shares import WHOLE, SharePredictor
from search_spaces.fasternet import FasterNetConfig

GROUP = 16  # networks timed on one device before the next one's turn


@dataclass(frozen=True, kw_only=True)
class JointDevice:
    """Devices with a budget each; a latency is the largest share of one, in per cent.

    The measurement's `parts` are the latencies on each, in milliseconds.
    """

    places: tuple[Device, ...]
    budgets_ms: tuple[float, ...]

    @property
    def name(self) -> str:
        """The names of all."""
        return " + ".join(place.name for place in self.places)

    @property
    def description(self) -> str:
        """One line: what each of them is."""
        return "; ".join(self.descriptions)

    @property
    def descriptions(self) -> list[str]:
        """What each of them is, one line each."""
        return [f"{place.name}: {place.description}" for place in self.places]

    @property
    def remarks(self) -> list[str]:
        """What went otherwise than expected on each."""
        return [remark for place in self.places for remark in place.remarks]

    @property
    def source(self) -> Any:
        """Measured if one of them has a clock; a latency is only if each of its parts is."""
        return "measured" if any(p.source == "measured" for p in self.places) else "predicted"

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Those of all, each once."""
        return tuple(dict.fromkeys(b for place in self.places for b in place.backends))

    def measure(self, network: FasterNetConfig | Model) -> Latency:
        """Return the largest share of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the largest share of each network, in order; one device times at a time.

        Raises:
            RuntimeError: if a device cannot be reached, or cannot run a network.
        """
        for start in range(0, len(networks), GROUP):
            group = networks[start : start + GROUP]
            # Whole lists: two names may stand for one machine, and exporting for one slows another.
            each = [list(place.measure_each(group, repeats=repeats)) for place in self.places]
            yield from (self.joined(parts) for parts in zip(*each, strict=True))

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return the largest shares without timing anything.

        Raises:
            RuntimeError: if one of the devices has a clock.
        """
        each: Any = self.places
        return SharePredictor(each=each, budgets_ms=self.budgets_ms).predict(configs)

    def joined(self, parts: Sequence[Latency]) -> Latency:
        """Return the measurements of one network, one on each device, as one."""
        # not 100 * ms / budget, which may be above 100 where the two are equal
        shares = [(WHOLE * (m.median_ms / ms), WHOLE * (m.low_ms / ms), WHOLE * (m.high_ms / ms))
                  for m, ms in zip(parts, self.budgets_ms, strict=True)]  # fmt: skip
        middle, low, high = map(max, zip(*shares, strict=True))
        measured = all(part.source == "measured" for part in parts)
        return Latency(
            median_ms=middle,
            low_ms=low,
            high_ms=high,
            device=self.name,
            backend=one_of(self.backends, separator=" + "),
            source="measured" if measured else "predicted",
            unstable=any(part.unstable for part in parts),
            parts=tuple((place.name, part) for place, part in zip(self.places, parts, strict=True)),
        )


def places_of(device: Device) -> tuple[Device, ...]:
    """Return the devices that a device stands for: itself, unless it is several."""
    return device.places if isinstance(device, JointDevice) else (device,)
