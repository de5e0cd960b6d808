"""A Ray of our own on a machine that is too busy for it: tried twice, said once, nothing left."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import until

from nas.cli.main import main
from nas.ray_pool import joined

LATE = (
    "The current node timed out during startup. This could happen because some of the raylet "
    "failed to startup or the GCS has become overloaded."
)
Streams = pytest.CaptureFixture[str]


def _started() -> list[int]:
    """The processes of Ray's that this one has begun."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [pid for file in children for pid in file.read_text().split()]
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
    return [int(pid) for pid, name in names.items() if name in ("gcs_server", "raylet")]


@pytest.fixture
def started() -> Callable[[], list[int]]:
    """Which of them are there now that were not before the test."""
    before = _started()
    return lambda: [pid for pid in _started() if pid not in before]


@pytest.fixture
def late(
    started: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[int]]:
    """Let a node be late so many times; what had been started by then is counted."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("nas.ray_pool.PAUSE_S", 0.0)
    import ray._private.services as services

    in_time: Any = services.get_node

    def fail(times: int, error: type[Exception] = Exception) -> list[int]:
        seen: list[int] = []

        def get_node(*arguments: Any) -> Any:
            if len(seen) < times:
                seen.append(len(started()))
                raise error(LATE)
            return in_time(*arguments)

        monkeypatch.setattr(services, "get_node", get_node)
        return seen

    return fail


def test_what_is_late_once_is_tried_again(
    late: Callable[..., list[int]], started: Callable[[], list[int]]
) -> None:
    seen = late(1, TimeoutError)
    own = signal.getsignal(signal.SIGTERM)
    with joined(None) as ray:
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
        assert len(started()) == seen[0] == 2  # those of the first try are gone
    assert signal.getsignal(signal.SIGTERM) == own
    until(lambda: started() == [])


def test_what_stays_late_is_one_line_and_leaves_nothing(
    late: Callable[..., list[int]],
    started: Callable[[], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    monkeypatch.chdir(tmp_path)
    own = signal.getsignal(signal.SIGTERM)
    seen = late(9)
    options = ["--device", "arm", "--budget", "20ms", "--trials", "2"]
    assert main(["search", *options, "--out", "run"]) == 2
    assert seen == [2, 2]
    said = capsys.readouterr().err
    assert f"Ray must be reachable, but is not: Exception: {LATE[:41]}" in said
    assert "or is this machine very busy" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == own
    until(lambda: started() == [])


def test_what_will_not_be_better_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def init(**_: Any) -> None:
        tries.append(1)
        raise PermissionError("/tmp/ray")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(RuntimeError, match="Can HOME and the folder for temporary files be"):
        joined(None).__enter__()
    assert tries == [1]


def test_told_to_end_while_ray_starts_it_is_interrupted_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    """A stand-in for Ray, which starts with a handler of SIGTERM that exits with its number."""

    def init(**_: Any) -> None:
        raise SystemExit(int(signal.SIGTERM))

    ended: list[int] = []
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: ended.append(1))
    options = ["--device", "arm", "--budget", "20ms", "--trials", "2"]
    assert main(["search", *options, "--out", str(tmp_path / "run")]) == 128 + signal.SIGTERM
    assert "fasternas: interrupted; there was nothing to keep" in capsys.readouterr().err
    assert ended == [1]
    assert list(tmp_path.iterdir()) == []
