"""What a timed device asks the store for, and gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from predictors.backends.model import Model
from predictors.devices.entry import Entry, Key, Setting
from predictors.devices.references import reference_latency
from predictors.devices.store import Store
from predictors.measurement import Latency, blend


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Measurements of one device in one setting, and the latencies that its references keep.

    References are kept from the first time on, so that every run speaks of the same milliseconds;
    what was imported, or timed by a board of the same pool, is brought to that scale.
    """

    device: str
    description: str
    setting: Setting
    references: Sequence[str]  # the smaller first
    others: Sequence[str] = ()  # addresses of boards of the same kind

    def find(self, artifact: str, *, processes: int) -> Latency | None:
        """Return the latency of a file that was timed before, by at least so many processes."""
        addresses = dict.fromkeys((self.setting.address, *self.others))
        settings = (replace(self.setting, address=address) for address in addresses)
        keys = (Key(artifact=artifact, setting=setting) for setting in settings)
        found = next((m for key in keys if (m := Store().find(key, processes=processes))), None)
        if found is None:
            return None
        references: dict[str, Any] = found.context.get("references") or {}
        told = "nearness" in found.context and set(self.references) <= references.keys()
        if not told:
            return None
        kept = {name: self.kept_ms(name, [[references[name]["kept_ms"]]])
                for name in self.references}  # fmt: skip
        found = on_scale(found, kept)
        return replace(found, device=self.device, context={**found.context, "recalled": True})

    def keep(self, model: Model, measurement: Latency) -> None:
        """Give it to the store."""
        key = Key(artifact=measurement.context["artifact"], setting=self.setting)
        Store().keep(Entry(key=key, device=self.device, network=model.identity,
                           description=self.description, measurement=measurement))  # fmt: skip

    def kept_ms(self, reference: str, processes: Sequence[Sequence[float]]) -> float:
        """Return a reference's latency as kept, or, the first time, that of these blocks."""
        setting = self.setting
        where = {"address": setting.address} if setting.address else {}
        precision = {} if setting.precision == "fp32" else {"precision": setting.precision}
        where |= {"cores": setting.cores} if setting.cores else {}
        return reference_latency(
            {"machine": setting.machine, "runtime": setting.runtime, "version": setting.version,
             "threads": setting.threads, "reference": reference, **precision, **where}, processes,
        )  # fmt: skip


def on_scale(found: Latency, kept_ms: Mapping[str, float]) -> Latency:
    """Return a latency in the milliseconds in which the references take those; smaller first."""
    references = found.context["references"]
    small, large = (ms / references[name]["kept_ms"] for name, ms in kept_ms.items())
    factor = blend(small, large, found.context["nearness"])
    now = {name: {**references[name], "kept_ms": ms} for name, ms in kept_ms.items()}
    return replace(
        found, median_ms=found.median_ms * factor, low_ms=found.low_ms * factor,
        high_ms=found.high_ms * factor, context={**found.context, "references": now},
    )  # fmt: skip


def now_ms(found: Latency) -> float:
    """Return what a latency was by the clock, at the machine's speed when it was timed."""
    references = found.context.get("references")
    if not references:
        return found.median_ms
    small, large = (told["now_ms"] / told["kept_ms"] for told in references.values())
    return found.median_ms * blend(small, large, found.context["nearness"])
