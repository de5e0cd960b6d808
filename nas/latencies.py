"""Latencies that are not timed yet: predicted on each device by what was timed there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from predictors.devices.device import Device
from predictors.devices.joint import JointDevice, places_of
from predictors.devices.spec import one_of
from predictors.latency import LatencyPredictor, Prediction
from predictors.measurement import Latency
from predictors.shares import Predictor, SharePredictor
from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import Space

FEWEST = 8  # networks timed, to fit to
Timed = Sequence[tuple[FasterNetConfig, Latency]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was predicted and what was timed, of networks that the predictor had not seen."""

    device: str
    description: str
    prediction: Prediction
    measured: Sequence[Latency]


def fitted(space: Space[Any], device: Device, timed: Timed) -> Predictor | None:
    """Return a predictor for the device; None where it has a clock and too few are timed."""
    if device.source == "measured" and len(timed) < FEWEST:
        return None
    configs = [config for config, _ in timed]
    each = tuple(
        place if place.source == "predicted"
        else LatencyPredictor.fit(space, configs, [m.on_each[i][1].median_ms for _, m in timed])
        for i, place in enumerate(places_of(device))
    )  # fmt: skip
    if isinstance(device, JointDevice):
        return SharePredictor(each=each, budgets_ms=device.budgets_ms)
    return each[0]


def predicted(
    predictor: Predictor, configs: Sequence[FasterNetConfig], device: Device
) -> dict[FasterNetConfig, Latency]:
    """Return predictions as latencies that are marked predicted."""
    if not isinstance(device, JointDevice):
        return dict(zip(configs, _marked(predictor.predict(configs), device), strict=True))
    assert isinstance(predictor, SharePredictor)
    each = [_marked(prediction, place) for prediction, place
            in zip(predictor.predict_each(configs), device.places, strict=True)]  # fmt: skip
    return {config: device.joined(parts)
            for config, parts in zip(configs, zip(*each, strict=True), strict=True)}  # fmt: skip


def calibrations(predictor: Predictor, device: Device, later: Timed) -> list[Calibration]:
    """Compare the predictor with what was timed later, on each device that has a clock."""
    places = places_of(device)
    each = predictor.each if isinstance(predictor, SharePredictor) else (predictor,)
    return [
        Calibration(device=place.name, description=place.description,
                    prediction=each[i].predict([config for config, _ in later]),
                    measured=[m.on_each[i][1] for _, m in later])
        for i, place in enumerate(places) if later and place.source == "measured"
    ]  # fmt: skip


def _marked(prediction: Prediction, device: Device) -> list[Latency]:
    rows = zip(prediction.mean_ms, prediction.low_ms, prediction.high_ms, strict=True)
    return [
        Latency(
            median_ms=float(mean),
            low_ms=float(low),
            high_ms=float(high),
            source="predicted",
            device=device.name,
            backend=one_of(device.backends),
        )
        for mean, low, high in rows
    ]
