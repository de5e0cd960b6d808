"""Ray: evaluations and timing as tasks, here or on a cluster; what is lost is repeated."""

import faulthandler
import logging
import os
import shutil
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from nas.devices import Devices
from nas.search.trial import Evaluate, Outcome, evaluated
from predictors.devices.connection import DeviceLostError
from predictors.devices.device import Device, Measures, Network
from predictors.devices.pool import PooledDevice, time_here
from predictors.devices.several import MultiBackendDevice
from predictors.measurement import Latency
from search_spaces.extensions import (
    ExtensionError,
    Group,
    extension_source,
    extensions_named,
)
from search_spaces.io import named_reason, reason

S = TypeVar("S")
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
LOOK_S = 10.0  # between two looks at whether a node next to a board is still there
PATIENCE_S = 20.0  # with nodes that are asked whether a trial was too late
STARTS = 2  # tries to start a Ray of our own
PAUSE_S = 5.0  # between them
RETRIES = 3  # of a trial whose worker or node was lost
TAKEN = ("CPU", "GPU", "memory", "object_store_memory")  # what Ray calls something else


@dataclass(frozen=True)
class _Submitted:
    number: int
    config: object
    mark: str  # the name of the file that says that it was too late
    retries: int = RETRIES


class RayPool(Generic[S]):
    """Evaluates in Ray tasks of one core each; use as a context manager.

    An evaluation that takes longer than `timeout_s`, counted from when it begins to run, is ended
    by a timer in its own process and has failed. One whose worker or node is lost begins anew. In a
    cluster with GPUs each has `gpu`, a share of one.
    """

    def __init__(
        self,
        evaluate: Evaluate[S],
        *,
        address: str | None = None,
        timeout_s: float | None = None,
        gpu: float = 0.0,
    ) -> None:
        self._evaluate = evaluate
        self._address = address
        self._timeout_s = timeout_s
        self._gpu = gpu
        self._running: dict[Any, _Submitted] = {}

    def __enter__(self) -> "RayPool[S]":
        with ExitStack() as stack:
            self._ray = stack.enter_context(joined(self._address))
            self._sent = self._ray.put(self._evaluate)
            gpu = self._gpu if "GPU" in self._ray.cluster_resources() else 0
            # Ray would repeat a trial that was too late: what is repeated is decided here
            remote = self._ray.remote(num_cpus=1, num_gpus=gpu, max_retries=0)
            self._task = remote(evaluated_within)
            self._end = stack.pop_all()
        return self

    def submit(self, number: int, config: object) -> None:
        self._start(_Submitted(number, config, mark=f"trial-{uuid4().hex}"))

    def next_finished(self) -> Outcome[S]:
        """Wait for one of the tasks; one whose worker or node was lost is started again."""
        outcome = None
        while outcome is None:
            (task,), _ = self._ray.wait(list(self._running), num_returns=1)
            outcome = self._outcome(task)
        return outcome

    def _start(self, trial: _Submitted) -> None:
        named = self._task.options(name=f"trial-{trial.number}")
        task = named.remote(self._sent, trial.number, trial.config, self._timeout_s, trial.mark)
        self._running[task] = trial

    def _outcome(self, task: Any) -> Outcome[S] | None:
        trial = self._running.pop(task)
        try:
            outcome: Outcome[S] = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:  # what it was given could not be read
            return Outcome(trial.number, None, named_reason(error.cause), lost=True)
        except self._ray.exceptions.RayError as error:
            return self._after_loss(trial, error)
        return outcome

    def _after_loss(self, trial: _Submitted, error: Exception) -> Outcome[S] | None:
        """Say that the trial was too late, or start it again."""
        if self._timeout_s and self._was_late(trial.mark):
            late = f"TimeoutError: it took over {self._timeout_s:g} s"
            return Outcome(trial.number, None, late)
        if trial.retries == 0:
            return Outcome(trial.number, None, named_reason(error), lost=True)
        self._start(replace(trial, retries=trial.retries - 1))
        return None

    def _was_late(self, mark: str) -> bool:
        """Ask all nodes, since nobody knows on which of them the trial ran."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = self._ray.remote(num_cpus=0, max_retries=0)(was_late)
        looks = []
        for node in self._ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                looks.append(look.options(scheduling_strategy=there).remote(mark))
        done, _ = self._ray.wait(looks, num_returns=len(looks), timeout=PATIENCE_S)
        answers = []
        for look_done in done:
            with suppress(self._ray.exceptions.RayError):  # a node that is lost too
                answers.append(self._ray.get(look_done))
        return any(answers)

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        self._end.close()


def evaluated_within(
    evaluate: Evaluate[Any], number: int, config: object, timeout_s: float | None, mark: str
) -> Outcome[Any]:
    """Evaluate a config; end this process if that takes too long, however it hangs.

    The timer is a thread of C, which needs no lock of Python's. It writes into the file `mark`
    before it ends the process, and that is how the pool knows this end from a loss.
    """
    if not timeout_s:
        return attempted(evaluate, number, config)
    path = _mark(mark)
    with path.open("wb") as file:
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=file)
        try:
            return attempted(evaluate, number, config)
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink(missing_ok=True)


def check_travels(group: Group, name: str, part: object) -> None:
    """Refuse what another package gave under a name, if it cannot be sent to Ray's workers."""
    from ray import cloudpickle

    try:
        cloudpickle.dumps(part)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever its classes raise
        raise RuntimeError(
            f"{name} of {extension_source(group, name)} must travel to the processes that "
            f"evaluate, but cannot be pickled: {named_reason(error)}. Let it hold names and paths, "
            "and load what is heavy when it is called."
        ) from error


