"""Which ingredient paid: what it changes in accuracy and in latency, all other choices being equal.

An ingredient is a value of a choice that FasterNet as published has not, such as a kernel of 2x2 in
the place of 3x3. It is put into one stage at a time of given networks, such as those of a front;
models that are fitted to the trials and to the timed networks say what that changes.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nas.report.importance import (
    MODELLED,
    UNITS,
    AccuracyModels,
    Pair,
    PredictLatency,
    differences,
    half_widths,
    is_config,
    signed,
)
from nas.report.tables import Unit
from predictors.accuracy import AccuracyKind
from search_spaces.fasternet import INGREDIENTS
from search_spaces.layers import is_layered
from search_spaces.space import Genes, OneOf, Space

C = TypeVar("C")

# The choices of the whole network that are ingredients too, each as it is usual.
_WHOLE: Mapping[str, int | str] = {"stem": "patch", "activation": "relu", "head_width": 1280}
_USUAL = {**INGREDIENTS, **_WHOLE}
_FEWEST = 3  # trials that have it, and that have the usual in its place
_MOST = 24  # networks to put it into
_MOST_NAMED = 4
_NEGLIGIBLE = 0.002  # of the latency of the networks
_WORDS = {
    ("untouched", "gate"): "a gate on what PConv leaves",
    ("mixers", "attention"): "attention instead of PConv",
    ("expands", "fused"): "PConv fused with the first 1x1",
    ("mlps", "star"): "a star: the product of two branches",
    ("stem", "convs"): "a stem of two 3x3 instead of one patch",
    ("head_width", 0): "no head",
    ("depths", 0): "no last stage instead of one of a single block",
}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one ingredient changes, with the half-widths of the intervals (95 %).

    `latency` is in ms or as a ratio to a budget; without `latency_error` a profile gave it.
    """

    field: str
    value: int | str
    usual: int | str
    accuracy: float
    accuracy_error: float
    latency: float
    latency_error: float | None
    pairs: int
    negligible: float  # a latency of which it is not worth speaking

    @property
    def words(self) -> str:
        """The ingredient, and in whose place it is."""
        if own := _WORDS.get((self.field, self.value)):
            return own
        if self.field == "kernels":
            return f"a kernel of {self.value}x{self.value} instead of {self.usual}x{self.usual}"
        name = {"groups": "{} groups", "head_width": "a head of {}"}.get(self.field, "{}")
        return f"{name.format(self.value)} instead of {self.usual}"

    @property
    def gains(self) -> bool:
        """Whether it surely gains accuracy."""
        return self.accuracy > self.accuracy_error

    @property
    def loses(self) -> bool:
        return -self.accuracy > self.accuracy_error

    @property
    def saves(self) -> bool:
        """Whether it surely saves time that is worth it."""
        return -self.latency > max(self.latency_error or 0.0, self.negligible)

    @property
    def costs(self) -> bool:
        return self.latency > max(self.latency_error or 0.0, self.negligible)

    @property
    def told_apart(self) -> bool:
        """Whether the trials know that it changes the accuracy."""
        return self.gains or self.loses


def effects_of(
    space: Space[C],
    models: AccuracyModels[C] | None,
    predict_latency: Sequence[PredictLatency[C]],
    *,
    bases: Sequence[C],
    blind: bool = False,
) -> list[Effect]:
    """Return what each ingredient of the space changes, what surely gains most first.

    If the accuracies are `blind` to ingredients, what saves most time is first.

    `bases` are the networks that it is put into. The first of `predict_latency` knows all timings;
    the others, if there are any, are each without a tenth of them, for an interval. What hardly a
    trial has is left out, and so are places where it changes nothing.
    """
    every = _pairs(space, models, bases) if models else {}
    if models is None or not every:
        return []
    genes = sorted({g for pairs in every.values() for pair in pairs for g in pair})
    configs = [space.decode(g) for g in genes]
    change = differences(list(every.values()), genes)
    predicted = [np.asarray(predict(configs), dtype=float) for predict in predict_latency]
    latency, *parts = (change @ latencies for latencies in predicted)
    negligible = _NEGLIGIBLE * float(np.median(predicted[0]))
    errors: Sequence[float | None] = list(half_widths(parts)) if parts else [None] * len(every)
    numbers = zip(*models.changes(change, configs), latency, errors, strict=True)
    found = [
        Effect(
            field=field,
            value=value,
            usual=usual,
            accuracy=math.nan if blind else float(accuracy),
            accuracy_error=float(error),
            latency=float(ms),
            latency_error=None if ms_error is None else float(ms_error),
            pairs=len(every[field, value, usual]),
            negligible=negligible,
        )
        for (field, value, usual), (accuracy, error, ms, ms_error) in zip(
            every, numbers, strict=True
        )
    ]
    return sorted(found, key=lambda e: e.latency if blind else e.accuracy_error - e.accuracy)


Key = tuple[str, int | str, int | str]  # field, ingredient, what is usual in its place


