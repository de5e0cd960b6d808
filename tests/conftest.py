"""What several tests need: a disk that is full, a board, none of the boards of who runs them."""

import gc
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import SSHD, Server, running_sshd
from quick import POOL, evaluate_here, time_quickly
from ray_nodes import two_nodes
from trained_digits import CONFIGS, train_command

from nas.cli.main import main
from nas.ray_pool import joined
from search_spaces.formats import save_config

# The files that take longest are begun first, so that the workers end at about the same time. Those
# that start a Ray stand between others: several of them at once wait for one another.
FIRST = (
    "test_ray_training.py",  # Ray
    "test_docs.py",
    "test_boards.py",
    "test_trained_search.py",  # Ray
    "test_backends.py",
    "test_pool.py",
    "test_disturbed_cluster.py",  # Ray
    "test_run.py",  # Ray
    "test_installing.py",
    "test_program.py",
    "test_tune.py",  # Ray
    "test_benchmarks.py",
    "test_bootstrap.py",
    "test_ray_pool.py",  # Ray
    "test_repeated_run.py",
    "test_joint_search.py",
    "test_timing_tasks.py",  # Ray
    "test_limits.py",
    "test_onnx_export.py",
    "test_trial_timeout.py",  # Ray
    "test_timm_models.py",
    "test_loop.py",
    "test_ray_start.py",  # Ray
    "test_fuzz.py",
    "test_cost.py",
    "test_code_travels.py",  # Ray
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; `--dist loadfile` keeps a file's tests together."""
    turns = {name: turn for turn, name in enumerate(FIRST)}
    items.sort(key=lambda item: turns.get(item.path.name, len(turns)))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: it is there to the end."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders, a new one each time; `mktemp` looks at all that are there before it makes one."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def no_boards(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The boards and measurements of who runs the tests are not theirs."""
    home = next(homes)
    for name in ("config", "cache"):
        (home / name).mkdir(parents=True)
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(home / name))


@pytest.fixture(scope="session", autouse=True)
def quick_timing() -> Iterator[None]:
    """Devices are timed quickly, unless a test gives a protocol of its own."""
    with pytest.MonkeyPatch.context() as patch:
        time_quickly(patch)
        yield


@pytest.fixture
def whole_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a calibration times be chosen from as many networks as in earnest."""
    monkeypatch.setattr("predictors.calibration.POOL", POOL)


@pytest.fixture(scope="session", autouse=True)
def equal_workers() -> Iterator[None]:
    """Ray's workers are as urgent as the tests beside them, which otherwise starve them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="session")
def digits_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two configs and, in `out`, their trained networks, which were not timed."""
    folder = tmp_path_factory.mktemp("networks")
    for name, config in CONFIGS.items():
        save_config(config, folder / f"{name}.yaml")
        assert main([*train_command(folder, name), "--epochs", "4", "--device", "none"]) == 0
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The Ray of a file of tests: a head, and a node that has a GPU and the board b1.

    Of one core each. A test that needs more nodes adds them, and removes them again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # a lost worker is noticed soon
        patch.setenv("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
        # One process less for each group of workers: it looks out for nodes that are to go.
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        with two_nodes(num_gpus=1, resources={"b1": 1}) as started:
            yield started


@pytest.fixture(scope="module")
def on_cluster(cluster: Any) -> Iterator[Any]:
    """That Ray, joined for all tests of a module: its workers start once, and not for each."""
    with joined(cluster.address):
        yield cluster


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate trials in this process."""
    evaluate_here(monkeypatch)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running sshd."""
    if SSHD is None or os.getuid() != 0:
        pytest.skip("OpenSSH's sshd is not installed here, or this is not root.")
    with running_sshd() as server:
        monkeypatch.setenv("FASTERNAS_SSH", f"ssh -F {server.folder}/ssh_config")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server