def attempted(evaluate: Evaluate[Any], number: int, config: object) -> Outcome[Any]:
    """Evaluate a config; what another package's code fails at is tried again when a run goes on."""
    faults = []

    def watched(config: object) -> object:
        try:
            with extensions_named():
                return evaluate(config)
        except ExtensionError as error:
            faults.append(error)
            raise

    outcome = evaluated(watched, number, config)
    return replace(outcome, error=reason(faults[0]), lost=True) if faults else outcome


def was_late(mark: str) -> bool:
    """Whether a timer on this node ended the trial of that mark; forget it then."""
    path = _mark(mark)
    late = path.exists() and path.stat().st_size > 0
    path.unlink(missing_ok=True)
    return late


def _mark(name: str) -> Path:
    """The file of that name in the folder that Ray keeps on this node for this cluster."""
    import ray

    context = ray.get_runtime_context()
    return Path(context.get_temp_dir()) / context.get_session_name() / name


@contextmanager
def joined(address: str | None, *, resources: Sequence[str] = ()) -> Iterator[Any]:
    """Give Ray, connected to a cluster; within another such block it is that one's.

    The cluster is the one at `address` ("HOST:PORT" or "auto"), or one that is started on this
    machine, with one of each of the resources, and stopped at the end. Ray's usage statistics and
    dashboard stay off. The code travels to the nodes of a cluster that was there before: they need
    our dependencies, but neither fasternas nor a shared disk.
    """
    _set(SETTINGS)
    import ray

    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address, "runtime_env": _our_code()}
    if address is None:  # "local": another cluster on this machine is not joined
        _set(SETTINGS_ALONE)
        options = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": len(os.sched_getaffinity(0)),
            "resources": dict.fromkeys(resources, 1),
        }
    _start(ray, options)
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, options: Mapping[str, Any]) -> None:
    """Connect to a cluster; one of our own is tried again, since a busy machine may be too slow."""
    address = None if options["address"] == "local" else options["address"]
    for left in reversed(range(1 if address else STARTS)):
        try:
            _knock(address)
            _init(ray, options)
            return
        except Exception as error:  # of a node that is late Ray says so by an Exception, no other
            if left and not isinstance(error, ValueError | PermissionError):
                time.sleep(PAUSE_S)
                continue
            advice = (
                "Is it running there? One that wants a token is joined with RAY_AUTH_MODE=token."
                if address
                else "Can HOME and the folder for temporary files be written, or is this machine "
                "very busy or out of memory?"
            )
            raise RuntimeError(
                f"Ray must be reachable, but is not: {named_reason(error)}. {advice}"
            ) from error


