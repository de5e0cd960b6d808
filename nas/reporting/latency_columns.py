"""A latency as columns: of several devices the largest share of a budget, then that on each."""

from collections.abc import Sequence

from nas.gauge import HEADING, source_words, unit_of
from nas.quantities import format_ms
from predictors.devices.device import threads_of
from predictors.timing import Measurement

Value = str | float

FORM = ("runtime", "precision")


def columns(devices: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of a file; `devices` are those of the study."""
    if len(devices) == 1:
        return ("latency_ms", "low_ms", "high_ms", "source", *FORM)
    whats = ("ms", "low_ms", "high_ms", "source", *FORM)
    each = (f"{name}_{what}" for name in devices for what in whats)
    return ("share_percent", "share_low", "share_high", "source", *each)


def values(latency: Measurement) -> dict[str, Value]:
    """Return what is in these columns."""
    cells: list[Value] = []
    for one in (latency, *(part for _, part in latency.parts)):
        cells += [one.median_ms, one.low_ms, one.high_ms, one.source]
        cells += [] if one.parts else [one.runtime, one.precision]
    return dict(zip(columns([name for name, _ in latency.on_each]), cells, strict=True))


def headings(latencies: Sequence[Measurement]) -> list[str]:
    """Return what heads the columns that people read, of latencies on the same devices."""
    if not latencies:
        return [HEADING["ms"], "95 % interval", "source"]
    heads = [HEADING[unit_of(latencies[0])], *(f"{name} ms" for name, _ in latencies[0].parts)]
    rows = [[latency, *(part for _, part in latency.parts)] for latency in latencies]
    found: list[str] = []
    for head, column in zip(heads, zip(*rows, strict=True), strict=True):
        measured = all(one.source == "measured" for one in column)
        found += [head, "95 % interval" if measured else "interval", "source"]
        found += ["in"] if _have_form(column[0], tell=forms_differ(latencies)) else []
    return found


def cells(latency: Measurement, *, tell_form: bool = False) -> list[str]:
    """Return what people read in these columns; runtime and precision where they are to be told."""
    found: list[str] = []
    for one in (latency, *(part for _, part in latency.parts)):
        found += [format_ms(one.median_ms), f"{format_ms(one.low_ms)} - {format_ms(one.high_ms)}",
                  source_words(one)]  # fmt: skip
        found += [f"{one.runtime} {one.precision}"] if _have_form(one, tell=tell_form) else []
    return found


def forms_differ(latencies: Sequence[Measurement]) -> bool:
    """Whether runtimes and precisions are to be told: several, or another precision than fp32."""
    by_device: dict[str, set[tuple[str, str]]] = {}
    for latency in latencies:
        for name, m in latency.on_each:
            by_device.setdefault(name, set()).add((m.runtime, m.precision))
    return any(len(forms) > 1 or any(precision != "fp32" for _, precision in forms)
               for forms in by_device.values())  # fmt: skip


def sentence(latency: Measurement) -> str:
    """Say it, and how it was come by, on each device."""
    return "; ".join(
        f"{m.median_ms:.4g} ms [{m.low_ms:.4g}, {m.high_ms:.4g}] {m.source} on {name}, "
        f"{m.runtime}{_precision_words(m)}, {threads_of(m.threads)}"
        for name, m in latency.on_each
    )


def _have_form(latency: Measurement, *, tell: bool) -> bool:
    """The largest share of several devices is of none of them."""
    return tell and not latency.parts


def _precision_words(latency: Measurement) -> str:
    return "" if latency.precision == "fp32" else f" in {latency.precision}"
