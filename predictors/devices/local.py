"""This machine as a device."""

import os
import sys

from predictors.backends.table import find_runtime
from predictors.devices.device import Wanted
from predictors.devices.runner.machine import processor
from predictors.devices.runner.serving import BOOT
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
    host = Host(command=(sys.executable, "-uc", BOOT), machine=processor(),
                version=found.version)  # fmt: skip
    return TimedDevice(name, host, wanted)