def _init(ray: Any, options: Mapping[str, Any]) -> None:
    """Connect to a cluster, and leave nothing of one of our own that did not come up."""
    with _own_handler(signal.SIGTERM):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except BaseException as error:  # an interruption, too
            if options["address"] == "local":
                _end_started(ray, error)
            raise


def _end_started(ray: Any, error: BaseException) -> None:
    """End the processes of a node that did not come up: Ray itself has lost sight of them."""
    from ray._private.node import Node

    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    nodes: list[Any] = [place for place in frames if isinstance(place, Node)]
    for node in nodes:
        with suppress(Exception):  # it may not have come far
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            shutil.rmtree(node.get_session_dir_path(), ignore_errors=True)
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
    """Keep our handler of a signal: Ray puts one in its place that prints a native traceback.

    While Ray starts, its own exits with the signal's number; ours is then called for it.
    """
    own = signal.getsignal(number)
    try:
        yield
    except SystemExit as error:
        if error.code == number and callable(own):
            own(number, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, own)


def _knock(address: str | None) -> None:
    """Find at once what Ray takes a minute to find: that nobody listens at HOST:PORT."""
    host, separator, port = (address or "").rpartition(":")
    if separator:
        socket.create_connection((host, int(port)), timeout=5).close()


@contextmanager
def through_ray(devices: Devices, address: str | None) -> Iterator[Devices]:
    """Give the devices; let Ray run the timing of those that are pools where it has the boards.

    A board is the Ray resource of its name, as in `ray start --resources='{"pi1": 1}'`. A cluster
    of this machine's own has all of them. A board that a given cluster lacks is timed from this
    process, and a remark says so. Without a pool no cluster is joined.
    """
    each = [one for device in devices.values() for one in _by_backend(device)]
    pools = [one for one in each if isinstance(one, PooledDevice)]
    if not pools:
        yield devices
        return
    boards = [b.name for pool in pools for b in pool.boards if b.name not in TAKEN]
    with joined(address, resources=boards) as ray:
        yield {
            name: device if device.source == "predicted" else _timed_in_tasks(ray, device)
            for name, device in devices.items()
        }


def _timed_in_tasks(ray: Any, device: Measures) -> Measures:
    """Let Ray time a pool's boards where it has them, in each backend if there are several."""
    if isinstance(device, MultiBackendDevice):
        devices = [_timed_in_tasks(ray, one) for one in device.devices]
        return MultiBackendDevice(device.name, devices, device.protocol)
    if not isinstance(device, PooledDevice):
        return device
    resources = ray.cluster_resources().keys() - set(TAKEN)
    offered = [board.name for board in device.boards if board.name in resources]
    remarks = [
        f"No node of the Ray cluster has the resource {board.name}, so this process timed its "
        "networks."
        for board in device.boards
        if board.name not in offered
    ]
    return device.timed_by(dict.fromkeys(offered, partial(timed_in_task, ray)), remarks=remarks)


def _by_backend(device: Device) -> tuple[Device, ...]:
    """The backends that a device is timed in, each as a device."""
    return device.devices if isinstance(device, MultiBackendDevice) else (device,)


def timed_in_task(
    ray: Any, place: Measures, configs: Sequence[Network], repeats: int
) -> list[Latency]:
    """Time the networks in a Ray task that holds the board's resource."""
    # Not retried by Ray, which would wait for a node that is gone: the pool gives them to others.
    remote = ray.remote(num_cpus=0, resources={place.name: 1}, max_retries=0)(time_here)
    task = remote.options(name=f"timing-{place.name}").remote(place, list(configs), repeats)
    try:
        while not ray.wait([task], timeout=LOOK_S)[0]:
            if place.name not in ray.cluster_resources():
                ray.cancel(task)
                raise _node_lost(place.name)
        measured: list[Latency] = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        raise _node_lost(place.name) from None
    return measured


def _node_lost(board: str) -> DeviceLostError:
    return DeviceLostError(
        f"The Ray node next to {board} must stay alive, but was lost. Start it again with the "
        "board as its resource."
    )
