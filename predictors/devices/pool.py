"""Boards of one kind as one device: networks are dealt out to them, and all of them time at once.

Their latencies are on one scale, the pool's own milliseconds, kept as every device's are (see
`cache.py`): a network's ratio to the references is the board's, the references' latencies are
those that the first board to answer kept. Boards that run the references unequally fast are named.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import ceil
from statistics import median, median_low
from typing import Generic, Literal, TypeVar

from predictors.devices.boards import Board
from predictors.devices.cache import ReferenceWatch, forget_references, reference_latency
from predictors.devices.connection import PORT, Address, DeviceLostError
from predictors.devices.device import Measures, Network
from predictors.devices.timed import TimedDevice
from predictors.measurement import Backend, Latency, TimingProtocol

DISAGREEMENT = 0.05  # between boards, in how fast they run a reference
KIND: dict[str, Callable[[Board], object]] = {  # what boards of one kind share
    "machine": lambda board: board.machine or board.architecture,
    "runtime": lambda board: board.backend.runtime,
    "version": lambda board: board.version or "unknown",
    "precision": lambda board: board.backend.precision,
    "threads": lambda board: board.backend.threads,
    "processor": lambda board: "emulated" if board.emulated else "real",
}

Item = TypeVar("Item")
Task = TypeVar("Task")
Result = TypeVar("Result")
Timer = Callable[[Measures, Sequence[Network], int], list[Latency]]


def time_here(device: Measures, networks: Sequence[Network], repeats: int) -> list[Latency]:
    """Time the networks on a board from this process."""
    return list(device.measure_each(networks, repeats=repeats))


class PooledDevice:
    """Several boards of one kind; a board that is lost is left out while another is there.

    `timers` say by board how it is timed, where not from this process.
    """

    source: Literal["measured"] = "measured"

    def __init__(
        self,
        name: str,
        boards: Sequence[Measures],
        *,
        protocol: TimingProtocol | None = None,
        timers: Mapping[str, Timer] | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.boards = tuple(boards)
        self.backends = boards[0].backends
        self.protocol = protocol or TimingProtocol()
        self._timers = dict(timers or {})
        self._given_remarks = tuple(remarks)
        self._workers = [
            QueueWorker(
                name=board.name,
                work=partial(self._time, board),
                most_failures=self.protocol.failures,
                retry_s=self.protocol.retry_s,
            )
            for board in boards
        ]
        self._scale: dict[str, float] = {}  # the references' latencies in ms
        self._now_ms: dict[str, dict[str, list[float]]] = {}  # by reference and board
        self._watches = {board.name: ReferenceWatch() for board in boards}

    @property
    def description(self) -> str:
        """One line: how many boards, and what each of them is."""
        return f"{len(self.boards)} boards: {self.boards[0].description}"

    @property
    def remarks(self) -> list[str]:
        """What went otherwise than expected, one sentence each."""
        lost = [
            f"{w.name} dropped out, and the others timed its networks: {w.error}"
            for w in self._workers
            if w.failures
        ]
        (backend,) = self.backends
        changed = [
            remark
            for board, watch in self._watches.items()
            for remark in watch.remarks(board, backend, device=self.name)
        ]
        return [*self._given_remarks, *lost, *_disagreements(self._now_ms), *changed]

    def forget_references(self) -> None:
        """Let the references that are timed next be kept, the boards' and those of all."""
        for board in self.boards:
            if isinstance(board, TimedDevice):
                board.forget_references()
        forget_references({"boards": self._names})

    @property
    def _names(self) -> str:
        return ",".join(sorted(board.name for board in self.boards))

    def timed_by(self, timers: Mapping[str, Timer], *, remarks: Sequence[str]) -> "PooledDevice":
        """Return the same boards, some of them timed in another way."""
        return PooledDevice(
            self.name, self.boards, protocol=self.protocol, timers=timers, remarks=remarks
        )

    def measure(self, network: Network) -> Latency:
        """Return the latency of one network, timed on one of the boards."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the latency of each network, in order; its context names its board."""
        left = sum(not worker.lost for worker in self._workers)
        groups = in_groups(networks, max(left, 1), most=self.protocol.group)
        tasks = [(group, repeats or self.protocol.repeats) for group in groups]
        for board, latencies in work_through(tasks, self._workers):
            fresh = [one.context.references for one in latencies if not one.context.cached]
            for name, reference in fresh[0].items() if fresh else ():
                self._now_ms.setdefault(name, {}).setdefault(board, []).append(reference.now_ms)
                now_ms = [reference.now_ms]
                self._watches[board].add(name, kept_ms=reference.kept_ms, now_ms=now_ms)
            yield from (self._on_one_scale(board, latency) for latency in latencies)

    def _time(self, board: Measures, task: tuple[Sequence[Network], int]) -> list[Latency]:
        return self._timers.get(board.name, time_here)(board, *task)

    def _on_one_scale(self, board: str, latency: Latency) -> Latency:
        if not self._scale:
            key = self._key(latency)
            self._scale = {
                name: reference_latency({**key, "reference": name}, [[reference.kept_ms]])
                for name, reference in latency.context.references.items()
            }
        scaled = latency.on_scale(self._scale)
        return replace(scaled, device=self.name, context=replace(scaled.context, board=board))

    def _key(self, latency: Latency) -> dict[str, str | int]:
        (backend,) = self.backends
        return {
            "boards": self._names,
            "machine": latency.context.machine,
            "runtime": backend.runtime,
            "precision": backend.precision,
            "threads": backend.threads,
            "version": latency.context.runtime_version,
        }


