"""Experiment trackers, which are told of each epoch of a training besides its own table.

The table is the record. A tracker that fails costs nothing but its own lines: it is named once, and
left out from then on.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol, final

from nas.finetune.jobs import Job
from predictors.training.recipe import EpochRow

PROJECT = "fasternas"  # the experiment, or project, of all trainings
_PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}  # to import


class Tracker(Protocol):
    """Logs trainings; one that was begun before goes on."""

    def tell(self, job: Job, rows: Sequence[EpochRow]) -> None:
        """Log those of a training's epochs so far that it does not have."""

    def end(self) -> None:
        """Close what was begun."""


@final
class Trackers:
    """Several trackers, by name."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def tell(self, job: Job, rows: Sequence[EpochRow]) -> list[str]:
        """Tell each of them; return what is to be said of those that failed."""
        return self._with_each(lambda tracker: tracker.tell(job, rows)) if rows else []

    def end(self) -> list[str]:
        """Close each of them; return what is to be said of those that failed."""
        return self._with_each(lambda tracker: tracker.end())

    def _with_each(self, act: Callable[[Tracker], None]) -> list[str]:
        remarks = []
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception as error:  # of whatever kind: servers and networks fail in many ways
                del self._trackers[name]
                lines = str(error).strip().splitlines() or [type(error).__name__]
                remarks.append(f"{name} is told no more, as it failed: {lines[0]}")
        return remarks


@contextmanager
def open_trackers(names: Sequence[str]) -> Iterator[Trackers]:
    """Give the trackers of these names, and close them."""
    known: dict[str, Callable[[], Tracker]] = {"mlflow": Mlflow, "wandb": WeightsAndBiases}
    opened: dict[str, Tracker] = {}
    for name in names:
        if name not in known:
            raise ValueError(f"`log` must be of {', '.join(known)}, but got {name!r}.")
        try:
            opened[name] = known[name]()
        except ImportError:
            raise RuntimeError(
                f"`log` must be something that is installed here, but {_PACKAGES[name]} is not. "
                f"Install it with `pip install 'fasternas[{name}]'`."
            ) from None
    trackers = Trackers(opened)
    try:
        yield trackers
    finally:
        trackers.end()


@final
class Mlflow:
    """MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._runs: dict[str, tuple[str, int]] = {}  # by the training: its run, epochs logged

    def tell(self, job: Job, rows: Sequence[EpochRow]) -> None:
        key = _key(job)
        run, logged = self._runs.get(key) or self._begun(job, key)
        for row in rows[logged:]:
            for name, value in _metrics(row).items():
                self._client.log_metric(run, name, value, step=row.epoch)
            self._runs[key] = run, row.epoch

    def end(self) -> None:
        for run, _ in self._runs.values():
            self._client.set_terminated(run)

    def _begun(self, job: Job, key: str) -> tuple[str, int]:
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        tag = f"{PROJECT}.training"
        found = self._client.search_runs([experiment], f"tags.`{tag}` = '{key}'", max_results=1)
        if found:
            history = self._client.get_metric_history(found[0].info.run_id, "loss")
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id, max((metric.step for metric in history), default=0)
        run = self._client.create_run(experiment, run_name=job.name, tags={tag: key})
        for name, value in _settings(job).items():
            self._client.log_param(run.info.run_id, name, value)
        return run.info.run_id, 0


@final
class WeightsAndBiases:
    """Weights & Biases, as its own settings say; its files lie in the training's folder."""

    def __init__(self) -> None:
        import wandb

        self._wandb: Any = wandb
        self._runs: dict[str, tuple[Any, int]] = {}

    def tell(self, job: Job, rows: Sequence[EpochRow]) -> None:
        key = _key(job)
        run, logged = self._runs.get(key) or (self._begun(job, key), 0)
        for row in rows[logged:]:
            run.log(_metrics(row), step=row.epoch)  # an epoch that it has it leaves out
            self._runs[key] = run, row.epoch

    def end(self) -> None:
        for run, _ in self._runs.values():
            run.finish()

    def _begun(self, job: Job, key: str) -> Any:
        return self._wandb.init(
            project=PROJECT,
            name=job.name,
            id=key,
            resume="allow",
            config=_settings(job),
            dir=str(job.folder),
            reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )


def _key(job: Job) -> str:
    """The same for a training that goes on."""
    return hashlib.sha256(f"{job.folder} {job.identity}".encode()).hexdigest()[:16]


def _settings(job: Job) -> dict[str, Any]:
    return {"data": job.data, "init": job.init, **asdict(job.config), **asdict(job.recipe)}


def _metrics(row: EpochRow) -> dict[str, float]:
    return {name: float(value) for name, value in asdict(row).items() if name != "epoch"}
