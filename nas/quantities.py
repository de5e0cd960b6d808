"""Quantities as people write them."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predictors.cost import Limits

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_BYTES = {
    **{"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30},
}
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?"  # \d would take any script's digits


def parse_duration_ms(text: str) -> float:
    """Return a duration such as 10ms, 0.5s or 800us in milliseconds."""
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([a-z\u00b5]*)\s*", text)
    if match is None:
        raise ValueError(f"must be a duration such as 10ms, 0.5s or 800us, but got {text!r}.")
    number, unit = float(match[1]), match[2].replace("\u00b5", "u")  # the micro sign
    if unit not in _UNITS_MS:
        raise ValueError(f"must end in us, ms, s, min or h, as in 10ms, but got {text!r}.")
    ms = number * _UNITS_MS[unit]
    if ms <= 0:
        raise ValueError(f"must be positive, but got {text!r}.")
    if math.isinf(ms):
        raise ValueError(f"must be finite, but got {text!r}. Give a smaller number.")
    return ms


def parse_count(text: str) -> int:
    """Return a number such as 4M, 300 K or 1500000."""
    return _parse_scaled(text, _COUNTS, "a number such as 4M, 600K or 1500000")


def parse_bytes(text: str) -> int:
    """Return a size such as 8MB (8,000,000 bytes), 8MiB or 500KB in bytes."""
    return _parse_scaled(text, _BYTES, "a size such as 8MB, 500KB or 8MiB")


def _parse_scaled(text: str, units: Mapping[str, int], form: str) -> int:
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"must be {form}, but got {text!r}.")
    number = float(match[1]) * units[match[2].lower()]
    if not 1 <= number < 1e18:
        raise ValueError(f"must be positive and no larger than any network's, but got {text!r}.")
    return round(number)


def format_ms(ms: float) -> str:
    """Return a latency with three significant figures, without its unit."""
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def format_count(number: float) -> str:
    """Return a count in K, M or G with three significant figures."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= 0.9995 * limit:  # which is rounded up
            scaled = number / limit
            return f"{scaled:.3g} {suffix}" if scaled < 999.5 else f"{scaled:.0f} {suffix}"
    return f"{number:.0f}"


def format_exact(count: int) -> str:
    """Return a count in K, M or G with all of its figures: 4.004 M is not 4 M."""
    for limit, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "K")):
        if count >= limit:
            return f"{count / limit:.15g} {suffix}"
    return str(count)


def format_bytes(count: int) -> str:
    """Return a size such as 8 MB; 1 MB is 10^6 bytes."""
    return f"{format_count(count)}B" if count >= 1000 else f"{count} B"


def limit_words(limits: "Limits") -> str:
    """Return limits as "4 M parameters, 300 M MACs, a file of 8 MB, 32 MB of memory", exactly."""
    words = [cost_words(name, limit, exact=True) for name, limit in limits.given.items()]
    return ", ".join(words) or "none"


def cost_words(name: str, number: int, *, exact: bool = False) -> str:
    """Return what is limited by that name, with its unit."""
    count = format_exact(number) if exact else format_count(number)
    size = f"{count}B" if number >= 1000 else f"{count} B"
    match name:
        case "params":
            return f"{count} parameters"
        case "macs":
            return f"{count} MACs"
        case "file_bytes":
            return f"a file of {size}"
        case "memory_bytes":
            return f"{size} of memory"
    raise ValueError(f"`name` must be that of a limit, but got {name!r}.")
