"""FasterNet's named sizes, its two spaces and the layers that everything is computed from."""

from dataclasses import fields, replace
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest

from predictors.cost import cost, costs
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.layers import BulkLayered, Layer, Layered

T0 = FASTERNET["t0"]

# Parameters of timm 1.0.31's fasternet_*; multiply-accumulates at 224 px as fvcore counts them, in
# evaluation and with batch norm folded. The first two, rounded, are table 1 of arXiv 2303.03667.
PUBLISHED = {
    "t0": (3_905_500, 338_041_280, 335_438_400),
    "t1": (7_595_368, 854_701_568, 850_536_960),
    "t2": (14_982_888, 1_910_619_392, 1_904_372_480),
    "s": (31_181_032, 4_560_126_976, 4_549_790_720),
    "m": (53_521_464, 8_741_525_888, 8_721_994_880),
    "l": (93_465_192, 15_520_500_224, 15_494_458_880),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_sizes_cost_what_is_published(name: str) -> None:
    found = cost(FASTERNET[name])
    assert (found.params, found.macs_with_batch_norm, found.macs) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_sizes_are_in_the_space(name: str) -> None:
    assert FASTERNET[name] in SPACES["fasternet"]


def test_there_are_six_named_sizes() -> None:
    assert list(FASTERNET) == list(PUBLISHED)


def test_the_space_is_large_and_reaches_down_to_small_networks() -> None:
    space = SPACES["fasternet"]
    assert space.size > 1e12
    smallest = space.decode((0,) * len(space.genes))
    assert cost(smallest).macs <= 6e6
    assert cost(replace(smallest, resolution=224)).macs <= 17e6
    assert {side for gene, side in _choices("fasternet") if gene == "resolution"} >= {160, 224}


def test_most_networks_for_small_images_have_2_to_60_million_macs() -> None:
    space, rng = SPACES["fasternet-32"], Random(0)
    macs = np.asarray(costs([space.sample(rng) for _ in range(4000)]).macs)
    assert np.mean((macs >= 2e6) & (macs <= 60e6)) >= 0.75
    assert {c for gene, c in _choices("fasternet-32") if gene == "stem_stride"} == {1, 2}


@pytest.mark.parametrize("name", SPACES)
def test_partial_convolutions_have_multiples_of_four_channels(name: str) -> None:
    odd = set()
    for stage in range(4):
        widths, ratios = (
            [c for gene, c in _choices(name) if gene == f"{field}[{stage}]"]
            for field in ("widths", "partial_ratios")
        )
        products = [(width, width * ratio) for width, ratio in product(widths, ratios)]
        odd |= {(width, c_p) for width, c_p in products if c_p % 4}
    assert odd == (
        {(40, 10.0)} if name in ("fasternet", "pconv") else set()
    )  # T0 as it was published


def _choices(space: str) -> list[tuple[str, Any]]:
    names, genes = SPACES[space].names, SPACES[space].genes
    return [(name, c) for name, gene in zip(names, genes, strict=True) for c in gene.choices]


def test_layers_follow_the_network() -> None:
    small = FasterNetConfig(
        widths=(8, 20),
        depths=(1, 2),
        partial_ratios=(0.5, 1.0),
        expansions=(2.0, 1.5),
        resolution=32,
        stem_stride=2,
        head_width=64,
        activation="gelu",
        classes=10,
    )
    first, second = "stages.0.block", "stages.1.block"
    shown = [(x.name, x.c_in, x.c_out, x.height, x.repeat) for x in small.layers()]
    assert shown == [
        ("stem", 3, 8, 32, 1),
        (f"{first}.split_concat", 8, 4, 16, 1),
        (f"{first}.pconv", 4, 4, 16, 1),
        (f"{first}.expand", 8, 16, 16, 1),
        (f"{first}.gelu", 16, 16, 16, 1),
        (f"{first}.project", 16, 8, 16, 1),
        (f"{first}.add", 8, 8, 16, 1),
        ("stages.1.merging", 8, 20, 16, 1),
        (f"{second}.pconv", 20, 20, 8, 2),  # nothing to split off where r = 1
        (f"{second}.expand", 20, 30, 8, 2),
        (f"{second}.gelu", 30, 30, 8, 2),
        (f"{second}.project", 30, 20, 8, 2),
        (f"{second}.add", 20, 20, 8, 2),
        ("head.pool", 20, 20, 8, 1),
        ("head.conv", 20, 64, 1, 1),
        ("head.gelu", 64, 64, 1, 1),
        ("head.classifier", 64, 10, 1, 1),
    ]


def test_relu_stands_where_gelu_stood() -> None:
    names = [x.name.replace("gelu", "relu") for x in T0.layers()]
    assert [x.name for x in replace(T0, activation="relu").layers()] == names


@pytest.mark.parametrize("name", SPACES)
def test_layers_of_many_are_the_layers_of_each(name: str) -> None:
    rng = Random(1)
    configs = [SPACES[name].sample(rng) for _ in range(200)]
    columns = {f.name: np.array([getattr(c, f.name) for c in configs]) for f in fields(T0)}
    bulk = FasterNetConfig.bulk_layers(columns)
    for i, config in enumerate(configs):
        picked = [_of_network(layer, i) for layer in bulk]
        assert tuple(layer for layer in picked if layer.repeat) == config.layers()


def _of_network(layer: Layer, i: int) -> Layer:
    """The record of the i-th network in a record of arrays."""
    values = {f.name: getattr(layer, f.name) for f in fields(Layer)}
    return Layer(**{k: v[i].item() if isinstance(v, np.ndarray) else v for k, v in values.items()})


def test_the_config_promises_its_layers_by_protocol() -> None:
    assert isinstance(T0, Layered)
    assert isinstance(FasterNetConfig, BulkLayered)


def test_widths_are_floored_as_timm_does() -> None:
    odd = replace(T0, widths=(42, 84, 168, 336), partial_ratios=(1 / 8,) * 4, expansions=(2.7,) * 4)
    assert odd.partial_widths == (5, 10, 21, 42)
    assert odd.hidden_widths == (113, 226, 453, 907)


def test_a_ratio_that_rounds_below_a_whole_number_still_gives_it() -> None:
    thirds = replace(T0, widths=(48, 93, 186, 372), partial_ratios=(1 / 3,) * 4)
    assert thirds.partial_widths == (16, 31, 62, 124)


@pytest.mark.parametrize("stages", [1, 3, 6])
def test_there_may_be_any_number_of_stages(stages: int) -> None:
    config = FasterNetConfig(
        widths=(16,) * stages,
        depths=(1,) * stages,
        partial_ratios=(0.25,) * stages,
        expansions=(2.0,) * stages,
    )
    assert sum(layer.name.endswith("pconv") for layer in config.layers()) == stages
    assert cost(config).params > 0
    assert FasterNetConfig(widths=(16,) * stages, depths=(1,) * stages) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": ()}, "`widths` must be a tuple with an entry for each stage"),
        ({"widths": [40, 80, 160, 320]}, r"`widths` must be a tuple .*, but got \[40"),
        ({"widths": (40, 80, 160)}, "`depths` must be a tuple with one entry for each of the 3"),
        ({"widths": (40, 80, 160, 0)}, "`widths` must hold positive whole numbers only"),
        ({"widths": (40, 80, 160, 320.0)}, "`widths` must hold positive whole numbers only"),
        ({"depths": (1, 2, -8, 2)}, r"`depths` must hold positive .* got \(1, 2, -8, 2\)"),
        ({"depths": (1, 2, 8, True)}, "`depths` must hold positive whole numbers only"),
        ({"partial_ratios": (0.25,)}, "`partial_ratios` must be a tuple with one entry for each"),
        ({"partial_ratios": (0.25, 0.25, 0.25, 1.5)}, "`partial_ratios` must be at most 1"),
        ({"partial_ratios": (0.01,) * 4}, "`partial_ratios` must .* at least one channel"),
        ({"widths": (8,) * 16}, "`widths` must be a tuple .* of which there may be 1 to 15, but"),
        ({"widths": (40, 80, 160, 65_537)}, "`widths` must be at most 65536, but got 65537"),
        ({"depths": (1, 2, 1001, 2)}, "`depths` must be at most 1000, but got 1001"),
        ({"expansions": (2.0, 2.0, float("inf"), 2.0)}, "`expansions` must be at most 1000, but"),
        ({"resolution": 2_000_000_000}, "`resolution` must be at most 16384, but got 2000000000"),
        ({"stem_stride": 2**31}, "`stem_stride` must be at most 16384, but got 2147483648"),
        ({"head_width": 2**17}, "`head_width` must be at most 65536, but got 131072"),
        ({"classes": 10_000_001}, "`classes` must be at most 10000000, but got 10000001"),
        ({"classes": 10**100}, r"`classes` must be at most 10000000, but got 10+\.\.\.0+\. Choose"),
        (
            {"activation": "r" * 10**6},
            r"`activation` must be relu or gelu or hardswish, but got 'r+\.\.\.r+'",
        ),
        ({"partial_ratios": ("1/4",) * 4}, "`partial_ratios` must hold positive numbers only"),
        ({"expansions": (2.0, 2.0, 2.0, float("nan"))}, "`expansions` must hold positive"),
        ({"expansions": (0.01,) * 4}, "`expansions` must leave at least one hidden channel"),
        ({"resolution": 31}, "`resolution` must be at least the total stride of 32 .* got 31"),
        ({"resolution": 224.0}, r"`resolution` must be a positive whole number, but got 224\.0"),
        ({"stem_stride": 0}, "`stem_stride` must be a positive whole number, but got 0"),
        ({"head_width": True}, "`head_width` must be a positive whole number or 0, but got True"),
        ({"classes": "ten"}, "`classes` must be a positive whole number, but got 'ten'"),
        ({"activation": "silu"}, "`activation` must be relu or gelu or hardswish, but got 'silu'"),
    ],
)
def test_what_cannot_be_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        replace(T0, **change)
    assert len(str(refusal.value)) < 300


