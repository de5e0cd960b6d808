"""What each choice buys, on spaces whose truth is known; no more is said of it than is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.report.importance import (
    FEWEST,
    GROUPS,
    AccuracyModels,
    Importance,
    ImportanceTable,
    gene_words,
    rank_choices,
    undecided,
)
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
    Net,
    depths=each(oneof(1, 2, 3, 4), oneof(1, 2, 3, 4)),
    width=oneof(8, 16, 24, 32),
    stride=oneof(1, 2, 4),
    name=oneof("plain", "good", "slow"),
    useless=oneof(1, 2, 3),
)
_NAMES_POINTS = {"plain": 0.0, "good": 3.0, "slow": 0.0}
_NAMES_MS = {"plain": 0.0, "good": 0.0, "slow": 1.0}
# Points and ms of a step of each ordered choice.
TRUTH = {"depths[0]": (1.0, 0.5), "depths[1]": (2.0, 0.5), "width": (0.5, 1.0)}


def _accuracy(net: Net) -> float:
    return float(
        50
        + 1.0 * net.depths[0]
        + 2.0 * net.depths[1]
        + 0.5 * net.width / 8
        - 1.5 * np.log2(net.stride)
        + _NAMES_POINTS[net.name]
    )


def _predict_latency(nets: Sequence[Net]) -> Array:
    return np.array(
        [
            10 + 0.5 * sum(n.depths) + n.width / 8 - 2 * np.log2(n.stride) + _NAMES_MS[n.name]
            for n in nets
        ]
    )


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


def _found(count: int = 60, noise: float = 0.2, seed: int = 1) -> dict[str, Importance]:
    trials = _trials(count, noise, seed)
    models = AccuracyModels.fit(SPACE, trials)
    choices = rank_choices(SPACE, models, _predict_latency, bases=[net for net, _ in trials[:8]])
    return {k.gene if k.before is None else f"{k.before} to {k.after}": k for k in choices}


def test_the_truth_mostly_lies_within_the_interval() -> None:
    hits = []
    for seed in range(4):
        found = _found(seed=seed)
        for name, (points, ms) in TRUTH.items():
            choice = found[name]
            assert choice.latency == pytest.approx(ms)
            assert choice.gain == pytest.approx(points / ms, abs=0.4)
            assert not choice.down
            assert not choice.free
            hits.append(abs(choice.gain - points / ms) <= choice.gain_error)
    assert np.mean(hits) >= 0.8


def test_the_best_comes_first_and_what_takes_no_time_last() -> None:
    found = _found()
    order = list(found)
    assert order[0] == "depths[1]"
    assert order.index("depths[1]") < order.index("depths[0]") < order.index("width")
    free = [name for name, choice in found.items() if choice.free]
    assert free == order[-len(free) :]
    assert {"useless", "good to plain", "plain to good"} & set(free)
    assert abs(found["useless"].accuracy) <= found["useless"].accuracy_error
    assert np.isnan(found["useless"].gain)


def test_a_step_that_saves_time_is_turned_round() -> None:
    stride = _found()["stride"]
    assert stride.down
    assert stride.latency == pytest.approx(2.0)
    assert stride.accuracy == pytest.approx(1.5, abs=stride.accuracy_error + 0.2)
    slow = _found()["plain to slow"]
    assert slow.latency == pytest.approx(1.0)
    assert abs(slow.accuracy) < 1.0


def test_steps_that_no_network_can_take_are_left_out() -> None:
    bases = [Net(depths=(1, 1), width=24, stride=4, name="plain", useless=1)]
    models = AccuracyModels.fit(SPACE, _trials(40))
    found = {k.gene: k for k in rank_choices(SPACE, models, _predict_latency, bases=bases)}
    assert found["width"].steps == 1  # to 16; 32 is refused
    assert found["depths[0]"].steps == 1
    assert found["useless"].steps == 1


def test_a_step_between_two_bases_counts_once() -> None:
    bases = [Net(depths=(d, 1), width=8, stride=1, name="plain", useless=1) for d in (1, 2)]
    models = AccuracyModels.fit(SPACE, _trials(40))
    found = {k.gene: k for k in rank_choices(SPACE, models, _predict_latency, bases=bases)}
    assert found["depths[0]"].steps == 2  # 1 to 2, 2 to 3


def test_noise_makes_the_intervals_wider_and_the_order_undecided() -> None:
    exact, noisy = _found(noise=0.0), _found(noise=3.0)
    assert noisy["depths[1]"].gain_error > 3 * exact["depths[1]"].gain_error
    assert undecided(list(exact.values())) == ([], [])
    rivals, unknown = undecided(list(noisy.values()))
    assert rivals or unknown
    assert all(choice.gain > choice.gain_error for choice in rivals)
    assert all(choice.gain <= choice.gain_error for choice in unknown)


def test_without_trials_or_bases_nothing_is_said() -> None:
    trials = _trials(FEWEST)
    assert FEWEST > GROUPS
    models = AccuracyModels.fit(SPACE, trials)
    assert AccuracyModels.fit(SPACE, trials[:-1]) is None
    assert rank_choices(SPACE, models, _predict_latency, bases=[trials[0][0]])
    assert rank_choices(SPACE, None, _predict_latency, bases=[trials[0][0]]) == []
    assert rank_choices(SPACE, models, _predict_latency, bases=[]) == []
    assert undecided([]) == ([], [])


def test_the_same_trials_give_the_same_choices() -> None:
    assert str(_found()) == str(_found())


CHOICE = Importance(
    gene="depths[2]",
    before=None,
    after=None,
    down=False,
    accuracy=1.0,
    accuracy_error=0.1,
    latency=0.5,
    steps=3,
    free=False,
)
FREE = replace(CHOICE, gene="expansions[0]", latency=1e-6, free=True)


def _finding(*choices: Importance) -> str:
    return ImportanceTable(choices=choices, kind="trained", trials=36).finding


def test_a_choice_that_is_best_for_sure_is_said_so() -> None:
    worse = replace(CHOICE, gene="widths[0]", accuracy=0.4)
    assert _finding(CHOICE, worse) == (
        "Time is best spent on stage 3 depth: one step gains +1 \u00b1 0.1 points of accuracy for "
        "0.5 ms, modelled."
    )


def test_a_tiny_step_is_said_as_it_is() -> None:
    tiny = replace(CHOICE, accuracy=8.05, accuracy_error=0.3, latency=0.07)
    assert "one step gains +8.05 \u00b1 0.3 points of accuracy for 0.07 ms, modelled" in _finding(
        tiny
    )
    table = ImportanceTable(choices=[tiny], kind="trained", trials=36, unit="ratio")
    assert "for 0.07 of a budget, modelled" in table.finding


def test_rivals_and_what_is_unknown_are_named() -> None:
    rival = replace(CHOICE, gene="stem_stride", accuracy=0.95, down=True)
    unknown = replace(CHOICE, gene="activation", before="relu", after="gelu", accuracy_error=3.0)
    said = _finding(CHOICE, rival, unknown)
    assert "is probably best spent on stage 3 depth" in said
    assert "As good, perhaps: a smaller stem stride." in said
    assert "Too uncertain to compare: activation gelu for relu." in said


def test_many_rivals_are_counted() -> None:
    rivals = [replace(CHOICE, gene=f"widths[{i}]", accuracy=0.99) for i in range(4)]
    assert "stage 3 width and 1 other." in _finding(CHOICE, *rivals)


def test_nothing_is_claimed_where_nothing_is_known() -> None:
    assert _finding(replace(CHOICE, accuracy_error=1.1)) == (
        "By 36 trials no choice is known to gain anything for its time."
    )
    assert _finding(FREE) == "No choice takes time to speak of."


def test_a_choice_that_takes_no_time_has_no_place_among_the_intervals() -> None:
    table = ImportanceTable(choices=[CHOICE, FREE], kind="estimated", trials=36)
    assert table.ends(CHOICE) == pytest.approx((1.8, 2.0, 2.2))
    assert [table.place(gain) for gain in (0.0, 1.1, 2.2)] == pytest.approx([0, 50, 100])


@pytest.mark.parametrize(
    ("gene", "words"),
    [
        ("depths[2]", "stage 3 depth"),
        ("partial_ratios[0]", "stage 1 partial ratio"),
        ("stem_stride", "stem stride"),
        ("resolution", "resolution"),
        ("classes", "classes"),
    ],
)
def test_choices_have_names_that_people_use(gene: str, words: str) -> None:
    assert gene_words(gene) == words
