"""Ray Tune as a pool of evaluations, for trials that train for long.

Each evaluation is a trial of Tune's: it reports its accuracy with a checkpoint after each epoch, is
begun again from that where its worker was lost, and goes on from it after the whole program was
killed. What is tried next remains the search's, and a finished trial is handed over at once: Tune's
own record is written now and then only, and of a program that was killed early there is none.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Generic, Protocol, TypeVar, cast

from ray import cloudpickle, tune
from ray.tune.search import Searcher as RaySearcher

from nas.ray_pool import RETRIES, attempted, joined
from nas.search.trial import Outcome
from search_spaces.io import atomic_write, named_reason

S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S")
_TRAINABLE = "fasternas-trial"
_STATES = "searcher-state-*.pkl"  # as Tune calls what `_Handover.save` writes
_OUTCOME = "outcome"
_FINISHED: dict[str, Any] = cast("Any", RaySearcher.FINISHED)  # in the place of parameters
_WAIT_S, _IDLE_S = 0.05, 1.0  # for a config, while others run and while none does


class Trains(Protocol[S_co]):
    """An evaluation whose training can be followed."""

    @property
    def name(self) -> str:
        """What is done, as it can be that of a folder: the same name continues the same."""

    def __call__(self, config: Any) -> S_co:
        """Return the scores, at once where the training has been done."""

    def epochs(self, config: Any) -> Iterator[float]:
        """Train; yield the accuracy after each epoch. Nothing, where nothing is trained."""

    def file(self, config: Any) -> Path | None:
        """Return the file from which the training of a config goes on, if there is a training."""


class TunePool(Generic[S]):
    """Evaluates in trials of Ray Tune, one core each; use as a context manager.

    Tune's records and checkpoints are in `folder`. An evaluation over `timeout_s` ends after the
    epoch in which it is over. In a cluster with GPUs each has `gpu`, a share of one.
    """

    def __init__(
        self,
        evaluate: Trains[S],
        *,
        folder: Path,
        address: str | None = None,
        timeout_s: float | None = None,
        gpu: float = 0.0,
    ) -> None:
        self._evaluate = evaluate
        self._folder = folder.absolute() / evaluate.name
        self._address = address
        self._gpu = gpu
        self._handover = _Handover(timeout_s)
        self._end = _End(timeout_s)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "TunePool[S]":
        with ExitStack() as stack:
            self._ray = stack.enter_context(joined(self._address))
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def submit(self, number: int, config: Any) -> None:
        """Start evaluating a config, unless a trial of an earlier run goes on with it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._handover.put(number, config)

    def next_finished(self) -> Outcome[S]:
        """Wait for some submitted evaluation to finish.

        Raises:
            RuntimeError: if Tune itself has failed.
        """
        found: Outcome[S] | Exception = self._handover.outcomes.get()
        if isinstance(found, Exception):
            raise RuntimeError(
                f"Ray Tune must go on, but failed: {named_reason(found)}. What was finished is "
                "kept; --resume goes on."
            ) from found
        return found

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop(self) -> None:
        self._end.ended = self._handover.closed = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        """Have Tune run the trials, until the pool is closed."""
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints whatever is asked
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # errors become outcomes
        try:
            folder, resume = self._experiment()
            self._handover.begin(resumed=resume)
            tune.register_trainable(_TRAINABLE, self._trainable())
            tune.run(
                _TRAINABLE,
                name=folder.name,
                storage_path=str(folder.parent),
                search_alg=self._handover,
                num_samples=-1,
                stop=self._end,
                max_failures=RETRIES,
                resume_config=tune.ResumeConfig() if resume else None,
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                reuse_actors=True,
                raise_on_failed_trial=False,
                verbose=0,
                trial_dirname_creator=_dirname,
                callbacks=[_Failures(self._handover)],
            )
            if not self._handover.closed:
                raise RuntimeError("it has ended before the search")
        except Exception as error:  # the search would wait for ever
            self._handover.outcomes.put(error)

    def _trainable(self) -> Any:
        gpu = self._gpu if "GPU" in self._ray.cluster_resources() else 0
        with_evaluate = tune.with_parameters(run_trial, evaluate=self._evaluate)
        return tune.with_resources(with_evaluate, {"cpu": 1, "gpu": gpu})

    def _experiment(self) -> tuple[Path, bool]:
        """The folder of Tune's experiment, and whether one goes on there that was killed."""
        before = sorted(self._folder.glob("*/"))
        states = sorted(before[-1].glob(_STATES)) if before else []
        whole = states and any(before[-1].glob("experiment_state-*.json"))
        if whole and not _read(states[-1])["closed"]:
            return before[-1], True
        return self._folder / f"{len(before) + 1:04d}", False


