"""Several devices as one: shares of budgets, and what is kept and read of them."""

import pickle
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
from stand_ins import classes as classes_of, stand_in

from nas.latencies import fitted, predicted
from nas.reach import check_reachable
from nas.report.tables import latency_words, predicted_words, readings_of
from nas.study.targets import Target, device_facts, recorded_targets
from predictors.devices.device import Device
from predictors.devices.joint import GROUP, JointDevice, places_of
from predictors.devices.registry import open_device
from predictors.measurement import Backend, Latency
from predictors.shares import SharePredictor
from search_spaces.fasternet import FASTERNET, SPACES

T0, T1 = FASTERNET["t0"], FASTERNET["t1"]
SPACE = SPACES["fasternet"]


def _joint(*budgets_ms: float) -> JointDevice:
    """Two stand-ins, on which every network takes 2 and 6 ms, within 5 % of that."""
    return JointDevice(places=(stand_in("quick"), stand_in("slow", kept_ms=3.0)),
                       budgets_ms=budgets_ms)  # fmt: skip


def _timing(ms: float) -> Latency:
    return Latency(median_ms=ms, low_ms=0.9 * ms, high_ms=1.1 * ms, source="measured",
                       device="quick", backend=Backend("onnxruntime"))  # fmt: skip


def test_a_latency_is_the_largest_share_of_a_budget() -> None:
    found = _joint(4.0, 24.0).measure(T0)
    assert (found.median_ms, found.low_ms, found.high_ms) == pytest.approx((50.0, 47.5, 52.5))
    assert [(name, m.median_ms) for name, m in found.parts] == [("quick", 2.0), ("slow", 6.0)]
    assert found.source == "measured"
    assert found.device == "quick + slow"


def test_it_keeps_every_budget_where_its_upper_ends_do_exactly() -> None:
    highs = [m.high_ms for _, m in _joint(1.0, 1.0).measure(T0).parts]
    assert _joint(*highs).measure(T0).meets(100.0)
    assert not _joint(highs[0], 0.999 * highs[1]).measure(T0).meets(100.0)
    assert not _joint(0.999 * highs[0], highs[1]).measure(T0).meets(100.0)


def test_the_end_of_the_interval_may_be_that_of_another_device() -> None:
    """The first has the larger middle, the second the wider interval."""
    wide = replace(_timing(1.0), low_ms=0.1, high_ms=3.0)
    found = _joint(1.0, 1.0).joined([_timing(1.5), wide])
    assert (found.median_ms, found.high_ms) == pytest.approx((150.0, 300.0))
    assert found.low_ms == pytest.approx(135.0)


def test_it_is_measured_only_if_it_is_everywhere() -> None:
    guess = replace(_timing(1.0), source="predicted")
    joint = _joint(1.0, 1.0)
    assert joint.joined([_timing(1.0), guess]).source == "predicted"
    assert joint.joined([_timing(1.0), guess]).timed
    assert not joint.joined([guess, guess]).timed
    assert joint.source == "measured"


def test_one_device_times_at_a_time_and_in_order() -> None:
    log: list[str] = []
    places = tuple(stand_in(name, partial(log.append, name)) for name in "ab")
    joint = JointDevice(places=places, budgets_ms=(1.0, 1.0))
    configs = [replace(T0, classes=classes) for classes in range(1, GROUP + 3)]
    found = list(joint.measure_each(configs, repeats=1))
    assert [[classes_of(m) for _, m in joint.parts] for joint in found] == [
        [config.classes] * 2 for config in configs
    ]
    assert log == [*"a" * GROUP, *"b" * GROUP, *"aa", *"bb"]


