"""What a study's latencies are in, in words: milliseconds or, on several devices, per cent of a
budget."""

from typing import Literal

from nas.quantities import format_ms
from predictors.measurement import Latency

Unit = Literal["ms", "%"]


def source_words(latency: Latency) -> str:
    """Say where it is from, and whether a clock did not come to rest; of a share its parts say."""
    return latency.source + (", unstable" if latency.unstable and not latency.parts else "")


def share_words(latency: Latency) -> str:
    """Return a latency with its unit, and on several devices what it is a share of."""
    unit = "% of a budget" if latency.parts else "ms"
    return f"{format_ms(latency.median_ms)} {unit}"
