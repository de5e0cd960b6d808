"""Which knob buys what, on spaces whose truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.report.importance import FEWEST, GROUPS, Knob, find_knobs, undecided
from search_spaces.space import Space, each, oneof

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Net:
    depths: tuple[int, ...]
    width: int
    stride: int
    name: str
    useless: int

    def __post_init__(self) -> None:
        if self.width == 32 and self.stride == 4:
            raise ValueError("too small")


SPACE = Space(
    Net, depths=each(oneof(1, 2, 3, 4), oneof(1, 2, 3, 4)), width=oneof(8, 16, 24, 32),
    stride=oneof(1, 2, 4), name=oneof("plain", "good", "slow"), useless=oneof(1, 2, 3),
)  # fmt: skip
_NAMES_POINTS = {"plain": 0.0, "good": 3.0, "slow": 0.0}
_NAMES_MS = {"plain": 0.0, "good": 0.0, "slow": 1.0}
# Points and ms of a step of each ordered knob.
TRUTH = {"depths[0]": (1.0, 0.5), "depths[1]": (2.0, 0.5), "width": (0.5, 1.0)}


def _accuracy(net: Net) -> float:
    return float(50 + 1.0 * net.depths[0] + 2.0 * net.depths[1] + 0.5 * net.width / 8
            - 1.5 * np.log2(net.stride) + _NAMES_POINTS[net.name])  # fmt: skip


def _predict_ms(nets: Sequence[Net]) -> Array:
    return np.array([10 + 0.5 * sum(n.depths) + n.width / 8 - 2 * np.log2(n.stride)
                     + _NAMES_MS[n.name] for n in nets])  # fmt: skip


def _sample(rng: Random) -> Net:
    while True:
        try:
            return SPACE.sample(rng)
        except ValueError:
            continue


def _trials(count: int, noise: float = 0.0, seed: int = 1) -> list[tuple[Net, float]]:
    rng = Random(seed)
    nets = [_sample(rng) for _ in range(count)]
    return [(net, float(_accuracy(net)) + rng.gauss(0, noise)) for net in nets]


def _found(count: int = 60, noise: float = 0.2, seed: int = 1) -> dict[str, Knob]:
    trials = _trials(count, noise, seed)
    knobs = find_knobs(SPACE, trials, _predict_ms, bases=[net for net, _ in trials[:8]])
    return {k.gene if k.before is None else f"{k.before} to {k.after}": k for k in knobs}


def test_the_truth_mostly_lies_within_the_interval() -> None:
    hits = []
    for seed in range(4):
        found = _found(seed=seed)
        for name, (points, ms) in TRUTH.items():
            knob = found[name]
            assert knob.ms == pytest.approx(ms)
            assert knob.gain == pytest.approx(points / ms, abs=0.4)
            assert not knob.down
            assert not knob.free
            hits.append(abs(knob.gain - points / ms) <= knob.gain_error)
    assert np.mean(hits) >= 0.8


def test_the_best_comes_first_and_what_takes_no_time_last() -> None:
    found = _found()
    order = list(found)
    assert order[0] == "depths[1]"
    assert order.index("depths[1]") < order.index("depths[0]") < order.index("width")
    free = [name for name, knob in found.items() if knob.free]
    assert free == order[-len(free) :]
    assert {"useless", "good to plain", "plain to good"} & set(free)
    assert abs(found["useless"].accuracy) <= found["useless"].accuracy_error
    assert np.isnan(found["useless"].gain)


def test_a_step_that_saves_time_is_turned_round() -> None:
    stride = _found()["stride"]
    assert stride.down
    assert stride.ms == pytest.approx(2.0)
    assert stride.accuracy == pytest.approx(1.5, abs=stride.accuracy_error + 0.2)
    slow = _found()["plain to slow"]
    assert slow.ms == pytest.approx(1.0)
    assert abs(slow.accuracy) < 1.0


def test_steps_that_no_network_can_take_are_left_out() -> None:
    bases = [Net(depths=(1, 1), width=24, stride=4, name="plain", useless=1)]
    found = {k.gene: k for k in find_knobs(SPACE, _trials(40), _predict_ms, bases=bases)}
    assert found["width"].steps == 1  # to 16; 32 is refused
    assert found["depths[0]"].steps == 1
    assert found["useless"].steps == 1


def test_a_step_between_two_bases_counts_once() -> None:
    bases = [Net(depths=(d, 1), width=8, stride=1, name="plain", useless=1) for d in (1, 2)]
    found = {k.gene: k for k in find_knobs(SPACE, _trials(40), _predict_ms, bases=bases)}
    assert found["depths[0]"].steps == 2  # 1 to 2, 2 to 3


def test_noise_makes_the_intervals_wider_and_the_order_undecided() -> None:
    exact, noisy = _found(noise=0.0), _found(noise=3.0)
    assert noisy["depths[1]"].gain_error > 3 * exact["depths[1]"].gain_error
    assert undecided(list(exact.values())) == ([], [])
    rivals, unknown = undecided(list(noisy.values()))
    assert rivals or unknown
    assert all(knob.gain > knob.gain_error for knob in rivals)
    assert all(knob.gain <= knob.gain_error for knob in unknown)


def test_without_trials_or_bases_nothing_is_said() -> None:
    trials = _trials(FEWEST)
    assert FEWEST > GROUPS
    assert find_knobs(SPACE, trials, _predict_ms, bases=[trials[0][0]])
    assert find_knobs(SPACE, trials[:-1], _predict_ms, bases=[trials[0][0]]) == []
    assert find_knobs(SPACE, trials, _predict_ms, bases=[]) == []
    assert undecided([]) == ([], [])


def test_the_same_trials_give_the_same_knobs() -> None:
    assert str(_found()) == str(_found())
