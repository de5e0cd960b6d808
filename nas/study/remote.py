"""Run folders at a URL (s3://bucket/run): worked on in a copy here, uploaded every few minutes.

fsspec reaches object stores and shared disks by URL. A command begins with what is there. One that
was killed, or could not upload, leaves a mark beside the copy: then the next begins with the copy.
"""

import argparse
import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from search_spaces.io import cache_folder, reason

PERIOD_S = 120.0
_ARGUMENTS = ("out", "run", "runs", "networks")  # that may name run folders
_SAME_S = 1e-6  # between the time of a file here and there
_GROWING = (".jsonl", ".journal")  # of whole lines, of which the last may be half there
State = tuple[int, int, int]  # a file's size, time and number here


@contextmanager
def local_copies(arguments: argparse.Namespace) -> Iterator[None]:
    """Put copies in the place of the URLs among a command's arguments, and upload them."""
    with ExitStack() as stack:
        for name in (n for n in _ARGUMENTS if n in vars(arguments)):
            local = _local(getattr(arguments, name), stack, is_new=name == "out")
            setattr(arguments, name, local)
        yield


_MODEL_PAGE = re.compile(r"https?://(www\.)?huggingface\.co/[^/]+/[^/]+/?(@\w+)?")


def _local(names: object, stack: ExitStack, *, is_new: bool) -> object:
    """Names as they are, URLs as the paths of their copies if there is something or will be."""
    if isinstance(names, list):
        return [_local(name, stack, is_new=is_new) for name in names]
    if not isinstance(names, str) or "://" not in names or _MODEL_PAGE.fullmatch(names):
        return names
    copy = stack.enter_context(_copied(names))
    return str(copy) if is_new or copy.exists() else names


@contextmanager
def _copied(url: str) -> Iterator[Path]:
    remote = RemoteFolder(url)
    remote.fetch()
    over = threading.Event()

    def upload() -> None:
        while not over.wait(PERIOD_S):
            with suppress(RuntimeError):  # it is tried again
                remote.upload()

    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    try:
        yield remote.copy
    finally:
        over.set()
        thread.join()
        remote.upload()
        remote.pending.unlink(missing_ok=True)


class RemoteFolder:
    """A folder, or a file, at a URL and its `copy`, which is in the user's cache."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"`out` must be a folder, or a URL that fsspec knows, but got {url}: "
                f"{reason(error)}."
            ) from error
        self.url = url
        self._root = str(root).rstrip("/")
        name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        self.copy = cache_folder() / "copies" / name / Path(self._root).name
        self.pending = self.copy.parent / ".pending"  # there while the copy may be newer
        self._same: dict[str, State] = {}  # files as both places have them, by path in the folder

    def fetch(self) -> None:
        """Make the copy what is there, unless a command left it newer; mark it as at work."""
        with self._reaching():
            there, longer = self._find(), []
            if self.pending.exists():
                longer = [name for name, path in there.items() if self._is_longer(name, path)]
            else:
                self._take_all(there)
        if longer:
            raise RuntimeError(
                f"`out` must change in one place at a time, but {longer[0] or 'the file'} has at "
                f"{self.url} and in {self.copy}. Remove one of the two: the other is gone on with."
            )
        self.pending.parent.mkdir(parents=True, exist_ok=True)
        self.pending.touch()

    def upload(self) -> None:
        """Write what has changed here, and remove what is gone."""
        with self._reaching():
            here = self._own_files()
            for name, path in here.items():
                if self._same.get(name) != _state(path.stat()):
                    self._write(name, path)
            for name in self._same.keys() - here.keys():
                with suppress(FileNotFoundError):
                    self._files.rm_file(self._target(name))
                del self._same[name]

    def _find(self) -> dict[str, str]:
        """The files there, without those of others: hidden ones, and marks of empty folders."""
        if self._files.isfile(self._root):
            return {"": self._root}
        paths = self._files.find(self._root) if self._files.exists(self._root) else []
        found = {path[len(self._root) :].lstrip("/"): path for path in paths}
        return {
            name: path
            for name, path in found.items()
            if name and not name.endswith("/") and not _is_hidden(name)
        }

    def _is_longer(self, name: str, path: str) -> bool:
        local = self.copy / name
        size = local.stat().st_size if local.exists() else 0
        return local.suffix in _GROWING and int(self._files.size(path)) > size

    def _take_all(self, there: Mapping[str, str]) -> None:
        """Fetch what is not as it was when this copy was uploaded; each whole or not at all."""
        for name, path in there.items():
            local, modified = self.copy / name, self._files.modified(path).timestamp()
            if not (local.exists() and abs(local.stat().st_mtime - modified) < _SAME_S):
                local.parent.mkdir(parents=True, exist_ok=True)
                unfinished = local.with_name(f".{local.name}")
                self._files.get_file(path, str(unfinished))
                os.utime(unfinished, (modified, modified))
                unfinished.replace(local)
            self._same[name] = _state(local.stat())
        for name, gone in self._own_files().items():
            if name not in there:
                gone.unlink()

    def _write(self, name: str, path: Path) -> None:
        """Upload a file, or the whole lines of one that grows; then both have one time."""
        target = self._target(name)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # what is appended meanwhile is not uploaded yet
            content = file.read(size)
            if path.suffix in _GROWING:
                content = content[: content.rfind(b"\n") + 1]
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(target, content)
            self._files.invalidate_cache()
            modified = self._files.modified(target).timestamp()
            os.utime(file.fileno(), (modified, modified))
            self._same[name] = (size, *_state(os.fstat(file.fileno()))[1:])

    def _target(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _own_files(self) -> dict[str, Path]:
        if self.copy.is_file():  # of a command whose `out` is a file
            return {"": self.copy}
        paths = (path for path in sorted(self.copy.rglob("*")) if path.is_file())
        found = {str(path.relative_to(self.copy)): path for path in paths}
        return {name: path for name, path in found.items() if not _is_hidden(name)}

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever a file system raises is one kind of error."""
        try:
            yield
        except Exception as error:
            raise RuntimeError(
                f"`out` must be reachable, but {self.url} is not: {reason(error)}. What is "
                f"new stays in {self.copy}: repeat with --resume."
            ) from error


def _state(status: os.stat_result) -> State:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)
