"""Where evaluations run: here, or as tasks that Ray distributes over a machine or a cluster."""

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas.search.trial import Scores
from nas.trial_clock import LOOK_S, TrialClock, timed
from search_spaces.io import first_line

Evaluate = Callable[[Any], Scores]

SETTINGS = {  # of Ray, in the environment, where the user has not set them
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's future default; without it this version warns of a change on machines without GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray Train would write a log of its own between the lines of the progress.
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
}
# Nobody reads the metrics of a cluster that we start, and for them the driver would keep the name
# of every trial, two kilobytes each.
SETTINGS_ALONE = {"RAY_enable_metrics_collection": "false"}


@dataclass(frozen=True)
class Outcome:
    """What came of one evaluation: scores, or the error in one line.

    `lost` says that the error was the cluster's, not the config's: trying again may end otherwise.
    """

    number: int
    scores: Scores | None
    error: str | None = None
    lost: bool = False


class Pool(Protocol):
    """Takes evaluations and hands their outcomes back as they finish."""

    def submit(self, number: int, config: Any) -> None:
        """Start evaluating a config."""

    def next_finished(self) -> Outcome:
        """Wait for some submitted evaluation to finish."""


class InProcess:
    """Evaluates in this process, one after another."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._waiting: deque[tuple[int, Any]] = deque()

    def submit(self, number: int, config: Any) -> None:
        """Put the config in the queue."""
        self._waiting.append((number, config))

    def next_finished(self) -> Outcome:
        """Evaluate the next config in the queue."""
        number, config = self._waiting.popleft()
        return evaluated(self._evaluate, number, config)


class RayPool:
    """Evaluates in Ray tasks of one core each; use as a context manager.

    One that takes longer than `timeout_s`, counted from when it begins to run, is ended and has
    failed; Ray's own retries begin anew. In a cluster with GPUs each has `gpu`, a share of one.

    Raises:
        RuntimeError: if the cluster cannot be reached (see `joined`).
    """

    def __init__(
        self, evaluate: Evaluate, *, address: str | None = None, timeout_s: float | None = None,
        gpu: float = 0.0,
    ) -> None:  # fmt: skip
        self._evaluate = evaluate
        self._address = address
        self._timeout_s = timeout_s
        self._gpu = gpu
        self._running: dict[Any, int] = {}

    def __enter__(self) -> "RayPool":
        with ExitStack() as stack:
            self._ray = stack.enter_context(joined(self._address))
            self._given: tuple[Any, ...] = (self._ray.put(self._evaluate),)
            self._clock = TrialClock(self._ray, self._timeout_s) if self._timeout_s else None
            work = timed if self._clock else evaluated
            gpu = self._gpu if "GPU" in self._ray.cluster_resources() else 0
            self._task = self._ray.remote(num_cpus=1, num_gpus=gpu, max_retries=3)(work)
            self._end = stack.pop_all()
        return self

    def submit(self, number: int, config: Any) -> None:
        """Start a task; Ray restarts it where its worker or node dies."""
        first = (self._clock.beginnings, evaluated) if self._clock else ()
        named = self._task.options(name=f"trial-{number}")
        task = named.remote(*first, *self._given, number, config)
        self._running[task] = number

    def next_finished(self) -> Outcome:
        """Wait for one of the tasks."""
        wait_s = LOOK_S if self._clock else None
        while True:
            late = self._clock.late(self._running) if self._clock else None
            if late and not self._ray.wait([late], timeout=0)[0]:
                return self._ended(late)
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=wait_s)
            if done:
                return self._outcome(done[0])

    def _outcome(self, task: Any) -> Outcome:
        number = self._running.pop(task)
        try:
            outcome: Outcome = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:  # what it was given could not be read
            return Outcome(number, None, first_line(error.cause), lost=True)
        except self._ray.exceptions.RayError as error:
            return Outcome(number, None, first_line(error), lost=True)
        return outcome

    def _ended(self, task: Any) -> Outcome:
        self._ray.cancel(task, force=True)
        number = self._running.pop(task)
        return Outcome(number, None, f"TimeoutError: it took over {self._timeout_s:g} s")

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        self._end.close()


@contextmanager
def joined(address: str | None, *, resources: Sequence[str] = ()) -> Iterator[Any]:
    """Give Ray, connected to a cluster; within another such block it is that one's.

    The cluster is the one at `address` ("HOST:PORT" or "auto"), or one that is started on this
    machine, with one of each of the resources, and stopped at the end. Ray's usage statistics and
    dashboard stay off. The code travels to the nodes of a cluster that was there before: they need
    our dependencies, but neither fasternas nor a shared disk.

    Raises:
        RuntimeError: if the cluster cannot be reached.
    """
    _set(SETTINGS)
    import ray

    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address, "runtime_env": _our_code()}
    if address is None:  # "local": another cluster on this machine is not joined
        _set(SETTINGS_ALONE)
        options = {"address": "local", "include_dashboard": False,
                   "num_cpus": len(os.sched_getaffinity(0)),
                   "resources": dict.fromkeys(resources, 1)}  # fmt: skip
    try:
        _knock(address)
        with _own_handler(signal.SIGTERM):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        advice = ("Is it running there? One that wants a token is joined with RAY_AUTH_MODE=token."
                  if address else
                  "Can HOME and the folder for temporary files be written?")  # fmt: skip
        raise RuntimeError(
            f"Ray must be reachable, but is not: {first_line(error)}. {advice}"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _set(settings: Mapping[str, str]) -> None:
    """Set what the user has not set."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _our_code() -> dict[str, Any]:
    """What Ray is to send to each node: the folders of our packages, which lie side by side."""
    folder = Path(__file__).parents[1]
    modules = [str(folder / name) for name in ("search_spaces", "predictors", "nas", "fasternas")]
    return {"py_modules": modules, "excludes": ["__pycache__/"]}


@contextmanager
def _own_handler(number: signal.Signals) -> Iterator[None]:
    """Keep our handler of a signal: Ray puts one in its place that prints a native traceback."""
    own = signal.getsignal(number)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, own)


def _knock(address: str | None) -> None:
    """Find at once what Ray takes a minute to find: that nobody listens at HOST:PORT."""
    host, separator, port = (address or "").rpartition(":")
    if separator:
        socket.create_connection((host, int(port)), timeout=5).close()


def evaluated(evaluate: Evaluate, number: int, config: Any) -> Outcome:
    """Evaluate a config; an error becomes part of the outcome, and so do scores that are none."""
    try:
        scores = evaluate(config)
        valid = isinstance(scores, Scores) and scores.valid
    except Exception as error:  # whatever a user's function raises ends its trial, not the search
        return Outcome(number, None, first_line(error))
    if not isinstance(scores, Scores):
        return Outcome(number, None, f"`evaluate` must return Scores, but returned {scores!r}.")
    if not valid:
        return Outcome(number, None, f"The scores must be finite and positive, but got {scores}.")
    return Outcome(number, scores.as_floats())  # searchers subtract them, which no bool can do