def test_the_limits_themselves_are_allowed() -> None:
    largest = FasterNetConfig(
        widths=(2**16,) * 4, depths=(1000,) * 4, resolution=2**14, head_width=2**16, classes=10**7
    )
    assert cost(largest).macs > 0


EVERYTHING: dict[str, Any] = {
    "kernels": (2, 5, 7, 3),
    "groups": (4, 2, 1, 1),
    "untouched": ("gate", "gate", "identity", "identity"),
    "mixers": ("pconv", "pconv", "pconv", "attention"),
    "expands": ("plain", "fused", "plain", "plain"),
    "mlps": ("plain", "plain", "star", "plain"),
}


def test_ingredients_left_out_are_as_published() -> None:
    t0 = FASTERNET["t0"]
    assert t0.unpublished == ()
    assert (t0.kernels, t0.groups, t0.mixers) == ((3,) * 4, (1,) * 4, ("pconv",) * 4)
    assert t0 == replace(t0, kernels=(3, 3, 3, 3), mlps=("plain",) * 4)
    assert t0 in SPACES["pconv"]
    assert replace(t0, **EVERYTHING).unpublished == tuple(EVERYTHING)


def test_a_last_stage_of_no_blocks_is_not_there() -> None:
    three = replace(FASTERNET["t0"], depths=(1, 2, 8, 0))
    assert (three.stages, three.out_width, three.unpublished) == (3, 160, ("depths",))
    assert not any(layer.name.startswith("stages.3") for layer in three.layers())
    assert replace(three, resolution=16).stages == 3  # 16 px are enough for a stride of 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": (3, 3, 3)}, "`kernels` must be a tuple with one entry for each of the 4"),
        ({"kernels": (3, 3, 3, 0)}, "`kernels` must hold positive whole numbers only"),
        ({"kernels": (3, 3, 3, 33)}, "`kernels` must be at most 31"),
        ({"groups": (1.5, 1, 1, 1)}, "`groups` must hold positive whole numbers only"),
        ({"untouched": ("gates",) * 4}, "`untouched` must hold identity or gate, but got 'gates'"),
        ({"mixers": (["pconv"],) * 4}, "`mixers` must hold pconv or attention"),
        ({"activations": ("silu",) * 4}, "`activations` must hold relu or gelu or hardswish"),
        ({"depths": (0, 2, 8, 2)}, "`depths` must hold positive whole numbers only"),
        ({"stem": "conv"}, "`stem` must be patch or convs, but got 'conv'"),
        ({"stem": "convs", "stem_stride": 3}, "`stem_stride` must be 1, 2 or 4 for a stem of two"),
        ({"head_width": -1}, "`head_width` must be a positive whole number or 0, but got -1"),
    ],
)
def test_an_ingredient_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FASTERNET["t0"], **change)


def test_groups_that_do_not_divide_the_channels_count_as_one() -> None:
    config = replace(FASTERNET["t0"], groups=(4, 4, 4, 4))
    assert (config.partial_widths, config.partial_groups) == ((10, 20, 40, 80), (1, 4, 4, 4))