def open_pool(
    name: str, boards: Sequence[Board], backend: Backend, protocol: TimingProtocol
) -> PooledDevice:
    """Open boards of one kind as one device of that name."""
    check_alike([replace(board, backend=backend) for board in boards])
    addresses = tuple(board.ssh for board in boards)
    opened = [replace(b.open(b.name, backend, protocol), pool=addresses) for b in boards]
    return PooledDevice(name, opened, protocol=protocol)


def check_alike(boards: Sequence[Board]) -> None:
    """Refuse boards of different kinds, and the same board twice."""
    first, *others = boards
    for board in others:
        for trait, of in KIND.items():
            if of(board) != of(first):
                raise ValueError(
                    f"`device` must name boards of one kind, but {trait} is {of(first)} on "
                    f"{first.name} and {of(board)} on {board.name}. Search on each by itself."
                )
    found: dict[str, str] = {}
    for board in boards:
        given = Address.parse(board.ssh)
        address = str(replace(given, port=given.port or PORT))
        if address in found:
            raise ValueError(
                f"`device` must name each board once, but {found[address]} and {board.name} are "
                f"both {address}. Leave one out."
            )
        found[address] = board.name


def in_groups(items: Sequence[Item], places: int, *, most: int) -> list[Sequence[Item]]:
    """Divide into groups of nearly one size, `most` at most, so that no place stands idle."""
    count = min(places * ceil(len(items) / (places * most)), len(items))
    ends = [len(items) * i // count for i in range(count + 1)] if count else []
    return [items[start:end] for start, end in pairwise(ends)]


def _disagreements(seen: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Name the boards that run a reference slower or faster than the middle one of them."""
    names, lines = {"t0": "T0", "small": "the small reference"}, []
    for reference, by_board in seen.items():
        typical = {board: median(ms) for board, ms in by_board.items()}
        middle_ms = median_low(typical.values())
        middle = next(board for board, ms in typical.items() if ms == middle_ms)
        for board, ms in typical.items():
            if abs(ms / middle_ms - 1) > DISAGREEMENT:
                lines.append(
                    f"{board} runs {names.get(reference, reference)} "
                    f"{100 * abs(ms / middle_ms - 1):.0f} % "
                    f"{'slower' if ms > middle_ms else 'faster'} than {middle}; all latencies are "
                    "on one scale."
                )
    return lines


@dataclass(kw_only=True)
class QueueWorker(Generic[Task, Result]):
    """Does one task at a time; raises DeviceLostError where it, not the task, is to blame.

    `failures` are those in a row, the last of them is `error`; after the most it is left out.
    Before it is tried again, `retry_s` pass.
    """

    name: str
    work: Callable[[Task], Result]
    most_failures: int = 2
    retry_s: float = 10.0
    failures: int = 0
    error: DeviceLostError | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lost(self) -> bool:
        """Whether it is left out from now on."""
        return self.failures >= self.most_failures


def work_through(
    tasks: Sequence[Task], workers: Sequence[QueueWorker[Task, Result]]
) -> Iterator[tuple[str, Result]]:
    """Yield the worker's name and the result of each task, in order, as soon as they are there.

    A worker takes the next task when it is free; that of a worker that fails goes to another.
    Where the iteration is given up, workers finish what they hold and its result is dropped.
    """
    left = [worker for worker in workers if not worker.lost]
    error = next((worker.error for worker in workers if worker.lost), None)
    queue: _WorkQueue[Task, Result] = _WorkQueue(tasks, len(left), error)
    for worker in left:  # daemons: a program that is told to end waits for no board
        threading.Thread(target=queue.serve, args=(worker,), daemon=True).start()
    try:
        for number in range(len(tasks)):
            yield queue.wait_for(number)
    finally:
        queue.close()


class _WorkQueue(Generic[Task, Result]):
    """Where tasks lie until they are taken and results until they are fetched."""

    def __init__(self, tasks: Sequence[Task], workers: int, error: Exception | None) -> None:
        self._changed = threading.Condition()
        self._tasks = deque(enumerate(tasks))
        self._results: dict[int, tuple[str, Result]] = {}
        self._workers = workers
        self._error = None if workers else error
        self._closed = False

    def wait_for(self, number: int) -> tuple[str, Result]:
        """Return a result once it is there."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._results or self._error)
            if number not in self._results:
                assert self._error is not None
                raise self._error
            return self._results.pop(number)

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def serve(self, worker: QueueWorker[Task, Result]) -> None:
        """Let a worker take tasks until there will be no more, or it is lost."""
        with worker.busy:  # it may still hold a task of an iteration that was given up
            while not worker.lost and (taken := self._take()) is not None:
                self._work(worker, *taken)
        with self._changed:
            self._workers -= 1
            if worker.lost and not self._workers and self._error is None:
                self._error = worker.error
            self._changed.notify_all()

    def _take(self) -> tuple[int, Task] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closed)
            return None if self._closed else self._tasks.popleft()

    def _work(self, worker: QueueWorker[Task, Result], number: int, task: Task) -> None:
        try:
            result = worker.work(task)
        except DeviceLostError as error:
            worker.failures, worker.error = worker.failures + 1, error
            self._give_back(worker, number, task)
        except Exception as error:  # it is raised where the results are awaited
            self._end(error)
        else:
            worker.failures, worker.error = 0, None
            with self._changed:
                self._results[number] = worker.name, result
                self._changed.notify_all()

    def _give_back(self, worker: QueueWorker[Task, Result], number: int, task: Task) -> None:
        with self._changed:
            self._tasks.appendleft((number, task))
            self._changed.notify_all()
            if not worker.lost:
                self._changed.wait_for(lambda: self._closed, worker.retry_s)

    def _end(self, error: Exception) -> None:
        with self._changed:
            self._error, self._closed = error, True
            self._changed.notify_all()
