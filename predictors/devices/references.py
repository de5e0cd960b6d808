"""The reference model's latency on this machine, kept so that every run speaks of the same ms.

Each reference is timed once for each setting (machine, runtime, version, precision, threads, ...);
later runs multiply their ratios by that figure, so the machine's drift does not enter them.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from search_spaces.io import atomic_write, cache_folder


def reference_latency(key: Mapping[str, str | int], processes: Sequence[Sequence[float]]) -> float:
    """Return the reference's latency in ms: the one kept for `key`, or that of these blocks.

    The fastest process's median stands for the machine: others were held up by something.
    Where the cache cannot be written, the latency holds for this run alone.
    """
    file = cache_folder() / f"reference-{_digest(key)}.json"
    kept = _read(file)
    if kept is not None:
        return kept
    latency_ms = min(median(blocks) for blocks in processes)
    _keep(file, {**key, "latency_ms": latency_ms})
    return latency_ms


def _digest(key: Mapping[str, str | int]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _read(file: Path) -> float | None:
    try:
        latency_ms = float(json.loads(file.read_text())["latency_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return latency_ms if 0 < latency_ms < math.inf else None


def _keep(file: Path, entry: Mapping[str, object]) -> None:
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(entry, indent=2) + "\n")
