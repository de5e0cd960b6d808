"""A new device is known from a few networks where others are known; a run keeps what it used."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from specs import latency

from nas.relatives import (
    CalibrationRecord,
    MeasuredRelative,
    calibration_words,
    find_relatives,
    read_record,
    write_record,
)
from predictors.backends.model import config_identity
from predictors.calibration import STAGES, next_batch, telling, upper_margin
from predictors.devices.cache import Cache
from predictors.devices.cache_entry import CacheEntry
from predictors.devices.profiled import ProfiledDevice
from predictors.latency import LatencyPredictor, Prediction, RatioPrediction
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.space import Space, each, oneof

pytestmark = pytest.mark.usefixtures("whole_pool")

Array = NDArray[np.float64]

SPACE = SPACES["fasternet-32"]
ARM = ProfiledDevice("arm", Backend())


def _drawn(number: int, seed: int) -> list[FasterNetConfig]:
    rng = Random(seed)
    return [SPACE.sample(rng) for _ in range(number)]


def _other_ms(configs: list[FasterNetConfig]) -> Array:
    """A device that is like the profiled one, but slower at 3x3 and with a cost of each layer."""

    def besides(config: FasterNetConfig) -> float:
        layers = config.layers()
        wide = sum(layer.macs for layer in layers if layer.kernel > 1)
        return float(3e-8 * wide + 0.001 * sum(layer.repeat for layer in layers))

    return np.asarray(0.3 * ARM.predict(configs).mean_ms + [besides(c) for c in configs])


def _noisy(latencies: Array, seed: int, noise: float = 0.02) -> list[float]:
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(len(latencies)))
    return list(map(float, latencies * factors))


def _error(found: Prediction, truth: Array) -> float:
    return float(np.mean(np.abs(found.mean_ms / truth - 1)))


def test_five_networks_do_where_a_relative_is_known() -> None:
    others = _drawn(200, seed=9)
    truth = _other_ms(others)
    errors, inside, factors = [], [], []
    for seed in range(4):
        configs = _drawn(5, seed)
        seen = _noisy(_other_ms(configs), seed)
        predictor = LatencyPredictor.fit(SPACE, configs, seen, relatives=[ARM])
        found = predictor.predict(others)
        errors.append(_error(found, truth))
        inside.append(np.mean((found.low_ms <= truth) & (truth <= found.high_ms)))
        factor = np.mean(np.log(seen / ARM.predict(configs).mean_ms))
        factors.append(np.mean(np.abs(ARM.predict(others).mean_ms * np.exp(factor) / truth - 1)))
        assert predictor.weights == pytest.approx((1.0,), abs=1e-3)
    assert np.mean(errors) < 0.07
    assert np.mean(errors) < 0.8 * np.mean(factors)  # which one scale factor has
    assert np.mean(inside) >= 0.85


def test_the_closer_relative_is_believed_and_one_that_knows_nothing_is_not() -> None:
    class Lost:
        """Predicts something, whatever is asked."""

        def predict(self, configs: Sequence[Any], /) -> Prediction:
            ms = np.array([1 + 20 * Random(repr(config)).random() for config in configs])
            return Prediction(ms, ms / 2, ms * 2)

    configs = _drawn(9, seed=0)
    seen = _noisy(_other_ms(configs), seed=0)
    both = LatencyPredictor.fit(SPACE, configs, seen, relatives=[Lost(), ARM])
    assert both.weights[1] > 0.95
    others = _drawn(100, seed=9)
    alone = LatencyPredictor.fit(SPACE, configs, seen, relatives=[ARM]).predict(others)
    truth = _other_ms(others)
    assert _error(both.predict(others), truth) < 1.2 * _error(alone, truth)
    many = _drawn(60, seed=1)
    told = LatencyPredictor.fit(SPACE, many, _noisy(_other_ms(many), seed=1), relatives=[Lost()])
    assert told.form == "layers"
    assert told.weights == ()


@dataclass(frozen=True)
class Cell:
    """A config that knows no layers."""

    operators: tuple[str, ...]
    width: int


CELLS = Space(
    Cell, operators=each(*[oneof("none", "a", "b", "c")] * 5), width=oneof(16, 32, 48, 64)
)


def _cells_ms(cells: Sequence[Cell], costs: dict[str, float]) -> Array:
    return np.array([(1 + sum(costs[o] for o in c.operators)) * c.width / 16 for c in cells])


def test_relatives_serve_spaces_without_layers() -> None:
    ms = _cells_ms
    rng = Random(0)
    first, few, others = ([CELLS.sample(rng) for _ in range(n)] for n in (120, 9, 200))
    old = {"none": 0.0, "a": 0.3, "b": 1.0, "c": 3.0}
    new = {"none": 0.0, "a": 0.2, "b": 0.9, "c": 2.2}
    relative = LatencyPredictor.fit(CELLS, first, _noisy(ms(first, old), 0))
    seen, truth = _noisy(1.7 * ms(few, new), 1), 1.7 * ms(others, new)
    with_it = LatencyPredictor.fit(CELLS, few, seen, relatives=[relative])
    without = LatencyPredictor.fit(CELLS, few, seen)
    assert _error(with_it.predict(others), truth) < 0.15
    assert _error(with_it.predict(others), truth) < 0.5 * _error(without.predict(others), truth)


OLD = {"none": 0.0, "a": 0.3, "b": 1.0, "c": 3.0}


@dataclass(frozen=True)
class Formula:
    """A relative that is a formula of the cells' costs, and as sure as it likes."""

    of: Callable[[Array], Array]

    def predict(self, configs: Sequence[Any], /) -> Prediction:
        ms = self.of(_cells_ms(configs, OLD))
        return Prediction(ms, 0.9 * ms, 1.1 * ms)


