"""Tasks are dealt out to workers that are slow, fail once, fail for good, or go wrong."""

import threading
from collections.abc import Callable

import pytest

from predictors.devices.connection import DeviceLostError
from predictors.devices.pool import QueueWorker, work_through


def _square(task: int) -> int:
    return task**2


def _worker(name: str, work: Callable[[int], int] = _square) -> QueueWorker[int, int]:
    return QueueWorker(name=name, work=work, retry_s=0.05)


def _fails(times: int, before: Callable[[], object] = tuple) -> Callable[[int], int]:
    left = [DeviceLostError("it is gone")] * times

    def work(task: int) -> int:
        before()
        if left:
            raise left.pop()
        return task**2

    return work


def test_results_come_in_order_whoever_is_first() -> None:
    last_taken = threading.Event()

    def slow(task: int) -> int:
        if task == 3:
            last_taken.set()
        elif task == 0:
            assert last_taken.wait(30)
        return task**2

    found = list(work_through(range(4), [_worker("a", slow), _worker("b", slow)]))
    assert [result for _, result in found] == [0, 1, 4, 9]
    assert len({name for name, _ in found[:2]}) == 2


def test_nothing_to_do_asks_nobody() -> None:
    assert list(work_through([], [_worker("a", _fails(9))])) == []


def test_a_worker_that_fails_once_is_tried_again() -> None:
    worker = _worker("a", _fails(1))
    assert list(work_through([2, 3], [worker])) == [("a", 4), ("a", 9)]
    assert not worker.lost
    assert worker.failures == 0


def test_a_worker_that_fails_twice_is_left_out_for_good() -> None:
    failed = threading.Event()

    def after_it_failed(task: int) -> int:
        assert failed.wait(30)
        while not bad.lost:
            pass
        return task**2

    bad = _worker("bad", _fails(2, before=failed.set))
    found = list(work_through(range(4), [bad, _worker("good", after_it_failed)]))
    assert found == [("good", task**2) for task in range(4)]
    assert bad.lost
    assert list(work_through([5], [bad, _worker("good")])) == [("good", 25)]


def test_the_last_workers_error_ends_it_and_what_came_before_is_kept() -> None:
    worker = _worker("a", lambda task: task if task < 2 else _fails(9)(task))
    results = work_through(range(4), [worker])
    assert [next(results), next(results)] == [("a", 0), ("a", 1)]
    with pytest.raises(RuntimeError, match="it is gone"):
        next(results)
    with pytest.raises(RuntimeError, match="it is gone"):
        list(work_through([0], [worker]))


def test_an_error_that_is_not_the_workers_is_raised_at_once() -> None:
    def wrong(task: int) -> int:
        raise LookupError("no such layer")

    with pytest.raises(LookupError, match="no such layer"):
        list(work_through(range(4), [_worker("a", wrong)]))


def test_a_task_that_nobody_can_do_costs_no_worker() -> None:
    def work(task: int) -> int:
        if task == 1:
            raise RuntimeError("that network cannot be run")
        return task**2

    worker = _worker("a", work)
    with pytest.raises(RuntimeError, match="that network cannot be run"):
        list(work_through([1, 2], [worker]))
    assert not worker.lost
    assert list(work_through([2, 3], [worker])) == [("a", 4), ("a", 9)]


def test_a_worker_lost_elsewhere_is_no_longer_waited_for() -> None:
    """It is lost while a second queue has counted on it; then the other one is, too."""
    first, second = _worker("a", _fails(9)), _worker("b", _fails(9))
    with pytest.raises(DeviceLostError, match="it is gone"):
        list(work_through([1, 2, 3], [first, second]))
    assert first.lost
    assert second.lost
    with pytest.raises(DeviceLostError, match="it is gone"):
        list(work_through([1], [first, second]))


def test_a_worker_that_is_busy_with_something_else_is_not_disturbed() -> None:
    begun, go = threading.Event(), threading.Event()
    held: list[int] = []

    def slow(task: int) -> int:
        held.append(task)
        begun.set()
        assert go.wait(30)
        return task**2

    slow_one = _worker("slow", slow)
    other = threading.Thread(target=lambda: list(work_through([0], [slow_one])))
    other.start()
    assert begun.wait(30)
    assert list(work_through([7, 8], [slow_one, _worker("quick")])) == [
        ("quick", 49),
        ("quick", 64),
    ]
    assert held == [0]
    go.set()
    other.join()
