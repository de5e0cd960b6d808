"""Which knob buys what: accuracy for each millisecond, by a model fitted to the trials.

A knob is a choice of the space that goes one step: a number to the next larger one, another choice
to each other one. Steps are taken from given networks, such as those of a front, up and down; the
model of the accuracy says what they gain, the model of the latency what they take.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy import AccuracyPredictor
from search_spaces.space import Genes, Space

Array = NDArray[np.float64]
PredictMs = Callable[[Sequence[Any]], Sequence[float] | Array]
Scores = Callable[[Sequence[Any]], Array]
Move = tuple[int, int, int]  # gene, from a choice, to a choice; (gene, 0, 1) where it is ordered

FEWEST = 12  # trials to fit to
GROUPS = 10  # of trials, each left out once
MOST = 200  # trials to fit to: the time rises with the cube
_T = 2.262  # of Student's t with 9 degrees of freedom: 95 %
_FREE = 0.01  # of the latency: less is no time to speak of


@dataclass(frozen=True, kw_only=True)
class Knob:
    """What one step of a choice buys: means over the `steps` that the networks can take.

    `accuracy` is what is gained (a loss if negative), with the half-width of its 95 % interval,
    and `ms` what it takes. The step goes `down`, or away from the later choice, where that is
    the slower way.
    """

    gene: str  # as the space names it, such as depths[2]
    before: Any  # the choices of an unordered gene; None where it is ordered
    after: Any
    down: bool
    accuracy: float
    accuracy_error: float
    ms: float
    steps: int
    free: bool  # of latency, as far as can be told

    @property
    def gain(self) -> float:
        """Accuracy for a millisecond; no number where no time is taken."""
        return float("nan") if self.free else self.accuracy / self.ms

    @property
    def gain_error(self) -> float:
        """The half-width of its 95 % interval; the latencies are taken as they are."""
        return float("nan") if self.free else self.accuracy_error / self.ms

    @property
    def least(self) -> float:
        """The low end of that interval."""
        return self.gain - self.gain_error


def find_knobs(
    space: Space[Any], trials: Sequence[tuple[Any, float]], predict_ms: PredictMs, *,
    bases: Sequence[Any], scores: Scores | None = None,
) -> list[Knob]:  # fmt: skip
    """Return the knobs, what surely gains most for a millisecond first: by its interval's low end.

    Those that take no time come last. `trials` are configs with their accuracies, all of one kind,
    `bases` the configs from which steps are taken; `scores` of configs, such as training-free ones,
    are what the model of the accuracy starts from. There are none where there are fewer than
    `FEWEST` trials or no steps. The interval is the jackknife's (Efron 1982, chapter 3), a tenth of
    the trials left out at a time.
    """
    steps = _steps(space, bases)
    if len(trials) < FEWEST or not steps:
        return []
    genes = sorted({g for pairs in steps.values() for pair in pairs for g in pair})
    configs = [space.decode(g) for g in genes]
    ms = np.asarray(predict_ms(configs), dtype=float)
    change = _differences(steps, {g: i for i, g in enumerate(genes)})
    gains = partial(_gained, space, configs, change, scores)
    gained, error = _jackknife(_spread(trials), gains)
    taken = change @ ms
    least = _FREE * float(np.median(ms))
    found = [
        _knob(space, move, len(pairs), (gained[i], error[i], taken[i]), least)
        for i, (move, pairs) in enumerate(steps.items())
    ]
    return sorted(found, key=lambda k: (k.free, -k.accuracy if k.free else -k.least))


def undecided(knobs: Sequence[Knob]) -> tuple[list[Knob], list[Knob]]:
    """Return the knobs, the first not among them, whose interval reaches into that of the first.

    First those that surely gain something, and so may be as good; then those of which even that is
    unknown.
    """
    if not knobs or knobs[0].free:
        return [], []
    rivals = [k for k in knobs[1:] if not k.free and k.gain + k.gain_error > knobs[0].least]
    return [k for k in rivals if k.least > 0], [k for k in rivals if k.least <= 0]


def _steps(space: Space[Any], bases: Sequence[Any]) -> dict[Move, list[tuple[Genes, Genes]]]:
    """The steps of each knob, every pair of neighbours once, the later choice second."""
    found: dict[Move, set[tuple[Genes, Genes]]] = defaultdict(set)
    for genes in map(space.encode, bases):
        for move, pair in _neighbours(space, genes):
            if all(_spells(space, g) for g in pair):
                found[move].add(pair)
    return {move: sorted(pairs) for move, pairs in sorted(found.items())}


def _neighbours(space: Space[Any], genes: Genes) -> Iterator[tuple[Move, tuple[Genes, Genes]]]:
    for i, gene in enumerate(space.genes):
        here = genes[i]
        reach = (here - 1, here + 1) if gene.ordered else range(len(gene.choices))
        for there in reach:
            if there != here and 0 <= there < len(gene.choices):
                low, high = sorted((here, there))
                pair = (*genes[:i], low, *genes[i + 1 :]), (*genes[:i], high, *genes[i + 1 :])
                yield ((i, 0, 1) if gene.ordered else (i, low, high)), pair


def _spells(space: Space[Any], genes: Genes) -> bool:
    """Whether genes make a config: the class may refuse some combinations."""
    try:
        space.decode(genes)
    except ValueError:
        return False
    return True


def _differences(
    steps: dict[Move, list[tuple[Genes, Genes]]], row_of: dict[Genes, int]
) -> Array:  # fmt: skip
    """A row for each knob which, times a value for each config, is the mean change."""
    change = np.zeros((len(steps), len(row_of)))
    for i, pairs in enumerate(steps.values()):
        for before, after in pairs:
            change[i, row_of[before]] -= 1 / len(pairs)
            change[i, row_of[after]] += 1 / len(pairs)
    return change


def _gained(
    space: Space[Any], configs: Sequence[Any], change: Array, scores: Scores | None,
    trials: Sequence[tuple[Any, float]],
) -> Array:  # fmt: skip
    """What each knob gains by a model of the trials."""
    trained = [config for config, _ in trials]
    known, asked = (None, None) if scores is None else (scores(trained), scores(configs))
    model = AccuracyPredictor.fit(space, trained, [a for _, a in trials], scores=known)
    return np.asarray(change @ model.predict(configs, scores=asked).median)


def _jackknife(
    trials: Sequence[tuple[Any, float]], gained: Callable[[Sequence[tuple[Any, float]]], Array]
) -> tuple[Array, Array]:
    """What all trials say, and the half-width of its interval."""
    parts = np.stack([gained([t for i, t in enumerate(trials) if i % GROUPS != left_out])
                      for left_out in range(GROUPS)])  # fmt: skip
    spread = np.sum((parts - parts.mean(axis=0)) ** 2, axis=0)
    return gained(trials), _T * np.sqrt((GROUPS - 1) / GROUPS * spread)


def _spread(trials: Sequence[tuple[Any, float]]) -> Sequence[tuple[Any, float]]:
    """All trials or, of very many, some of the early ones and some of the late."""
    if len(trials) <= MOST:
        return trials
    return [trials[i * len(trials) // MOST] for i in range(MOST)]


def _knob(
    space: Space[Any], move: Move, steps: int, found: tuple[float, float, float], least_ms: float
) -> Knob:
    """Turn the step round where it would save time."""
    (i, low, high), (accuracy, error, ms) = move, found
    gene, down = space.genes[i], bool(ms < 0)
    ends = (gene.choices[low], gene.choices[high])
    before, after = (None, None) if gene.ordered else ends[::-1] if down else ends
    return Knob(gene=space.names[i], before=before, after=after, down=down, steps=steps,
                accuracy=float(-accuracy if down else accuracy), accuracy_error=float(error),
                ms=float(abs(ms)), free=bool(abs(ms) < least_ms))  # fmt: skip
