"""The predictor learns latencies from a few dozen measurements and knows how far it is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad
from scipy.stats import spearmanr

from nas.search.feasibility import end_within
from predictors.devices.profiled import ProfiledDevice
from predictors.features import layers_tell_all
from predictors.gp import (
    GaussianProcess,
    _negative_posterior,
    _Points,
    fit_gaussian_process,
    plain_scale,
)
from predictors.latency import LatencyPredictor, Prediction
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.layers import Layer
from search_spaces.space import Space, each, oneof

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A config that knows no layers."""

    operators: tuple[str, ...]
    channels: int = 16
    squeeze: str = "none"


CELLS = Space(
    Cell,
    operators=each(*[oneof("skip", "conv1", "conv3", "pool")] * 4),
    channels=oneof(8, 16, 24, 32),
    squeeze=oneof("none", "mean", "max"),
)
FASTERNETS = SPACES["fasternet"]
ARM = ProfiledDevice("arm", Backend())
_OPERATORS = {"skip": 0.0, "conv1": 0.4, "conv3": 1.9, "pool": 0.3}


def _cell_ms(cell: Cell) -> float:
    """A sum over the operators that grows with the channels, and a factor."""
    work = sum(_OPERATORS[name] for name in cell.operators)
    squeeze = 1.2 if cell.squeeze == "max" else 1.0
    return float((0.5 + work * (cell.channels / 16) ** 1.5) * squeeze)


def _fasternet_ms(config: FasterNetConfig) -> float:
    """Work of different speeds, and a penalty for narrow layers that no sum over them explains."""
    rate = {"conv": 1e-8, "linear": 4e-8, "gelu": 0.0, "relu": 0.0, "pool": 0.0}
    total = 0.3
    for layer in config.layers():
        total += rate.get(layer.op, 0.0) * layer.macs * (1 + 8 / layer.c_in) + 0.01 * layer.repeat
        if layer.op in ("gelu", "split_concat", "add"):
            total += 2e-6 * layer.repeat * layer.c_in * layer.height * layer.width
    return total


CASES: dict[str, tuple[Space[Any], Callable[[Any], float]]] = {
    "layers": (FASTERNETS, _fasternet_ms),
    "choices": (CELLS, _cell_ms),
}


def _data(case: str, number: int, *, seed: int, noise: float = 0.0) -> tuple[list[Any], Array]:
    """Distinct random configs and their latencies, wrong by a factor of about 1 +- noise."""
    space, formula = CASES[case]
    rng, configs = Random(seed), dict[Any, None]()
    while len(configs) < number:
        configs[space.sample(rng)] = None
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(number))
    return list(configs), np.array([formula(c) for c in configs]) * factors


@pytest.mark.parametrize(
    ("case", "floor", "error"), [("layers", 0.99, 0.03), ("choices", 0.93, 0.2)]
)
def test_fifty_measurements_rank_the_rest(case: str, floor: float, error: float) -> None:
    configs, latencies = _data(case, 50, seed=0)
    predictor = LatencyPredictor.fit(CASES[case][0], configs, list(latencies))
    others, truth = _data(case, 150, seed=1)
    predicted = predictor.predict(others)
    assert spearmanr(predicted.mean_ms, truth).statistic >= floor
    assert np.mean(np.abs(predicted.mean_ms / truth - 1)) <= error


@pytest.mark.parametrize("case", CASES)
def test_noisy_measurements_lie_in_the_intervals(case: str) -> None:
    inside: list[bool] = []
    for seed in range(3):
        configs, latencies = _data(case, 50, seed=seed, noise=0.05)
        predictor = LatencyPredictor.fit(CASES[case][0], configs, list(latencies))
        others, measured = _data(case, 100, seed=seed + 10, noise=0.05)
        predicted = predictor.predict(others)
        inside.extend((predicted.low_ms <= measured) & (measured <= predicted.high_ms))
    assert 0.8 <= np.mean(inside) <= 1.0


