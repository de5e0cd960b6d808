"""The workers that train one network together, and the layers that see all of a batch with them.

With these layers, training with n workers is training with one, up to rounding.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from search_spaces.network import Block

_MOST_LOADERS = 8
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's names for them, in malloc.h


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Worker `rank` of `size`; where there are more than one, torch's process group is theirs.

    Pictures are decoded in `loaders` processes of each worker (0: in its own).
    """

    rank: int = 0
    size: int = 1
    loaders: int = 0

    @property
    def is_rank_zero(self) -> bool:
        """Whether this worker writes the files."""
        return self.rank == 0

    def pairs(self, count: int) -> NDArray[np.int64]:
        """Return which rows of a batch are this worker's, each with its mirror image.

        Mixup pairs image i with image count - 1 - i: so both of a pair are one worker's, and its
        own first and last are a pair again.
        """
        if self.size == 1:
            return np.arange(count)
        half = count // 2
        front = np.arange(half * self.rank // self.size, half * (self.rank + 1) // self.size)
        return np.concatenate([front, count - 1 - front[::-1]])

    def share(self, count: int) -> NDArray[np.int64]:
        """Return which of so many images are this worker's, where they are no pairs."""
        return np.arange(self.rank, count, self.size)

    def sum(self, values: Tensor) -> Tensor:
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

    def barrier(self) -> None:
        """Go on when all workers are here."""
        if self.size > 1:
            distributed.barrier()


def share_layers(network: nn.Module, workers: Workers) -> None:
    """Give a network batch norms and drop paths over all workers; the weights keep their names."""
    if workers.size == 1:
        return
    for module in list(network.modules()):
        if isinstance(module, Block):
            drop_path = WorkersDropPath(module.drop_path.p, workers)
            module.drop_path = drop_path  # type: ignore[assignment]
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, WorkersBatchNorm(child))


class WorkersBatchNorm(nn.Module):
    """y = w (x - E[x]) / sqrt(Var[x] + eps) + b, E and Var over the images of all workers.

    torch's own SyncBatchNorm needs GPUs.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum or 0.0
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean, variance = self._statistics(x.float())
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel; the mean first, as E[x^2] - E[x]^2 loses digits."""
        ours = x.new_tensor([x.numel() / x.shape[1]])
        totals = _sum(torch.cat((x.sum((0, 2, 3)), ours)))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        variance = _sum(((x - mean.view(1, -1, 1, 1)) ** 2).sum((0, 2, 3))) / count
        unbiased = variance.detach() * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        self.num_batches_tracked += 1
        return mean, variance


class WorkersDropPath(nn.Module):
    """x * Bernoulli(1 - p) / (1 - p), drawn for the whole batch, of which x is a part."""

    def __init__(self, p: float, workers: Workers) -> None:
        super().__init__()
        self.p = p
        self._workers = workers

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        count = x.shape[0] * self._workers.size
        kept = x.new_empty((count, 1, 1, 1)).bernoulli_(keep).div_(keep)
        return x * kept[torch.from_numpy(self._workers.pairs(count)).to(x.device)]


class _Sum(torch.autograd.Function):
    """The sum over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


_sum = cast(Callable[[Tensor], Tensor], _Sum.apply)


def loaders_of(cores: int) -> int:
    """Return how many processes of so many cores decode pictures: all but one, at most 8."""
    return min(cores - 1, _MOST_LOADERS)


def usable_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the GPU if there is one."""
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda") or (name != "cpu" and not there):
        raise ValueError(f"`device` must be cpu, or cuda where there is a GPU, but got {name!r}.")
    return torch.device(name)


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's weights are."""
    return next(network.parameters()).device


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
