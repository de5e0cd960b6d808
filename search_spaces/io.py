"""Files and errors: whole files, locks, folders for results, YAML mappings, one-line errors."""

import errno
import fcntl
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

if TYPE_CHECKING:
    import yaml

_LONGEST = 120  # characters of a value in an error message
_REPR = reprlib.Repr()
_REPR.maxother = 60  # characters of what is no number, text or collection, such as a function


def atomic_write(path: Path, content: bytes | str) -> Path:
    """Write beside the file and rename: a reader finds the old file or the whole new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if isinstance(content, str):  # a file name in it may be no UTF-8
            content = content.encode("utf-8", "backslashreplace")
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        if error.strerror:  # the message names the file that was to be written
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return path


def check_replaced(path: Path, is_earlier: Callable[[Path], bool], *, name: str, what: str) -> Path:
    """Return where a file is to be written: where a link leads.

    A file of anything else that is there is refused: `is_earlier` tells one that may be replaced.
    """
    target = path.resolve() if path.is_symlink() else path
    if target.is_file():
        known = target.stat().st_size == 0 or is_earlier(target)
    else:
        known = not target.exists()
    if known:
        return target
    kind = "directory" if target.is_dir() else "file of something else"
    raise ValueError(
        f"`{name}` must be a new file, or {what} that was written before, but {shown(path)} is a "
        f"{kind}. Name another."
    )


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Lock a file or folder; the system unlocks it when the process ends, however."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock_descriptor(descriptor, shared=shared, wait=wait)
        yield
    finally:
        os.close(descriptor)


def lock_descriptor(descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)


def short_repr(value: object) -> str:
    """Return a value's repr, shortened to what fits in a line of an error message.

    `reprlib` alone is not enough: it still shows six items in each of six levels.
    """
    text = _REPR.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def listed(names: Sequence[str]) -> str:
    """Return the first names as they may be shown, and how many more there are."""
    shown = [name if name.isprintable() and len(name) < 99 else short_repr(name) for name in names]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(shown[:3])}{more}"


def shown(name: Path | str) -> str:
    """Return a name as it can be written anywhere, in one line.

    Bytes that are no UTF-8 and control characters are escaped. Any other character stays.
    """
    return _spelled(os.fsencode(name).decode("utf-8", "backslashreplace"))


def _spelled(text: str) -> str:
    """The text with control characters spelled, which a terminal would obey."""
    odd = (c for c in set(text) if category(c) in {"Cc", "Zl", "Zp"})
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in odd})


def one_line(error: BaseException | str) -> str:
    """Return the text of an error in one line; its class where it has no text."""
    return _spelled(" ".join(str(error).split())) or type(error).__name__


def error_line(error: BaseException, *, resumes: bool = True) -> str:
    """Return what a user is told of an error, in one line; `resumes`: of what has --resume."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        full = bool(error.filename) and error.errno == errno.ENOSPC
        begun = full and Path(str(error.filename)).parent.exists()
        kept = resumes and begun
        advice = " Free some space" * full + "; what was begun goes on with --resume" * kept
        advice += "." * full
        return one_line(f"{error.strerror}{where}.{advice}")
    if isinstance(error, MemoryError):
        return "there is not enough memory. Use fewer threads or smaller networks."
    return one_line(error)


_LOCATION = r"(?<![\w./+-])[\w./+-]+\.(?:c|cc|cpp|cxx|cu|h|hpp|hxx|py):\d+(?::\d+)?:?"
_SIGNATURE = (
    r"[\w:<>&*~, ]*\w::~?\w+(?:<[^()]*>)?\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^]]*\])?"
)
# What runtimes write before their reasons; our own temporary files say nothing to a user either.
_NO_REASON = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]"
    rf"|Exception from {_LOCATION}"
    rf"|Check '[^\n]*' failed at {_LOCATION}"
    r"|File \"[^\"\n]*\", line \d+(?:, in \S+)?"
    rf"|{_LOCATION}(?:\s+{_SIGNATURE})?"
    r"|(?:\b(?:from|in|file) )?['\"]?(?<![\w./+-])/[\w./+-]*/\.?(?:fasternas|exporting)-[\w./+-]*"
    r"['\"]?"
)
_LONGEST_READ = 20_000  # characters
_LONGEST_REASON, _BEGINNING = 600, 150  # characters; of a longer one the end is kept too


