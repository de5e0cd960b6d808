"""What tells networks apart, on disk and within a process."""

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from torch import nn

from predictors.backends.model import as_model, config_identity
from predictors.devices.profiled import ProfiledDevice
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET


def _config_class(channels: int) -> type[Any]:
    """A class as a notebook's cell defines it anew: of the same name and fields."""

    @dataclass(frozen=True)
    class Net:
        kernel: Any = 3
        input_shape = (3, 16, 16)

        def build(self) -> nn.Module:
            return nn.Conv2d(3, channels, 3)

    return Net


def test_two_classes_of_one_name_are_two_networks() -> None:
    device = ProfiledDevice("arm", Backend())
    narrow, wide = (device.measure(_config_class(channels)()) for channels in (16, 256))
    assert wide.median_ms > 4 * narrow.median_ms


class Kind(enum.Enum):
    """A choice."""

    PLAIN = 1


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (Kind.PLAIN, None),
        (np.int64(3), 4),
        (np.float32(0.5), 0.25),
        (np.bool_(1), None),
        (float("inf"), float("-inf")),
        (float("nan"), 0.0),
        (frozenset({1, 2}), frozenset({1, 3})),
        (nn.ReLU, nn.GELU),
        ({(1, 2): 3}, {(1, 3): 3}),
    ],
    ids=str,
)
def test_fields_may_hold_anything(value: object, other: object) -> None:
    made = _config_class(16)
    same, differing = config_identity(made(value)), config_identity(made(other))
    assert as_model(made(value)).identity == same != differing


def test_numbers_of_numpy_are_numbers() -> None:
    made = _config_class(16)
    for value, known in ((np.int64(3), 3), (np.float64(2.0), 2), (np.float64(0.1), 0.1)):
        assert config_identity(made(value)) == config_identity(made(known))


def test_the_identity_of_a_fasternet_stays_as_it_is_in_stores() -> None:
    assert config_identity(FASTERNET["t0"]) == (
        '{"activation":"gelu","activations":[],"class":"FasterNetConfig","classes":1000,'
        '"depths":[1,2,8,2],"expands":["plain","plain","plain","plain"],"expansions":[2,2,2,2],'
        '"groups":[1,1,1,1],"head_width":1280,"kernels":[3,3,3,3],'
        '"mixers":["pconv","pconv","pconv","pconv"],"mlps":["plain","plain","plain","plain"],'
        '"partial_ratios":[0.25,0.25,0.25,0.25],"resolution":224,"stem":"patch","stem_stride":4,'
        '"untouched":["identity","identity","identity","identity"],"widths":[40,80,160,320]}'
    )


@pytest.mark.parametrize("shape", [None, (), (3, 0, 8), (3.0, 8, 8), 8, "388"])
def test_inputs_need_a_shape(shape: object) -> None:
    config = _config_class(16)()
    type(config).input_shape = shape
    with pytest.raises(ValueError, match=r"^`input_shape` of Net must be whole numbers above 0, "):
        as_model(config)


def test_a_network_that_is_none_is_told() -> None:
    config = _config_class(16)()
    type(config).build = lambda _: None
    with pytest.raises(ValueError, match=r"^`build\(\)` of this config must return a torch module"):
        ProfiledDevice("arm", Backend()).measure(config)
