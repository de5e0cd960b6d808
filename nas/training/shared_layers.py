"""Layers that see the whole batch although several workers have a part of it each.

With them, training with n workers is training with one.
"""

import torch
from torch import Tensor, nn

from predictors.training.workers import Team
from search_spaces.network import Block
from search_spaces.shared_norm import affine, statistics


def share_layers(network: nn.Module, team: Team, device: torch.device) -> nn.Module:
    """Return the network with batch norms and drop paths of the whole team.

    The names of the weights stay.
    """
    if team.size == 1:
        return network
    for module in network.modules():
        if isinstance(module, Block):
            module.drop_path = SharedDropPath(module.drop_path.p, team)  # type: ignore[assignment]
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SharedBatchNorm(child))
    return network


class SharedBatchNorm(nn.Module):
    """y = w (x - E[x]) / sqrt(Var[x] + eps) + b, E and Var over the images of all workers."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.momentum = norm.momentum or 0.0
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean, variance = self._tracked(*statistics(x))
        else:
            mean, variance = self.running_mean, self.running_var
        return affine(x, mean, self.weight * (variance + self.eps).rsqrt(), self.bias)

    def _tracked(self, mean: Tensor, variance: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked += 1
        return mean, variance


class SharedDropPath(nn.Module):
    """x * Bernoulli(1 - p) / (1 - p), drawn for the whole batch, of which x is a part."""

    def __init__(self, p: float, team: Team) -> None:
        super().__init__()
        self.p = p
        self._team = team

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        count = x.shape[0] * self._team.size
        drawn = x.new_empty((count, 1, 1, 1)).bernoulli_(keep).div_(keep)
        return x * drawn[torch.from_numpy(self._team.rows(count)).to(x.device)]
