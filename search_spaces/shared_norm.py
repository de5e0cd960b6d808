"""Batch norm over a batch of which several workers have a part each.

With it, training with n workers is training with one. torch's own SyncBatchNorm needs GPUs.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def several_workers() -> bool:
    """Whether torch's process group has others than this process."""
    there = distributed.is_available() and distributed.is_initialized()
    return there and distributed.get_world_size() > 1


def normalised(x: Tensor, *, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """w (x - E[x]) / sqrt(Var[x] + eps) + b, E and Var over the images of all workers."""
    mean, variance, _ = statistics(x)
    return affine(x, mean, weight * (variance + eps).rsqrt(), bias)


def affine(x: Tensor, mean: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """(x - mean) scale + bias, for each channel of x [n, c, height, width]."""
    return x * scale.view(1, -1, 1, 1) + (bias - mean * scale).view(1, -1, 1, 1)


def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all workers, and of how many values they are.

    The mean comes first, since E[x^2] - E[x]^2 loses digits.
    """
    ours = x.new_tensor([x.numel() / x.shape[1]])
    totals = _summed(torch.cat((x.sum((0, 2, 3)), ours)))
    count = totals[-1].detach()
    mean = totals[:-1] / count
    variance = _summed(((x - mean.view(1, -1, 1, 1)) ** 2).sum((0, 2, 3))) / count
    return mean, variance, count


class _Sum(torch.autograd.Function):
    """The sum over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total
