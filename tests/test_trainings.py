"""Trainings that go on after their trial."""

from dataclasses import replace
from pathlib import Path

from networks import TINY
from specs import scores

from nas.search.trial import NetworkScores, Objectives, Outcome
from nas.study.journal import Trained, Trainings, append_training, read_trainings, train_on
from search_spaces.fasternet import FasterNetConfig

FOUND = {TINY: Objectives(accuracy=50.0, ratio=1.0)}


class Memory:
    """A record in memory."""

    def __init__(self) -> None:
        self.trainings: Trainings = {}

    def keep_training(self, config: FasterNetConfig, training: Trained) -> None:
        self.trainings.setdefault(config, {})[training.epochs] = training


class Losing:
    """A pool whose worker is lost the first time."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, number: int, config: FasterNetConfig) -> None:
        self.submitted += 1

    def next_finished(self) -> Outcome[NetworkScores]:
        if self.submitted == 1:
            return Outcome(0, None, "NodeDiedError: it is gone", lost=True)
        return Outcome(0, scores(60.0, 1.0))


def test_what_was_lost_with_its_worker_is_trained_the_next_time() -> None:
    record, pool = Memory(), Losing()
    assert list(train_on(FOUND, 4, record, pool)) == [(1, 1)]
    assert record.trainings == {}
    assert list(train_on(FOUND, 4, record, pool)) == [(1, 1)]
    assert record.trainings == {TINY: {4: Trained(epochs=4, accuracy=60.0)}}
    assert list(train_on(FOUND, 4, record, pool)) == []
    assert pool.submitted == 2


class Queue:
    """A pool that ends what came first."""

    def __init__(self) -> None:
        self.submitted: list[FasterNetConfig] = []

    def submit(self, number: int, config: FasterNetConfig) -> None:
        assert number == len(self.submitted)
        self.submitted.append(config)

    def next_finished(self) -> Outcome[NetworkScores]:
        return Outcome(len(self.submitted) - 1, scores(60.0, 1.0))


def test_the_slowest_networks_begin_first() -> None:
    configs = [replace(TINY, classes=number) for number in range(2, 11)]
    ratios = [4.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 5.0]
    found = {
        config: Objectives(accuracy=ratio, ratio=ratio)
        for config, ratio in zip(configs, ratios, strict=True)
    }
    pool = Queue()
    list(train_on(found, 4, Memory(), pool))
    began = [found[config].ratio for config in pool.submitted]
    assert began == sorted(began, reverse=True)
    assert len(began) == 3


def test_they_are_read_as_they_were_kept(tmp_path: Path) -> None:
    found = [Trained(epochs=2, accuracy=50.0), Trained(epochs=4, accuracy=None, error="it broke")]
    for training in found:
        append_training(tmp_path, TINY, training)
    assert read_trainings(tmp_path) == {TINY: {2: found[0], 4: found[1]}}
