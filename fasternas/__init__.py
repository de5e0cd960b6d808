"""fasternas: from a latency budget on a real device to a Pareto front of FasterNet variants.

    import fasternas as fn

Names load on first use, so that importing this package imports neither torch nor Ray.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.search.guided import AccuracyPrior as AccuracyPrior
    from nas.search.loop import search as search
    from nas.search.nni import NniSearcher as NniSearcher, NniSpace as NniSpace
    from nas.search.pareto import hypervolume as hypervolume, pareto_front as pareto_front
    from nas.search.searchers import SearchProblem as SearchProblem
    from nas.search.trial import (
        Admit as Admit,
        Objectives as Objectives,
        Scores as Scores,
        Searcher as Searcher,
        Trial as Trial,
    )
    from nas.study.options import SearchOptions as SearchOptions
    from predictors.accuracy import (
        AccuracyEstimator as AccuracyEstimator,
        AccuracyKind as AccuracyKind,
    )
    from predictors.backends.model import Model as Model, as_model as as_model
    from predictors.backends.onnx_export import write_onnx as write_onnx
    from predictors.backends.table import (
        BackendModule as BackendModule,
        Run as Run,
        Runtime as Runtime,
        Start as Start,
    )
    from predictors.cost import (
        Cost as Cost,
        Limits as Limits,
        cost as cost,
        cost_by_layer as cost_by_layer,
    )
    from predictors.devices.device import (
        Device as Device,
        Measures as Measures,
        Network as Network,
        Predicts as Predicts,
    )
    from predictors.devices.registry import open_device as open_device
    from predictors.latency import (
        LatencyPredictor as LatencyPredictor,
        Prediction as Prediction,
    )
    from predictors.measurement import (
        Backend as Backend,
        Latency as Latency,
        TimingProtocol as TimingProtocol,
    )
    from predictors.top1 import TopOne as TopOne, estimate_top1 as estimate_top1
    from search_spaces.checkpoint import load as load, save as save
    from search_spaces.fasternet import (
        FASTERNET as FASTERNET,
        SPACES as SPACES,
        FasterNetConfig as FasterNetConfig,
    )
    from search_spaces.formats import load_config as load_config, save_config as save_config
    from search_spaces.layers import Layer as Layer
    from search_spaces.network import (
        build as build,
        from_timm_weights as from_timm_weights,
        to_timm_weights as to_timm_weights,
    )
    from search_spaces.space import Space as Space, each as each, oneof as oneof

_HOMES = {
    "nas.search.loop": ("search",),
    "nas.search.pareto": ("hypervolume", "pareto_front"),
    "nas.search.guided": ("AccuracyPrior",),
    "nas.search.nni": ("NniSearcher", "NniSpace"),
    "nas.search.trial": ("Admit", "Objectives", "Scores", "Searcher", "Trial"),
    "nas.search.searchers": ("SearchProblem",),
    "nas.study.options": ("SearchOptions",),
    "predictors.accuracy": ("AccuracyEstimator", "AccuracyKind"),
    "predictors.backends.model": ("Model", "as_model"),
    "predictors.cost": ("Cost", "Limits", "cost", "cost_by_layer"),
    "predictors.backends.onnx_export": ("write_onnx",),
    "predictors.backends.table": ("BackendModule", "Run", "Runtime", "Start"),
    "predictors.devices.device": ("Device", "Measures", "Network", "Predicts"),
    "predictors.devices.registry": ("open_device",),
    "predictors.latency": ("LatencyPredictor", "Prediction"),
    "predictors.measurement": ("Backend", "Latency", "TimingProtocol"),
    "predictors.top1": ("TopOne", "estimate_top1"),
    "search_spaces.checkpoint": ("load", "save"),
    "search_spaces.fasternet": ("FASTERNET", "SPACES", "FasterNetConfig"),
    "search_spaces.formats": ("load_config", "save_config"),
    "search_spaces.layers": ("Layer",),
    "search_spaces.network": ("build", "from_timm_weights", "to_timm_weights"),
    "search_spaces.space": ("Space", "each", "oneof"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("fasternas")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'fasternas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for names in _HOMES.values() for name in names)


if "timm" in sys.modules:  # then nothing heavy is imported for its registry to have our networks
    import_module("fasternas.timm")
