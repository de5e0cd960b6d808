"""Networks that are quick to export, to time and to train, and a space of such."""

from collections.abc import Iterator
from itertools import islice
from random import Random

from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import Space, each, oneof

TINY = FasterNetConfig(
    widths=(8, 16), depths=(1, 1), partial_ratios=(0.5, 0.25), expansions=(2.0, 2.0),
    resolution=32, head_width=32, classes=10,
)  # fmt: skip
LARGER = FasterNetConfig(
    widths=(64, 128), depths=(4, 4), partial_ratios=(1.0, 1.0), expansions=(4.0, 4.0),
    resolution=32, head_width=32, classes=10, stem_stride=2,
)  # fmt: skip
# Odd widths, three stages and GELU, where TINY has the usual.
IRREGULAR = FasterNetConfig(
    widths=(12, 20, 32), depths=(1, 2, 1), partial_ratios=(0.5, 1.0, 0.25),
    expansions=(2.0, 1.5, 3.0), resolution=48, stem_stride=2, head_width=24, activation="gelu",
    classes=7,
)  # fmt: skip
# Every ingredient that FasterNet as published has not, in three stages of the four that there are.
FAMILY = FasterNetConfig(
    widths=(16, 24, 32, 48), depths=(1, 1, 2, 0), partial_ratios=(0.5, 0.5, 0.25, 0.5),
    expansions=(2.0, 1.5, 2.0, 2.0), kernels=(2, 4, 7, 3), groups=(2, 1, 1, 1),
    untouched=("gate", "identity", "gate", "gate"),
    mixers=("pconv", "pconv", "attention", "pconv"), expands=("plain", "fused", "plain", "plain"),
    mlps=("star", "plain", "plain", "plain"), activations=("hardswish", "relu", "gelu", "relu"),
    activation="hardswish", stem="convs", head_width=0, resolution=48, classes=7,
)  # fmt: skip
# Of two stages, for four classes of images of 16 px.
TINY_SPACE = Space(
    FasterNetConfig,
    widths=each(oneof(8, 16), oneof(16, 32)), depths=each(oneof(1, 2), oneof(1, 2)),
    partial_ratios=(0.5, 0.5), expansions=each(oneof(1.0, 2.0), oneof(1.0, 2.0)),
    resolution=16, stem_stride=2, head_width=32, classes=4, activation="relu",
)  # fmt: skip


def sandwich(space: Space[FasterNetConfig], rng: Random, count: int) -> list[FasterNetConfig]:
    """The networks of a step (arXiv 1903.05134): the largest, the smallest, some more."""
    some = sorted(islice(_valid(space, Random(0)), 300), key=_macs)
    return [some[-1], some[0], *islice(_valid(space, rng), count - 2)]


def _valid(space: Space[FasterNetConfig], rng: Random) -> Iterator[FasterNetConfig]:
    while True:
        try:
            yield space.sample(rng)
        except ValueError:  # genes that spell no network
            continue


def _macs(config: FasterNetConfig) -> float:
    return sum(layer.macs for layer in config.layers())
