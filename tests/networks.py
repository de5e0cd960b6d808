"""Networks that are quick to export, to time and to train."""

from search_spaces.fasternet import FasterNetConfig

TINY = FasterNetConfig(
    widths=(8, 16),
    depths=(1, 1),
    partial_ratios=(0.5, 0.25),
    expansions=(2.0, 2.0),
    resolution=32,
    head_width=32,
    classes=10,
)
LARGER = FasterNetConfig(
    widths=(64, 128),
    depths=(4, 4),
    partial_ratios=(1.0, 1.0),
    expansions=(4.0, 4.0),
    resolution=32,
    head_width=32,
    classes=10,
    stem_stride=2,
)
# Odd widths, three stages and GELU, where TINY has the usual.
IRREGULAR = FasterNetConfig(
    widths=(12, 20, 32),
    depths=(1, 2, 1),
    partial_ratios=(0.5, 1.0, 0.25),
    expansions=(2.0, 1.5, 3.0),
    resolution=48,
    stem_stride=2,
    head_width=24,
    activation="gelu",
    classes=7,
)
# Every ingredient that FasterNet as published has not, in three stages of the four that there are.
FAMILY = FasterNetConfig(
    widths=(16, 24, 32, 48),
    depths=(1, 1, 2, 0),
    partial_ratios=(0.5, 0.5, 0.25, 0.5),
    expansions=(2.0, 1.5, 2.0, 2.0),
    kernels=(2, 4, 7, 3),
    groups=(2, 1, 1, 1),
    untouched=("gate", "identity", "gate", "gate"),
    mixers=("pconv", "pconv", "attention", "pconv"),
    expands=("plain", "fused", "plain", "plain"),
    mlps=("star", "plain", "plain", "plain"),
    activations=("hardswish", "relu", "gelu", "relu"),
    activation="hardswish",
    stem="convs",
    head_width=0,
    resolution=48,
    classes=7,
)
