"""The building blocks of FasterNet (arXiv 2303.03667, section 3).

The submodules bear timm's names, so that weights go both ways without renaming.
"""

import torch
from torch import Tensor, nn

from search_spaces.fasternet import Activation

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


def activation(name: Activation) -> nn.Module:
    """Return the activation layer of that name."""
    return _ACTIVATIONS[name]()


class PConv(nn.Module):
    """cat(Conv3x3(x[:, :c_p]), x[:, c_p:]): convolves c_p of the c channels, passes the rest."""

    def __init__(self, c: int, c_p: int) -> None:
        super().__init__()
        self.sizes = [c_p, c - c_p]
        self.partial_conv3 = nn.Conv2d(c_p, c_p, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.sizes[1] == 0:
            return self.partial_conv3(x)  # type: ignore[no-any-return]
        convolved, untouched = torch.split(x, self.sizes, dim=1)
        return torch.cat((self.partial_conv3(convolved), untouched), dim=1)


class Block(nn.Module):
    """x + Conv1x1(act(BN(Conv1x1(PConv(x))))), the residual branch dropped at `drop_path`."""

    def __init__(self, c: int, c_p: int, hidden: int, act: Activation, drop_path: float) -> None:
        super().__init__()
        self.spatial_mixing = PConv(c, c_p)
        self.mlp = nn.Sequential(
            nn.Conv2d(c, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            activation(act),
            nn.Conv2d(hidden, c, 1, bias=False),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.spatial_mixing(x)))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    """x * Bernoulli(1 - p) / (1 - p), one draw a sample; the identity in evaluation."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1.0 - self.p
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)


class Stem(nn.Module):
    """BN(Conv(x)), kernel = stride."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(c_in, c_out, stride, stride, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))  # type: ignore[no-any-return]


class Merging(nn.Module):
    """BN(Conv2x2(x)), stride 2."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(c_in, c_out, 2, 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """blocks(downsample(x))."""

    def __init__(self, downsample: nn.Module, blocks: list[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))  # type: ignore[no-any-return]
