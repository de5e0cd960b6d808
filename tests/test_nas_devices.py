"""The devices of a study by name: timed in turn, predicted, held against budgets, read again."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
from specs import candidate, each, latency
from stand_ins import classes as classes_of, stand_in

from nas.devices import (
    LatencyModels,
    calibrations,
    descriptions,
    device_facts,
    fit_models,
    have_clock,
    measure_each,
    open_devices,
    recorded_devices,
)
from nas.reachable import check_reachable, fastest_of
from nas.report.tables import latency_words, predicted_words, readings_of
from predictors.devices.device import Device, DeviceSpec
from predictors.devices.registry import PROTOCOL, open_device
from predictors.measurement import Backend, Latencies, Latency, worst_ratio
from search_spaces.fasternet import FASTERNET, SPACES

T0, T1 = FASTERNET["t0"], FASTERNET["t1"]
SPACE = SPACES["fasternet"]
# On which every network takes 2 and 6 ms, within 5 % of that.
TWO: Mapping[str, Device] = {"quick": stand_in("quick"), "slow": stand_in("slow", kept_ms=3.0)}


def _measured() -> Latencies:
    return next(measure_each(TWO, [T0]))


def test_a_network_has_a_latency_in_milliseconds_on_each_device() -> None:
    found = _measured()
    assert {name: one.median_ms for name, one in found.by_device.items()} == {
        "quick": 2.0,
        "slow": 6.0,
    }
    assert (found.source, found.measured, found.unstable) == ("measured", True, False)
    ratio = worst_ratio(found, {"quick": 4.0, "slow": 24.0})
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((0.5, 0.475, 0.525))


class Wrong:
    """A device whose latencies are what it was given."""

    def __init__(self, *found: Latency) -> None:
        self.found = found

    def measure_each(self, networks: object, *, repeats: int | None = None) -> Any:
        return iter(self.found)


def test_what_a_device_gives_is_checked() -> None:
    low = replace(_measured().by_device["quick"], low_ms=-1.0)
    for found, words in (((low,), r"positive milliseconds, but gave 2 \[-1, "), ((), "each of 1")):
        wrong: Any = {"lab": Wrong(*found)}
        with pytest.raises(RuntimeError, match=f"`measure_each` of lab must give .*{words}"):
            list(measure_each(wrong, [T0]))


def test_it_is_feasible_where_every_upper_end_is_within_the_budget() -> None:
    found = _measured()
    highs = {name: one.high_ms for name, one in found.by_device.items()}
    assert found.meet(highs)
    assert worst_ratio(found, highs).high == 1
    assert not found.meet({**highs, "slow": 0.999 * highs["slow"]})
    assert not found.meet({**highs, "quick": 0.999 * highs["quick"]})
    assert found.meet({})


def test_the_end_of_the_interval_may_be_that_of_another_device() -> None:
    """The first has the larger middle, the second the wider interval."""
    wide = replace(latency(1.0, "slow"), low_ms=0.1, high_ms=3.0)
    ratio = worst_ratio(each(latency(1.5, "quick"), wide), {"quick": 1.0, "slow": 1.0})
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.5, 1.35, 3.0))


def test_latencies_are_measured_only_if_they_are_everywhere() -> None:
    guess = latency(1.0, "slow", source="predicted")
    assert each(latency(1.0, "quick"), guess).source == "predicted"
    assert each(latency(1.0, "quick"), guess).measured
    assert not each(guess).measured
    assert have_clock({"arm": open_device("arm"), **TWO})
    assert not have_clock({"arm": open_device("arm")})


def test_one_device_times_at_a_time_and_in_order() -> None:
    log: list[str] = []
    devices = {name: stand_in(name, partial(log.append, name)) for name in "ab"}
    configs = [replace(T0, classes=classes) for classes in range(1, PROTOCOL.turn + 3)]
    found = list(measure_each(devices, configs, repeats=1))
    assert [[classes_of(one) for one in both.by_device.values()] for both in found] == [
        [config.classes] * 2 for config in configs
    ]
    assert log == [*"a" * PROTOCOL.turn, *"b" * PROTOCOL.turn, *"aa", *"bb"]


def test_each_clock_has_a_predictor_of_its_own_and_a_profile_its_own() -> None:
    arm: Any = open_device("arm")
    rng = Random(0)
    devices, budgets_ms = {"arm": arm, "quick": stand_in("quick")}, {"arm": 10.0, "quick": 4.0}
    configs = [SPACE.sample(rng) for _ in range(12)]
    timed = list(zip(configs, measure_each(devices, configs), strict=True))
    assert fit_models(SPACE, devices, budgets_ms, timed[:7]) is None
    models = fit_models(SPACE, devices, budgets_ms, timed)
    assert models is not None
    sent = pickle.loads(pickle.dumps(models))  # as to where trials are evaluated
    assert sent.ratios([T0, T1]).high == pytest.approx(models.ratios([T0, T1]).high)
    found = models.predict([T0, T1])
    assert found["arm"].mean_ms == pytest.approx(arm.predict([T0, T1]).mean_ms)
    assert found["quick"].mean_ms == pytest.approx(2.0, rel=0.05)
    worst = models.ratios([T0, T1])
    for ratio, a, b in (
        (worst.mean, found["arm"].mean_ms, found["quick"].mean_ms),
        (worst.high, found["arm"].high_ms, found["quick"].high_ms),
    ):
        assert ratio == pytest.approx(np.maximum(a / 10, b / 4))
    (marked, _) = models.latencies([T0, T1])
    assert [one.source for one in marked.by_device.values()] == ["predicted", "predicted"]
    assert worst_ratio(marked, budgets_ms).high == pytest.approx(worst.high[0])
    (compared,) = calibrations(models, devices, timed[8:])
    assert (compared.device, len(compared.measured)) == ("quick", 4)


def test_profiles_alone_need_no_timing() -> None:
    devices = {"one": open_device("arm"), "four": open_device("arm", threads=4)}
    models = fit_models(SPACE, devices, {"one": 10.0, "four": 1.0}, [])
    assert models is not None
    predicted = models.predict([T0])
    expected = max(predicted["one"].mean_ms[0] / 10, predicted["four"].mean_ms[0])
    assert models.ratios([T0]).mean == pytest.approx([expected])


def test_budgets_out_of_reach_together_are_told_with_their_devices() -> None:
    devices: Any = {"one": open_device("arm"), "four": open_device("arm", threads=4)}

    def check(*budgets_ms: float) -> None:
        models = LatencyModels(
            by_device=devices,
            backends=dict.fromkeys(devices),
            budgets_ms=dict(zip(devices, budgets_ms, strict=True)),
        )
        check_reachable(SPACES["fasternet-32"], models, 0)

    check(1.0, 1.0)
    with pytest.raises(ValueError, match=r"takes [0-9.]+ ms on four \(budget 0\.001 ms\); upper"):
        check(1.0, 0.001)
    with pytest.raises(ValueError, match=r"on one \(budget 0\.002 ms\) and .* on four \(budget"):
        check(0.002, 0.001)


@pytest.mark.parametrize("name", ["fasternet", "fasternet-32", "pconv"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_fastest_network_has_the_fastest_activation(name: str, seed: int) -> None:
    """MACs, which are the same with any, would not tell."""
    assert fastest_of(SPACES[name], seed).activation == "relu"


def test_latencies_come_back_from_json_whole() -> None:
    found = _measured()
    assert Latencies.from_json(found.as_json()) == found
    alone = replace(latency(1.0), samples_ms=((1.0, 1.1), (1.2,)))
    assert Latency.from_json(alone.as_json()) == alone
    with pytest.raises(ValueError, match=r"`\$\[\.\.\.\]\.median_ms`"):
        Latencies.from_json({"cpu": {**alone.as_json(), "median_ms": "1"}})


def test_it_is_said_which_device_gave_what() -> None:
    guess = latency(1.0, "slow", source="predicted")
    budgets_ms = {"quick": 4.0, "slow": 24.0}
    mixed, whole = (
        each(latency(2.0, "quick"), guess),
        each(latency(2.0, "quick"), latency(2.0, "slow")),
    )
    one = candidate("a", T0, 1.0, mixed, budgets_ms)
    readings = readings_of(one.latencies, one.ratio)
    assert latency_words(readings) == (
        "0.5 of a budget [0.45 to 0.55] predicted; quick: 2 ms [1.8 to 2.2] measured; "
        "slow: 1 ms [0.9 to 1.1] predicted"
    )
    assert predicted_words([readings]) == (
        "Latencies on slow PREDICTED, not measured; those on quick are measured"
    )
    measured = readings_of(whole, worst_ratio(whole, budgets_ms))
    assert "1 of 2 latencies on slow PREDICTED" in predicted_words([readings, measured])
    assert predicted_words([measured]) == ""
    assert predicted_words([readings_of(each(guess))]) == "Latencies PREDICTED, not measured"


def test_what_is_written_of_the_devices_stands_for_them() -> None:
    specs = [DeviceSpec(name="arm", budget_ms=10.0), DeviceSpec(name="quick", budget_ms=4.0)]
    devices = {**open_devices(specs[:1]), "quick": stand_in("quick")}
    found = recorded_devices(specs, device_facts(devices))
    assert descriptions(found) == descriptions(devices)
    assert [device.source for device in found.values()] == ["predicted", "measured"]
    assert found["quick"].backends == (Backend(),)
    with pytest.raises(RuntimeError, match="only the record of quick is"):
        found["quick"].measure(T0)
