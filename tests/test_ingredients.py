"""What each ingredient changes, on a space whose truth is known; no more is said than is known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.report.importance import GROUPS, AccuracyModels
from nas.report.ingredients import Effect, EffectTable, effects_of
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.space import Space, each, oneof

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Net:
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    mixers: tuple[str, ...]
    untouched: str


SPACE = Space(
    Net,
    widths=each(oneof(8, 16, 24), oneof(8, 16, 24)),
    kernels=each(oneof(2, 3, 5), oneof(2, 3, 5)),
    mixers=each(oneof("pconv"), oneof("pconv", "attention")),
    untouched=oneof("identity", "gate"),
)
TRUTH: dict[int | str, tuple[float, float]] = {
    2: (-0.5, -0.3),
    5: (0.4, 0.8),
    "attention": (1.0, -0.2),
    "gate": (0.0, 0.1),
}


def _sums(net: Net, which: int) -> float:
    """Points, or milliseconds, of what is in the network."""
    chosen: tuple[int | str, ...] = (*net.kernels, *net.mixers, net.untouched)
    return sum(TRUTH.get(value, (0.0, 0.0))[which] for value in chosen)


def _trials(count: int, noise: float, seed: int = 1) -> list[tuple[Net, float]]:
    rng = Random(seed)
    nets = [SPACE.sample(rng) for _ in range(count)]
    return [(n, 60 + sum(n.widths) / 8 + _sums(n, 0) + rng.gauss(0, noise)) for n in nets]


def _predict(nets: Sequence[Net]) -> Array:
    return np.array([10 + sum(net.widths) / 8 + _sums(net, 1) for net in nets])


def _found(
    noise: float = 0.1, seed: int = 1, *, count: int = 80, blind: bool = False
) -> dict[int | str, Effect]:
    trials = _trials(count, noise, seed)
    models = AccuracyModels.fit(SPACE, trials)
    predict = [_predict, *[lambda nets, k=k: _predict(nets) * (1 + k / 1e3) for k in range(GROUPS)]]
    bases = [net for net, _ in trials[:6]]
    return {e.value: e for e in effects_of(SPACE, models, predict, bases=bases, blind=blind)}


def test_the_truth_mostly_lies_within_the_intervals() -> None:
    hits = []
    for seed in range(4):
        found = _found(seed=seed)
        assert found.keys() == TRUTH.keys()
        for value, (points, ms) in TRUTH.items():
            effect = found[value]
            assert effect.latency == pytest.approx(ms)
            assert effect.latency_error is not None
            assert 0 < effect.latency_error < 0.1 * abs(ms)
            hits.append(abs(effect.accuracy - points) <= effect.accuracy_error)
            assert effect.accuracy == pytest.approx(points, abs=0.25)
    assert np.mean(hits) >= 0.8


def test_what_surely_gains_most_is_first_and_noise_takes_that_away() -> None:
    order = list(_found())
    assert (order[0], order[-1]) == ("attention", 2)
    exact, noisy = _found(), _found(noise=3.0)
    assert all(noisy[v].accuracy_error > 3 * exact[v].accuracy_error for v in TRUTH)
    assert exact["attention"].gains
    assert exact["attention"].saves
    assert exact[2].loses
    assert exact[5].costs
    assert not exact["gate"].told_apart


def test_what_hardly_a_trial_has_is_left_out() -> None:
    trials = [(n, a) for n, a in _trials(80, 0.1) if 5 not in n.kernels]
    models = AccuracyModels.fit(SPACE, trials)
    found = effects_of(SPACE, models, [_predict], bases=[trials[0][0]])
    assert {e.value for e in found} == TRUTH.keys() - {5}
    assert all(e.latency_error is None for e in found)  # a profile
    assert effects_of(SPACE, None, [_predict], bases=[trials[0][0]]) == []
    assert effects_of(SPACE, models, [_predict], bases=[]) == []


def test_an_ingredient_is_only_put_where_it_changes_the_network() -> None:
    """Of a kernel there is nothing where attention takes its place."""
    t0 = replace(FASTERNET["t0"], mixers=("pconv", "pconv", "pconv", "attention"), kernels=(3,) * 4)
    space = SPACES["pconv"].with_choices({"depths[3]": [0, 1, 2, 3, 4]})
    rng = Random(0)
    configs: list[FasterNetConfig] = [space.sample(rng) for _ in range(40)]
    models = AccuracyModels.fit(space, [(c, float(sum(c.kernels))) for c in configs])

    def predict(configs: Sequence[FasterNetConfig]) -> list[float]:
        return [1.0 + 0.001 * len(c.layers()) for c in configs]

    found = {(e.field, e.value): e for e in effects_of(space, models, [predict], bases=[t0])}
    assert found["kernels", 5].pairs == 3  # of four stages
    assert found["groups", 2].pairs == 3
    assert found["mixers", "attention"].pairs == 1
    assert found["depths", 0].words == "no last stage instead of one of a single block"
    assert found["head_width", 0].words == "no head"
    assert found["head_width", 960].words == "a head of 960 instead of 1280"
    assert found["activation", "gelu"].words == "gelu instead of relu"


def _effect(value: int, accuracy: float, latency: float, *, error: float = 0.1) -> Effect:
    return Effect(
        field="kernels",
        value=value,
        usual=3,
        accuracy=accuracy,
        accuracy_error=error,
        latency=latency,
        latency_error=0.05,
        pairs=4,
        negligible=0.01,
    )


def _finding(*effects: Effect) -> str:
    return EffectTable(effects=effects, kind="trained", trials=36, timed=56).finding


def test_what_pays_is_said_in_a_sentence() -> None:
    assert _finding(_effect(5, 0.4, 0.02), _effect(7, 0.6, 0.3), _effect(2, 0.05, -0.3)) == (
        "Better without more time: a kernel of 5x5 instead of 3x3. Better for more time: a kernel "
        "of 7x7 instead of 3x3. Faster, and not known to be worse: a kernel of 2x2 instead of 3x3."
    )
    assert _finding(_effect(2, -0.4, -0.3), _effect(5, 0.4, 0.3, error=0.5)) == (
        "No ingredient is known to pay."
    )
    many = [_effect(k, 0.0, -0.3) for k in range(4, 10)]
    assert _finding(*many).endswith("; a kernel of 7x7 instead of 3x3; 2 more.")


def test_differences_have_signs_and_intervals() -> None:
    table = EffectTable(effects=[], kind="trained", trials=36, timed=56)
    effect = _effect(2, -0.4, -0.31)
    assert table.accuracy_words(effect) == "\u22120.4 [\u22120.5 to \u22120.3]"
    assert table.latency_words(effect) == "\u22120.31 [\u22120.36 to \u22120.26]"
    assert table.latency_words(replace(effect, latency_error=None)) == "\u22120.31"
    assert table.latency_words(replace(effect, latency=0.001, latency_error=0.001)) == "about none"


def test_an_estimate_is_not_asked() -> None:
    found = list(_found(blind=True).values())
    assert [e.latency for e in found] == sorted(e.latency for e in found)
    assert not any(e.told_apart for e in found)
    table = EffectTable(effects=found, kind="estimated", trials=80, timed=0)
    assert table.blind
    assert (
        "What they cost or gain in accuracy takes data: nothing was trained here." in table.finding
    )
    assert "by a model fitted" not in table.method
    assert "it is a profile, and has no interval here" in table.method
    assert "accuracy after the trials' own short training" in replace(table, kind="trained").method
