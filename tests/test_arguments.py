"""Words of the command line."""

import argparse

import pytest

from nas.cli.arguments import by_device, cores, device


def test_devices_are_spelled_alike() -> None:
    assert device("pi1, pi2") == "pi1,pi2"
    assert by_device(float)("pi1, pi2=10,cpu=3") == {"pi1,pi2": 10.0, "cpu": 3.0}


def test_cores_are_numbers_and_spans() -> None:
    assert cores("0-2,5") == (0, 1, 2, 5)
    for text in ("3-0", "a", "0-"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be cores like 0-3 or 0,2"):
            cores(text)
    assert cores("4090-4095")[-1] == 4095
    for text in ("0-99999999999", "4096", "0,9999999"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be cores below 4096, but got"):
            cores(text)
