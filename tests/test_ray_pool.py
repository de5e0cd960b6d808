"""On a real Ray of two nodes evaluations fail, workers and nodes die, and the search goes on.

Ray sends a test's inner functions by value, so its workers need not find this file. The tests that
join a Ray by themselves come first: for the others it is joined once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.ray_pool import RayPool
from nas.search.loop import search
from nas.search.trial import InProcess, Outcome, Scores, evaluated
from search_spaces.fasternet import SPACES

GOOD = Scores(accuracy=1.0, latency_ms=2.0)
Evaluate = Callable[[Any], Any]


def _outcomes(address: str, evaluate: Evaluate, configs: list[Any]) -> list[Outcome[Any]]:
    """Evaluate the configs on the cluster; the outcomes in the order of submission."""
    with RayPool(evaluate, address=address) as pool:
        for number, config in enumerate(configs):
            pool.submit(number, config)
        found = [pool.next_finished() for _ in configs]
    return sorted(found, key=lambda outcome: outcome.number)


def _wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError


def test_an_evaluation_in_this_process_is_told_in_one_line() -> None:
    assert evaluated(lambda _: GOOD, 4, "config") == Outcome(4, GOOD)
    assert evaluated(lambda _: [][0], 4, "config").error == "IndexError: list index out of range"
    pool = InProcess(lambda config: Scores(accuracy=config, latency_ms=1))
    for number in range(3):
        pool.submit(number, number)
    assert [pool.next_finished().number for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "host.invalid:6379"])
def test_a_cluster_out_of_reach_is_one_error(address: str) -> None:
    message = r"^Ray must be reachable, but .* joined with RAY_AUTH_MODE=token\.$"
    with pytest.raises(RuntimeError, match=message):
        RayPool(print, address=address).__enter__()


def _dashboards() -> dict[str, tuple[str, str]]:
    """Arguments and environment of the processes that could serve Ray's dashboard."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
            if "dashboard/dashboard.py" in command:
                found[folder.name] = (command, (folder / "environ").read_text())
        except OSError:
            continue
    return found


def test_the_pool_starts_a_ray_of_its_own_that_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    before = _dashboards()
    cores: Any = ray.cluster_resources
    with RayPool(lambda _: GOOD) as pool:
        pool.submit(0, "config")
        assert pool.next_finished() == Outcome(0, GOOD)
        assert cores()["CPU"] == len(os.sched_getaffinity(0))
        for process, (command, environment) in _dashboards().items():
            assert process in before or "--disable-frontend" in command
            assert "RAY_USAGE_STATS_ENABLED=0" in environment
    assert not ray.is_initialized()


def test_what_cannot_be_sent_leaves_no_session_behind(cluster: Any) -> None:
    import ray

    lock: Any = threading.Lock()
    pool = RayPool(lambda _: lock, address=cluster.address)
    with pytest.raises(TypeError, match="pickle"):
        pool.__enter__()
    left_open = ray.is_initialized()
    ray.shutdown()
    assert not left_open


def test_what_fails_ends_its_own_trial_only(cluster: Any) -> None:
    def evaluate(config: str) -> Any:
        if config == "raises":
            raise LookupError("no such\nlayer")
        scores = {"nan": Scores(accuracy=float("nan"), latency_ms=1), "none": None}
        return scores.get(config, GOOD)

    good, raises, nan, none, last = _outcomes(
        cluster.address, evaluate, ["good", "raises", "nan", "none", "good"]
    )
    assert good == Outcome(0, GOOD)
    assert raises == Outcome(1, None, "LookupError: no such layer")
    assert nan.scores is None
    assert "must be finite and positive" in (nan.error or "")
    assert none == Outcome(3, None, "`evaluate` must return Scores, but returned None.")
    assert last == Outcome(4, GOOD)


@pytest.mark.parametrize("gpu", [0.0, 0.25])
def test_a_trial_has_its_share_of_a_gpu(on_cluster: Any, gpu: float) -> None:
    def evaluate(_: None) -> Scores:
        import ray

        context: Any = ray.get_runtime_context()
        assigned = context.get_assigned_resources()
        return Scores(accuracy=assigned.get("GPU", 0.0), latency_ms=1.0)

    with RayPool(evaluate, address=on_cluster.address, gpu=gpu) as pool:
        pool.submit(0, None)
        assert pool.next_finished().scores == Scores(accuracy=gpu, latency_ms=1.0)


