"""What is said of a network: its architecture, its latency and its costs, in words."""

from collections.abc import Sequence

from nas.candidate import Candidate
from nas.gauge import form_words, share_words, source_words
from nas.quantities import format_count, format_ms, format_score
from predictors.accuracy import AccuracyKind
from predictors.cost import cost
from predictors.timing import Measurement
from search_spaces.fasternet import FasterNetConfig

_NUMBER = {"proxy": "score", "trained": "accuracy", "supernet": "shared-weights likelihood"}
_UNIT = {"proxy": "", "trained": " %", "supernet": " %"}


def number_of(kind: AccuracyKind) -> str:
    """Say what is plotted upwards, in a word or two: a score is no accuracy."""
    return _NUMBER[kind]


def format_accuracy(accuracy: float, kind: AccuracyKind) -> str:
    """Return an accuracy or score with its unit."""
    return f"{accuracy_number(accuracy, kind)}{_UNIT[kind]}"


def accuracy_number(accuracy: float, kind: AccuracyKind) -> str:
    """Return it without a unit: a score is no more exact than a latency."""
    return format_score(accuracy) if kind == "proxy" else f"{accuracy:.5g}"


def latency_words(latency: Measurement) -> str:
    """Say a latency with its interval and where it is from; of several devices, each."""
    each = "".join(f"; {name}: {latency_words(part)}" for name, part in latency.parts)
    how = f"{source_words(latency)}{form_words(latency)}"
    return (f"{share_words(latency)} [{format_ms(latency.low_ms)} to "
            f"{format_ms(latency.high_ms)}] {how}{each}")  # fmt: skip


def architecture_words(config: FasterNetConfig) -> list[str]:
    """Say what a network is built of, one field a line."""
    return [
        f"widths {_row(config.widths)}",
        f"depths {_row(config.depths)}",
        f"partial ratios {_row(config.partial_ratios)}",
        f"expansions {_row(config.expansions)}",
        f"{config.activation}, {config.resolution} px, stem stride {config.stem_stride}",
    ]


def network_words(candidate: Candidate, name: str | None = None) -> str:
    """Say everything of a network, one thing a line."""
    kind = candidate.accuracy_kind
    moved = cost(candidate.config).memory_bytes
    known = candidate.accuracy == candidate.accuracy  # the named sizes may have none
    return "\n".join([
        name or candidate.name,
        *([f"{number_of(kind)} {format_accuracy(candidate.accuracy, kind)}"] if known else []),
        latency_words(candidate.latency),
        f"{format_count(candidate.macs)} MACs, {format_count(candidate.params)} parameters, "
        f"{format_count(moved)} bytes moved",
        *architecture_words(candidate.config),
    ])  # fmt: skip


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
