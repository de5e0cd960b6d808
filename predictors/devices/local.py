"""This machine as a device."""

import os
import subprocess
import sys
from functools import cache

from predictors.backends.table import find_runtime, runtime_names, runtimes
from predictors.devices.agent.bootstrap import BOOTSTRAP
from predictors.devices.agent.machine import processor
from predictors.devices.device import Wanted
from predictors.devices.timed import Host, TimedDevice


def open_local(name: str, wanted: Wanted) -> TimedDevice:
    """Open the processor of this machine.

    Raises:
        ValueError: if the runtime is unknown, has not that precision, or there are more threads
            than cores.
        RuntimeError: if the runtime is not installed.
    """
    found = find_runtime(wanted.runtime, wanted.precision)
    found.check_installed()
    cores = len(os.sched_getaffinity(0))
    if wanted.threads > cores:
        raise ValueError(f"`threads` must be at most the {cores} cores of this machine, but got "
                         f"{wanted.threads}.")  # fmt: skip
    host = Host(command=(sys.executable, "-uc", BOOTSTRAP), machine=processor(),
                version=found.version)  # fmt: skip
    return TimedDevice(name, host, wanted)


QUERY = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
COMMAND = ("env", "CUDA_DEVICE_ORDER=PCI_BUS_ID", sys.executable, "-uc", BOOTSTRAP)


def open_cuda(name: str, wanted: Wanted) -> TimedDevice:
    """Open the GPU of this machine.

    Raises:
        ValueError: if the runtime, at that precision, does not run on it.
        RuntimeError: if there is no GPU, or the runtime is not installed.
    """
    found = find_runtime(wanted.runtime, wanted.precision)
    if found.cuda_clock is None:
        names = ", ".join(runtime_names(r for r in runtimes() if r.cuda_clock))
        raise ValueError(
            f"`runtime` must be one of {names}, in fp32, on a GPU, but got {wanted.runtime} in "
            f"{wanted.precision}."
        )
    if not gpu_name():
        raise RuntimeError("`device` cuda must be an NVIDIA GPU of this machine, but nvidia-smi "
                           "finds none. Install its driver, or use --device cpu.")  # fmt: skip
    found.check_installed()
    host = Host(command=COMMAND, machine=gpu_name(), version=found.version, processor="cuda")
    return TimedDevice(name, host, wanted)


@cache
def gpu_name() -> str:
    """Return what the driver calls the first GPU that is visible; empty where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = None if visible is None else visible.split(",")[0].strip()
    if first in ("", "-1"):
        return ""
    try:
        done = subprocess.run(
            [*QUERY, *([f"--id={first}"] if first else [])],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.splitlines()), "").strip()
