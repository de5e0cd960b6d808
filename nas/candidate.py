"""A network of a study with everything that is known of it: what tables and plots show."""

from dataclasses import dataclass

from predictors.accuracy import AccuracyKind
from predictors.measurement import Latency
from search_spaces.fasternet import FasterNetConfig


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A config, its accuracy or score, its latency with interval and source, and its cost.

    The accuracy is that of the file that was timed, where it is not in fp32 and has been judged;
    `fp32_accuracy` is that of the weights.
    `on_front` marks the networks that the study recommends, `feasible` those whose interval's
    upper end meets the budget.
    """

    name: str
    config: FasterNetConfig
    accuracy: float
    accuracy_kind: AccuracyKind
    latency: Latency
    macs: int
    params: int
    feasible: bool
    on_front: bool = False
    fp32_accuracy: float | None = None
