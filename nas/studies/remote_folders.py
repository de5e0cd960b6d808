"""Run folders at a URL (s3://bucket/run): worked on in a copy on this machine.

fsspec reaches object stores and shared disks by URL. What is new in the copy is written back every
minute and at the end; a command that was killed left the rest in the copy, from which it goes on.
"""

import argparse
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PERIOD_S = 60.0
_ARGUMENTS = ("out", "run", "runs", "networks")  # that may name run folders
_GROWING = (".jsonl", ".journal")  # of whole lines, of which the last may be half there
_HIDDEN = "."  # what Ray keeps in a folder is its own


@contextmanager
def local_copies(arguments: argparse.Namespace) -> Iterator[None]:
    """Put copies in the place of the URLs among a command's arguments, and bring them back.

    Raises:
        ValueError: if there is no such kind of URL.
        RuntimeError: if one cannot be reached.
    """
    with ExitStack() as stack:
        for name in _ARGUMENTS:
            told = getattr(arguments, name, None)
            if isinstance(told, str):
                setattr(arguments, name, _local(told, stack))
            elif isinstance(told, list):
                setattr(arguments, name, [_local(one, stack) for one in told])
        yield


def _local(name: str, stack: ExitStack) -> str:
    """A name as it is, a URL as the path of its copy."""
    return str(stack.enter_context(_copied(name))) if "://" in name else name


@contextmanager
def _copied(url: str) -> Iterator[Path]:
    remote = RemoteFolder(url)
    remote.pull()
    over = threading.Event()

    def write_back() -> None:
        while not over.wait(PERIOD_S):
            with suppress(RuntimeError):  # it is tried again
                remote.push()

    thread = threading.Thread(target=write_back, daemon=True)
    thread.start()
    try:
        yield remote.copy
    finally:
        over.set()
        thread.join()
        remote.push()


class RemoteFolder:
    """A folder at a URL and its `copy`, which is in the user's cache.

    Raises:
        ValueError: if fsspec knows no such URL, or misses a package for it.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        from predictors.devices.user_folders import cache_folder

        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"`out` must be a folder, or a URL that fsspec knows, but got {url}: "
                             f"{_first_line(error)}.") from error  # fmt: skip
        self.url = url
        self._root = str(root).rstrip("/")
        name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        self.copy = cache_folder() / "copies" / name / Path(self._root).name
        self._written: dict[str, tuple[int, int]] = {}  # by path: size and time when written back

    def pull(self) -> None:
        """Bring what is there into the copy, but for what is newer in it.

        Raises:
            RuntimeError: if the URL cannot be reached.
        """
        with self._reaching():
            found = self._files.find(self._root, detail=True) if self._there() else {}
            for path, entry in found.items():
                relative = path[len(self._root) :].lstrip("/")
                local = self.copy / relative
                if self._is_newer(path, local):
                    local.parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(path, str(local))
                    self._written[relative] = (entry["size"], local.stat().st_mtime_ns)

    def push(self) -> None:
        """Write back what is new, and remove what is gone.

        Raises:
            RuntimeError: if the URL cannot be reached.
        """
        with self._reaching():
            if self.copy.is_file():  # of a command whose `out` is a file
                self._files.pipe_file(self._root, self.copy.read_bytes())
                return
            there = {str(path.relative_to(self.copy)): path for path in self._own_files()}
            for relative, path in there.items():
                state = (path.stat().st_size, path.stat().st_mtime_ns)
                if self._written.get(relative) != state:
                    self._write(relative, path)
                    self._written[relative] = state
            for relative in self._written.keys() - there.keys():
                with suppress(FileNotFoundError):
                    self._files.rm_file(f"{self._root}/{relative}")
                del self._written[relative]

    def _write(self, relative: str, path: Path) -> None:
        content = path.read_bytes()
        if path.suffix in _GROWING:
            content = content[: content.rfind(b"\n") + 1]
        target = f"{self._root}/{relative}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(target, content)

    def _own_files(self) -> Sequence[Path]:
        return [path for path in sorted(self.copy.rglob("*")) if path.is_file()
                and not any(part.startswith(_HIDDEN)
                            for part in path.relative_to(self.copy).parts)]  # fmt: skip

    def _there(self) -> bool:
        return bool(self._files.exists(self._root))

    def _is_newer(self, path: str, local: Path) -> bool:
        """Whether what is there is to be taken; of two that grew from one, the longer is newer."""
        if not local.exists():
            return True
        if local.suffix in _GROWING and local.read_bytes().startswith(self._files.cat_file(path)):
            return False
        moment: Any = self._files.modified(path)
        return float(moment.timestamp()) > local.stat().st_mtime

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever a file system raises is one kind of error."""
        try:
            yield
        except Exception as error:
            raise RuntimeError(f"`out` must be reachable, but {self.url} is not: "
                               f"{_first_line(error)}. What is new stays in {self.copy}: repeat "
                               "with --resume.") from error  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