def reason(error: BaseException | str) -> str:
    """Return what an error says in one line without a full stop; its class where that is nothing.

    Source locations and temporary files are left out. Of a long text the middle is, since runtimes
    end with the reason.
    """
    try:
        text = str(error)
    except Exception:  # the class is the user's
        text = ""
    if len(text) > _LONGEST_READ:
        text = f"{text[: _LONGEST_READ // 4]} {text[-3 * _LONGEST_READ // 4 :]}"
    said = "".join(c if c.isprintable() else " " for c in _NO_REASON.sub(" ", text))
    words = " ".join(said.split()).strip(" .")
    if not words and isinstance(error, BaseException):
        return type(error).__name__
    if len(words) <= _LONGEST_REASON:
        return words
    return f"{words[:_BEGINNING]} ... {words[_BEGINNING - _LONGEST_REASON :]}"


_OTHER_FILES: tuple[tuple[bytes, str], ...] = (  # of what downloads leave under a file's name
    (rb"\s*<(!doctype |html|head|body)", "a web page, so get it again"),
    (rb"version https://git-lfs", "a pointer of Git LFS, so run `git lfs pull`"),
    (rb"\x00*$", "nothing is in it"),
)


def other_file(start: bytes) -> str:
    """Return what a file is, by its first bytes, in place of what it is named; or nothing."""
    found = (why for begin, why in _OTHER_FILES if re.match(begin, start[:64], re.I | re.S))
    return next(found, "")


def named_reason(error: BaseException) -> str:
    """Return the class of an error and its reason."""
    why = reason(error)
    name = type(error).__name__
    return name if why == name else f"{name}: {why}"


def cache_folder() -> Path:
    """Return the folder of cached measurements: `$XDG_CACHE_HOME/fasternas`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fasternas"


def config_folder() -> Path:
    """Return the folder of the registered boards: `$XDG_CONFIG_HOME/fasternas`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fasternas"


_LONGEST_NAME = 200  # bytes of a file's, of which a system takes 255 and an export adds some


def check_out(folder: Path) -> None:
    """Refuse a folder for results that could not be made, or whose name runtimes would refuse.

    Without it that would be found when all work is done.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"`out` must be a path in UTF-8, since runtimes take no other, but got {shown(folder)}."
            " Name another folder."
        ) from None
    if len(folder.name.encode()) > _LONGEST_NAME:
        raise ValueError(
            f"`out` must have a name of at most {_LONGEST_NAME} bytes, but {folder.name[:20]}... "
            f"has {len(folder.name.encode())}. Take a shorter one."
        )
    around = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not around.is_dir():
        raise ValueError(f"`out` must be a folder, but {around} is a file. Name another folder.")
    if not os.access(around, os.W_OK | os.X_OK):
        fixed = os.statvfs(around).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if fixed else errno.EACCES)
        raise ValueError(
            f"`out` must be a folder that can be written, but {around} cannot: {why}. Name another "
            "folder."
        )


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; return those that were not there, the innermost first."""
    check_out(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    dangling = next((path for path in made if path.is_symlink()), None)
    if dangling is not None:
        raise ValueError(
            f"`out` must be a folder, but {dangling} is a link to {dangling.readlink()}, which is "
            "not there. Make that or remove the link."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders in which there is nothing, the innermost first."""
    for path in folders:
        with suppress(OSError):  # something is in it
            path.rmdir()


def read_mapping(path: Path) -> dict[Any, object]:
    """Return the mapping that a YAML file holds."""
    import yaml

    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        repeated = _repeated_keys(node)  # before the loader resolves `<<`, which may repeat keys
        values = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"The file must be YAML, but: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"The file must hold a mapping of keys to values, but holds a {type(values).__name__}. "
            "Write one `key: value` a line."
        )
    for key in repeated:
        raise ValueError(
            f"The keys must be there once each, but got {short_repr(key.value)} again in line "
            f"{key.start_mark.line + 1}. Remove one."
        )
    return values


def write_mapping(path: Path, values: Mapping[str, object], *, comment: str) -> None:
    """Write a mapping as YAML below a comment.

    Characters of the comment that YAML does not allow are written as Python escapes them.
    """
    import yaml

    body = yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=None)
    allowed = yaml.reader.Reader.NON_PRINTABLE.sub(_escaped, comment)
    head = "".join(f"# {line}".rstrip() + "\n" for line in allowed.splitlines())
    atomic_write(path, head + body)


def _repeated_keys(node: "yaml.Node | None") -> list["yaml.ScalarNode"]:
    """The keys of a mapping that were there before."""
    import yaml

    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = [key for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
    names = [(key.tag, key.value) for key in keys]
    return [key for i, key in enumerate(keys) if names[i] in names[:i]]


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()
