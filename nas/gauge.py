"""What a study's latencies are in, in words: milliseconds or, on several devices, per cent of a
budget."""

from collections.abc import Sequence
from typing import Literal

from nas.quantities import format_ms
from predictors.measurement import Latency

Unit = Literal["ms", "%"]
AXIS: dict[Unit, str] = {"ms": "latency in ms", "%": "largest share of a budget in %"}
PREDICTED_AXIS: dict[Unit, str] = {"ms": "predicted latency in ms",
                                   "%": "largest share of a budget in %, predicted"}  # fmt: skip
HEADING: dict[Unit, str] = {"ms": "latency ms", "%": "largest share %"}


def quantity(latency: Latency) -> str:
    """Return a latency with its unit."""
    return f"{format_ms(latency.median_ms)} {unit_of(latency)}"


def source_words(latency: Latency) -> str:
    """Say where it is from, and whether a clock did not come to rest; of a share its parts say."""
    return latency.source + (", unstable" if latency.unstable and not latency.parts else "")


def form_words(latency: Latency) -> str:
    """Say the runtime and the precision where they are not the usual ones."""
    form = f"{latency.backend.runtime} {latency.backend.precision}"
    usual = form == "onnxruntime fp32" or latency.parts or "," in form
    return "" if usual else f" in {form}"


def predicted_words(latencies: Sequence[Latency]) -> str:
    """Say how many are predicted and, of several devices, on which; nothing if none is."""
    if all(latency.source == "measured" for latency in latencies):
        return ""
    on: dict[str, list[Latency]] = {}
    for latency in latencies:
        for name, part in latency.on_each:
            on.setdefault(name if latency.parts else "", []).append(part)
    aloud_first = sorted(on.items(), key=lambda item: all(m.source == "measured" for m in item[1]))
    return "; ".join(_predicted_on(name, found) for name, found in aloud_first)


def _predicted_on(device: str, latencies: Sequence[Latency]) -> str:
    predicted = sum(latency.source == "predicted" for latency in latencies)
    count = (
        "Latencies" if predicted == len(latencies) else f"{predicted} of {len(latencies)} latencies"
    )
    where = f" on {device}" if device else ""
    if not predicted:
        return f"those{where} are measured"
    return f"{count}{where} PREDICTED, not measured"


def share_words(latency: Latency) -> str:
    """Return a latency with its unit, and on several devices what it is a share of."""
    return quantity(latency) + (" of a budget" if latency.parts else "")


def unit_of(latency: Latency) -> Unit:
    """Return what its numbers are in."""
    return "%" if latency.parts else "ms"


def within(limit: float, unit: Unit) -> str:
    """Say that it is kept."""
    return "within every budget" if unit == "%" else f"within {format_ms(limit)} ms"


def over_words(limit: float | None, unit: Unit) -> str:
    """Say that it is not kept; of devices it may be one that is not."""
    if limit is None:
        return "infeasible"
    return "over a budget" if unit == "%" else "over the budget"


def limit_words(limit: float, unit: Unit) -> str:
    """Name it."""
    return "every budget" if unit == "%" else f"budget {format_ms(limit)} ms"
