"""What of a network's shape goes with its accuracy: scores that its config alone gives.

They were found on the 96 networks of PConv-Bench (`benchmarks/`) that are spread over their space;
`benchmarks/ranking.py` judges them, on the other networks too.
"""

import math
from collections.abc import Callable, Mapping
from statistics import fmean

from search_spaces.fasternet import FasterNetConfig


def fine_units(config: FasterNetConfig) -> float:
    """The logarithm of the hidden units at each place of the finest map, in the first stage."""
    return math.log(config.depths[0] * config.hidden_widths[0])


def late_mixing(config: FasterNetConfig) -> float:
    """The logarithm of PConv's weights in a stage, its mean over the last two stages."""
    stages = list(zip(config.depths, config.partial_widths, strict=True))
    return fmean(math.log(depth * 9 * width**2) for depth, width in stages[-2:])


def last_width(config: FasterNetConfig) -> float:
    """The logarithm of the channels of the last stage."""
    return math.log(config.widths[-1])


STRUCTURE: Mapping[str, Callable[[FasterNetConfig], float]] = {
    "fine_units": fine_units, "late_mixing": late_mixing, "last_width": last_width,
}  # fmt: skip
