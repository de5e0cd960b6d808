"""Randomness that follows from where a training is, so that no state of it need be kept."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """Return a seed in 0..2**32 - 1 for a place such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def drawing_from(*numbers: int) -> Iterator[None]:
    """Let everything that draws draw from the seed of a place; afterwards the CPU's is as it was.

    timm's transforms and mixup take their numbers from the global generators of Python and numpy,
    the layers from torch's of their device.
    """
    seed = seed_of(*numbers)
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes longer than a crop does
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
