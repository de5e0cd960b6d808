"""Recipes of the full training as people change and keep them: options and YAML files."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nas.training.full_recipe import FIELDS, FullRecipe, with_batch
from search_spaces.io import one_line, short_repr

_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def recipe_with(recipe: FullRecipe, overrides: Mapping[str, str]) -> FullRecipe:
    """Return the recipe with values as people write them: `{"batch": "64", "flip": "false"}`.

    A batch brings the learning rate that goes with it, unless that is given too.

    Raises:
        ValueError: if there is no such setting, or a value is of the wrong type or out of range.
    """
    changes = {name: _value(name, text) for name, text in overrides.items()}
    if "batch" in changes and changes["batch"] != recipe.batch:
        recipe = with_batch(recipe, changes["batch"])
    return replace(recipe, **changes)


def read_overrides(path: Path) -> dict[str, str]:
    """Return the settings in a YAML file, as text; it need not have all.

    Raises:
        ValueError: if it is no mapping of names to plain values; the message names it.
        OSError: if it cannot be read.
    """
    from search_spaces.io import read_mapping  # imports yaml

    try:
        given = read_mapping(path)
        for name, value in given.items():
            if not isinstance(value, str | int | float):
                raise ValueError(f"`{name}` must be one value, but got {short_repr(value)}.")
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    return {str(name): str(value) for name, value in given.items()}


def read_recipe(path: Path) -> FullRecipe:
    """Return the recipe that `save_recipe` wrote.

    Raises:
        ValueError: if it is none.
        OSError: if it cannot be read.
    """
    return recipe_with(FullRecipe(), read_overrides(path))


def save_recipe(recipe: FullRecipe, path: Path, *, comment: str) -> None:
    """Write a recipe as YAML, a setting a line; the file appears under its name when it is whole.

    Raises:
        OSError: if it cannot be written.
    """
    import yaml

    from search_spaces.io import atomic_write

    text = yaml.safe_dump(asdict(recipe), sort_keys=False, default_flow_style=False)
    atomic_write(path, f"# {comment}\n{text}")


def _value(name: str, text: str) -> Any:
    if name not in FIELDS:
        near = get_close_matches(name, FIELDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"They are {', '.join(FIELDS)}."
        raise ValueError(f"`recipe` must have known settings, but got {name!r}. {hint}")
    kind = type(FIELDS[name].default)
    try:
        return _as(kind, text.strip())
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ValueError(f"`{name}` must be {words[kind]}, but got {short_repr(text)}.") from None


def _as(kind: type, text: str) -> Any:
    if kind is bool:
        return _TRUTHS[text.lower()]
    if kind is str:
        # YAML reads a bare `on` and `off` as truths; the one setting with these words is `amp`.
        return {"True": "on", "False": "off"}.get(text, text)
    if kind is float and text.lower().strip("+-") == "nan":
        raise ValueError(text)
    return kind(text)