@pytest.mark.parametrize("case", CASES)
def test_intervals_are_as_wide_as_the_noise(case: str) -> None:
    widths = []
    for noise in (0.01, 0.2):
        configs, latencies = _data(case, 50, seed=0, noise=noise)
        predictor = LatencyPredictor.fit(CASES[case][0], configs, list(latencies))
        predicted = predictor.predict(_data(case, 100, seed=1)[0])
        assert np.all(predicted.low_ms > 0)
        assert np.all(predicted.low_ms < predicted.mean_ms)
        assert np.all(predicted.mean_ms < predicted.high_ms)
        widths.append(float(np.median(predicted.high_ms / predicted.low_ms)))
    assert widths[0] * 1.2 < widths[1]


@pytest.mark.parametrize("case", CASES)
def test_what_was_measured_is_predicted_closely(case: str) -> None:
    configs, latencies = _data(case, 40, seed=0)
    predicted = LatencyPredictor.fit(CASES[case][0], configs, list(latencies)).predict(configs)
    assert np.mean(np.abs(predicted.mean_ms / latencies - 1)) < 0.02


@pytest.mark.parametrize("case", CASES)
def test_eight_measurements_are_enough_to_start(case: str) -> None:
    configs, latencies = _data(case, 8, seed=0)
    predictor = LatencyPredictor.fit(CASES[case][0], configs, list(latencies))
    predicted = predictor.predict(_data(case, 100, seed=1)[0])
    assert np.all((predicted.low_ms > 0) & (predicted.low_ms < predicted.mean_ms))
    assert np.all((predicted.mean_ms < predicted.high_ms) & np.isfinite(predicted.high_ms))


def test_fitting_is_deterministic() -> None:
    configs, latencies = _data("choices", 20, seed=0, noise=0.05)
    first, second = (LatencyPredictor.fit(CELLS, configs, list(latencies)) for _ in range(2))
    assert np.array_equal(first.predict(configs).high_ms, second.predict(configs).high_ms)


def test_latencies_that_are_all_equal_are_predicted_so() -> None:
    configs, _ = _data("choices", 20, seed=0)
    predictor = LatencyPredictor.fit(CELLS, configs, [3.0] * 20)
    predicted = predictor.predict(_data("choices", 50, seed=1)[0])
    assert predicted.mean_ms == pytest.approx(np.full(50, 3.0), rel=0.01)
    assert np.all((predicted.low_ms < predicted.mean_ms) & (predicted.mean_ms < predicted.high_ms))


def test_what_is_known_exactly_has_narrow_intervals_that_hold_it() -> None:
    configs, _ = _data("choices", 100, seed=0)
    others, _ = _data("choices", 300, seed=1)

    def exact(cells: list[Cell]) -> list[float]:
        return [sum(_OPERATORS[name] for name in c.operators) + c.channels / 8 for c in cells]

    predicted = LatencyPredictor.fit(CELLS, configs, exact(configs)).predict(others)
    truth = np.array(exact(others))
    assert 0.85 <= np.mean((predicted.low_ms <= truth) & (truth <= predicted.high_ms)) <= 0.97
    assert np.median(predicted.high_ms / predicted.low_ms) < 1.01


@dataclass(frozen=True)
class Chain:
    """Six ordered numbers, whose latency is a line."""

    widths: tuple[int, ...]


CHAINS = Space(Chain, widths=each(*[oneof(*range(16, 256, 8))] * 6))


def _chains(number: int, seed: int) -> tuple[list[Chain], Array, Array]:
    """Configs, their latencies and what is measured of them with 3 % noise."""
    rng, noise = Random(seed), np.random.default_rng(seed)
    chains = [CHAINS.sample(rng) for _ in range(number)]
    truth = np.array([5 + np.dot(range(1, 7), chain.widths) / 100 for chain in chains])
    return chains, truth, truth * np.exp(0.03 * noise.standard_normal(number))


