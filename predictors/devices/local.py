"""This machine as a device."""

import os
import sys

from predictors.devices.runner.machine import processor
from predictors.devices.runner.serving import BOOT
from predictors.devices.timed import Host, TimedDevice
from predictors.runtimes import find_runtime


def open_local(name: str, *, runtime: str, threads: int) -> TimedDevice:
    """Open the processor of this machine.

    Raises:
        ValueError: if the runtime is unknown or there are more threads than cores.
    """
    cores = len(os.sched_getaffinity(0))
    if threads > cores:
        raise ValueError(f"`threads` must be at most the {cores} cores of this machine, but got "
                         f"{threads}.")  # fmt: skip
    host = Host(command=(sys.executable, "-uc", BOOT), machine=processor(),
                version=find_runtime(runtime).version)  # fmt: skip
    return TimedDevice(name, host, runtime=runtime, threads=threads)
