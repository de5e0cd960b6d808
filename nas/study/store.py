"""A study on disk: what was asked, every trial and every measurement, in files that only grow.

run.json            the options, versions and machine: everything needed to repeat the study
study.journal       the trials, an Optuna journal (optuna-dashboard opens it)
measurements.jsonl  the latencies that were timed
trainings.jsonl     the accuracies of networks that were trained further than their trial
files.jsonl         what the accuracy of networks loses in files that are not in fp32
"""

import json
import logging
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalRedisBackend

from nas.search.searchers import distributions
from nas.search.trial import NetworkScores, Outcome
from nas.study import journal
from nas.study.journal import (
    FileAccuracy,
    Trained,
    append_file,
    append_training,
    read_files,
    read_trainings,
)
from predictors.backends.model import config_identity
from predictors.data.datasets import DataCounts
from predictors.devices.cache_entry import CacheEntry, in_utc
from predictors.measurement import Backend, Latencies
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import (
    atomic_write,
    lock_descriptor,
    locked,
    named_reason,
    one_line,
    short_repr,
    shown,
)
from search_spaces.space import AnySpace, Genes, Space


def to_optuna(
    space: AnySpace,
    genes: Genes,
    outcome: Outcome[NetworkScores],
    *,
    budgets_ms: Mapping[str, float],
) -> optuna.trial.FrozenTrial:
    """Return an outcome as a finished trial; a failed one has its error as an attribute."""
    names = distributions(space)
    attributes: dict[str, object] = {"number": outcome.number, "genes": list(genes)}
    if outcome.scores is None:
        state, values, excess = optuna.trial.TrialState.FAIL, None, None
        attributes["error"] = outcome.error
    else:
        scores = outcome.scores
        state = optuna.trial.TrialState.COMPLETE
        objectives = scores.objectives(budgets_ms)
        values = [float(objectives.accuracy), float(objectives.ratio)]
        excess = {"budget": objectives.excess}
        attributes["latencies"] = {
            name: {end: getattr(one, end) for end in _ENDS}
            for name, one in scores.latencies.by_device.items()
        }
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(zip(names, genes, strict=True)),
        distributions=names,
        user_attrs=attributes,
        constraints=excess,
    )


_ENDS = ("median_ms", "low_ms", "high_ms")


def from_optuna(trial: optuna.trial.FrozenTrial) -> tuple[Genes, Outcome[NetworkScores]]:
    """Return the genes and the outcome of a trial that `to_optuna` made."""
    scores = None
    if trial.state == optuna.trial.TrialState.COMPLETE:
        latencies = {
            name: {**ends, "source": "predicted", "device": name, "backend": None}
            for name, ends in trial.user_attrs["latencies"].items()
        }
        scores = NetworkScores(
            accuracy=float(trial.values[0]), latencies=Latencies.from_json(latencies)
        )
    number, error = trial.user_attrs["number"], trial.user_attrs.get("error")
    if type(number) is not int or not isinstance(error, str | None):
        raise ValueError(f"number {short_repr(number)} and error {short_repr(error)}")
    return tuple(trial.user_attrs["genes"]), Outcome(number, scores, error)


RUN, TRIALS, MEASUREMENTS = "run.json", "study.journal", "measurements.jsonl"
FRONT = "pareto.csv"  # of the report, which follows from the rest
_NAME = "fasternas"


