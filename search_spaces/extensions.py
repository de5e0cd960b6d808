"""What other packages add to fasternas: entry points of five groups, loaded when they are named.

    [project.entry-points."fasternas.spaces"]
    tiny = "my_package.spaces:TINY"

The names are read from what is installed; of a package nothing is imported before one of its names
is given. A name of fasternas's own is refused while another package has registered it too.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any, Literal, TypeVar, get_args

from search_spaces.io import named_reason, short_repr

T = TypeVar("T")
Group = Literal["devices", "backends", "estimators", "spaces", "searchers"]

_PREFIX = "fasternas."
_OURS = ("search_spaces", "predictors", "nas", "fasternas")  # packages, whose errors have words


class ExtensionError(RuntimeError):
    """The code of another package failed; the message names that package."""


def extension_names(group: Group) -> tuple[str, ...]:
    """Return the names that other packages have registered in a group, in alphabetical order."""
    return tuple(sorted(_registered(group)))


def extension_source(group: Group, name: str) -> str:
    """Return the package that has registered a name, with its version."""
    return " and ".join(_package(entry) for entry in _registered(group)[name])


def check_free(group: Group, name: str) -> None:
    """Refuse a name of ours that another package has registered too: either may be meant."""
    if name in _registered(group):
        raise RuntimeError(
            f"{_PREFIX}{group} must have one {name}, but fasternas and "
            f"{extension_source(group, name)} have one each. Uninstall that package, or have it "
            "register another name."
        )


def is_loaded(group: Group, name: str) -> bool:
    """Whether the module of a name has been imported already."""
    return all(entry.module in sys.modules for entry in _registered(group)[name])


def load_extension(
    group: Group, name: str, *, accepts: Callable[[object], bool], wanted: str
) -> Any:
    """Return what a package has registered under a name; it is imported now.

    Raises:
        RuntimeError: if it cannot be imported, two packages have registered the name, or it is not
            `wanted`, which is what `accepts` says; the message names the package.
    """
    entries = _registered(group)[name]
    if len(entries) > 1:
        raise RuntimeError(
            f"{_PREFIX}{group} must have one {name}, but {extension_source(group, name)} have one "
            "each. Uninstall all but one."
        )
    (entry,) = entries
    found = load_foreign(entry.load, partial(_broken, group, entry))
    if not accepts(found):
        raise _broken(group, entry, f"is {short_repr(found)}, not {wanted}")
    return found


def load_foreign(load: Callable[[], T], refusal: Callable[[str], Exception]) -> T:
    """Return what lies in a module of others, which is imported now; what it prints is no result.

    Raises:
        Exception: the `refusal` with the reason, whatever the module raises.
    """
    try:
        with redirect_stdout(sys.stderr):
            return load()
    except (Exception, SystemExit) as error:
        raise refusal(f"cannot be loaded: {named_reason(error)}") from error


def call_extension(group: Group, name: str, make: Callable[[], T]) -> T:
    """Return what another package's code makes; an error that is none of ours names the package.

    Raises:
        ValueError, RuntimeError: as the package does, in its words.
        RuntimeError: whatever else it raises.
    """
    try:
        return make()
    except (ValueError, RuntimeError):
        raise
    except Exception as error:
        (entry,) = _registered(group)[name]
        raise _broken(group, entry, f"failed: {named_reason(error)}") from error


@contextmanager
def extensions_named() -> Iterator[None]:
    """Have what another package's code raises name that package, and where it was.

    What our own code says to that package is left as it is.

    Raises:
        ExtensionError: in the place of any other error that comes out of another package's code.
    """
    try:
        yield
    except Exception as error:
        words = _words_of_failure(error)
        if not words:
            raise
        raise ExtensionError(words) from error


def _words_of_failure(error: Exception) -> str:
    """What to say of an error from the code of another package; nothing of any other error."""
    frames = list(walk_tb(error.__traceback__))
    groups = _read(tuple(sys.path)).values()
    every = [entry for names in groups for entries in names.values() for entry in entries]
    packages = {entry.module.partition(".")[0]: _package(entry) for entry in every}
    theirs = [(frame, line) for frame, line in frames if _top(frame) in packages]
    deliberate = isinstance(error, ValueError | RuntimeError)
    places = (_top(frames[-1][0]), type(error).__module__.partition(".")[0])
    if not theirs or (deliberate and not {*places}.isdisjoint(_OURS)):
        return ""
    frame, line = theirs[-1]
    package = packages[_top(frame)]
    if deliberate:
        return f"{package}: {named_reason(error)}."
    file = Path(frame.f_code.co_filename).name
    place = f"{frame.f_code.co_qualname}, line {line} of {file}"
    return f"{package} failed in {place}: {named_reason(error)}. Mend or uninstall that package."


def _top(frame: FrameType) -> str:
    """The package of the code that runs in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _broken(group: Group, entry: EntryPoint, why: str) -> RuntimeError:
    return RuntimeError(
        f"{entry.name} of {_package(entry)} ({_PREFIX}{group}: {entry.value}) {why}. Mend or "
        "uninstall that package."
    )


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _registered(group: Group) -> Mapping[str, tuple[EntryPoint, ...]]:
    return _read(tuple(sys.path))[group]


@cache
def _read(_path: tuple[str, ...]) -> dict[Group, dict[str, tuple[EntryPoint, ...]]]:
    """All groups, of what is installed on that path."""
    found: dict[Group, dict[str, tuple[EntryPoint, ...]]] = {g: {} for g in get_args(Group)}
    every = entry_points()  # once: each call reads all that is installed
    for group, names in found.items():
        for entry in every.select(group=f"{_PREFIX}{group}"):
            if entry not in names.get(entry.name, ()):  # a path may be there twice
                names[entry.name] = (*names.get(entry.name, ()), entry)
    return found
