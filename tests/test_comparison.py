"""Networks that were timed side by side are compared round by round; others as they are."""

import math
import re
from dataclasses import replace
from random import Random

import pytest
from deployed_form import compare_in_turn

from predictors.measurement import Backend, Context, Latency, Source, compare

ROUNDS, PROCESSES = 12, 3


def _measurement(
    true_ms: float,
    *,
    session: str | None = "a",
    seed: int = 0,
    drift: float = 0.0,
    source: Source = "measured",
) -> Latency:
    """A measurement of +-3 % whose blocks drift with the machine."""
    rng = Random(seed)
    samples = tuple(
        tuple(
            true_ms * (1 + drift * n / ROUNDS) * math.exp(rng.gauss(0, 0.01)) for n in range(ROUNDS)
        )
        for _ in range(PROCESSES)
    )
    return Latency(
        median_ms=true_ms,
        low_ms=true_ms / 1.03,
        high_ms=true_ms * 1.03,
        source=source,
        device="cpu",
        backend=Backend("onnxruntime"),
        samples_ms=samples,
        context=Context(session=session or ""),
    )


def test_what_is_clearly_faster_is_said_to_be() -> None:
    found = compare(_measurement(10.0, seed=1), _measurement(12.7, seed=2))
    assert found.sure
    assert found.ratio == pytest.approx(1.27, rel=0.02)
    assert found.low < 1.27 < found.high
    expected = r"a is 1\.2\dx faster than b \(1\.\d\d to 1\.\d\d, 95 % sure\)\."
    assert re.fullmatch(expected, found.words("a", "b"))


def test_the_slower_first_is_said_the_other_way_round() -> None:
    found = compare(_measurement(12.7, seed=1), _measurement(10.0, seed=2))
    assert found.words("a", "b").startswith("b is 1.2")
    assert "faster than a (1." in found.words("a", "b")


def test_what_differs_by_less_than_its_interval_cannot_be_told_apart() -> None:
    found = compare(_measurement(10.0, seed=1), _measurement(10.1, seed=2))
    assert not found.sure
    assert "cannot be told apart: b takes 1.0" in found.words("a", "b")


def test_a_drift_that_both_were_in_divides_out() -> None:
    found = compare(_measurement(10.0, drift=0.5, seed=1), _measurement(12.0, drift=0.5, seed=2))
    assert found.ratio == pytest.approx(1.2, rel=0.01)


def test_side_by_side_is_known_better_than_apart() -> None:
    together = compare(_measurement(10.0, seed=1), _measurement(10.5, seed=2))
    apart = compare(_measurement(10.0, seed=1), _measurement(10.5, session="b", seed=2))
    for found in (together, apart):
        assert found.ratio == pytest.approx(1.05, rel=0.01)
    assert apart.high / apart.ratio == pytest.approx(1.03 ** math.sqrt(2), rel=1e-3)
    assert together.high / together.low < apart.high / apart.low


def test_the_one_that_was_timed_longer_is_compared_in_the_rounds_of_both() -> None:
    first, second = _measurement(10.0, seed=1), _measurement(12.0, seed=2)
    cut = tuple(rounds[:8] for rounds in second.samples_ms)
    shorter = Latency(**{**vars(second), "samples_ms": cut})
    assert compare(first, shorter).ratio == pytest.approx(1.2, rel=0.02)


def test_what_is_predicted_is_called_so() -> None:
    predicted = _measurement(10.0, session=None, source="predicted")
    found = compare(predicted, _measurement(20.0, session=None))
    assert "faster than b (1.92 to 2.09, predicted)" in found.words("a", "b")


@pytest.mark.parametrize("samples", [(), ((1.0,),), ((1.0,), (1.0,), ())])
def test_samples_that_cannot_be_of_one_session_are_not_paired(
    samples: tuple[tuple[float, ...], ...],
) -> None:
    """A file that was imported may say that they are."""
    spoilt = replace(_measurement(12.7), samples_ms=samples)
    assert compare(_measurement(10.0), spoilt).ratio == pytest.approx(1.27)
    assert compare(spoilt, spoilt).ratio == pytest.approx(1.0)


def _turns(true_ms: float, *, seed: int) -> list[Latency]:
    """A process a turn, at another speed of the machine each time."""
    return [
        replace(found, samples_ms=(tuple((1 + turn) * ms for ms in found.samples_ms[0]),))
        for turn, found in enumerate(
            _measurement(true_ms, session=None, seed=seed + i) for i in range(7)
        )
    ]


def test_what_took_turns_is_compared_turn_by_turn() -> None:
    first, second = _turns(10.0, seed=1), _turns(6.5, seed=100)
    other = [replace(m, median_ms=99.0, backend=Backend("openvino")) for m in second]
    found = compare_in_turn(first, other)  # in milliseconds of their own, whatever the others say
    assert found.ratio == pytest.approx(0.65, rel=0.01)
    assert 0.6 < found.low < 0.65 < found.high < 0.7


def test_turns_must_be_as_many_and_timed() -> None:
    turns = _turns(10.0, seed=1)
    with pytest.raises(ValueError, match="must be timed in as many turns, but got 7 and 6"):
        compare_in_turn(turns, turns[:6])
    with pytest.raises(ValueError, match="must be timed in as many turns, but got 0 and 0"):
        compare_in_turn([], [])
    with pytest.raises(ValueError, match="must be timed, but have no samples"):
        compare_in_turn([replace(turns[0], samples_ms=())], [replace(turns[0], samples_ms=())])


def test_the_end_that_makes_one_slower_makes_the_other_faster() -> None:
    first = replace(_measurement(10.0, session="a"), low_ms=9.6, high_ms=14.0)
    second = replace(_measurement(10.8, session="b"), low_ms=10.4, high_ms=11.2)
    found = compare(first, second)
    assert found.low == pytest.approx(10.8 / 10 * math.exp(-math.hypot(0.3365, 0.0377)), rel=1e-3)
    assert found.high == pytest.approx(10.8 / 10 * math.exp(math.hypot(0.0408, 0.0364)), rel=1e-3)
    assert not found.sure
