"""Run folders at a URL (s3://bucket/run): worked on in a copy on this machine.

fsspec reaches object stores and shared disks by URL. What changes in the copy is written back every
minute and at the end; a command that was killed left the rest in the copy, from which it goes on.
"""

import argparse
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 60.0
_ARGUMENTS = ("out", "run", "runs", "networks")  # that may name run folders
_GROWING = (".jsonl", ".journal")  # of whole lines, of which the last may be half there
Names = list[str] | str | None
_HIDDEN = "."  # what Ray keeps in a folder is its own


@contextmanager
def local_copies(arguments: argparse.Namespace) -> Iterator[None]:
    """Put copies in the place of the URLs among a command's arguments, and bring them back.

    Raises:
        ValueError: if there is no such kind of URL.
        RuntimeError: if one cannot be reached.
    """
    with ExitStack() as stack:
        for name in (n for n in _ARGUMENTS if n in vars(arguments)):
            setattr(arguments, name, _local(getattr(arguments, name), stack))
        yield


def _local(told: Names, stack: ExitStack) -> Names:
    """Names as they are, URLs as the paths of their copies."""
    if isinstance(told, list):
        return [_local_one(one, stack) for one in told]
    return told and _local_one(told, stack)


def _local_one(name: str, stack: ExitStack) -> str:
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


class ChangedTwiceError(RuntimeError):
    """A file is another one there and here, and neither grew from the other."""


@dataclass(frozen=True)
class _Seen:
    """A file when both places had it alike: what it was there, its size and time here."""

    there: str
    here: tuple[int, int]


class RemoteFolder:
    """A folder, or a file, at a URL and its `copy`, which is in the user's cache.

    Beside the copy is kept what both had alike when they last met, so that it is known which of
    them has changed since.

    Raises:
        ValueError: if fsspec knows no such URL, or misses a package for it.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        from search_spaces.io import cache_folder

        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"`out` must be a folder, or a URL that fsspec knows, but got {url}: "
                             f"{_first_line(error)}.") from error  # fmt: skip
        self.url = url
        self._root = str(root).rstrip("/")
        name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
        self.copy = cache_folder() / "copies" / name / Path(self._root).name
        self._record = self.copy.parent / "seen.json"
        self._seen = _read_seen(self._record)  # by path in the folder; of a file it is empty

    def pull(self) -> None:
        """Bring what has changed there into the copy.

        Raises:
            RuntimeError: if the URL cannot be reached.
            ChangedTwiceError: if a file has changed in both places.
        """
        with self._reaching():
            found = self._found()
            for relative, path in found.items():
                if self._to_be_taken(relative, path):
                    self._take(relative, path)
            for relative in self._seen.keys() - found.keys():  # removed there
                seen, local = self._seen.pop(relative), self.copy / relative
                if local.is_file() and _state(local) == seen.here:
                    local.unlink()
            self._keep_seen()

    def push(self) -> None:
        """Write back what has changed here, and remove what is gone.

        Raises:
            RuntimeError: if the URL cannot be reached.
        """
        with self._reaching():
            here = self._own_files()
            changed = {
                relative: path
                for relative, path in here.items()
                if relative not in self._seen or self._seen[relative].here != _state(path)
            }
            gone = self._seen.keys() - here.keys()
            for relative, path in changed.items():
                self._write(relative, path)
            for relative in gone:
                with suppress(FileNotFoundError):
                    self._files.rm_file(self._target(relative))
                del self._seen[relative]
            if changed or gone:
                self._keep_seen()

    def _found(self) -> dict[str, str]:
        """The files there, without those of others: hidden ones, and marks of empty folders."""
        if self._files.isfile(self._root):
            return {"": self._root}
        paths = self._files.find(self._root) if self._files.exists(self._root) else []
        found = {path[len(self._root) :].lstrip("/"): path for path in paths}
        return {
            relative: path
            for relative, path in found.items()
            if relative and not relative.endswith("/") and not _is_hidden(relative)
        }

    def _to_be_taken(self, relative: str, path: str) -> bool:
        """Whether it has changed there and not here; of two that grew from one, the longer has."""
        local, seen, there = self.copy / relative, self._seen.get(relative), self._version(path)
        if not local.exists():
            return True
        state = _state(local)
        if seen and (seen.there == there or seen.here == state):
            return seen.there != there
        ours, theirs = local.read_bytes(), bytes(self._files.cat_file(path))
        grows = local.suffix in _GROWING
        if ours == theirs or (grows and ours.startswith(theirs)):
            self._seen[relative] = _Seen(there, state if ours == theirs else (0, 0))
            return False
        if grows and theirs.startswith(ours[: ours.rfind(b"\n") + 1]):
            return True
        raise ChangedTwiceError(
            f"`out` must change in one place at a time, but {relative or 'the file'} has at "
            f"{self.url} and in {self.copy}. Remove one of the two: the other is gone on with."
        )

    def _take(self, relative: str, path: str) -> None:
        """Whole or not at all."""
        local = self.copy / relative
        local.parent.mkdir(parents=True, exist_ok=True)
        unfinished = local.with_name(f"{_HIDDEN}{local.name}")
        there = self._version(path)
        self._files.get_file(path, str(unfinished))
        unfinished.replace(local)
        self._seen[relative] = _Seen(there, _state(local))

    def _write(self, relative: str, path: Path) -> None:
        state, content = _state(path), path.read_bytes()
        if path.suffix in _GROWING:
            content = content[: content.rfind(b"\n") + 1]
        target = self._target(relative)
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(target, content)
        self._files.invalidate_cache()
        self._seen[relative] = _Seen(self._version(target), state)

    def _version(self, path: str) -> str:
        """What changes with the file."""
        return str(self._files.ukey(path))

    def _target(self, relative: str) -> str:
        return f"{self._root}/{relative}" if relative else self._root

    def _own_files(self) -> dict[str, Path]:
        if self.copy.is_file():  # of a command whose `out` is a file
            return {"": self.copy}
        found = {str(path.relative_to(self.copy)): path
                 for path in sorted(self.copy.rglob("*")) if path.is_file()}  # fmt: skip
        return {relative: path for relative, path in found.items() if not _is_hidden(relative)}

    def _keep_seen(self) -> None:
        from search_spaces.io import atomic_write

        if self.copy.parent.is_dir():
            kept = {relative: [seen.there, seen.here] for relative, seen in self._seen.items()}
            atomic_write(self._record, json.dumps(kept))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever a file system raises is one kind of error."""
        try:
            yield
        except ChangedTwiceError:
            raise
        except Exception as error:
            raise RuntimeError(f"`out` must be reachable, but {self.url} is not: "
                               f"{_first_line(error)}. What is new stays in {self.copy}: repeat "
                               "with --resume.") from error  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _read_seen(record: Path) -> dict[str, _Seen]:
    """What was kept; nothing where there is none, or none that can be read: both are compared."""
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return {name: _Seen(there, (here[0], here[1])) for name, (there, here) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return {}


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_hidden(relative: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in Path(relative).parts)
