"""The estimated top-1: what is published comes out, what is not known has a wide interval."""

import json
import math
from dataclasses import replace
from random import Random
from typing import Any

import fit_top1
import numpy as np
import pytest
from photo_training import TRAININGS

import fasternas as fn
from predictors.cost import cost
from predictors.top1 import PROFILE, Top1Estimator, check_estimable, load_top1
from search_spaces.fasternet import FASTERNET, PUBLISHED_TOP1, SPACES, FasterNetConfig

T0, T1 = FASTERNET["t0"], FASTERNET["t1"]
# What a search found at the latencies of T0 and T1 for a score that sees no bottleneck. Trained on
# photos of 114 classes they are 3.0 and 4.2 points worse than T0 and T1.
BOTTLENECKS = {
    "t0": FasterNetConfig(
        widths=(32, 32, 64, 1024),
        depths=(4, 1, 8, 1),
        partial_ratios=(0.25, 0.25, 1.0, 0.25),
        expansions=(4.0, 1.5, 1.0, 1.0),
        activation="gelu",
    ),
    "t1": FasterNetConfig(
        widths=(64, 32, 64, 1152),
        depths=(4, 1, 10, 1),
        partial_ratios=(0.25, 0.25, 1.0, 0.5),
        expansions=(4.0, 1.0, 1.0, 1.0),
        activation="gelu",
    ),
}


@pytest.mark.parametrize("name", FASTERNET)
def test_published_networks_have_their_published_accuracy(name: str) -> None:
    found = fn.estimate_top1([FASTERNET[name]])
    assert found.median[0] == pytest.approx(PUBLISHED_TOP1[name], abs=0.5)
    assert found.low[0] < PUBLISHED_TOP1[name] < found.high[0]


@pytest.fixture(scope="module")
def judged() -> dict[str, list[fit_top1.LeftOut]]:
    return fit_top1.judge(load_top1())


def test_published_networks_are_estimated_without_them(
    judged: dict[str, list[fit_top1.LeftOut]],
) -> None:
    """L has the most compute of all: without it the curve ends before."""
    for one in judged["published"]:
        assert one.median == pytest.approx(one.top1, abs=1.5), one.name
    covered = [one.low <= one.top1 <= one.high for one in judged["published"]]
    assert np.mean(covered) >= 0.85


def test_the_profile_is_what_its_fit_gives() -> None:
    bench = fit_top1.read_bench(TRAININGS)
    known = {one.name: one for one in load_top1().known}
    curve = fit_top1.fit_curve([fit_top1.PUBLISHED[name] for name in FASTERNET])
    for one in [*fit_top1.published(curve), *fit_top1.trained(bench, curve)]:
        if one.name in known:  # trainings are added before the profile is fitted anew
            assert known[one.name].config == one.config
    kept = json.loads((PROFILE / "profile.json").read_text())
    assert kept["curve"] == pytest.approx(vars(curve))
    for one in fit_top1.published(curve):
        assert known[one.name].effective == pytest.approx(one.effective)


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_what_photos_showed_to_be_worse_is_estimated_to_be_worse(name: str) -> None:
    found = fn.estimate_top1([BOTTLENECKS[name], FASTERNET[name]])
    assert found.median[0] < found.median[1] - 1.0
    assert found.low[0] < found.low[1] - 3.0


def test_what_is_little_known_has_a_wide_interval() -> None:
    odd = replace(T0, widths=(160, 32, 96, 160), depths=(4, 1, 2, 4))
    found = fn.estimate_top1([T0, odd])
    widths = found.high - found.low
    assert widths[1] > 3 * widths[0]


def test_small_networks_want_smaller_images_and_large_ones_do_not() -> None:
    """As MobileNetV2's widths and sizes show: at equal compute, narrow for 224 px, wide for 160."""
    image = fit_top1.fit_image()
    log_side = np.array(math.log(160 / 224))
    assert image.departure(log_side, np.log(np.array([0.05, 0.15]))).min() > 0
    assert image.departure(log_side, np.log(np.array([0.85, 2.0]))).max() < 0
    assert vars(load_top1().image) == vars(image)
    larger, least = np.array(math.log(288 / 224)), np.array(image.least)
    assert image.departure(larger, least) == 0  # there are no published networks
    assert image.departure(log_side, least - 3) == image.departure(log_side, least)