def test_ordered_numbers_count_as_numbers_and_more_samples_help() -> None:
    others, truth, measured = _chains(400, seed=1)
    configs, _, seen = _chains(200, seed=0)
    errors, inside = [], []
    for number in (20, 50, 200):
        predictor = LatencyPredictor.fit(CHAINS, configs[:number], seen[:number].tolist())
        predicted = predictor.predict(others)
        errors.append(np.mean(np.abs(predicted.mean_ms / truth - 1)))
        inside.append(np.mean((predicted.low_ms <= measured) & (measured <= predicted.high_ms)))
    assert errors[0] < 0.04
    assert errors[1] < 0.03
    assert errors[2] < errors[1] < errors[0]
    assert all(0.84 <= share <= 0.97 for share in inside)


@pytest.mark.parametrize(("number", "kept"), [(190, False), (210, True)])
def test_folds_of_many_networks_keep_the_hyperparameters(
    monkeypatch: pytest.MonkeyPatch, number: int, *, kept: bool
) -> None:
    """A part of many tells them, and another part others, whose errors are not the predictor's."""
    used: list[bytes] = []

    def fit(*args: Any, **options: Any) -> GaussianProcess:
        process = fit_gaussian_process(*args, **options)
        used.append(process.hyperparameters.tobytes())
        return process

    monkeypatch.setattr("predictors.latency.fit_gaussian_process", fit)
    configs, _, seen = _chains(number, seed=0)
    LatencyPredictor.fit(CHAINS, configs, seen.tolist(), folds=2)
    assert len(used) == 5  # of each form, then of each fold
    assert (len({*used[-2:]} - {*used[:3]}) == 0) is kept


def test_nothing_is_far_below_what_was_measured_unless_the_interval_says_so() -> None:
    cells, _ = _data("choices", 200, seed=0)

    def truth(cell: Cell) -> float:  # a dead end makes the rest free
        if cell.operators[0] == "skip":
            return 1.0
        return 1.0 + sum(_OPERATORS[name] for name in cell.operators)

    for seed in range(5):
        fitted = _data("choices", 20, seed=seed + 10)[0]
        predictor = LatencyPredictor.fit(CELLS, fitted, list(map(truth, fitted)))
        predicted = predictor.predict(cells)
        low = predicted.mean_ms < 0.5
        assert np.all(predicted.mean_ms > 0.2)
        assert np.all(predicted.high_ms[low] >= 1.0)
        most = max(map(truth, fitted))
        assert np.all(predicted.mean_ms < 4 * most)


def test_smaller_networks_than_were_measured_have_intervals_that_hold_them() -> None:
    configs = [FASTERNETS.sample(Random(i)) for i in range(40)]
    measured = ARM.predict(configs).mean_ms
    predictor = LatencyPredictor.fit(FASTERNETS, configs, measured.tolist())
    rng, small = Random(9), []
    for _ in range(100):
        genes = FASTERNETS.encode(FASTERNETS.sample(rng))
        small.append(FASTERNETS.decode(tuple(0 if rng.random() < 0.6 else g for g in genes)))
    truth, found = ARM.predict(small).mean_ms, predictor.predict(small)
    below = truth < measured.min()
    inside = (found.low_ms <= truth) & (truth <= found.high_ms)
    assert below.sum() > 50
    assert inside[below].mean() > 0.9
    assert np.median((found.high_ms / found.low_ms)[below]) < 2
    assert end_within(FASTERNETS, predictor.predict, measured.min() / 2, 0) == "high_ms"