def _pairs(space: Space[C], models: AccuracyModels[C], bases: Sequence[C]) -> dict[Key, list[Pair]]:
    """The networks with the usual, and the same with the ingredient, for each that is known of."""
    seen = _seen(space, models)
    some = [bases[i * len(bases) // _MOST] for i in range(_MOST)] if len(bases) > _MOST else bases
    found: dict[Key, set[Pair]] = defaultdict(set)
    for genes in map(space.encode, some):
        for key, pair in _exchanges(space, genes):
            field, value, usual = key
            known = min(seen[field, value], seen[field, usual]) >= _FEWEST
            if known and pair not in found[key] and _differ(space, pair):
                found[key].add(pair)
    return {key: sorted(pairs) for key, pairs in found.items() if pairs}


def _seen(space: Space[C], models: AccuracyModels[C]) -> Counter[tuple[str, object]]:
    """In how many trials each value of a field is somewhere."""
    counts: Counter[tuple[str, object]] = Counter()
    for config, _ in models.trials:
        chosen = zip(space.names, space.genes, space.encode(config), strict=True)
        counts.update({(_field(name), node.choices[gene]) for name, node, gene in chosen})
    return counts


def _exchanges(space: Space[C], genes: Genes) -> Iterator[tuple[Key, Pair]]:
    """Each ingredient in each place of one network, and the usual there."""
    for i, (name, gene) in enumerate(zip(space.names, space.genes, strict=True)):
        for value, usual in _alternatives(_field(name), gene):
            before, after = (
                (*genes[:i], gene.choices.index(choice), *genes[i + 1 :])
                for choice in (usual, value)
            )
            yield (_field(name), value, usual), (before, after)


def _alternatives(field: str, gene: OneOf) -> list[tuple[int | str, int | str]]:
    """The ingredients among the values of a gene, each with what is usual in its place."""
    choices = gene.choices
    if field == "depths":
        return [(0, choices[1])] if choices[0] == 0 and len(choices) > 1 else []
    if field not in _USUAL:
        return []
    usual = _USUAL[field] if _USUAL[field] in choices else choices[-1]
    return [(value, usual) for value in choices if value != usual]


def _field(gene: str) -> str:
    return gene.partition("[")[0]


def _differ(space: Space[C], pair: Pair) -> bool:
    """Whether both are configs, and of networks that are not the same."""
    if not all(is_config(space, genes) for genes in pair):
        return False
    usual, other = map(space.decode, pair)
    layered = is_layered(usual) and is_layered(other)
    return not layered or usual.layers() != other.layers()  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class EffectTable:
    """What the ingredients change, and what is known of it."""

    effects: Sequence[Effect]
    kind: AccuracyKind
    trials: int  # that the model of the accuracy was fitted to
    timed: int  # networks, and the model of the latency; 0: a profile
    unit: Unit = "ms"

    @property
    def blind(self) -> bool:
        """Whether accuracies are but estimated: their intervals hold what ingredients do."""
        return self.kind == "estimated"

    @property
    def units(self) -> str:
        return UNITS[self.kind]

    @property
    def finding(self) -> str:
        """What surely is better, in one respect at no loss in the other; what is not known."""
        free = [e for e in self.effects if e.gains and not e.costs]
        dearer = [e for e in self.effects if e.gains and e.costs]
        faster = [e for e in self.effects if e.saves and not e.loses and not e.gains]
        sorts = {
            "Better without more time": free,
            "Better for more time": dearer,
            "Faster" if self.blind else "Faster, and not known to be worse": faster,
        }
        lines = [f"{what}: {_named(some)}." for what, some in sorts.items() if some]
        lines += [
            "What they cost or gain in accuracy takes data: nothing was trained here."
        ] * self.blind
        return " ".join(lines) if lines else "No ingredient is known to pay."

    @property
    def untold(self) -> int:
        """Of how many the trials do not say whether they are better or worse."""
        return sum(not effect.told_apart for effect in self.effects)

    @property
    def method(self) -> str:
        known = (
            f"it is fitted to {self.timed} timed networks, and its interval is found by leaving "
            "out tenths of these"
            if self.timed
            else "it is a profile, and has no interval here"
        )
        modelled = (
            f"The {MODELLED[self.kind]} is by a model fitted to {self.trials} trials; its interval "
            "(95 %) is how far the difference moves when tenths of them are left out. "
        )
        return (
            "Modelled, not measured: means over the networks of the front, with the ingredient in "
            f"one stage and all else equal. {'' if self.blind else modelled}The latency predictor "
            f"says what it takes: {known}."
        )

    def accuracy_words(self, effect: Effect) -> str:
        """The difference with its interval."""
        return _with_interval(effect.accuracy, effect.accuracy_error)

    def latency_words(self, effect: Effect) -> str:
        """The difference with its interval, if it has one."""
        if abs(effect.latency) + (effect.latency_error or 0.0) < effect.negligible:
            return "about none"
        return _with_interval(effect.latency, effect.latency_error)


def _with_interval(change: float, error: float | None) -> str:
    if error is None:
        return signed(change)
    return f"{signed(change)} [{signed(change - error)} to {signed(change + error)}]"


def _named(effects: Sequence[Effect]) -> str:
    rest = len(effects) - _MOST_NAMED
    names = [effect.words for effect in effects[:_MOST_NAMED]]
    return "; ".join([*names, *[f"{rest} more"] * (rest > 0)])
