"""Freed memory that a process keeps; processes of their own, since it is for good."""

import platform
import subprocess
import sys

import pytest

MEBIBYTES = 256
PROGRAM = f"""
import sys
import numpy as np
from predictors.training.workers import keep_memory

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 >> 20

if sys.argv[1] == "kept":
    keep_memory()
before = resident()
np.ones({MEBIBYTES} << 20, np.uint8)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does is changed")
@pytest.mark.parametrize(("how", "stays"), [("kept", True), ("as it is", False)])
def test_freed_memory_stays_where_it_is_kept(how: str, stays: object) -> None:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert (int(done.stdout) > 0.9 * MEBIBYTES) == stays