@pytest.mark.parametrize(
    ("field", "seen", "unseen"),
    [("groups", 1, 2), ("mixers", "pconv", "attention"), ("activation", "relu", "gelu")],
)
def test_work_of_a_kind_that_none_was_fitted_to_is_doubted(
    field: str, seen: Any, unseen: Any
) -> None:
    """Without a doubt of its own 16 to 30 % were inside."""
    space = SPACES["pconv"]
    without, beyond = (space.with_choices({field: (value,)}) for value in (seen, unseen))
    known = [without.sample(Random(i)) for i in range(40)]
    others = [beyond.sample(Random(i)) for i in range(100, 140)]
    predictor = LatencyPredictor.fit(without, known, ARM.predict(known).mean_ms.tolist())
    truth, found = ARM.predict(others).mean_ms, predictor.predict(others)
    assert np.mean((found.low_ms <= truth) & (truth <= found.high_ms)) > 0.85
    usual = predictor.predict(known)
    assert np.median(usual.high_ms / usual.low_ms) < 1.1


@dataclass(frozen=True)
class Named:
    """A config with a field that is called as the method of those that know their layers."""

    layers: int = 1
    width: int = 8


def test_a_field_may_be_called_layers() -> None:
    space = Space(Named, layers=oneof(*range(1, 9)), width=oneof(8, 16, 32))
    configs = [Named(layers, width) for layers in range(1, 9) for width in (8, 32)]
    latencies = [0.5 + one.layers * one.width / 8 for one in configs]
    found = LatencyPredictor.fit(space, configs, latencies).predict([Named(4, 16)])
    assert found.mean_ms[0] == pytest.approx(8.5, rel=0.2)


def test_a_relative_that_predicts_no_latency_is_refused() -> None:
    class Broken:
        def predict(self, configs: Any) -> Prediction:
            numbers = np.full(len(configs), np.nan)
            return Prediction(numbers, numbers, numbers)

    cells, array = _data("choices", 12, seed=0)
    latencies = array.tolist()
    with pytest.raises(ValueError, match=r"`relatives` must each predict positive latencies, but"):
        LatencyPredictor.fit(CELLS, cells, latencies, relatives=[Broken()])
    with pytest.raises(ValueError, match="`folds` must be 0, or 2 or more, but got 1"):
        LatencyPredictor.fit(CELLS, cells, latencies, folds=1)


def test_one_outlier_does_not_choose_the_form() -> None:
    cells, _ = _data("choices", 60, seed=0)
    factors = {"skip": 1.0, "conv1": 1.6, "conv3": 2.5, "pool": 1.2}
    latencies = [float(np.prod([factors[name] for name in cell.operators])) for cell in cells]
    assert LatencyPredictor.fit(CELLS, cells, latencies, folds=0).form == "multiplicative"
    latencies[int(np.argmin(latencies))] *= 30
    assert LatencyPredictor.fit(CELLS, cells, latencies, folds=0).form == "multiplicative"


