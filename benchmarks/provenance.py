"""On what machine and with which software a benchmark's figures came about."""

import os
import platform
from importlib.metadata import version
from typing import Any


def provenance(*packages: str) -> dict[str, Any]:
    """Return the machine and the versions of Python, of fasternas and of these packages."""
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("fasternas", *packages)},
    }
