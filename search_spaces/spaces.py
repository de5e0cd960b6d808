"""How a space is found by what is typed: a name, or the module or file that defines it."""

import sys
from dataclasses import fields
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from search_spaces.extensions import check_free, extension_names, load_extension, load_foreign
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.io import listed, short_repr
from search_spaces.space import AnySpace, OneOf, Space

HOW = "package.module:SPACE or FILE.py:SPACE"


def space_names() -> tuple[str, ...]:
    """Return the names of the bundled spaces and of those that other packages have registered."""
    return (*SPACES, *(name for name in extension_names("spaces") if name not in SPACES))


def spelled_space(text: str) -> str:
    """Return what was typed with an absolute path in the place of FILE.py."""
    file, _, attribute = text.rpartition(":")
    return f"{Path(file).absolute()}:{attribute}" if file.endswith(".py") else text


def find_space(text: str) -> AnySpace:
    """Return a space by its name, or as package.module:SPACE or FILE.py:SPACE.

    Raises:
        ValueError: if there is no such name, module, file or attribute, or it is no space.
        RuntimeError: if another package's space cannot be loaded, or has a name of ours.
    """
    if text in SPACES:
        check_free("spaces", text)
        return SPACES[text]
    if text in extension_names("spaces"):
        space: AnySpace = load_extension("spaces", text, accepts=_is_space, wanted="a Space")
        return space
    place, colon, attribute = text.rpartition(":")
    if not colon:
        raise ValueError(
            f"`space` must be one of {', '.join(space_names())}, or {HOW}, but got {text!r}."
        )
    found = load_foreign(
        lambda: getattr(_module(place), attribute, None),
        lambda why: ValueError(f"`space` must be {HOW}, but {text} {why}."),
    )
    if not isinstance(found, Space):
        raise ValueError(
            f"`space` must name a Space, but {attribute} of {place} is {short_repr(found)}. Write "
            f"{HOW}."
        )
    return found


def resolutions_of(space: AnySpace) -> tuple[int, ...]:
    """Return the image sizes that a space of FasterNets chooses from, in pixels."""
    node = space.fields.get("resolution", FasterNetConfig.resolution)
    return tuple(node.choices) if isinstance(node, OneOf) else (node,)


def fasternet_space(text: str) -> Space[FasterNetConfig]:
    """Return a space by what was typed, if its configs are FasterNet's.

    The run folders, trainings and files of the command line hold such; `search()` takes any.

    Raises:
        ValueError: if they are of another class; the message says what that lacks.
    """
    space = find_space(text)
    if space.config_class is not FasterNetConfig:
        lacks = _offers(FasterNetConfig) - _offers(space.config_class)
        without = f", without {listed(sorted(lacks))}" if lacks else ""
        raise ValueError(
            "`space` must have configs of FasterNetConfig at the command line, but those of "
            f"{text} are {space.config_class.__name__}{without}. fasternas.search() takes any."
        )
    return space


def _offers(config_class: Any) -> set[str]:
    """The fields, properties and methods of a config."""
    return {f.name for f in fields(config_class)} | {n for n in dir(config_class) if n[0] != "_"}


def _is_space(found: object) -> bool:
    return isinstance(found, Space)


def _module(place: str) -> ModuleType:
    return _of_file(Path(place)) if place.endswith(".py") else import_module(place)


def _of_file(path: Path) -> ModuleType:
    """The module of a file, once in a process: its classes are then the same ones."""
    name = f"space of {path.absolute()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
