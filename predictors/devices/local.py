"""This machine as a device: its processor, and its NVIDIA GPU.

The GPU is the first, unless CUDA_VISIBLE_DEVICES says. GPUs are counted as nvidia-smi does, and
fp32 is that: TF32, which both runtimes would take, is not.
"""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from functools import cache

from predictors.backends.table import find_runtime, runtime_names, runtimes
from predictors.devices.agent.host import BOOTSTRAP, processor
from predictors.devices.device import check_cores
from predictors.devices.timed import Host, TimedDevice
from predictors.measurement import Backend, TimingProtocol

QUERY = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
COMMAND = (sys.executable, "-uc", BOOTSTRAP)
CUDA_COMMAND = ("env", "CUDA_DEVICE_ORDER=PCI_BUS_ID", *COMMAND)


def open_cpu(name: str, backend: Backend, protocol: TimingProtocol) -> TimedDevice:
    """Open the processor of this machine; `on_cores` says whether it has so many cores."""
    found = find_runtime(backend.runtime, backend.precision)
    found.require(found.package)
    host = Host(command=COMMAND, machine=processor())
    return TimedDevice(name, host, backend, version=found.version, protocol=protocol)


def on_cores(host: Host, cores: tuple[int, ...], threads: int) -> Host:
    """Return this machine with so many threads pinned to these cores; none: to some of its own.

    Those are the ones that this process may use. Cores that are named may be others.
    """
    own = len(os.sched_getaffinity(0))
    if cores:
        check_cores(cores, threads, os.cpu_count() or 1, machine="this machine")
    elif threads > own:
        raise ValueError(
            f"`threads` must be at most the {own} cores of this machine, but got {threads}."
        )
    return replace(host, cores=cores)


def open_cuda(name: str, backend: Backend, protocol: TimingProtocol) -> TimedDevice:
    """Open the GPU of this machine."""
    found = find_runtime(backend.runtime, backend.precision)
    if found.cuda_clock is None:
        names = ", ".join(runtime_names(r for r in runtimes() if r.cuda_clock))
        raise ValueError(
            f"`runtime` must be one of {names}, in fp32, on a GPU, but got {backend.runtime} in "
            f"{backend.precision}."
        )
    if not gpu_name():
        raise RuntimeError(
            "`device` cuda must be an NVIDIA GPU of this machine, but nvidia-smi finds none. "
            "Install its driver, or use --device cpu."
        )
    found.require(found.package)
    host = Host(command=CUDA_COMMAND, machine=gpu_name(), processor="cuda")
    return TimedDevice(name, host, backend, version=found.version, protocol=protocol)


def is_arm_machine() -> bool:
    """Whether the processor of this machine is a 64-bit ARM one."""
    return platform.machine() in ("aarch64", "arm64")


@cache
def gpu_name() -> str:
    """Return what the driver calls the first GPU that is visible; empty where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = None if visible is None else visible.split(",")[0].strip()
    if first in ("", "-1"):
        return ""
    query = [*QUERY, *([f"--id={first}"] if first else [])]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.splitlines()), "").strip()
