"""The workers that train one network together, and what each of them does of a batch."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn


@dataclass(frozen=True, kw_only=True)
class Team:
    """Worker `rank` of `size`; where there are more than one, torch's process group is theirs."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker writes the files."""
        return self.rank == 0

    def rows(self, count: int) -> NDArray[np.int64]:
        """Return which rows of a batch are this worker's.

        They are mirrored about the middle, since mixup pairs image i with image count - 1 - i: so
        both of a pair are one worker's, and its own first and last are a pair again.
        """
        if self.size == 1:
            return np.arange(count)
        half = np.arange(count // 2)
        front = half[self._start(len(half), self.rank) : self._start(len(half), self.rank + 1)]
        return np.concatenate([front, count - 1 - front[::-1]])

    def share(self, count: int) -> NDArray[np.int64]:
        """Return which of so many images are this worker's, where they are no pairs."""
        return np.arange(self.rank, count, self.size)

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum over all workers."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def sum_gradients(self, network: nn.Module) -> None:
        """Replace each gradient of a network by the sum over all workers; they have the same."""
        if self.size == 1:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        totals = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))

    def wait(self) -> None:
        """Go on when all workers are here."""
        if self.size > 1:
            distributed.barrier()

    def _start(self, count: int, rank: int) -> int:
        return count * rank // self.size


def usable_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the GPU if there is one.

    Raises:
        ValueError: if it is not there.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda") or (name != "cpu" and not there):
        raise ValueError(f"`device` must be cpu, or cuda where there is a GPU, but got {name!r}.")
    return torch.device(name)