def test_a_later_fit_starts_from_an_earlier_one() -> None:
    configs, latencies = _data("choices", 60, seed=0, noise=0.02)
    others, truth = _data("choices", 100, seed=1)
    first = LatencyPredictor.fit(CELLS, configs[:40], latencies[:40].tolist(), folds=0)
    later = LatencyPredictor.fit(CELLS, configs, latencies.tolist(), folds=0, start=first)
    assert later.form == first.form
    errors = [np.mean(np.abs(p.predict(others).mean_ms / truth - 1)) for p in (first, later)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("case", CASES)
def test_no_configs_have_no_predictions(case: str) -> None:
    configs, latencies = _data(case, 8, seed=0)
    predicted = LatencyPredictor.fit(CASES[case][0], configs, list(latencies)).predict([])
    assert predicted.low_ms.shape == predicted.mean_ms.shape == predicted.high_ms.shape == (0,)


def test_a_space_that_tells_no_configs_apart_is_refused() -> None:
    cell = Cell(("skip",) * 4)
    with pytest.raises(ValueError, match=r"`space` must have an open field .* with oneof\("):
        LatencyPredictor.fit(Space(Cell, operators=cell.operators), [cell] * 8, [1.0] * 8)
    t0 = FASTERNET["t0"]
    fixed = Space(FasterNetConfig, **{f.name: getattr(t0, f.name) for f in fields(t0)})
    predicted = LatencyPredictor.fit(fixed, [t0] * 8, [4.0, 5.0, 5.0, 6.0] * 2).predict([t0])
    assert predicted.low_ms[0] < 5.0 < predicted.high_ms[0]


@pytest.mark.parametrize("shape", [(), (20, 2), (20, 1)])
def test_latencies_that_are_no_list_are_refused(shape: tuple[int, ...]) -> None:
    latencies: Any = np.ones(shape)
    with pytest.raises(ValueError, match=r"`latencies_ms` must be one number for each .* shape \("):
        LatencyPredictor.fit(CELLS, _data("choices", 20, seed=0)[0], latencies)


@pytest.mark.parametrize(
    ("latencies", "message"),
    [
        ([1.0] * 19, "`latencies_ms` must have one entry for each of the 20 configs, but got 19"),
        ([1.0] * 19 + [0.0], r"`latencies_ms` must be positive numbers, but got 0\.0"),
        ([1.0] * 19 + [-2.0], r"`latencies_ms` must be positive numbers, but got -2\.0"),
        ([1.0] * 19 + [float("nan")], "`latencies_ms` must be positive numbers, but got nan"),
        ([1.0] * 19 + [float("inf")], "`latencies_ms` must be positive numbers, but got inf"),
    ],
)
def test_latencies_that_are_none_are_refused(latencies: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyPredictor.fit(CELLS, _data("choices", 20, seed=0)[0], latencies)


def test_too_few_measurements_are_refused() -> None:
    configs, latencies = _data("choices", 7, seed=0)
    with pytest.raises(ValueError, match="`configs` must hold at least 8 measured networks, but"):
        LatencyPredictor.fit(CELLS, configs, list(latencies))


def test_a_config_outside_the_space_is_refused() -> None:
    configs, latencies = _data("choices", 8, seed=0)
    predictor = LatencyPredictor.fit(CELLS, configs, list(latencies))
    with pytest.raises(ValueError, match=r"`channels` must be oneof\(8, 16, 24, 32\) in"):
        predictor.predict([Cell(("skip",) * 4, channels=12)])


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_of_the_posterior_is_its_slope(seed: int) -> None:
    rng = np.random.default_rng(seed)
    linear = tuple(rng.standard_normal((15, columns)) for columns in (2, 4))
    points = _Points(
        x=rng.standard_normal((15, 3)),
        y=rng.standard_normal(15),
        linear=linear,
        noise=rng.uniform(0.5, 2, 15),
        known=rng.uniform(0.0, 0.2, 15),
        expected=plain_scale(np.ones(1), terms=len(linear)),
    )
    grams = [part @ part.T for part in linear]
    theta = rng.normal(0.0, 0.5, 7)
    _, gradient = _negative_posterior(theta, points, grams)
    error = check_grad(
        lambda t: _negative_posterior(t, points, grams)[0],
        lambda t: _negative_posterior(t, points, grams)[1],
        theta,
    )
    assert error <= 1e-5 * np.linalg.norm(gradient) + 1e-6


def test_a_process_with_linear_terms_goes_on_beyond_its_points() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (30, 2))
    process = fit_gaussian_process(x, x @ [3.0, -1.0] + 5, linear=[x])
    far = np.array([[4.0, 0.0], [0.0, 6.0]])
    mean, deviation = process.predict(far, [far])
    assert mean == pytest.approx([17.0, -1.0], abs=0.2)
    assert np.all(deviation < 0.5)


def test_a_process_leaves_out_as_if_it_had_not_seen() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 2)), rng.standard_normal(20)
    y[0], y[1:] = 0.0, y[1:] - y[1:].mean()  # both have the mean 0
    process = fit_gaussian_process(x, y, linear=[x])
    theta = process.hyperparameters
    without = fit_gaussian_process(x[1:], y[1:], linear=[x[1:]], start=theta, steps=0)
    mean, deviation = without.predict(x[:1], [x[:1]])
    errors, deviations = process.left_out()
    assert errors[0] == pytest.approx(-mean[0], abs=1e-6)
    of_one = np.hypot(deviation[0], without.noise) / without.scale
    assert deviations[0] / process.scale == pytest.approx(of_one, rel=1e-6)