def test_a_relative_may_have_more_overhead_than_the_device() -> None:
    """Nothing but a factor and the relative's constant, 30 times the fastest network, differs."""
    errors = []
    for seed in range(4):
        rng = Random(seed)
        few, others = ([CELLS.sample(rng) for _ in range(n)] for n in (12, 200))
        seen = _noisy(0.5 * _cells_ms(few, OLD), seed)
        slow = Formula(lambda ms: ms + 30.0)
        found = LatencyPredictor.fit(CELLS, few, seen, relatives=[slow]).predict(others)
        errors.append(_error(found, 0.5 * _cells_ms(others, OLD)))
    assert np.mean(errors) < 0.05


def test_a_config_faster_than_all_that_relatives_were_asked_of_is_predicted() -> None:
    space = Space(Cell, operators=each(*[oneof("none", "a", "b", "c")] * 20), width=16)
    seen = [space.sample(Random(i)) for i in range(12)]
    like = Formula(lambda ms: ms / 3)
    predictor = LatencyPredictor.fit(space, seen, _cells_ms(seen, OLD).tolist(), relatives=[like])
    fast = [Cell(operators=("none",) * n + ("a",) * (20 - n), width=16) for n in (0, 10, 20)]
    assert predictor.predict(fast).mean_ms == pytest.approx(_cells_ms(fast, OLD), rel=0.02)


@pytest.mark.parametrize("count", [3, 5])
def test_a_relative_that_is_the_other_way_round_is_not_believed(count: int) -> None:
    """So few networks have no predictor of their own, but tell that they are not like that."""
    wrong = Formula(lambda ms: 3000.0 / ms**2)
    errors = []
    for seed in range(4):
        rng = Random(seed)
        few, others = ([CELLS.sample(rng) for _ in range(n)] for n in (count, 200))
        seen = _noisy(_cells_ms(few, OLD), seed)
        predictor = LatencyPredictor.fit(CELLS, few, seen, relatives=[wrong])
        assert sum(predictor.weights) < 0.5
        errors.append(_error(predictor.predict(others), _cells_ms(others, OLD)))
    assert np.mean(errors) < 1.0


def test_latencies_that_are_known_better_count_more() -> None:
    configs = _drawn(40, seed=0)
    truth = _other_ms(configs)
    rough = np.arange(40) % 2 == 0
    seen = np.where(rough, _noisy(truth, 0, noise=0.3), truth)
    errors = np.where(rough, 0.3, 0.01).tolist()
    others = _drawn(100, seed=9)
    told, untold = (
        LatencyPredictor.fit(SPACE, configs, seen.tolist(), errors=known, folds=0).predict(others)
        for known in (errors, None)
    )
    assert _error(told, _other_ms(others)) < 0.75 * _error(untold, _other_ms(others))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"relatives": [3]}, TypeError, "`relatives` must each predict latencies, but got 3"),
        ({"errors": [0.1]}, ValueError, "`errors` must be a number for each of the 9 latencies"),
        ({"errors": [-0.1] * 9}, ValueError, "`errors` must be .* 0 or more"),
    ],
)
def test_wrong_relatives_and_errors_are_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    configs = _drawn(9, seed=0)
    with pytest.raises(kind, match=message):
        LatencyPredictor.fit(SPACE, configs, [1.0] * 9, **options)


def test_two_networks_are_too_few_with_relatives_too() -> None:
    with pytest.raises(ValueError, match="`configs` must hold at least 3 measured networks"):
        LatencyPredictor.fit(SPACE, _drawn(2, 0), [1.0, 2.0], relatives=[ARM])


