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
from typing import Any, Generic, TypeVar

from predictors.backends.model import Model
from predictors.devices.boards import Board
from predictors.devices.cache import on_scale, reference_latency
from predictors.devices.connection import DeviceLostError
from predictors.devices.device import PROCESSES, Device, Wanted
from predictors.devices.ssh import PORT, Address
from predictors.devices.timed import GROUP
from predictors.latency import Prediction
from predictors.measurement import Latency, Source
from search_spaces.fasternet import FasterNetConfig

DISAGREEMENT = 0.05  # between boards, in how fast they run a reference
KIND: dict[str, Callable[[Board], object]] = {  # what boards of one kind share
    "machine": lambda board: board.machine or board.architecture,
    "runtime": lambda board: board.runtime,
    "version": lambda board: board.version or "unknown",
    "precision": lambda board: board.precision,
    "threads": lambda board: board.threads,
    "processor": lambda board: "emulated" if board.emulated else "real",
}

Network = TypeVar("Network")
Timer = Callable[[Device, Sequence[Any], int], list[Latency]]


def timed_here(place: Device, networks: Sequence[Any], processes: int) -> list[Latency]:
    """Time the networks on a board from this process."""
    return list(place.measure_each(networks, processes=processes))


class PooledDevice:
    """Several boards of one kind; a board that is lost is left out while another is there.

    `timers` say by board how it is timed, where not from this process.
    """

    source: Source = "measured"

    def __init__(
        self,
        name: str,
        places: Sequence[Device],
        *,
        timers: Mapping[str, Timer] | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.places = tuple(places)
        self.runtime, self.threads = places[0].runtime, places[0].threads
        self.precision = places[0].precision
        self._timers = dict(timers or {})
        self._given_remarks = tuple(remarks)
        self._workers = [Worker(name=place.name, work=partial(self._time, place))
                         for place in places]  # fmt: skip
        self._scale: dict[str, float] = {}  # the references' latencies in ms
        self._seen: dict[str, dict[str, list[float]]] = {}  # ms by reference and board

    @property
    def description(self) -> str:
        """One line: how many boards, and what each of them is."""
        return f"{len(self.places)} boards: {self.places[0].description}"

    @property
    def remarks(self) -> list[str]:
        """What went otherwise than expected, one sentence each."""
        lost = [f"{w.name} dropped out, and the others timed its networks: {w.error}"
                for w in self._workers if w.failures]  # fmt: skip
        return [*self._given_remarks, *lost, *_disagreements(self._seen)]

    def timed_by(self, timers: Mapping[str, Timer], *, remarks: Sequence[str]) -> "PooledDevice":
        """Return the same boards, some of them timed in another way."""
        return PooledDevice(self.name, self.places, timers=timers, remarks=remarks)

    def measure(self, network: FasterNetConfig | Model) -> Latency:
        """Return the latency of one network, timed on one of the boards."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[FasterNetConfig | Model], *, processes: int = PROCESSES
    ) -> Iterator[Latency]:
        """Yield the latency of each network, in order; its context names its board.

        Raises:
            RuntimeError: if the last board is lost.
        """
        left = sum(not worker.lost for worker in self._workers)
        shares = [(group, processes) for group in in_groups(networks, max(left, 1))]
        for board, measurements in deal(shares, self._workers):
            fresh = next((m for m in measurements if "recalled" not in m.context), None)
            if fresh is not None:
                self._note(board, fresh.context["references"])
            for measurement in measurements:
                yield self._on_one_scale(board, measurement)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """These boards are timed; fit a `LatencyPredictor` to their measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")

    def _time(self, place: Device, share: tuple[Sequence[Any], int]) -> list[Latency]:
        return self._timers.get(place.name, timed_here)(place, *share)

    def _note(self, board: str, references: Mapping[str, Mapping[str, float]]) -> None:
        for name, latency in references.items():
            self._seen.setdefault(name, {}).setdefault(board, []).append(latency["now_ms"])

    def _on_one_scale(self, board: str, measurement: Latency) -> Latency:
        references = measurement.context["references"]
        own = {name: references[name]["kept_ms"] for name in ("small", "t0")}
        if not self._scale:
            key = self._key(measurement)
            self._scale = {name: reference_latency({**key, "reference": name}, [[ms]])
                           for name, ms in own.items()}  # fmt: skip
        scaled = on_scale(measurement, self._scale)
        return replace(scaled, device=self.name, context={**scaled.context, "board": board})

    def _key(self, measurement: Latency) -> dict[str, str | int]:
        context = measurement.context
        boards = ",".join(sorted(place.name for place in self.places))
        return {"machine": context["machine"], "runtime": self.runtime, "boards": boards,
                "version": context["runtime_version"], "threads": self.threads,
                "precision": measurement.backend.precision}  # fmt: skip


def open_pool(name: str, boards: Sequence[Board], wanted: Wanted) -> PooledDevice:
    """Open boards of one kind as one device of that name.

    Raises:
        ValueError: if they are not of one kind, or one is there twice.
    """
    check_alike([replace(board, threads=wanted.threads, runtime=wanted.runtime,
                         precision=wanted.precision) for board in boards])  # fmt: skip
    places = [board.open(board.name, wanted) for board in boards]
    for place in places:
        place.recall_from([board.ssh for board in boards])
    return PooledDevice(name, places)


def check_alike(boards: Sequence[Board]) -> None:
    """Refuse boards of different kinds, and the same board twice.

    Raises:
        ValueError: naming what differs, or the board.
    """
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
            raise ValueError(f"`device` must name each board once, but {found[address]} and "
                             f"{board.name} are both {address}. Leave one out.")  # fmt: skip
        found[address] = board.name


def in_groups(networks: Sequence[Network], places: int) -> list[Sequence[Network]]:
    """Divide into groups of nearly one size, at most `GROUP`, so that no place stands idle."""
    count = min(places * ceil(len(networks) / (places * GROUP)), len(networks))
    ends = [len(networks) * i // count for i in range(count + 1)] if count else []
    return [networks[start:end] for start, end in pairwise(ends)]


def _disagreements(seen: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Name the boards that run a reference slower or faster than the middle one of them."""
    lines = []
    for reference, by_board in seen.items():
        typical = {board: median(ms) for board, ms in by_board.items()}
        middle_ms = median_low(typical.values())
        middle = next(board for board, ms in typical.items() if ms == middle_ms)
        for board, ms in typical.items():
            if abs(ms / middle_ms - 1) > DISAGREEMENT:
                lines.append(f"{board} runs {_spelled(reference)} {_compared(ms / middle_ms)} than "
                             f"{middle}; all latencies are on one scale.")  # fmt: skip
    return lines


def _spelled(reference: str) -> str:
    return {"t0": "T0", "small": "the small reference"}.get(reference, reference)


def _compared(ratio: float) -> str:
    return f"{100 * abs(ratio - 1):.0f} % {'slower' if ratio > 1 else 'faster'}"


Share = TypeVar("Share")
Result = TypeVar("Result")

RETRY_S = 10.0  # until a worker that failed is tried again
CHANCES = 2  # failures in a row after which it is left out


@dataclass(kw_only=True)
class Worker(Generic[Share, Result]):
    """Does one share at a time; raises DeviceLostError where it, not the share, is to blame.

    `failures` are those in a row, the last of them is `error`.
    """

    name: str
    work: Callable[[Share], Result]
    failures: int = 0
    error: DeviceLostError | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lost(self) -> bool:
        """Whether it is left out from now on."""
        return self.failures >= CHANCES


def deal(
    shares: Sequence[Share], workers: Sequence[Worker[Share, Result]]
) -> Iterator[tuple[str, Result]]:
    """Yield the worker's name and the result of each share, in order, as soon as they are there.

    The share of a worker that fails goes to another. Where the iteration is given up, workers
    finish what they hold and its result is dropped.

    Raises:
        RuntimeError: the last worker's error, when no worker is left.
        Exception: whatever else a worker raises, at once.
    """
    left = [worker for worker in workers if not worker.lost]
    error = next((worker.error for worker in workers if worker.lost), None)
    table: _Table[Share, Result] = _Table(shares, len(left), error)
    for worker in left:  # daemons: a program that is told to end waits for no board
        threading.Thread(target=table.serve, args=(worker,), daemon=True).start()
    try:
        for number in range(len(shares)):
            yield table.wait_for(number)
    finally:
        table.close()


class _Table(Generic[Share, Result]):
    """Where shares lie until they are taken and results until they are fetched."""

    def __init__(self, shares: Sequence[Share], workers: int, error: Exception | None) -> None:
        self._changed = threading.Condition()
        self._shares = deque(enumerate(shares))
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

    def serve(self, worker: Worker[Share, Result]) -> None:
        """Let a worker take shares until there will be no more, or it is lost."""
        with worker.busy:  # it may still hold a share of an iteration that was given up
            while not worker.lost and (taken := self._take()) is not None:
                self._work(worker, *taken)
        self._leave(worker)

    def _leave(self, worker: Worker[Share, Result]) -> None:
        with self._changed:
            self._workers -= 1
            if worker.lost and not self._workers and self._error is None:
                self._error = worker.error
            self._changed.notify_all()

    def _take(self) -> tuple[int, Share] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._shares or self._closed)
            return None if self._closed else self._shares.popleft()

    def _work(self, worker: Worker[Share, Result], number: int, share: Share) -> None:
        try:
            result = worker.work(share)
        except DeviceLostError as error:
            worker.failures, worker.error = worker.failures + 1, error
            self._give_back(worker, number, share)
        except Exception as error:  # it is raised where the results are awaited
            self._end(error)
        else:
            worker.failures, worker.error = 0, None
            with self._changed:
                self._results[number] = worker.name, result
                self._changed.notify_all()

    def _give_back(self, worker: Worker[Share, Result], number: int, share: Share) -> None:
        with self._changed:
            self._shares.appendleft((number, share))
            self._changed.notify_all()
            if not worker.lost:
                self._changed.wait_for(lambda: self._closed, RETRY_S)

    def _end(self, error: Exception) -> None:
        with self._changed:
            self._error, self._closed = error, True
            self._changed.notify_all()
