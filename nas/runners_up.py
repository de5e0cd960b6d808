"""Networks that come after a front, for those who want more of them than it has."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.candidate import Candidate
from nas.folders import read_only_run
from nas.fronts import as_trial
from nas.searching.pareto import pareto_front


def runners_up(folder: Path, count: int) -> list[Candidate]:
    """Return up to so many networks of a run within its budget that are not on its front.

    They are taken from the front of all that are left, the most accurate first, then from the next
    front, and so on (the ranks of NSGA-II).

    Raises:
        ValueError: if the folder holds no study or a corrupt file.
    """
    run = read_only_run(folder)
    try:
        candidates = run.candidates()
    finally:
        run.close()
    taken = {c.config for c in candidates if c.on_front}
    left = {c.config: c for c in reversed(candidates) if c.config not in taken}
    return [c for front in _fronts(list(left.values())) for c in reversed(front)][:count]


def _fronts(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Yield the front of the candidates, then that of those that are not on it, and so on."""
    left = list(candidates)
    while front := pareto_front([as_trial(i, c) for i, c in enumerate(left)]):
        numbers = {trial.number for trial in front}
        yield [left[trial.number] for trial in front]
        left = [c for i, c in enumerate(left) if i not in numbers]