def run_trial(config: Mapping[str, Any], evaluate: Trains[Any]) -> None:
    """Evaluate a config in a trial of Tune's; report each epoch and, last, what came of it."""
    number, network = config["number"], config["config"]
    file = evaluate.file(network)
    _bring_back(file)
    try:
        for accuracy in evaluate.epochs(network):
            _report(file, accuracy)
    except Exception as error:  # which ends the trial: it would fail again
        disk = isinstance(error, OSError)
        outcome: Outcome[Any] = Outcome(number, None, named_reason(error), lost=disk)
    else:
        outcome = attempted(evaluate, number, network)
    reached = getattr(outcome.scores, "accuracy", None)
    tune.report({_OUTCOME: outcome, "accuracy": reached, "error": outcome.error})


def _report(file: Path | None, accuracy: float) -> None:
    """Report an epoch, with a copy of the training's file."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        if file is not None:
            shutil.copy2(file, folder)
        tune.report({"accuracy": accuracy}, checkpoint=tune.Checkpoint.from_directory(folder))


def _bring_back(file: Path | None) -> None:
    """Put the training's file where it was, if this node has it not."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None or file is None or file.exists():
        return
    with checkpoint.as_directory() as folder:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, Path(folder, file.name).read_bytes())


def _dirname(trial: Any) -> str:
    return f"trial-{trial.config['number']:04d}-{trial.trial_id}"


class _End(tune.Stopper):
    """Ends a trial that takes too long, and all of them when the pool is closed."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self.ended = False

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        late = self._timeout_s is not None and result["time_total_s"] > self._timeout_s
        return late and _OUTCOME not in result

    def stop_all(self) -> bool:
        return self.ended


@dataclass(frozen=True)
class _Submission:
    number: int
    config: Any


class _Handover(RaySearcher):
    """Hands Tune the configs that are submitted, and the pool what came of them.

    After a program was killed it knows, from what Tune had it save, which of its trials go on.
    """

    def __init__(self, timeout_s: float | None) -> None:
        super().__init__()
        self.outcomes: Queue[Any] = Queue()
        self.closed = False
        self._timeout_s = timeout_s
        self._submitted: Queue[_Submission] = Queue()
        self._running: dict[str, _Submission] = {}  # by Tune's name of the trial
        self._wanted: set[int] = set()
        self._early: dict[int, tuple[_Submission, Outcome[Any]]] = {}  # before it was submitted
        self._ready = threading.Event()
        self._lock = threading.Lock()  # of what both threads look at

    def begin(self, *, resumed: bool) -> None:
        """Let configs be submitted: at once, or when Tune has restored what was running."""
        if not resumed:
            self._ready.set()

    def put(self, number: int, config: Any) -> None:
        """Submit a config, unless a trial with it is running."""
        while not self._ready.wait(_IDLE_S) and self.outcomes.empty():
            continue
        submission = _Submission(number, config)
        with self._lock:
            early, outcome = self._early.pop(number, (None, None))
            if early == submission:
                self.outcomes.put(outcome)
                return
            self._wanted.add(number)
            if submission not in self._running.values():
                self._submitted.put(submission)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next config; None where there is none yet."""
        self._ready.set()
        if self.closed:
            return _FINISHED
        try:
            submission = self._submitted.get(timeout=_WAIT_S if self._running else _IDLE_S)
        except Empty:
            return None
        with self._lock:
            self._running[trial_id] = submission
        return {"number": submission.number, "config": submission.config}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - as Tune calls it
    ) -> None:
        """Hand over the outcome; that of a failure comes with its reason, from `_Failures`."""
        if not error:
            late = f"TimeoutError: it took over {self._timeout_s or 0:g} s"
            self.end(trial_id, late, outcome=(result or {}).get(_OUTCOME))

    def end(
        self,
        trial_id: str,
        why: str,
        *,
        outcome: Outcome[Any] | None = None,
        lost: bool = False,
    ) -> None:
        """Hand over an outcome, or why there is none.

        What is not submitted yet, but was by an earlier run, waits.
        """
        with self._lock:
            submission = self._running.pop(trial_id, None)
            if submission is None or self.closed:
                return
            found = outcome or Outcome(submission.number, None, why, lost=lost)
            if submission.number in self._wanted:
                self._wanted.remove(submission.number)
                self.outcomes.put(found)
            else:
                self._early[submission.number] = (submission, found)

    def save(self, checkpoint_path: str) -> None:
        """Write which trials are running, and whether all have come to their end."""
        state = {"closed": self.closed, "running": dict(self._running)}
        atomic_write(Path(checkpoint_path), cloudpickle.dumps(state))  # type: ignore[no-untyped-call]

    def restore(self, checkpoint_path: str) -> None:
        """Take up the trials that were running."""
        self._running = dict(_read(Path(checkpoint_path))["running"])
        self._ready.set()


class _Failures(tune.Callback):
    """Tells the handover why a trial has failed for good."""

    def __init__(self, handover: _Handover) -> None:
        self._handover = handover

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        why = named_reason(trial.get_pickled_error())
        self._handover.end(trial.trial_id, f"it failed {RETRIES + 1} times: {why}", lost=True)


def _read(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = cloudpickle.loads(path.read_bytes())
    return state
