"""What a search by Ray costs beside its trials: a moment each, idle workers, memory.

    python benchmarks/ray_overhead.py [--quick]

Three questions, each in a Ray of its own: how much longer 1,000 trials of one millisecond take than
they would one after another, for each; which share of the ideal 1,000 sleeping trials reach on 8
workers; and by how much 10,000 trials make the driver grow, from the thousandth on. Trials are
proposed at random, so that what is measured is not the searcher; `--quick` takes a tenth of each.
Prints the figures and writes benchmarks/results/ray_overhead.json (`--quick` writes nothing).
"""

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.ray_pool import SETTINGS, SETTINGS_ALONE, RayPool
from nas.search.loop import search
from nas.search.trial import Scores, Trial
from search_spaces.fasternet import SPACES

RESULTS = Path(__file__).parent / "results"
SHORT_S, WORKERS = 1e-3, 8
SETTLED = 10  # of so many parts of the trials the first is not counted for memory


def main() -> None:
    """Answer the three questions, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--sleep", type=float, default=1.0, metavar="S", help="of a trial (1)")
    options = parser.parse_args()
    few, many = (100, 1000) if options.quick else (1000, 10_000)
    result = {
        "trials": few,
        "seed": 0,
        **_overhead(few),
        **_share(few, options.sleep),
        **_memory(many),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "ray": version("ray"),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    print(
        f"{result['overhead_ms']:.1f} ms a trial beside its own time\n"
        f"{100 * result['share_of_ideal']:.1f} % of the ideal on {WORKERS} workers\n"
        f"{result['growth_percent']:.1f} % more memory after {many} trials, "
        f"{result['driver_mib']:.0f} MiB in all"
    )
    if not options.quick:
        (RESULTS / "ray_overhead.json").write_text(json.dumps(result, indent=2) + "\n")


def _overhead(trials: int) -> dict[str, Any]:
    """Time of trials that take a millisecond, one core at a time."""
    with _ray_of(1):
        start = time.monotonic()
        sum(1 for _ in _trials(trials, SHORT_S))
        seconds = time.monotonic() - start
    return {"overhead_ms": 1e3 * (seconds / trials - SHORT_S)}


def _share(trials: int, sleep_s: float) -> dict[str, Any]:
    """How much of the time the workers sleep, as they should."""
    with _ray_of(WORKERS):
        sum(1 for _ in _trials(10 * WORKERS, SHORT_S))  # starts them
        start = time.monotonic()
        sum(1 for _ in _trials(trials, sleep_s))
        seconds = time.monotonic() - start
    ideal = -(-trials // WORKERS) * sleep_s
    return {"workers": WORKERS, "sleep_s": sleep_s, "share_of_ideal": ideal / seconds}


def _memory(trials: int) -> dict[str, Any]:
    """Memory of this process, which drives; its own and that of Ray in it."""
    mib: list[float] = []
    with _ray_of(1):
        for trial in _trials(trials, 0.0):
            if (trial.number + 1) % (trials // SETTLED) == 0:
                mib.append(_resident_mib())
    return {
        "memory_trials": trials,
        "driver_mib": mib[-1],
        "driver_mib_over_time": mib,
        "growth_percent": 100 * (mib[-1] / mib[0] - 1),
    }


def _trials(trials: int, sleep_s: float) -> Iterator[Trial[Any]]:
    evaluate = _sleeping(sleep_s)
    with RayPool(evaluate) as pool:
        yield from search(
            SPACES["fasternet"], evaluate, trials=trials, searcher="random", pool=pool
        )


def _sleeping(seconds: float) -> Callable[[Any], Scores]:
    def evaluate(config: Any) -> Scores:
        time.sleep(seconds)
        return Scores(accuracy=float(sum(config.widths)), latency_ms=float(sum(config.depths)))

    return evaluate


@contextmanager
def _ray_of(cores: int) -> Iterator[None]:
    """A Ray that has so many cores, whatever this machine has; the pool joins it."""
    os.environ.update(SETTINGS | SETTINGS_ALONE)
    import ray

    ray.init(
        "local",
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
