"""Devices as tests ask for them, and their latencies, in a word."""

from collections.abc import Mapping
from dataclasses import replace

from nas.candidates import Candidate, Scored, candidate_of, with_costs
from nas.search.trial import NetworkScores
from predictors.accuracy import AccuracyKind
from predictors.devices.device import ONNXRUNTIME, DeviceSpec
from predictors.measurement import Backend, Latencies, Latency, Source
from search_spaces.fasternet import FasterNetConfig


def on(device: str, budget_ms: float | None, *backends: Backend) -> tuple[DeviceSpec, ...]:
    """One device within a budget."""
    return (DeviceSpec(name=device, budget_ms=budget_ms, backends=backends or (ONNXRUNTIME,)),)


def latency(ms: float, device: str = "cpu", *, source: Source = "measured") -> Latency:
    """A latency within 10 %."""
    return Latency(
        median_ms=ms,
        low_ms=0.9 * ms,
        high_ms=1.1 * ms,
        source=source,
        device=device,
        backend=ONNXRUNTIME,
    )


def each(*latencies: Latency) -> Latencies:
    """The latencies by device."""
    return Latencies({latency.device: latency for latency in latencies})


def scores(
    accuracy: float, ms: float, high_ms: float | None = None, device: str = "arm"
) -> NetworkScores:
    """What an evaluation found, of one device."""
    found = replace(latency(ms, device, source="predicted"), low_ms=ms, high_ms=high_ms or ms)
    return NetworkScores(accuracy=accuracy, latencies=each(replace(found, backend=None)))


def candidate(
    name: str,
    config: FasterNetConfig,
    accuracy: float,
    latencies: Latencies,
    budgets_ms: Mapping[str, float],
    *,
    kind: AccuracyKind = "estimated",
) -> Candidate:
    """A network of a study with its costs."""
    scored = Scored(name=name, config=config, accuracy=accuracy)
    return with_costs([candidate_of(scored, latencies, kind, budgets_ms)])[0]
