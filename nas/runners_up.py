"""Networks that come after a front, for those who want more of them than it has."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from nas.candidate import Candidate
from nas.fronts import as_trial, thinned
from nas.search.pareto import pareto_front
from nas.study.run_folder import read_only_run
from search_spaces.fasternet import FasterNetConfig


def runners_up(
    folder: Path, *, taken: Collection[FasterNetConfig], count: int
) -> list[Candidate]:  # fmt: skip
    """Return up to so many networks of a run within its budget that are not taken.

    They are the front of all that are left, thinned as every front is, the most accurate first,
    then the front of the rest, and so on (as the ranks of NSGA-II), each in its fastest form.

    Raises:
        ValueError: if the folder holds no study or a corrupt file.
    """
    left = {c.config: c for c in reversed(_candidates(folder)) if c.config not in taken}
    return [c for front in _fronts(list(left.values())) for c in reversed(front)][:count]


def form_of(folder: Path, name: str) -> tuple[str, str] | None:
    """Return the runtime and the precision that a network of a run is the fastest in, if known.

    Raises:
        ValueError: if the folder holds no study or a corrupt file.
    """
    return next(
        (
            (c.latency.backend.runtime, c.latency.backend.precision)
            for c in _candidates(folder)
            if c.name == name
        ),
        None,
    )


def _candidates(folder: Path) -> list[Candidate]:
    run = read_only_run(folder)
    try:
        return run.candidates()
    finally:
        run.close()


def _fronts(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Yield the front of the candidates, then that of those that are not on it, and so on."""
    left = list(candidates)
    while front := thinned(pareto_front([as_trial(i, c) for i, c in enumerate(left)])):
        numbers = {trial.number for trial in front}
        yield [left[trial.number] for trial in front]
        left = [c for i, c in enumerate(left) if i not in numbers]
