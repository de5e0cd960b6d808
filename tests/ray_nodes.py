"""A real Ray on this machine: of several nodes, or begun by another Python."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def two_nodes(**second: Any) -> Iterator[Any]:
    """A head and a `second` node, of one core each, without statistics and dashboard."""
    with a_head() as started:
        started.second = started.add_node(num_cpus=1, **second)
        yield started


@contextmanager
def a_head() -> Iterator[Any]:
    """A cluster to which nodes can be added; its head has one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from ray.cluster_utils import Cluster

        off = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        arguments = {"num_cpus": 1, **off}
        started: Any = Cluster(initialize_head=True, head_node_args=arguments)
        try:
            yield started
        finally:
            started.shutdown()


@contextmanager
def begun_by(python: Path, folder: Path, *, without: Sequence[Path] = ()) -> Iterator[str]:
    """Have a Python start a Ray of one node in a folder, with no variables of ours; its address.

    For its processes the folders `without` are empty, as they would be on another machine.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [
        python,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--node-ip-address=127.0.0.1",
        "--num-cpus=1",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    hiding = "".join(f"mount -t tmpfs tmpfs '{path}' && " for path in without)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment["RAY_AUTH_MODE"] = "disabled"  # as of a cluster within these tests
    environment["RAY_worker_niceness"] = "0"
    hidden = ["unshare", "--mount", "sh", "-c", f'{hiding}exec "$@"', "sh", *command]
    head = subprocess.Popen(
        hidden, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_port(head, port)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        with suppress(subprocess.TimeoutExpired):
            head.wait(60)
        head.kill()
        head.wait()


def _wait_for_port(head: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert head.poll() is None, "ray start ended"
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.2)
    raise TimeoutError


def kill_one(title: str) -> bool:
    """Kill a process that this one or its children started and whose command has these words."""
    for process in _descendants(os.getpid()):
        with suppress(OSError):
            if title in Path(f"/proc/{process}/cmdline").read_text():
                os.kill(process, signal.SIGKILL)
                return True
    return False


def _descendants(process: int) -> set[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text()
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def is_there(process: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # ended, and not yet cleared away