def test_both_nodes_work_at_once(on_cluster: Any, tmp_path: Path) -> None:
    def evaluate(name: str) -> Scores:
        import ray

        (tmp_path / name).write_text(ray.get_runtime_context().get_node_id())
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        return Scores(accuracy=len(list(tmp_path.iterdir())), latency_ms=1)

    outcomes = _outcomes(on_cluster.address, evaluate, ["a", "b"])
    assert [o.scores.accuracy for o in outcomes if o.scores] == [2, 2]
    assert len({file.read_text() for file in tmp_path.iterdir()}) == 2


def test_a_search_on_the_cluster_gives_what_it_gives_in_this_process(on_cluster: Any) -> None:
    def evaluate(config: Any) -> Scores:
        if config.widths[0] == 48:
            raise ValueError("too wide")
        return Scores(accuracy=sum(config.widths), latency_ms=sum(config.depths))

    options: dict[str, Any] = {"trials": 20, "budget_ms": 9.0, "searcher": "nsga2"}
    here = list(search(SPACES["fasternet-32"], evaluate, pool=InProcess(evaluate), **options))
    with RayPool(evaluate, address=on_cluster.address) as pool:
        there = list(search(SPACES["fasternet-32"], evaluate, pool=pool, **options))
    assert there == here
    assert {trial.error for trial in there} == {None, "ValueError: too wide"}


def _leaves_its_process_number(folder: Path) -> Evaluate:
    """An evaluation that hangs the first time and succeeds the second."""

    def evaluate(_: Any) -> Scores:
        attempt = len(list(folder.glob("*.pid")))
        (folder / "unfinished").write_text(str(os.getpid()))
        (folder / "unfinished").rename(folder / f"{attempt}.pid")
        if attempt == 0:
            time.sleep(600)
        return GOOD

    return evaluate


def test_a_worker_killed_in_mid_task_is_replaced(on_cluster: Any, tmp_path: Path) -> None:
    with RayPool(_leaves_its_process_number(tmp_path), address=on_cluster.address) as pool:
        pool.submit(3, "config")
        file: Path = _wait_for((tmp_path / "0.pid").exists) and tmp_path / "0.pid"
        os.kill(int(file.read_text()), signal.SIGKILL)
        assert pool.next_finished() == Outcome(3, GOOD)
    assert len(list(tmp_path.glob("*.pid"))) == 2


def test_a_config_that_kills_every_worker_fails_in_one_line(on_cluster: Any) -> None:
    def evaluate(config: str) -> Scores:
        if config == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return GOOD

    deadly, harmless = _outcomes(on_cluster.address, evaluate, ["deadly", "harmless"])
    assert deadly.scores is None
    assert deadly.error
    assert deadly.error.startswith("WorkerCrashedError: ")
    assert "\n" not in deadly.error
    assert harmless == Outcome(1, GOOD)


def test_tasks_of_a_node_that_dies_move_to_another(on_cluster: Any, tmp_path: Path) -> None:
    node = on_cluster.add_node(num_cpus=2)

    def evaluate(config: int) -> Scores:
        import ray

        here = ray.get_runtime_context().get_node_id()
        (tmp_path / f"{config}-{here}").touch()
        while not (tmp_path / "go").exists():
            time.sleep(0.02)
        return GOOD

    with RayPool(evaluate, address=on_cluster.address) as pool:
        for number in range(4):
            pool.submit(number, number)
        _wait_for(lambda: len(list(tmp_path.iterdir())) == 4)
        on_node = list(tmp_path.glob(f"*-{node.node_id}"))
        on_cluster.remove_node(node, allow_graceful=False)
        (tmp_path / "go").touch()
        found = [pool.next_finished() for _ in range(4)]
    assert len(on_node) == 2
    assert sorted(o.number for o in found) == [0, 1, 2, 3]
    assert {o.scores for o in found} == {GOOD}
