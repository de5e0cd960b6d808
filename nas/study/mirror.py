"""A copy of a run's trials in an Optuna storage, for optuna-dashboard and the like.

The run folder stays the truth: nothing is read back. `optuna.copy_study` does not serve, since it
refuses a study that is there already.
"""

import logging
from collections.abc import Iterable

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

from search_spaces.io import first_line

_JOURNALS = (".journal", ".log")


class Mirror:
    """A study of a run's name in the storage at `url`, which only grows.

    `url` is what optuna-dashboard takes: sqlite:///x.db, mysql://..., redis://..., or a journal's
    file, x.journal or x.log.

    Raises:
        ValueError: if it is neither a URL nor named as a journal is.
        RuntimeError: if the storage cannot be opened.
    """

    def __init__(self, url: str, name: str) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._url, self._name = url, name
        if "://" not in url and not url.endswith(_JOURNALS):  # no file of any name by a slip
            raise ValueError(
                f"`storage` must be a URL or a journal's file, but got {url}. Write "
                f"sqlite:///{url}.db or {url}.journal."
            )
        try:
            self._study = optuna.create_study(
                storage=_opened(url),
                study_name=name,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
        except Exception as error:  # of whichever database it is
            raise self._refusal(error, "Give one that can be opened.") from error

    def update(self, trials: Iterable[optuna.trial.FrozenTrial]) -> None:
        """Copy those of a run's trials that the storage lacks.

        Raises:
            ValueError: if the study there is another run's.
            RuntimeError: if the storage fails.
        """
        ours = {trial.user_attrs["number"]: trial for trial in trials}
        try:
            there = {t.user_attrs.get("number"): t.params for t in self._study.trials}
            foreign = any(n not in ours or ours[n].params != p for n, p in there.items())
            if not foreign:
                self._study.add_trials(ours[n] for n in ours if n not in there)
        except Exception as error:
            advice = "The run folder has all of them; --resume copies what the storage lacks."
            raise self._refusal(error, advice) from error
        if foreign:
            raise ValueError(
                f"`storage` must hold no other run's study, but {self._url} has one named "
                f"{self._name}. Give the run folder another name, or use another storage."
            )

    def _refusal(self, error: BaseException, advice: str) -> RuntimeError:
        while error.__cause__ is not None:  # the error that the database gave
            error = error.__cause__
        why = first_line(error).rstrip(".")
        return RuntimeError(
            f"`storage` must take the trials, but {self._url} does not: {why}. {advice}"
        )


def _opened(url: str) -> BaseStorage:
    if url.startswith(("redis://", "rediss://")):
        return JournalStorage(JournalRedisBackend(url))
    if "://" in url:
        return RDBStorage(url)
    return JournalStorage(JournalFileBackend(url))