def test_a_process_passes_through_its_points_and_doubts_what_is_far() -> None:
    x = np.linspace(0.0, 3.0, 25)[:, None]
    process = fit_gaussian_process(x, np.sin(2 * x[:, 0]))
    mean, deviation = process.predict(np.array([[0.5], [1.7], [40.0]]))
    assert mean[:2] == pytest.approx(np.sin([1.0, 3.4]), abs=0.01)
    assert deviation[2] > 20 * deviation[:2].max()
    assert process.noise < 0.05


def test_a_process_tells_noise_from_signal() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.0, 3.0, (120, 1))
    process = fit_gaussian_process(x, np.sin(2 * x[:, 0]) + rng.normal(0.0, 0.3, 120))
    assert process.noise == pytest.approx(0.3, rel=0.2)


def test_a_process_can_keep_the_hyperparameters_of_another() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((20, 2)), rng.standard_normal(20)
    first = fit_gaussian_process(x, y)
    again = fit_gaussian_process(x[:10], y[:10], start=first.hyperparameters, steps=0)
    assert np.array_equal(again.hyperparameters, first.hyperparameters)


def test_a_process_needs_points() -> None:
    with pytest.raises(ValueError, match="`inputs` must have a row for each target, at least one"):
        fit_gaussian_process(np.zeros((0, 2)), np.zeros(0))
    with pytest.raises(ValueError, match="but got 3 and 2"):
        fit_gaussian_process(np.zeros((3, 2)), np.zeros(2))


def test_what_was_measured_twice_is_held_out_at_once() -> None:
    """Else a network's twin tells of it, and intervals are too narrow for others."""
    others = [CELLS.sample(Random(f"other {i}")) for i in range(200)]
    truth = np.array(list(map(_cell_ms, others)))
    inside = []
    for seed in range(4):
        configs = [CELLS.sample(Random(f"{seed}/{i}")) for i in range(15)] * 2
        noise = np.random.default_rng(seed).standard_normal(len(configs))
        measured = np.exp(0.005 * noise) * list(map(_cell_ms, configs))
        predictor = LatencyPredictor.fit(CELLS, configs, measured.tolist())
        found = predictor.predict(others)
        inside.append(np.mean((found.low_ms <= truth) & (truth <= found.high_ms)))
    assert np.mean(inside) > 0.8


@dataclass(frozen=True)
class Quantisable:
    """A config whose layers do not tell its precision."""

    width: int
    depth: int
    precision: str = "fp32"

    def layers(self) -> list[Layer]:
        c = self.width
        return [Layer(name="c", op="conv", c_in=c, c_out=c, height=28, width=28, repeat=self.depth)]


def test_choices_that_layers_do_not_tell_are_seen() -> None:
    space = Space(
        Quantisable,
        width=oneof(*range(8, 136, 8)),
        depth=oneof(*range(1, 9)),
        precision=oneof("fp32", "int8"),
    )
    assert not layers_tell_all(space)
    assert all(map(layers_tell_all, SPACES.values()))

    def truth(config: Quantisable) -> float:
        factor = {"fp32": 1.0, "int8": 0.4}[config.precision]
        return factor * (0.3 + config.width**2 * config.depth * 4e-5)

    configs = [space.sample(Random(i)) for i in range(50)]
    others = [space.sample(Random(i)) for i in range(100, 200)]
    predicted = LatencyPredictor.fit(space, configs, list(map(truth, configs))).predict(others)
    errors = np.abs(predicted.mean_ms / np.array(list(map(truth, others))) - 1)
    assert errors.mean() < 0.05
