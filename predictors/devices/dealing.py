"""Shares of work dealt out to workers: each takes the next when it is free, results keep order."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from predictors.devices.connection import DeviceLostError

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
