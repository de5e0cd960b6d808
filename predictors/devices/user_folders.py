"""The folders of this user in which fasternas keeps things."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return that of what was timed: `$XDG_CACHE_HOME/fasternas`, or `~/.cache/fasternas`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fasternas"


def config_folder() -> Path:
    """Return that of the boards: `$XDG_CONFIG_HOME/fasternas`, or `~/.config/fasternas`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fasternas"
