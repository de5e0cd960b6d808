"""A trial that hangs is ended, however it hangs; the time in which it waits for a core is not its.

The evaluations are inner functions, so Ray's workers need not find this file.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_nodes import is_there

from nas.ray_pool import RayPool
from nas.search.trial import Outcome, Scores

GOOD = Scores(accuracy=1.0, latency_ms=2.0)
TIMEOUT_S = 2.0


def _wait_for(path: Path) -> str:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return path.read_text()


def _hanging(folder: Path) -> Callable[[str], Scores]:
    def evaluate(config: str) -> Scores:
        import ctypes

        (folder / config).write_text(str(os.getpid()))
        if config == "sleeps":
            time.sleep(600)
        if config == "lets nobody in":
            ctypes.PyDLL(None).sleep(600)  # keeps Python's lock
        return GOOD

    return evaluate


def test_what_hangs_is_ended_and_what_waits_is_not(on_cluster: Any, tmp_path: Path) -> None:
    configs = ["sleeps", "lets nobody in", "good", "good too"]
    with RayPool(_hanging(tmp_path), address=on_cluster.address, timeout_s=TIMEOUT_S) as pool:
        for number, config in enumerate(configs):
            pool.submit(number, config)
        found = sorted((pool.next_finished() for _ in configs), key=lambda o: o.number)
    late = "TimeoutError: it took over 2 s"
    assert found == [
        Outcome(0, None, late),
        Outcome(1, None, late),
        Outcome(2, GOOD),
        Outcome(3, GOOD),
    ]
    assert not any(o.lost for o in found)  # so that it is on record, and not tried again
    for config in configs[:2]:
        assert not is_there(int((tmp_path / config).read_text()))


def test_a_trial_whose_worker_was_lost_waits_without_limit(on_cluster: Any, tmp_path: Path) -> None:
    def evaluate(config: str) -> Scores:
        if not (tmp_path / "process").exists():
            (tmp_path / "part").write_text(str(os.getpid()))
            (tmp_path / "part").rename(tmp_path / "process")
            time.sleep(600)
        return GOOD

    def fill(core: int) -> None:
        (tmp_path / f"filled-{core}").touch()
        while not (tmp_path / "over").exists():
            time.sleep(0.05)

    with RayPool(evaluate, address=on_cluster.address, timeout_s=TIMEOUT_S) as pool:
        import ray

        pool.submit(0, "config")
        process = int(_wait_for(tmp_path / "process"))
        filler: Any = ray.remote(num_cpus=1)(fill)
        waiting = [filler.remote(core) for core in range(2)]
        os.kill(process, signal.SIGKILL)
        for core in range(2):
            _wait_for(tmp_path / f"filled-{core}")
        over = threading.Timer(2 * TIMEOUT_S, (tmp_path / "over").touch)
        over.start()
        assert pool.next_finished() == Outcome(0, GOOD)
        over.join()
        ray.get(waiting)
