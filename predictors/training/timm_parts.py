"""timm with those of its parts that a module needs."""

import importlib
from typing import Any

from search_spaces.timm_models import import_timm


def timm_with(*parts: str) -> Any:
    """Return timm after its parts, such as `data`, are imported."""
    timm = import_timm()
    for part in parts:
        importlib.import_module(f"timm.{part}")
    return timm
