"""A mapping in a YAML file: no key of it twice; written whole or not at all."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search_spaces.whole_files import written
from search_spaces.wording import brief


def read_mapping(path: Path) -> dict[Any, Any]:
    """Return the mapping that a file holds.

    Raises:
        ValueError: if the file is no YAML, holds no mapping, or a key twice.
        OSError: if the file cannot be read.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        repeats = _repeats(node)  # asked before the loader resolves `<<`, which may repeat keys
        given = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"The file must be YAML, but: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"The file must hold a mapping of keys to values, but holds a "
                         f"{type(given).__name__}. Write one `key: value` a line.")  # fmt: skip
    for key in repeats:
        raise ValueError(f"The keys must be there once each, but got {brief(key.value)} again in "
                         f"line {key.start_mark.line + 1}. Remove one.")  # fmt: skip
    return given


def write_mapping(path: Path, values: Mapping[str, Any], *, comment: str) -> None:
    """Write a mapping below a comment; the file appears under its name when it is whole.

    Characters of the comment that YAML does not allow are written as Python escapes them.

    Raises:
        OSError: if the file cannot be written; then nothing is left behind.
    """
    body = yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=None)
    allowed = yaml.reader.Reader.NON_PRINTABLE.sub(_escaped, comment)
    head = "".join(f"# {line}".rstrip() + "\n" for line in allowed.splitlines())
    written((head + body).encode(), path)


def _repeats(node: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The keys of a mapping that were there before."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = [key for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
    names = [(key.tag, key.value) for key in keys]
    return [key for i, key in enumerate(keys) if names[i] in names[:i]]


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()
