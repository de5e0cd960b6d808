"""What a process of latency sees of layers and choices, and of what it doubts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predictors.features import LAYER_FEATURES, layer_features
from predictors.latency import LatencyPredictor
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.space import Space, oneof

Array = NDArray[np.float64]


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


@pytest.mark.parametrize("quantity", ["macs", "activations"])
def test_layers_far_wider_than_all_that_were_measured_are_doubted(quantity: str) -> None:
    """While only depths differ, nothing tells which of the two takes the time."""
    columns = np.array([name.endswith(f".{quantity}") for name in LAYER_FEATURES])
    space = SPACES["fasternet"]
    rng, t0 = np.random.default_rng(0), FASTERNET["t0"]

    def taken(configs: list[FasterNetConfig]) -> Array:
        return 1e-7 * np.asarray(layer_features(configs) @ columns)

    depths = [space.sample(Random(i)).depths for i in range(40)]
    known = [replace(t0, depths=d) for d in depths]
    latencies_ms = taken(known) * np.exp(rng.normal(0, 0.02, 40))
    predictor = LatencyPredictor.fit(space, known, latencies_ms)
    others = [replace(t0, depths=d, widths=(320, 640, 1280, 2560)) for d in depths]
    found, truth = predictor.predict(others), taken(others)
    assert np.mean((found.low_ms <= truth) & (truth <= found.high_ms)) > 0.9
    deeper = [replace(t0, depths=tuple(3 * n for n in d)) for d in depths]
    found, truth = predictor.predict(deeper), taken(deeper)
    assert np.mean((found.low_ms <= truth) & (truth <= found.high_ms)) > 0.9
    assert np.median(found.high_ms / found.low_ms) < 1.3


@pytest.mark.parametrize("errors", ["none", [0.1] * 7, [-0.1] * 8, [None] * 8, 0.1, [[0.1]] * 8])
def test_errors_that_are_none_are_refused(errors: Any) -> None:
    nets = _drawn(lambda _: True, 8)
    with pytest.raises(ValueError, match="`errors` must be a number for each of the 8 latencies"):
        LatencyPredictor.fit(NETS, nets, list(map(_ms, nets)), errors=errors)