def test_each_clock_has_a_predictor_of_its_own_and_a_profile_its_own() -> None:
    arm: Any = open_device("arm")
    rng = Random(0)
    device = JointDevice(places=(arm, stand_in("quick")), budgets_ms=(10.0, 4.0))
    configs = [SPACE.sample(rng) for _ in range(12)]
    timed = list(zip(configs, device.measure_each(configs), strict=True))
    assert fitted(SPACE, device, timed[:7]) is None
    predictor = fitted(SPACE, device, timed)
    assert isinstance(predictor, SharePredictor)
    sent = pickle.loads(pickle.dumps(predictor))  # as to where trials are evaluated
    assert sent.predict([T0, T1]).high_ms == pytest.approx(predictor.predict([T0, T1]).high_ms)
    on_arm, on_quick = predictor.predict_each([T0, T1])
    assert on_arm.mean_ms == pytest.approx(arm.predict([T0, T1]).mean_ms)
    assert on_quick.mean_ms == pytest.approx(2.0, rel=0.05)
    whole = predictor.predict([T0, T1])
    for share, a, b in ((whole.mean_ms, on_arm.mean_ms, on_quick.mean_ms),
                        (whole.high_ms, on_arm.high_ms, on_quick.high_ms),
                        (whole.low_ms, on_arm.low_ms, on_quick.low_ms)):  # fmt: skip
        assert share == pytest.approx(np.maximum(10 * a, 25 * b))
    marked = predicted(predictor, [T0], device)[T0]
    assert [m.source for _, m in marked.parts] == ["predicted", "predicted"]
    assert marked.high_ms == pytest.approx(whole.high_ms[0])


def test_profiles_alone_need_no_timing() -> None:
    arm = open_device("arm")
    device = JointDevice(places=(arm, open_device("arm", threads=4)), budgets_ms=(10.0, 1.0))
    predictor = fitted(SPACE, device, [])
    assert predictor is not None
    assert predictor.predict([T0]).mean_ms == pytest.approx(device.predict([T0]).mean_ms)
    assert device.source == "predicted"


def test_budgets_out_of_reach_together_are_told_with_their_devices() -> None:
    places: Any = (open_device("arm"), open_device("arm", threads=4))

    def check(*budgets_ms: float) -> None:
        targets = [Target(device=name, budget_ms=ms)
                   for name, ms in zip(("one", "four"), budgets_ms, strict=True)]  # fmt: skip
        predictor = SharePredictor(each=places, budgets_ms=budgets_ms)
        check_reachable(SPACES["fasternet-32"], predictor, targets, 0)

    check(1.0, 1.0)
    with pytest.raises(ValueError, match=r"takes [0-9.]+ ms on four \(budget 0\.001 ms\); upper"):
        check(1.0, 0.001)
    with pytest.raises(ValueError, match=r"on one \(budget 0\.002 ms\) and .* on four \(budget"):
        check(0.002, 0.001)


def test_a_measurement_comes_back_from_json_whole() -> None:
    found = _joint(4.0, 24.0).measure(T0)
    assert Latency.from_json(found.as_json()) == found
    alone = replace(_timing(1.0), samples_ms=((1.0, 1.1), (1.2,)))
    assert "parts" not in alone.as_json()
    assert Latency.from_json(alone.as_json()) == alone


def test_it_is_said_which_device_gave_what() -> None:
    guess = replace(_timing(1.0), source="predicted", device="slow")
    joint = _joint(4.0, 24.0)
    mixed = joint.joined([_timing(2.0), guess])
    assert latency_words(readings_of(mixed)) == (
        "50 % of a budget [45 to 55] predicted; quick: 2 ms [1.8 to 2.2] measured; "
        "slow: 1 ms [0.9 to 1.1] predicted"
    )
    whole = joint.joined([_timing(2.0), _timing(2.0)])
    assert predicted_words([readings_of(mixed)]) == (
        "Latencies on slow PREDICTED, not measured; those on quick are measured"
    )
    assert "1 of 2 latencies on slow PREDICTED" in predicted_words(
        [readings_of(mixed), readings_of(whole)]
    )
    assert predicted_words([readings_of(whole)]) == ""
    assert predicted_words([readings_of(guess)]) == "Latencies PREDICTED, not measured"


def test_what_is_written_of_the_devices_stands_for_them() -> None:
    arm = Target(device="arm", budget_ms=10.0)
    quick = Target(device="quick", budget_ms=4.0)
    device: Device = JointDevice(places=(open_device("arm"), stand_in("quick")),
                                 budgets_ms=(10.0, 4.0))  # fmt: skip
    found = recorded_targets([arm, quick], device_facts(device))
    assert found.description == device.description
    assert [place.source for place in places_of(found)] == ["predicted", "measured"]
    with pytest.raises(RuntimeError, match="only the record of quick is"):
        found.measure(T0)
