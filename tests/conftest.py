"""What several tests need: a disk that is full, a board, none of the boards of who runs them."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import SSHD, Server, running_sshd
from trained_digits import CONFIGS, train_command

from nas.cli.main import main
from nas.search.trial import Evaluate, InProcess
from predictors.measurement import TimingProtocol
from search_spaces.formats import save_config

CLUSTERS = {
    "test_ray_pool.py", "test_code_travels.py", "test_disturbed_cluster.py", "test_ray_supernet.py",
    "test_ray_start.py", "test_ray_training.py", "test_timing_tasks.py", "test_trial_timeout.py",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests together when they are dealt out, and those of clusters all together."""
    for item in items:
        group = "clusters" if item.path.name in CLUSTERS else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def files_end_at() -> Callable[[int], AbstractContextManager[None]]:
    """Let the system refuse to write any file beyond so many bytes, as a full disk would.

    Keep the block short: pytest's own output may be a file too.
    """
    return _files_end_at


@contextmanager
def _files_end_at(size: int) -> Iterator[None]:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(autouse=True)
def no_boards(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The boards and measurements of who runs the tests are not theirs."""
    for folder in ("config", "cache"):
        monkeypatch.setenv(f"XDG_{folder.upper()}_HOME", str(tmp_path_factory.mktemp(folder)))


@pytest.fixture(scope="session")
def digits_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two configs and, in `out`, their trained networks, which were not timed."""
    folder = tmp_path_factory.mktemp("networks")
    for name, config in CONFIGS.items():
        save_config(config, folder / f"{name}.yaml")
        assert main([*train_command(folder, name), "--epochs", "4", "--device", "none"]) == 0
    return folder


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate trials in this process: Ray and its workers take ten seconds to start."""

    @contextmanager
    def in_process(
        evaluate: Evaluate[Any], *, address: str | None, timeout_s: float | None, gpu: float
    ) -> Iterator[InProcess[Any]]:
        assert (address, timeout_s, gpu) == (None, None, 0.0)
        yield InProcess(evaluate)

    monkeypatch.setattr("nas.pipeline.RayPool", in_process)
    monkeypatch.setattr("nas.pipeline.joined", nullcontext)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running sshd, a cache of this test's own, and quick timing."""
    if SSHD is None or os.getuid() != 0:
        pytest.skip("OpenSSH's sshd is not installed here, or this is not root.")
    with running_sshd() as server:
        monkeypatch.setenv("FASTERNAS_SSH", f"ssh -F {server.folder}/ssh_config")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        quick = TimingProtocol(rounds=(6, 6), attempt_pause_s=0.1)
        monkeypatch.setattr("predictors.devices.registry.PROTOCOL", quick)
        yield server
