"""A copy of a run's trials in an Optuna storage, for optuna-dashboard and the like.

The run folder stays the truth: a trial is there before it is here, and nothing is read back. So a
storage that fails is behind for a while, and no more.
"""

import logging
from collections.abc import Sequence

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

from search_spaces.io import first_line

Trials = Sequence[optuna.trial.FrozenTrial]

_JOURNALS = (".journal", ".log")


class Mirror:
    """A study of a run's name in the storage at `url`, which only grows.

    `url` is what optuna-dashboard takes: sqlite:///x.db, mysql://..., redis://..., or a journal's
    file, x.journal or x.log. `behind` says why the storage did not take a trial; then it waits for
    `follow`.

    Raises:
        ValueError: if it is neither a URL nor named as a journal is.
        RuntimeError: if the storage cannot be opened.
    """

    def __init__(self, url: str, name: str) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.behind = ""
        self._url, self._name = url, name
        if "://" not in url and not url.endswith(_JOURNALS):  # no file of any name by a slip
            raise ValueError(f"`storage` must be a URL or a journal's file, but got {url}. Write "
                             f"sqlite:///{url}.db or {url}.journal.")  # fmt: skip
        try:
            self._study = optuna.create_study(
                storage=_opened(url), study_name=name, directions=["maximize", "minimize"],
                load_if_exists=True,
            )  # fmt: skip
        except Exception as error:  # of whichever database it is
            raise RuntimeError(f"{self._refusal(error)} Give one that can be opened.") from error

    def add(self, trial: optuna.trial.FrozenTrial) -> None:
        """Copy a trial, unless the storage failed before: a search must not wait for each."""
        if self.behind:
            return
        try:
            self._study.add_trial(trial)
        except Exception as error:
            self.behind = _one_line(error)

    def follow(self, trials: Trials) -> None:
        """Copy those of a run's trials that the storage lacks.

        Raises:
            ValueError: if the study there is another run's.
            RuntimeError: if the storage fails.
        """
        try:
            there = {t.user_attrs.get("number"): t.params for t in self._study.trials}
        except Exception as error:
            raise self._failed(error) from error
        ours = {t.user_attrs["number"]: t.params for t in trials}
        if any(params != ours.get(number) for number, params in there.items()):
            raise ValueError(f"`storage` must hold no other run's study, but {self._url} has one "
                             f"named {self._name}. Give the run folder another name, or use "
                             "another storage.")  # fmt: skip
        try:
            self._study.add_trials(t for t in trials if t.user_attrs["number"] not in there)
        except Exception as error:
            raise self._failed(error) from error
        self.behind = ""

    def _failed(self, error: Exception) -> RuntimeError:
        return RuntimeError(f"{self._refusal(error)} The run folder has all of them; --resume "
                            "copies what the storage lacks.")  # fmt: skip

    def _refusal(self, error: Exception) -> str:
        return f"`storage` must take the trials, but {self._url} does not: {_one_line(error)}."


def _opened(url: str) -> BaseStorage:
    if url.startswith(("redis://", "rediss://")):
        return JournalStorage(JournalRedisBackend(url))
    if "://" in url:
        return RDBStorage(url)
    return JournalStorage(JournalFileBackend(url))


def _one_line(error: Exception) -> str:
    """The error that a database gave, below those that were made of it."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error).rstrip(".")
