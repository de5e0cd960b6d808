"""Quantities as people write them."""

import math
import re

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}
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


def format_ms(ms: float) -> str:
    """Return a latency with three significant figures, without its unit."""
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def format_score(score: float) -> str:
    """Return a training-free score with three significant figures."""
    return f"{score:.3g}" if abs(score) < 999.5 else f"{score:.0f}"


def format_count(number: float) -> str:
    """Return a count in K, M or G with three significant figures."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= 0.9995 * limit:  # which is rounded up
            scaled = number / limit
            return f"{scaled:.3g} {suffix}" if scaled < 999.5 else f"{scaled:.0f} {suffix}"
    return f"{number:.0f}"
