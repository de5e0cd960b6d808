"""FasterNet T0 to L as they would be in a space."""

from dataclasses import replace
from typing import Any

from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.space import OneOf, Space


def named_sizes(space: Space[Any]) -> dict[str, FasterNetConfig]:
    """Return T0 to L with the resolution, the largest if there are several, and the classes."""
    resolution = space.fields.get("resolution", 224)
    if isinstance(resolution, OneOf):
        resolution = max(resolution.choices)
    classes = space.fields.get("classes", 1000)
    return {name: replace(config, resolution=resolution, classes=classes)
            for name, config in FASTERNET.items()}  # fmt: skip
