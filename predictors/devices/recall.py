"""What a timed device asks the store for, and gives it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from predictors.devices.entry import Entry, Key, Setting
from predictors.devices.references import reference_latency
from predictors.devices.store import Store
from predictors.models import Model
from predictors.rounds import blend
from predictors.timing import Measurement


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Measurements of one device in one setting, and the latencies that its references keep.

    References are kept from the first time on, so that every run speaks of the same milliseconds;
    what was imported is brought to that scale.
    """

    device: str
    description: str
    setting: Setting
    references: Sequence[str]  # the smaller first

    def find(self, artifact: str, *, processes: int) -> Measurement | None:
        """Return the latency of a file that was timed before, by at least so many processes."""
        found = Store().find(Key(artifact=artifact, setting=self.setting), processes=processes)
        if found is None:
            return None
        factor = self._to_own_scale(found)
        if factor is None:
            return None
        return replace(
            found, device=self.device, median_ms=found.median_ms * factor,
            low_ms=found.low_ms * factor, high_ms=found.high_ms * factor,
            context={**found.context, "recalled": True},
        )  # fmt: skip

    def _to_own_scale(self, found: Measurement) -> float | None:
        """Our milliseconds for each of those that it is in; None where it does not tell."""
        references: Any = found.context.get("references")
        near: Any = found.context.get("nearness")
        try:
            theirs = {name: float(references[name]["kept_ms"]) for name in self.references}
            if min(theirs.values()) <= 0 or not 0 <= near <= 1:
                return None
        except (KeyError, TypeError, ValueError):
            return None
        ours = {name: self.kept_ms(name, [[ms]]) for name, ms in theirs.items()}
        small, large = (ours[name] / theirs[name] for name in self.references)
        return blend(small, large, near)

    def keep(self, model: Model, measurement: Measurement) -> None:
        """Give it to the store."""
        key = Key(artifact=measurement.context["artifact"], setting=self.setting)
        Store().keep(Entry(key=key, device=self.device, network=model.identity,
                           description=self.description, measurement=measurement))  # fmt: skip

    def kept_ms(self, reference: str, processes: Sequence[Sequence[float]]) -> float:
        """Return a reference's latency as kept, or, the first time, that of these blocks."""
        setting = self.setting
        where = {"address": setting.address} if setting.address else {}
        precision = {} if setting.precision == "fp32" else {"precision": setting.precision}
        return reference_latency(
            {"machine": setting.machine, "runtime": setting.runtime, "version": setting.version,
             "threads": setting.threads, "reference": reference, **precision, **where}, processes,
        )  # fmt: skip