class Study:
    """The trials and measurements of one run folder, which one process at a time may write.

    One that is only `reading` changes nothing and waits for nobody.
    """

    def __init__(
        self,
        folder: Path,
        space: Space[FasterNetConfig],
        budgets_ms: Mapping[str, float],
        *,
        reading: bool = False,
        lock: IO[bytes] | None = None,
    ) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self.folder = folder
        self._space = space
        self._budgets_ms = budgets_ms
        self._lock = lock if lock or reading else hold(folder)
        growing = self.growing = reading and _is_held(folder)  # another process appends
        try:
            # says which line is corrupt, as Optuna does not
            kept = journal.read(folder / TRIALS, growing=growing)
            self._study = _opened(folder / TRIALS, growing) if kept or not reading else None
            self._known = {outcome.number: (genes, outcome) for genes, outcome in self._outcomes()}
            self.measurements = read_measurements(folder, devices=budgets_ms, growing=growing)
            self.trainings = read_trainings(folder, growing=growing)
            self.files = read_files(folder, growing=growing)
        except BaseException:
            self.close()
            raise

    def recall(self, number: int) -> tuple[Genes, Outcome[NetworkScores]] | None:
        """Return what was evaluated as this trial and its outcome, if it was recorded."""
        return self._known.get(number)

    def keep(self, genes: Genes, outcome: Outcome[NetworkScores]) -> None:
        self._known[outcome.number] = (genes, outcome)
        self.add([to_optuna(self._space, genes, outcome, budgets_ms=self._budgets_ms)])

    def add(self, trials: Iterable[optuna.trial.FrozenTrial]) -> None:
        """Record trials as they are."""
        assert self._study is not None
        for trial in trials:
            self._study.add_trial(trial)

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """Every recorded trial as Optuna has it, in the order of their numbers."""
        found = self._study.trials if self._study else []
        return sorted(found, key=lambda trial: int(trial.user_attrs["number"]))

    def keep_measurement(self, config: FasterNetConfig, latencies: Latencies) -> None:
        record = {"latencies": latencies.as_json()}
        journal.append_record(self.folder / MEASUREMENTS, config, record)
        self.measurements[config] = latencies

    def keep_training(self, config: FasterNetConfig, training: Trained) -> None:
        append_training(self.folder, config, training)
        self.trainings.setdefault(config, {})[training.epochs] = training

    def keep_file(self, config: FasterNetConfig, backend: Backend, found: FileAccuracy) -> None:
        append_file(self.folder, config, backend, found)
        self.files.setdefault(config, {})[backend] = found

    def outcomes(self) -> list[tuple[FasterNetConfig, Outcome[NetworkScores]]]:
        """Every recorded trial, in the order of their numbers."""
        return [
            (self._space.decode(genes), outcome)
            for _, (genes, outcome) in sorted(self._known.items())
        ]

    def close(self) -> None:
        if self._lock:
            self._lock.close()

    def _outcomes(self) -> list[tuple[Genes, Outcome[NetworkScores]]]:
        try:
            trials = self._study.trials if self._study else []
            found = [from_optuna(trial) for trial in trials]
        except Exception as error:  # Optuna takes whatever a journal says
            raise _unreadable(self.folder / TRIALS, error) from None
        self._check_space(trials)
        try:
            for genes, _ in found:
                self._space.decode(genes)
        except Exception as error:
            raise _unreadable(self.folder / TRIALS, error) from None
        return found

    def _check_space(self, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Refuse trials of another space: their genes are numbers of its choices."""
        ours = list(distributions(self._space).items())
        if any(list(trial.distributions.items()) != ours for trial in trials):
            raise ValueError(
                f"`space` must be as it was when the study in {shown(self.folder)} began, but has "
                "changed since. Open it with the version of fasternas that began it, or begin "
                "another study."
            )


class _WholeLines(BaseJournalBackend):
    """Optuna's journal, of which appends are whole, and whose folder is locked once.

    Nobody else writes, so the file is read once; what Optuna has taken in is not kept twice.
    """

    def __init__(self, path: Path, growing: bool) -> None:  # noqa: FBT001
        self._path = path
        self._entries = journal.read(path, growing=growing)
        self._dropped = 0

    def read_logs(self, log_number_from: int) -> Generator[journal.Entry, None, None]:
        del self._entries[: log_number_from - self._dropped]
        self._dropped = log_number_from
        yield from list(self._entries)

    def append_logs(self, logs: list[journal.Entry]) -> None:
        journal.append(self._path, logs)
        self._entries += json.loads(json.dumps(logs))


def _opened(path: Path, growing: bool) -> optuna.Study:  # noqa: FBT001
    """Load the study of a journal, or begin it there."""
    try:
        storage = optuna.storages.JournalStorage(_WholeLines(path, growing))
        if storage.get_all_studies():
            return optuna.load_study(storage=storage, study_name=_NAME)
    except Exception as error:  # Optuna takes whatever a journal says
        raise _unreadable(path, error) from None
    return optuna.create_study(
        storage=storage, study_name=_NAME, directions=["maximize", "minimize"]
    )


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} must be the journal of a fasternas study, but it has an entry that is none "
        f"({named_reason(error)}). Restore the file."
    )


def write_run(folder: Path, run: Mapping[str, object]) -> None:
    """Write run.json."""
    atomic_write(folder / RUN, json.dumps(run, indent=2) + "\n")


def read_run(folder: Path) -> journal.Entry:
    """Return what run.json says."""
    try:
        run = json.loads((folder / RUN).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"`run` must be a folder that `fasternas search` wrote, but {folder} has no {RUN}."
        ) from None
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict) or not isinstance(run.get("options"), dict):
        raise ValueError(f"{folder / RUN} must be a JSON object with `options`. Restore the file.")
    try:
        msgspec.convert(run, _RunRecord)
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{folder / RUN} must be as a search wrote it, but: {one_line(error)}. Restore "
            "the file."
        ) from None
    return run


class _DeviceFacts(msgspec.Struct):
    description: str
    source: str


class _Machine(msgspec.Struct):
    """Of a run's record what is read again of the machine."""

    devices: dict[str, _DeviceFacts] = {}
    versions: dict[str, str] = {}


class _RunRecord(msgspec.Struct):
    """What a run's record must be, apart from its options."""

    machine: _Machine = msgspec.field(default_factory=_Machine)
    remarks: list[str] = []
    merged_from: list[journal.Entry] = []
    data: DataCounts | None = None


def read_measurements(
    folder: Path, *, devices: Collection[str] = (), growing: bool = False
) -> dict[FasterNetConfig, Latencies]:
    """Return the latencies that were timed, on these devices at least."""

    def parse(entry: journal.Entry) -> Latencies:
        found = Latencies.from_json(entry["latencies"])
        for name in devices:
            found.by_device[name]  # or it is an entry of another study
        return found

    what = f"latencies on {', '.join(devices)}" if devices else "latencies"
    path = folder / MEASUREMENTS
    return dict(journal.read_records(path, parse, what=what, growing=growing))


def check_trials(folder: Path) -> None:
    """Refuse a run whose trials are gone: it had some, since its front has networks."""
    file = folder / TRIALS
    if file.exists() and file.stat().st_size:
        return
    table = folder / FRONT
    if table.exists() and table.read_bytes().strip().count(b"\n"):  # below the header
        raise ValueError(
            f"{file} must hold the trials of the run, but is "
            f"{'empty' if file.exists() else 'missing'}, and {FRONT} has networks. Restore the "
            "file, or search anew in another folder."
        )


def hold(folder: Path, *, reading: bool = False) -> IO[bytes]:
    """Hold a folder's study; the system lets go of it when the process ends, however.

    Several processes may hold it for `reading`, and then none for writing.
    """
    file = (folder / TRIALS).open("rb" if reading else "ab")
    try:
        lock_descriptor(file.fileno(), shared=reading)
    except BlockingIOError:
        file.close()
        raise RuntimeError(
            f"The study in {folder} must be free, but another process works on it. Wait for it or "
            "choose another folder."
        ) from None
    return file


def _is_held(folder: Path) -> bool:
    try:
        with locked(folder / TRIALS, shared=True):
            return False
    except OSError as error:
        return isinstance(error, BlockingIOError)


_JOURNALS = (".journal", ".log")


class Mirror:
    """A study of a run's name in the storage at `url`, which only grows.

    The run folder stays the truth: nothing is read back. `optuna.copy_study` does not serve, since
    it refuses a study that is there already. `url` is what optuna-dashboard takes: sqlite:///x.db,
    mysql://..., redis://..., or a journal's file, x.journal or x.log.
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
                storage=_open_storage(url),
                study_name=name,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
        except Exception as error:  # of whichever database it is
            raise self._refusal(error, "Give one that can be opened.") from error

    def update(self, trials: Iterable[optuna.trial.FrozenTrial]) -> None:
        """Copy those of a run's trials that the storage lacks."""
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
        why = named_reason(error)
        return RuntimeError(
            f"`storage` must take the trials, but {self._url} does not: {why}. {advice}"
        )


def _open_storage(url: str) -> BaseStorage:
    if url.startswith(("redis://", "rediss://")):
        return JournalStorage(JournalRedisBackend(url))
    if "://" in url:
        return RDBStorage(url)
    return JournalStorage(JournalFileBackend(url))


def entries_of_run(folder: Path) -> list[CacheEntry]:
    """Return the measurements of a run folder, as of the time when the last was written."""
    run = read_run(folder)
    measured = [
        (config, latency)
        for config, latencies in read_measurements(folder, growing=True).items()
        for latency in latencies.by_device.values()
        if latency.source == "measured"
    ]
    if not measured:
        raise ValueError(
            f"`run` must be a folder with measurements, but {folder} has none. Name the run of a "
            "device that was timed."
        )
    written = datetime.fromtimestamp((folder / MEASUREMENTS).stat().st_mtime, UTC)
    facts = run.get("machine", {}).get("devices", {})
    try:
        return [
            CacheEntry(
                latency=latency,
                network=config_identity(config),
                description=str(facts.get(latency.device, {}).get("description", "")),
                taken_at=in_utc(written),
            )
            for config, latency in measured
        ]
    except ValueError as error:
        raise ValueError(
            f"The measurements of {folder} must say where they were timed, but: {error} Measure "
            "again."
        ) from None
