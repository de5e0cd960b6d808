"""Three Ray nodes on which everything happens at once: the search comes to the same front.

The evaluations are inner functions, so Ray's workers need not find this file.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import kill_one
from records import Memory

from nas.cli.main import main
from nas.ray_pool import RayPool
from nas.search.loop import search
from nas.search.pareto import pareto_front
from nas.search.trial import InProcess, Scores, Trial
from nas.study import journal
from search_spaces.fasternet import SPACES

SPACE = SPACES["fasternet-32"]
OPTIONS: dict[str, Any] = {"trials": 40, "seed": 3, "searcher": "random", "budget_ms": 9.0}
TIMEOUT_S = 12.0  # a node that is lost, and is not noticed at once, counts as working
PROGRAM = Path(sys.executable).with_name("fasternas")
CLI = (
    "search",
    "--device",
    "arm",
    "--space",
    "fasternet",
    "--budget",
    "20ms",
    "--trials",
    "14",
    "--json",
    "--out",
)
Streams = pytest.CaptureFixture[str]


def _evaluation(folder: Path, faults: dict[Any, str], doomed: str) -> Callable[[Any], Scores]:
    """Scores that take a moment; what a fault does depends on the config, or on the node."""

    def evaluate(config: Any) -> Scores:
        import ray

        fault = faults.get(config, "")
        if fault == "raises":
            raise LookupError("no such layer")
        if fault == "hangs":
            time.sleep(600)
        if fault == "dies" and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if doomed and ray.get_runtime_context().get_node_id() == doomed:
            (folder / f"there-{os.getpid()}-{time.monotonic_ns()}").touch()
            if len(list(folder.glob("there-*"))) > 2:
                (folder / "waits").touch()
                time.sleep(600)
        accuracy = float("nan") if fault == "nan" else 1.0 * sum(config.widths)
        return Scores(accuracy=accuracy, latency_ms=1.0 * sum(config.depths))

    return evaluate


def _faults(trials: list[Trial[Any]]) -> dict[Any, str]:
    """Three configs that are not on the front fail; one that is on it loses its worker."""
    front = [trial.config for trial in pareto_front(trials)]
    others = [trial.config for trial in trials[5:] if trial.config not in front]
    return {others[0]: "raises", others[1]: "hangs", others[2]: "nan", front[0]: "dies"}


def test_everything_that_happens_costs_the_three_that_fail(cluster: Any, tmp_path: Path) -> None:
    plain = _evaluation(tmp_path, {}, "")
    undisturbed = list(search(SPACE, plain, pool=InProcess(plain), **OPTIONS))
    faults = _faults(undisturbed)
    doomed = cluster.add_node(num_cpus=1)
    evaluate = _evaluation(tmp_path, faults, doomed.node_id)
    ended = threading.Event()

    def remove_the_node() -> None:
        while not ended.wait(0.1):
            if (tmp_path / "waits").exists():
                cluster.remove_node(doomed, allow_graceful=False)
                return

    record, watcher = Memory(), threading.Thread(target=remove_the_node)
    watcher.start()
    try:
        with RayPool(evaluate, address=cluster.address, timeout_s=TIMEOUT_S) as pool:
            trials = list(search(SPACE, evaluate, pool=pool, record=record, **OPTIONS))
    finally:
        ended.set()
        watcher.join()
    assert (tmp_path / "died").exists()
    assert (tmp_path / "waits").exists()
    errors = {faults[trial.config]: trial.error for trial in trials if trial.error}
    assert errors.pop("nan", "").startswith("The scores must be finite")
    assert errors == {
        "raises": "LookupError: no such layer",
        "hangs": "TimeoutError: it took over 12 s",
    }
    assert [t for t in trials if not t.error] == [
        t for t in undisturbed if faults.get(t.config, "dies") == "dies"
    ]
    assert pareto_front(trials) == pareto_front(undisturbed)
    assert sorted(record.kept) == list(range(OPTIONS["trials"]))


def _trials(run: Path) -> list[tuple[int, Any, Any]]:
    entries = [e for e in journal.read(run / "study.journal") if "user_attrs" in e]
    return sorted((e["user_attrs"]["number"], e["params"], e["values"]) for e in entries)


def _until(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while process.poll() is None and not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_driver_that_was_killed_goes_on_with_the_cluster(
    cluster: Any, tmp_path: Path, without_ray: None, capsys: Streams
) -> None:
    assert main([*CLI, str(tmp_path / "undisturbed")]) == 0
    front = json.loads(capsys.readouterr().out)
    run = tmp_path / "run"
    command = [PROGRAM, *CLI, run, "--ray", cluster.address]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    file = run / "study.journal"
    with subprocess.Popen(command, **pipes) as first:
        _until(first, lambda: file.exists() and file.read_bytes().count(b"\n") > 4)
        first.send_signal(signal.SIGSTOP)  # it holds the folder for as long as it is there
        for second_one in (
            [*CLI, str(run), "--resume"],
            ["merge", str(run), str(tmp_path / "undisturbed"), "--out", "none"],
        ):
            assert main(second_one) == 2
            said = capsys.readouterr().err
            assert f"The study in {run} must be free, but another process works on it." in said
            assert said.count("\n") == 1
        first.kill()
        assert first.wait() == -signal.SIGKILL, first.communicate()
    kept = _trials(run)
    assert 4 <= len(kept) < 14
    with subprocess.Popen([*command, "--resume"], **pipes) as second:
        _until(second, partial(kill_one, "ray::trial-"))
        out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert json.loads(out) == front
    assert all(trial in _trials(run) for trial in kept)
    assert _trials(run) == _trials(tmp_path / "undisturbed")