def test_networks_are_timed_in_stages_chosen_to_tell_the_most() -> None:
    start = [FASTERNET["t0"], SPACE.decode((0,) * len(SPACE.genes))]
    start[0] = replace(start[0], resolution=32, classes=SPACE.fields["classes"], stem_stride=1)
    timed = [(c, {"cpu": float(ms)}) for c, ms in zip(start, _other_ms(start), strict=True)]
    sizes = []

    def batch(known: list[tuple[FasterNetConfig, dict[str, float]]]) -> list[FasterNetConfig]:
        return next_batch(SPACE, known, budgets_ms={"cpu": 2.0}, total=12, seed=0, relatives=[ARM])

    while new := batch(timed):
        found = [(c, {"cpu": float(ms)}) for c, ms in zip(new, _other_ms(new), strict=True)]
        if len(new) > 1:  # half of a batch leads to the rest of it
            assert batch([*timed, *found[:1]]) == new[1:]
        timed += found
        sizes.append(len(timed))
    assert sizes == [5, 9, 12]
    assert STAGES[:3] == (2, 5, 9)
    chosen, drawn = [c for c, _ in timed[:5]], _drawn(5, seed=3)
    others = _drawn(200, seed=9)
    errors = [
        _error(
            LatencyPredictor.fit(SPACE, five, _other_ms(five).tolist(), relatives=[ARM]).predict(
                others
            ),
            _other_ms(others),
        )
        for five in (chosen, drawn)
    ]
    assert errors[0] < 0.1
    assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize("name", ["fasternet", "pconv"])
def test_what_tells_the_most_is_of_all_sizes(name: str) -> None:
    rng, space = Random(0), SPACES[name]
    # Drawn towards the front of the choices, as a calibration does, most networks are small.
    genes = [
        tuple(int(n * rng.random() ** (1 + i % 4)) for n in space.cardinalities) for i in range(200)
    ]
    pool = list(map(space.decode, genes))
    latencies = dict(zip(pool, ARM.predict(pool).mean_ms, strict=True))
    picked = telling(space, pool[:1], pool[1:], 4, [ARM])
    larger = [latencies[one] > np.median(list(latencies.values())) for one in picked]
    assert sum(larger) > 1


def test_the_margin_is_that_of_networks_within_the_budget() -> None:
    def ratios(configs: Any) -> RatioPrediction:
        mean = _other_ms(configs)
        return RatioPrediction(mean, np.where(mean <= 1, 1.05, 1.5) * mean)

    assert upper_margin(SPACE, ratios, 0) == pytest.approx(0.05)


def _stored(device: str, configs: list[FasterNetConfig], backend: Backend) -> None:
    Cache().merge(
        CacheEntry(
            latency=replace(
                latency(float(ms)),
                device=device,
                backend=backend,
                context=replace(
                    latency(1.0).context,
                    artifact=f"{i:064x}",
                    machine="Board",
                    runtime_version="1.0",
                ),
            ),
            network=config_identity(config),
            description="a board",
        )
        for i, (config, ms) in enumerate(zip(configs, _other_ms(configs), strict=True))
    )


def test_devices_of_the_store_are_relatives_if_enough_was_measured(tmp_path: Path) -> None:
    _stored("known", _drawn(30, seed=0), Backend())
    _stored("hardly", _drawn(5, seed=1), Backend("openvino", "fp32", 1))
    record = find_relatives({})
    assert [one.name for one in record.relatives] == ["known (onnxruntime fp32, one thread)"]
    write_record(tmp_path, record.ended(5))
    again = read_record(tmp_path)
    assert again == record.ended(5)
    profile, known = again.open(SPACE)
    others = _drawn(50, seed=9)
    assert _error(known.predict(others), _other_ms(others)) < 0.1
    assert profile.predict(others).mean_ms == pytest.approx(ARM.predict(others).mean_ms)


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / "calibration.json").write_text(json.dumps({"networks": 3}))
    with pytest.raises(ValueError, match=r"calibration.json must be as a search wrote it, but: .*"):
        read_record(tmp_path)


def test_a_line_says_what_latency_is_known_from() -> None:
    one = MeasuredRelative(name="pi5 (onnxruntime fp32, one thread)", networks=(), latencies_ms=())
    record = CalibrationRecord(relatives=(one,), networks=5)
    words = calibration_words(record, [(0.02, 0.98)], 0.054)
    assert words == (
        "beside pi5 (onnxruntime fp32, one thread); upper ends are 5% above the predictions"
    )
    assert calibration_words(record, [()], 0.2).startswith("by these alone; upper ends are 20%")
