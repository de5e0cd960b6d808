"""Which choice buys what: accuracy for latency, by a model fitted to the trials.

A step of a choice goes from a number to the next larger one, or from one name to each other one.
Steps are taken from given networks, such as those of a front, up and down; a model of the accuracy
says what they gain, a model of the latency what they take.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.quantities import format_ms
from nas.report.tables import Unit, count_words
from predictors.accuracy import AccuracyKind, AccuracyPredictor
from search_spaces.space import Genes, Space

Array = NDArray[np.float64]
C = TypeVar("C")
T = TypeVar("T")
PredictLatency = Callable[[Sequence[C]], Sequence[float] | Array]
Scores = Callable[[Sequence[C]], Array]
Move = tuple[int, int, int]  # gene, from a choice, to a choice; (gene, 0, 1) where it is ordered
Pair = tuple[Genes, Genes]

FEWEST = 12  # trials to fit to
GROUPS = 10  # of trials, each left out once
MOST = 200  # trials to fit to: the time rises with the cube
_T = 2.262  # of Student's t with 9 degrees of freedom: 95 %
_FREE = 0.01  # of the latency: less is no time to speak of
_MOST_NAMED = 3
UNITS = {
    "estimated": "points of estimated top-1",
    "score": "points of the score",
    "trained": "points of accuracy",
}
MODELLED = {
    "estimated": "estimated top-1",
    "score": "training-free score",
    "trained": "accuracy after the trials' own short training",
}


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What one step of a choice buys: means over the `steps` that the networks can take.

    `accuracy` is what is gained (a loss if negative), with the half-width of its 95 % interval,
    and `latency` what it takes, in ms or as a ratio to a budget. The step goes `down`, or away from
    the later choice, where that is the slower way.
    """

    gene: str  # as the space names it, such as depths[2]
    before: object  # the choices of an unordered gene; None where it is ordered
    after: object
    down: bool
    accuracy: float
    accuracy_error: float
    latency: float
    steps: int
    free: bool  # of latency, as far as can be told

    @property
    def gain(self) -> float:
        """Accuracy for a unit of latency; no number where no time is taken."""
        return math.nan if self.free else self.accuracy / self.latency

    @property
    def gain_error(self) -> float:
        """The half-width of its 95 % interval; the latencies are taken as they are."""
        return math.nan if self.free else self.accuracy_error / self.latency

    @property
    def least(self) -> float:
        return self.gain - self.gain_error

    @property
    def words(self) -> str:
        """The choice and, unless it goes up, which way: a smaller stem stride."""
        if self.before is not None:
            return f"{gene_words(self.gene)} {self.after} for {self.before}"
        return f"{'a smaller ' if self.down else ''}{gene_words(self.gene)}"


