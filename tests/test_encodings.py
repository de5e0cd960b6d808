"""What a process of latency sees of choices, and of what it doubts."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest

from predictors.latency import LatencyPredictor
from search_spaces.space import Space, oneof


@dataclass(frozen=True)
class Net:
    """A config that knows no layers."""

    width: int = 16
    depth: int = 1
    squeeze: str = "none"
    activation: str = "relu"


NETS = Space(
    Net,
    width=oneof(16, 32, 48, 64),
    depth=oneof(1, 2, 3, 4, 5, 6),
    squeeze=oneof("none", "mean"),
    activation=oneof("relu", "gelu", "hardswish"),
)


def _ms(net: Net) -> float:
    slower = {"relu": 1.0, "gelu": 1.8, "hardswish": 1.2}[net.activation]
    return (1 + net.depth * net.width * 0.02) * slower * (2.5 if net.squeeze == "mean" else 1)


def _drawn(keep: Callable[[Net], bool], number: int) -> list[Net]:
    rng, found = Random(0), list[Net]()
    while len(found) < number:
        net = NETS.sample(rng)
        found += [net] if keep(net) else []
    return found


@pytest.mark.parametrize(
    ("measured", "others"),
    [
        (lambda net: net.squeeze == "none", lambda net: net.squeeze == "mean"),
        (lambda net: net.activation != "gelu", lambda net: net.activation == "gelu"),
        (lambda net: net.width == 16, lambda net: net.width > 32),
    ],
    ids=["squeeze", "gelu", "width"],
)
@pytest.mark.parametrize("number", [20, 100])
def test_a_choice_that_no_measured_network_had_is_doubted(
    measured: Callable[[Net], bool], others: Callable[[Net], bool], number: int
) -> None:
    configs = _drawn(measured, number)
    predictor = LatencyPredictor.fit(NETS, configs, list(map(_ms, configs)))
    unseen = _drawn(others, 50)
    truth, predicted = np.array(list(map(_ms, unseen))), predictor.predict(unseen)
    assert np.mean((predicted.low_ms <= truth) & (truth <= predicted.high_ms)) >= 0.9
    trusting = predictor.trusting().predict(unseen)
    assert np.all(trusting.mean_ms == predicted.mean_ms)
    assert np.all(trusting.high_ms < predicted.high_ms)
    known = predictor.predict(configs)
    assert np.all(known.high_ms / known.low_ms < 2)


def test_a_number_between_and_beyond_those_measured_is_not_doubted_so() -> None:
    configs = _drawn(lambda net: net.width in (16, 48), 60)
    predictor = LatencyPredictor.fit(NETS, configs, list(map(_ms, configs)))
    others = predictor.predict(_drawn(lambda net: net.width in (32, 64), 50))
    assert np.median(others.high_ms / others.low_ms) < 2
