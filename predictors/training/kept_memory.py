"""Memory that a training keeps, since it needs as much again at every step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's names for them, in malloc.h


def keep_memory() -> None:
    """Let this process keep the memory that it frees, for what it allocates later.

    Otherwise glibc gives the activations' pages back to the system and takes them anew at every
    step of a training: `benchmarks/training_speed.py` says what that costs. Other C libraries are
    left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