@dataclass(frozen=True, kw_only=True)
class AccuracyModels(Generic[C]):
    """A model of the accuracy by all trials, and those without a tenth of them, each left out once.

    The intervals are the jackknife's (Efron 1982, chapter 3).
    """

    models: Sequence[AccuracyPredictor]
    trials: Sequence[tuple[C, float]]
    scores: Scores[C] | None

    @classmethod
    def fit(
        cls,
        space: Space[C],
        trials: Sequence[tuple[C, float]],
        *,
        scores: Scores[C] | None = None,
    ) -> "AccuracyModels[C] | None":
        """Fit to configs with their accuracies, all of one kind; None if there are too few.

        `scores` of configs, such as training-free ones, are what the models start from.
        """
        if len(trials) < FEWEST:
            return None
        if len(trials) > MOST:  # some of the early ones and some of the late
            trials = [trials[i * len(trials) // MOST] for i in range(MOST)]
        models = []
        for some in (trials, *without_tenths(trials)):
            configs = [config for config, _ in some]
            known = None if scores is None else scores(configs)
            fitted = AccuracyPredictor.fit(space, configs, [a for _, a in some], scores=known)
            models.append(fitted)
        return cls(models=models, trials=trials, scores=scores)

    def changes(self, change: Array, configs: Sequence[C]) -> tuple[Array, Array]:
        """Return `change` times the accuracies, and the half-widths of its intervals."""
        wanted = None if self.scores is None else self.scores(configs)
        whole, *parts = (
            change @ model.predict(configs, scores=wanted).median for model in self.models
        )
        return whole, half_widths(parts)


def without_tenths(items: Sequence[T]) -> list[list[T]]:
    """Return them without a tenth of them, each tenth left out once."""
    return [[t for i, t in enumerate(items) if i % GROUPS != out] for out in range(GROUPS)]


def half_widths(parts: Sequence[Array]) -> Array:
    """Return the half-width of the interval (95 %) of what is known without each tenth."""
    spread = np.sum((np.stack(parts) - np.mean(parts, axis=0)) ** 2, axis=0)
    return np.asarray(_T * np.sqrt((GROUPS - 1) / GROUPS * spread))


def rank_choices(
    space: Space[C],
    models: AccuracyModels[C] | None,
    predict_latency: PredictLatency[C],
    *,
    bases: Sequence[C],
) -> list[Importance]:
    """Return the choices, what surely gains most for its latency first: by its interval's low end.

    Those that take no time come last. `bases` are the configs from which steps are taken. There
    are none without models or steps.
    """
    steps = _steps(space, bases)
    if models is None or not steps:
        return []
    genes = sorted({g for pairs in steps.values() for pair in pairs for g in pair})
    configs = [space.decode(g) for g in genes]
    latency = np.asarray(predict_latency(configs), dtype=float)
    change = differences(list(steps.values()), genes)
    numbers = zip(*models.changes(change, configs), change @ latency, strict=True)
    negligible = _FREE * float(np.median(latency))
    choices = [
        _importance(space, move, len(pairs), found, negligible)
        for (move, pairs), found in zip(steps.items(), numbers, strict=True)
    ]
    return sorted(choices, key=lambda c: (c.free, -c.accuracy if c.free else -c.least))


def undecided(ranked: Sequence[Importance]) -> tuple[list[Importance], list[Importance]]:
    """Return the choices, the first not among them, whose interval reaches into that of the first.

    First those that surely gain something, and so may be as good; then those of which even that is
    unknown.
    """
    if not ranked or ranked[0].free:
        return [], []
    rivals = [c for c in ranked[1:] if not c.free and c.gain + c.gain_error > ranked[0].least]
    return [c for c in rivals if c.least > 0], [c for c in rivals if c.least <= 0]


def _steps(space: Space[C], bases: Sequence[C]) -> dict[Move, list[Pair]]:
    """The steps of each choice, every pair of neighbours once, the later choice second."""
    steps: dict[Move, set[Pair]] = defaultdict(set)
    for genes in map(space.encode, bases):
        for move, pair in _neighbours(space, genes):
            if all(is_config(space, g) for g in pair):
                steps[move].add(pair)
    return {move: sorted(pairs) for move, pairs in sorted(steps.items())}


def _neighbours(space: Space[C], genes: Genes) -> Iterator[tuple[Move, Pair]]:
    for i, gene in enumerate(space.genes):
        here = genes[i]
        near = (here - 1, here + 1) if gene.ordered else range(len(gene.choices))
        for there in near:
            if there != here and 0 <= there < len(gene.choices):
                low, high = sorted((here, there))
                pair = (*genes[:i], low, *genes[i + 1 :]), (*genes[:i], high, *genes[i + 1 :])
                yield ((i, 0, 1) if gene.ordered else (i, low, high)), pair


def is_config(space: Space[C], genes: Genes) -> bool:
    """Whether genes make a config: the class may refuse some combinations."""
    try:
        space.decode(genes)
    except ValueError:
        return False
    return True


def differences(every: Sequence[Sequence[Pair]], genes: Sequence[Genes]) -> Array:
    """Return a row for each list of pairs: times a value for each of the genes, its mean change."""
    row_of = {g: i for i, g in enumerate(genes)}
    change = np.zeros((len(every), len(genes)))
    for i, pairs in enumerate(every):
        for before, after in pairs:
            change[i, row_of[before]] -= 1 / len(pairs)
            change[i, row_of[after]] += 1 / len(pairs)
    return change


def _importance(
    space: Space[C], move: Move, steps: int, found: tuple[float, float, float], negligible: float
) -> Importance:
    """Turn the step round where it would save time."""
    (i, low, high), (accuracy, error, latency) = move, found
    gene, down = space.genes[i], bool(latency < 0)
    ends = (gene.choices[low], gene.choices[high])
    before, after = (None, None) if gene.ordered else ends[::-1] if down else ends
    return Importance(
        gene=space.names[i],
        before=before,
        after=after,
        down=down,
        steps=steps,
        accuracy=float(-accuracy if down else accuracy),
        accuracy_error=float(error),
        latency=float(abs(latency)),
        free=bool(abs(latency) < negligible),
    )


@dataclass(frozen=True, kw_only=True)
class ImportanceTable:
    """The ranked choices with what their numbers mean."""

    choices: Sequence[Importance]
    kind: AccuracyKind
    trials: int  # that the model was fitted to
    unit: Unit = "ms"

    @property
    def units(self) -> str:
        return UNITS[self.kind]

    @property
    def finding(self) -> str:
        """Where time is best spent, as far as that can be told: no further than one step goes."""
        first, (rivals, unknown) = self.choices[0], undecided(self.choices)
        if first.free:
            return "No choice takes time to speak of."
        if first.least <= 0:
            return f"By {self.trials} trials no choice is known to gain anything for its time."
        sure = "probably " if rivals or unknown else ""
        lines = [f"Time is {sure}best spent on {first.words}: one step gains"]
        lines += [f"{self.gain_words(first)} {self.units} for {self.time_words(first)}, modelled."]
        lines += [f"As good, perhaps: {_named(rivals)}."] * bool(rivals)
        lines += [f"Too uncertain to compare: {_named(unknown)}."] * bool(unknown)
        return " ".join(lines)

    def gain_words(self, choice: Importance) -> str:
        """What one step gains, with the half-width of its interval."""
        return f"{signed(choice.accuracy)} \u00b1 {choice.accuracy_error:.2g}"

    def time_words(self, choice: Importance) -> str:
        """What one step takes."""
        if choice.free:
            return "about no time"
        return f"{format_ms(choice.latency)} {'ms' if self.unit == 'ms' else 'of a budget'}"

    @property
    def method(self) -> str:
        return (
            "Modelled, not measured: means over one-step changes of the front's networks. A model "
            f"of the {MODELLED[self.kind]}, led by the estimate without training and fitted to "
            f"{self.trials} trials, says what a step "
            "gains, the latency predictor what it takes. The interval (95 %) is how far the gain "
            "moves when tenths of the trials are left out; the error of the predicted latencies is "
            "not in it."
        )

    def ends(self, choice: Importance) -> tuple[float, float, float]:
        """The gain for its time: the low end of its interval, the middle, the high end."""
        return choice.least, choice.gain, choice.gain + choice.gain_error

    def place(self, gain: float) -> float:
        """Where a gain lies between the least and the most of all intervals, in per cent."""
        ends = [0.0, *(end for c in self.choices if not c.free for end in self.ends(c))]
        low, high = min(ends), max(ends)
        return 100 * (gain - low) / (high - low) if high > low else 50.0


def gene_words(gene: str) -> str:
    """Return a choice as people call it: stage 3 depth for depths[2]."""
    match = re.fullmatch(r"(\w+?)s?\[(\d+)\]", gene)
    name = match[1] if match else gene
    stage = f"stage {int(match[2]) + 1} " if match else ""
    return stage + name.replace("_", " ")


def signed(number: float) -> str:
    """Return a number with three figures and its sign."""
    return f"{number:+.3g}".replace("-", "\u2212")


def _named(choices: Sequence[Importance]) -> str:
    others = len(choices) - _MOST_NAMED
    rest = f" and {count_words(others, 'other')}" if others > 0 else ""
    return ", ".join(choice.words for choice in choices[:_MOST_NAMED]) + rest
