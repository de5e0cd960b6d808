"""Devices as a study uses them."""

from dataclasses import asdict

import pytest

from predictors.devices.device import DeviceSpec, budgets_of, check_specs
from predictors.measurement import Backend

TWO = (Backend("openvino"), Backend("openvino", "bf16"))


def test_a_spec_comes_back_from_json() -> None:
    spec = DeviceSpec(name="pi1,pi2", backends=TWO, budget_ms=2.5)
    assert DeviceSpec.from_json(asdict(spec)) == spec


def test_what_is_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="`budget` must be positive, but got -3 ms"):
        DeviceSpec(name="cpu", budget_ms=-3)
    with pytest.raises(ValueError, match="`backends` must be one at least, but cpu has none"):
        DeviceSpec(name="cpu", backends=())
    with pytest.raises(ValueError, match="`threads` must be a positive whole number, but got 0"):
        DeviceSpec(name="cpu", backends=(Backend("ncnn", threads=0),))


def test_devices_that_do_not_go_together_are_refused() -> None:
    cpu, arm = DeviceSpec(name="cpu", budget_ms=1.0), DeviceSpec(name="arm")
    check_specs([cpu, arm])
    check_specs([DeviceSpec(name="cpu", backends=TWO)])
    assert budgets_of([cpu, arm]) == {"cpu": 1.0}
    with pytest.raises(ValueError, match="names cpu twice"):
        check_specs([cpu, cpu])
    with pytest.raises(ValueError, match="cpu has openvino at fp32, openvino at bf16"):
        check_specs([arm, DeviceSpec(name="cpu", backends=TWO)])
    with pytest.raises(ValueError, match="names none"):
        check_specs([])
