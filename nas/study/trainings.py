"""Trainings that go on after their trial: the best of each rung, to the next one."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from nas.search.pareto import promoted
from nas.search.trial import NetworkScores, Objectives, Pool
from nas.study import journal
from search_spaces.fasternet import FasterNetConfig

TRAININGS = "trainings.jsonl"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How accurate a network was after so many epochs, or why its training ended."""

    epochs: int
    accuracy: float | None
    error: str | None = None


Trainings = dict[FasterNetConfig, dict[int, Trained]]  # by epochs


class KeepsTrainings(Protocol):
    """Keeps how accurate networks are after longer trainings."""

    trainings: Trainings

    def keep_training(self, config: FasterNetConfig, training: Trained) -> None:
        """Record a longer training."""


def train_on(
    found: Mapping[FasterNetConfig, Objectives],
    epochs: int,
    record: KeepsTrainings,
    pool: Pool[NetworkScores],
) -> Iterator[tuple[int, int]]:
    """Train the best of a rung for so many epochs; yield how many are done, and of how many.

    `pool` evaluates to that many epochs; the slowest networks come first, so that it does not wait
    for one of them at the end. What is recorded is not trained again; what was lost with its worker
    is not recorded.
    """
    best = sorted(promoted(found), key=lambda config: -found[config].ratio)
    waiting = [c for c in best if epochs not in record.trainings.get(c, {})]
    for number, config in enumerate(waiting):
        pool.submit(number, config)
    for done in range(len(waiting)):
        outcome = pool.next_finished()
        if not outcome.lost:
            accuracy = outcome.scores.accuracy if outcome.scores else None
            training = Trained(epochs=epochs, accuracy=accuracy, error=outcome.error)
            record.keep_training(waiting[outcome.number], training)
        yield len(best) - len(waiting) + done + 1, len(best)


def after(
    found: Mapping[FasterNetConfig, Objectives], epochs: int, trainings: Trainings
) -> dict[FasterNetConfig, Objectives]:
    """Return the objectives after so many epochs, of those that were trained for them."""
    trained = {config: trainings.get(config, {}).get(epochs) for config in found}
    return {
        config: replace(found[config], accuracy=training.accuracy)
        for config, training in trained.items()
        if training is not None and training.accuracy is not None
    }


def longest(trainings: Mapping[int, Trained]) -> Trained | None:
    """Return the longest training that ended with an accuracy, if any."""
    whole = [training for training in trainings.values() if training.accuracy is not None]
    return max(whole, key=lambda training: training.epochs, default=None)


def append_training(folder: Path, config: FasterNetConfig, training: Trained) -> None:
    """Append a training to the folder's record."""
    journal.append_record(folder / TRAININGS, config, asdict(training))


def read_trainings(folder: Path, *, growing: bool = False) -> Trainings:
    """Return the trainings that were recorded.

    Raises:
        ValueError: if a line is none; the message says which.
    """
    found: Trainings = {}
    records = journal.read_records(
        folder / TRAININGS, lambda entry: Trained(**entry), what="a training", growing=growing
    )
    for config, training in records:
        found.setdefault(config, {})[training.epochs] = training
    return found
