"""What several tests need: a disk that is full, and none of the boards of who runs them."""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


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
    """The boards that the user has registered are not the tests'."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