def test_more_of_the_same_shape_is_better() -> None:
    wider = [
        replace(T0, widths=tuple(embed * 2**i for i in range(4))) for embed in range(16, 193, 16)
    ]
    found = fn.estimate_top1(wider)
    assert list(found.median) == sorted(found.median)
    assert list(found.low) == sorted(found.low)


def test_convolving_more_channels_counts_for_little_though_it_takes_macs() -> None:
    more = replace(T0, partial_ratios=(1.0,) * 4)
    assert cost(more).macs > 2 * cost(T0).macs
    found = fn.estimate_top1([T0, more])
    assert found.low[1] < found.low[0]


def test_no_network_of_the_space_is_far_above_its_compute() -> None:
    """Nothing surely has what a published network of more than three times its MACs has."""
    space, rng = SPACES["fasternet"], Random(0)
    configs = [space.sample(rng) for _ in range(1000)]
    macs = np.array([cost(config).macs for config in configs])
    low = fn.estimate_top1(configs).low
    for name, top1 in PUBLISHED_TOP1.items():
        assert not np.any((low > top1) & (3 * macs < cost(FASTERNET[name]).macs))


def test_every_space_of_the_catalogue_has_finite_estimates() -> None:
    rng = Random(0)
    for name, space in SPACES.items():
        found = fn.estimate_top1([space.sample(rng) for _ in range(40)])
        assert np.isfinite([found.low, found.median, found.high]).all(), name
        assert (found.low < found.median).all()
        assert (found.median < found.high).all()


def test_one_alone_is_estimated_as_among_others_and_none_is_nothing() -> None:
    both, one = fn.estimate_top1([T1, T0]), fn.estimate_top1([T0])
    assert both.median[1] == pytest.approx(one.median[0])
    assert len(fn.estimate_top1([]).median) == 0


def test_classes_do_not_matter() -> None:
    found = fn.estimate_top1([T0, replace(T0, classes=10)])
    assert found.median[0] == pytest.approx(found.median[1])


def test_the_estimator_gives_the_lower_end() -> None:
    estimator = Top1Estimator()
    assert estimator.kind == "estimated"
    assert estimator(T0) == pytest.approx(fn.estimate_top1([T0]).low[0])


def test_networks_of_another_kind_are_refused() -> None:
    three = FasterNetConfig(
        widths=(40, 80, 160),
        depths=(1, 2, 8),
        partial_ratios=(0.25,) * 3,
        expansions=(2.0,) * 3,
    )
    with pytest.raises(ValueError, match=r"`widths` must have 4 stages for an estimate .* got 3"):
        fn.estimate_top1([three])
    with pytest.raises(TypeError, match="`configs` must be FasterNetConfigs, but got 'resnet'"):
        fn.estimate_top1(["resnet"])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["fasternet-32", "pconv-32"])
def test_a_space_of_small_images_asks_for_data(name: str) -> None:
    with pytest.raises(ValueError, match=r"`data` must be given for this space, .* of 32 px"):
        check_estimable(SPACES[name])
    check_estimable(SPACES["fasternet"])


def test_a_published_network_pins_the_estimate_and_no_other_shape() -> None:
    """The process goes through what it knows, up to chance."""
    estimate = load_top1()
    known = [one for one in estimate.known if one.name == "t0, relu"]
    alone = replace(estimate, known=known)
    without = replace(alone, known=[replace(known[0], config=T1)])
    relu = [replace(T0, activation="relu")]
    assert alone.predict(relu).median[0] < without.predict(relu).median[0]


@pytest.mark.parametrize(
    ("built", "phantom"),
    [
        ({"depths": (2, 4, 8, 0)}, {"kernels": (3, 3, 3, 7)}),
        ({"mixers": (*["pconv"] * 3, "attention")}, {"kernels": (3, 3, 3, 7)}),
        ({"mixers": (*["pconv"] * 3, "attention")}, {"groups": (1, 1, 1, 2)}),
        ({"partial_ratios": (1.0,) * 4}, {"untouched": ("gate",) * 4}),
        ({"expands": ("fused",) * 4}, {"untouched": ("gate",) * 4, "groups": (4,) * 4}),
    ],
)
def test_a_choice_that_builds_nothing_changes_no_estimate(
    built: dict[str, Any], phantom: dict[str, Any]
) -> None:
    config = replace(T0, **built)
    bare, same = (
        vars(fn.estimate_top1([config])),
        vars(fn.estimate_top1([replace(config, **phantom)])),
    )
    assert bare == same
