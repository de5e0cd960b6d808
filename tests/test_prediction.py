"""What a latency predictor is fitted to: lists of all kinds, and what is none in one line."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from predictors.latency import LatencyPredictor, Prediction
from search_spaces.space import Space, oneof


@dataclass(frozen=True)
class Net:
    """A config that knows no layers."""

    width: int = 16
    depth: int = 1


NETS = Space(Net, width=oneof(16, 32, 48, 64), depth=oneof(1, 2, 3, 4))
CONFIGS = [NETS.sample(Random(i)) for i in range(12)]


def _ms(net: Net) -> float:
    return 1.0 + net.width * net.depth / 50


LATENCIES_MS = list(map(_ms, CONFIGS))


class Other:
    """Another device, half as fast, or what a user made of one."""

    def __init__(self, answer: object = None) -> None:
        self._answer = answer

    def __repr__(self) -> str:
        return "Other()"

    def predict(self, configs: Sequence[Any], /) -> Any:
        """Return what was given, or fail as it does."""
        if isinstance(self._answer, Exception):
            raise self._answer
        mean = 2 * np.array([_ms(net) for net in configs])
        return self._answer or Prediction(mean, 0.9 * mean, 1.1 * mean)


def test_configs_and_latencies_come_in_any_way() -> None:
    listed = LatencyPredictor.fit(NETS, CONFIGS, LATENCIES_MS).predict(CONFIGS)
    fitted = LatencyPredictor.fit(NETS, iter(CONFIGS), map(_ms, CONFIGS))
    assert np.array_equal(fitted.predict(iter(CONFIGS)).high_ms, listed.high_ms)


def test_one_relative_is_a_list_of_one_and_none_is_none() -> None:
    alone = LatencyPredictor.fit(NETS, CONFIGS, LATENCIES_MS, relatives=None)
    assert alone.relatives == ()
    other = Other()
    listed, one = (
        LatencyPredictor.fit(NETS, CONFIGS[:4], LATENCIES_MS[:4], relatives=relatives)
        for relatives in ([other], other)
    )
    assert one.relatives == listed.relatives == (other,)
    assert np.array_equal(one.predict(CONFIGS).high_ms, listed.predict(CONFIGS).high_ms)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (KeyError("boom"), r"relatives\[1\], Other\(\), raised KeyError: 'boom'\. Mend it"),
        (3.0, r"relatives\[1\], Other\(\), raised AttributeError: .*mean_ms"),
        (SimpleNamespace(mean_ms=np.ones(3)), r"relatives\[1\].*the shape \(3,\) as `mean_ms`"),
        (SimpleNamespace(mean_ms=2.0), r"a latency for each of the .* the shape \(\) as `mean_ms`"),
    ],
    ids=["raises", "no prediction", "too few", "a number"],
)
def test_a_relative_that_does_not_predict_is_named(answer: object, message: str) -> None:
    with pytest.raises(ValueError, match="`relatives` must each predict .*" + message) as found:
        LatencyPredictor.fit(NETS, CONFIGS, LATENCIES_MS, relatives=[Other(), Other(answer)])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": None}, r"`space` must be a Space, but got None\. Write Space\(Config"),
        ({"configs": Net()}, r"`configs` must be a list of configs, but got Net\(.*Write \[config"),
        ({"configs": 3}, "`configs` must be a list of configs, but got 3"),
        ({"latencies_ms": ["fast"] * 12}, r"`latencies_ms` must be one number .* \['fast'"),
        ({"latencies_ms": [{}] * 12}, "`latencies_ms` must be one number"),
        ({"latencies_ms": 3.0}, "`latencies_ms` must be one number for each config, but got 3"),
        ({"folds": 2.5}, r"`folds` must be a whole number, but got 2\.5"),
        ({"folds": True}, "`folds` must be a whole number, but got True"),
    ],
    ids=str,
)
def test_what_is_of_another_kind_is_refused(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"space": NETS, "configs": CONFIGS, "latencies_ms": LATENCIES_MS}
    with pytest.raises(TypeError, match=message):
        LatencyPredictor.fit(**(given | options))


def test_one_config_alone_is_not_predicted() -> None:
    one: Any = Net()
    with pytest.raises(TypeError, match=r"`configs` must be a list of configs, but got Net\("):
        LatencyPredictor.fit(NETS, CONFIGS, LATENCIES_MS).predict(one)
